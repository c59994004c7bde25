"""Reading: whatever people have comes out as RGB, or as one line that says why not."""

from __future__ import annotations

import io
import threading
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from camtool.images import ImageError, read_image, read_levels, read_size
from camtool.images.read import ImageSource

SMOOTH = np.stack(
    np.broadcast_arrays(
        np.linspace(0, 255, 40)[None, :], np.linspace(255, 30, 24)[:, None], np.float64(90)
    ),
    -1,
).astype(np.uint8)
GREY = SMOOTH[..., 0]


def _encoded(image: Image.Image, form: str, **options) -> bytes:
    stream = io.BytesIO()
    image.save(stream, form, **options)
    return stream.getvalue()


def _rgb(grey: np.ndarray) -> np.ndarray:
    return np.repeat(grey[..., None], 3, 2)


LOSSLESS = [
    ("PNG", {}),
    ("BMP", {}),
    ("TIFF", {}),
    ("TIFF", {"compression": "tiff_lzw"}),
    ("WEBP", {"lossless": True}),
    ("PPM", {}),
]


@pytest.mark.parametrize(("form", "options"), LOSSLESS)
def test_lossless_formats_to_the_pixel(form: str, options: dict) -> None:
    found = read_image(_encoded(Image.fromarray(SMOOTH), form, **options))
    assert found.dtype == np.uint8
    assert found.flags.c_contiguous
    np.testing.assert_array_equal(found, SMOOTH)


@pytest.mark.parametrize(("form", "mode"), [("JPEG", "RGB"), ("JPEG", "CMYK"), ("WEBP", "RGB")])
def test_lossy_formats_nearly(form: str, mode: str) -> None:
    found = read_image(_encoded(Image.fromarray(SMOOTH).convert(mode), form, quality=95))
    assert np.abs(found.astype(int) - SMOOTH).mean() < 3


@pytest.mark.parametrize("form", ["JPEG", "PNG", "TIFF", "BMP"])
def test_grey_has_three_equal_channels(form: str) -> None:
    found = read_image(_encoded(Image.fromarray(GREY), form))
    assert np.abs(found.astype(int) - _rgb(GREY)).max() <= (3 if form == "JPEG" else 0)
    assert (found == found[..., :1]).all()


def test_one_bit() -> None:
    image = Image.fromarray(GREY).convert("1")
    for form in ("PNG", "TIFF", "BMP"):
        found = read_image(_encoded(image, form))
        np.testing.assert_array_equal(found, _rgb(np.asarray(image).astype(np.uint8) * 255))


@pytest.mark.parametrize("form", ["PNG", "TIFF"])
def test_sixteen_bit_grey_is_scaled_not_clipped(form: str) -> None:
    deep = GREY.astype(np.uint16) * 257
    np.testing.assert_array_equal(read_image(_encoded(Image.fromarray(deep), form)), _rgb(GREY))


def test_a_dark_sixteen_bit_picture_stays_dark() -> None:
    dark = np.full((5, 6), 200, np.uint16)
    assert read_image(_encoded(Image.fromarray(dark), "PNG")).max() <= 1
    big_endian = Image.frombytes("I;16B", (6, 5), dark.astype(">u2").tobytes())
    assert read_image(big_endian).max() <= 1


def test_float_tiff_in_unit_range_and_beyond() -> None:
    unit = (GREY / 255).astype(np.float32)
    np.testing.assert_array_equal(read_image(_encoded(Image.fromarray(unit), "TIFF")), _rgb(GREY))
    levels = GREY.astype(np.float32)
    np.testing.assert_array_equal(read_image(_encoded(Image.fromarray(levels), "TIFF")), _rgb(GREY))


def test_float_tiff_with_holes_is_read() -> None:
    holes = (GREY / 255).astype(np.float32)
    holes[0, 0], holes[0, 1] = np.nan, np.inf
    assert read_image(_encoded(Image.fromarray(holes), "TIFF"))[0, 0, 0] == 0


def test_palette_is_looked_up() -> None:
    image = Image.fromarray(SMOOTH).quantize(16)
    for form in ("PNG", "GIF"):
        np.testing.assert_array_equal(read_image(_encoded(image, form)), image.convert("RGB"))


def test_gif_gives_its_first_frame() -> None:
    frames = [Image.new("RGB", (9, 7), colour) for colour in ("red", "blue", "lime")]
    moving = _encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert (read_image(moving) == (255, 0, 0)).all()
    webp = _encoded(frames[0], "WEBP", save_all=True, append_images=frames[1:], lossless=True)
    assert (read_image(webp) == (255, 0, 0)).all()


@pytest.mark.parametrize("form", ["PNG", "WEBP", "TIFF"])
def test_alpha_is_composed_on_white(form: str) -> None:
    rgba = np.zeros((4, 6, 4), np.uint8)
    rgba[:, 2:4] = (200, 0, 0, 255)
    rgba[:, 4:] = (0, 0, 0, 102)
    found = read_image(
        _encoded(Image.fromarray(rgba), form, **({"lossless": True} if form == "WEBP" else {}))
    )
    assert (found[:, :2] == 255).all()
    assert (found[:, 2:4] == (200, 0, 0)).all()
    assert np.abs(found[:, 4:].astype(int) - 153).max() <= 1


def test_grey_with_alpha_and_transparent_colours_are_composed_on_white() -> None:
    grey_alpha = Image.merge("LA", [Image.new("L", (5, 4), 10), Image.new("L", (5, 4), 0)])
    assert (read_image(_encoded(grey_alpha, "PNG")) == 255).all()
    palette = Image.new("P", (5, 4), 1)
    palette.putpalette([0, 0, 0, 9, 9, 9])
    for transparency in (1, bytes([255, 0])):
        assert (read_image(_encoded(palette, "PNG", transparency=transparency)) == 255).all()
    plain = Image.new("RGB", (5, 4), (1, 2, 3))
    assert (read_image(_encoded(plain, "PNG", transparency=(1, 2, 3))) == 255).all()


def _with_orientation(upright: np.ndarray, orientation: int) -> Image.Image:
    """A picture that, once turned as its EXIF tag says, is `upright`."""
    undo = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: np.rot90(upright, 1),
        7: upright[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(upright, -1),
    }
    image = Image.fromarray(np.ascontiguousarray(undo[orientation]))
    image.getexif()[0x0112] = orientation
    return image


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("form", ["PNG", "TIFF", "WEBP", "JPEG"])
def test_exif_orientation_is_undone(orientation: int, form: str) -> None:
    image = _with_orientation(SMOOTH, orientation)
    options = {"lossless": True} if form == "WEBP" else {"quality": 98} if form == "JPEG" else {}
    content = _encoded(image, form, exif=image.getexif(), **options)
    found = read_image(content)
    assert found.shape == SMOOTH.shape
    assert read_size(content) == (SMOOTH.shape[1], SMOOTH.shape[0])
    assert np.abs(found.astype(int) - SMOOTH).mean() < (2 if form == "JPEG" else 1e-9)


def test_numbers_of_a_palette_are_read_as_they_stand() -> None:
    palette = Image.fromarray(GREY % 7)
    palette.putpalette([9] * 768)
    for image in (palette, Image.fromarray(GREY % 7)):
        np.testing.assert_array_equal(read_levels(_encoded(image, "PNG")), GREY % 7)
    colour = Image.fromarray(SMOOTH)
    np.testing.assert_array_equal(read_levels(colour), np.asarray(colour.convert("L")))
    np.testing.assert_array_equal(read_levels(GREY), GREY)
    assert read_size(GREY) == read_size(SMOOTH) == colour.size


def test_content_counts_not_the_name(tmp_path: Path) -> None:
    path = tmp_path / "photo.jpg"
    path.write_bytes(_encoded(Image.fromarray(SMOOTH), "PNG"))
    np.testing.assert_array_equal(read_image(path), SMOOTH)
    bare = path.rename(tmp_path / "no-ending-at-all")
    np.testing.assert_array_equal(read_image(str(bare)), SMOOTH)


def test_every_kind_of_source_gives_the_same(tmp_path: Path) -> None:
    content = _encoded(Image.fromarray(SMOOTH), "PNG")
    path = tmp_path / "a.png"
    path.write_bytes(content)
    tensor = torch.from_numpy(SMOOTH).permute(2, 0, 1)
    with path.open("rb") as stream:
        sources: list[ImageSource] = [
            path,
            str(path),
            content,
            bytearray(content),
            memoryview(content),
            io.BytesIO(content),
            stream,
            Image.open(path),
            Image.fromarray(SMOOTH),
            SMOOTH,
            SMOOTH / 255,
            (SMOOTH / 255).astype(np.float32),
            SMOOTH.astype(np.uint16) * 257,
            (SMOOTH.astype(np.uint16) * 257).astype(">u2"),
            np.ascontiguousarray(SMOOTH[:, ::-1])[:, ::-1],
            tensor,
            tensor.float() / 255,
            (tensor.float() / 255).requires_grad_(),
        ]
        for source in sources:
            np.testing.assert_array_equal(read_image(source), SMOOTH)


def test_grey_and_transparent_arrays() -> None:
    np.testing.assert_array_equal(read_image(GREY), _rgb(GREY))
    np.testing.assert_array_equal(read_image(GREY[..., None]), _rgb(GREY))
    np.testing.assert_array_equal(read_image(torch.from_numpy(GREY)[None]), _rgb(GREY))
    np.testing.assert_array_equal(read_image(GREY > 100), _rgb((GREY > 100).astype(np.uint8) * 255))
    clear = np.zeros((3, 4, 4), np.uint8)
    assert (read_image(clear) == 255).all()
    assert (read_image(torch.from_numpy(clear).permute(2, 0, 1)) == 255).all()


def test_the_result_is_the_callers_own() -> None:
    source = SMOOTH.copy()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read_image(Image.fromarray(source))[:] = 0
    np.testing.assert_array_equal(source, SMOOTH)


def test_pillows_own_limit_neither_warns_nor_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read_image(_encoded(Image.fromarray(SMOOTH), "PNG")).shape == SMOOTH.shape
    assert Image.MAX_IMAGE_PIXELS == 100
    with pytest.raises(ImageError):
        read_image(b"no picture")
    assert Image.MAX_IMAGE_PIXELS == 100


def test_pillows_own_limit_is_never_touched_for_others_to_see(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen = []

    def decoder(stream, name: str) -> Image.Image:
        seen.append(Image.MAX_IMAGE_PIXELS)
        return Image.new("RGB", (20, 10), "red")

    Image.init()
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 50)
    monkeypatch.setattr(Image, "ID", ["SEEN", *Image.ID])
    monkeypatch.setitem(Image.OPEN, "SEEN", (decoder, None))
    assert (read_image(b"anything") == (255, 0, 0)).all()
    assert seen == [50]


def test_threads_do_not_lose_the_limit() -> None:
    content, limit = _encoded(Image.fromarray(SMOOTH), "PNG"), Image.MAX_IMAGE_PIXELS
    problems: list[BaseException] = []

    def work(max_pixels: int) -> None:
        try:
            for _ in range(50):
                if max_pixels > SMOOTH.size:
                    read_image(content, max_pixels=max_pixels)
                    continue
                with pytest.raises(ImageError):
                    read_image(content, max_pixels=max_pixels)
        except BaseException as error:
            problems.append(error)

    threads = [threading.Thread(target=work, args=(10 ** (n % 2 * 8),)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert problems == []
    assert limit == Image.MAX_IMAGE_PIXELS
