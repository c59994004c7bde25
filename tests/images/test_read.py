"""Reading: whatever people have comes out as RGB, or as one line that says why not."""

from __future__ import annotations

import io
import os
import pickle
import stat
import threading
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from camtool.images import ImageError, display_name, read_image
from camtool.images import read as reading

RNG = np.random.default_rng(0)
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
    found = read_image(_encoded(Image.fromarray(rgba), form, **({"lossless": True} if form == "WEBP" else {})))
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
    found = read_image(_encoded(image, form, exif=image.getexif(), **options))
    assert found.shape == SMOOTH.shape
    assert np.abs(found.astype(int) - SMOOTH).mean() < (2 if form == "JPEG" else 1e-9)


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
        sources = [
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


@pytest.mark.parametrize(
    ("pixels", "reason"),
    [
        (np.zeros((2, 3, 5), np.uint8), "has shape (2, 3, 5)"),
        (np.zeros(7, np.uint8), "has shape (7,)"),
        (np.zeros((0, 5, 3), np.uint8), "5×0 pixels"),
        (np.zeros((4, 5, 3), np.int64), "dtype int64"),
        (np.full((4, 5, 3), 7.0), "floats must lie in 0..1"),
        (np.full((4, 5, 3), np.nan), "floats must lie in 0..1"),
        (torch.zeros(2, 4, 5, 3), "has shape"),
        (object(), "is a object, not a path"),
        (None, "is a NoneType, not a path"),
    ],
)
def test_wrong_pixels_say_what_is_wrong(pixels, reason: str) -> None:
    with pytest.raises(ImageError) as caught:
        read_image(pixels)
    assert reason in str(caught.value)


def _bad_files(folder: Path) -> dict[str, tuple[Path, str]]:
    jpeg = _encoded(Image.fromarray(RNG.integers(0, 255, (90, 90, 3), np.uint8)), "JPEG")
    png = _encoded(Image.fromarray(RNG.integers(0, 255, (90, 90, 3), np.uint8)), "PNG")
    contents = {
        "empty.jpg": (b"", "is empty"),
        "truncated.jpg": (jpeg[: len(jpeg) // 2], "broken or truncated"),
        "truncated.png": (png[: len(png) // 2], "broken or truncated"),
        "header-only.png": (png[:20], "is "),
        "flipped.png": (png[:60] + bytes(b ^ 0xFF for b in png[60:]), "is "),
        "text.jpg": (b"this is no picture\n" * 20, "is not a picture"),
        "page.png": (b"<!doctype html><html></html>", "is not a picture"),
        "noise.webp": (RNG.bytes(500), "is not a picture"),
        "noise.tiff": (b"II*\0" + RNG.bytes(300), "is "),
        "noise.gif": (b"GIF89a" + RNG.bytes(300), ": "),
        "noise.bmp": (b"BM" + RNG.bytes(300), "is "),
        "with\nnewline.jpg": (b"x", "is not a picture"),
    }
    found = {}
    for name, (content, reason) in contents.items():
        (folder / name).write_bytes(content)
        found[name] = (folder / name, reason)
    return found | {
        "missing": (folder / "missing.jpg", "no such file"),
        "folder": (folder, "is a folder"),
        "null": (folder / "a\0b.jpg", "is not a usable path"),
        "long name": (folder / ("x" * 5000), "can't be read"),
    }


def test_each_bad_file_gives_one_line_with_its_name_and_the_reason(tmp_path: Path) -> None:
    for name, (path, reason) in _bad_files(tmp_path).items():
        with pytest.raises(ImageError) as caught, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            read_image(path)
        line = str(caught.value)
        assert line.startswith(display_name(path) + ": "), name
        assert reason in line, (name, line)
        assert len(line.splitlines()) == 1, (name, line)
        assert caught.value.reason == line.removeprefix(caught.value.name + ": ")
    assert read_image(_encoded(Image.fromarray(SMOOTH), "PNG")).shape == SMOOTH.shape


@pytest.mark.parametrize("form", ["JPEG", "PNG", "GIF", "TIFF", "WEBP", "BMP"])
def test_every_truncation_is_a_picture_or_an_image_error(form: str) -> None:
    content = _encoded(Image.fromarray(SMOOTH), form)
    for end in range(0, len(content), max(1, len(content) // 40)):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                assert read_image(content[:end]).shape == SMOOTH.shape
            except ImageError as error:
                assert len(str(error).splitlines()) == 1


@pytest.mark.parametrize("form", ["JPEG", "PNG", "GIF", "TIFF", "WEBP", "BMP"])
def test_every_damage_is_a_picture_or_an_image_error(form: str) -> None:
    content = _encoded(Image.fromarray(SMOOTH), form)
    rng = np.random.default_rng(1)
    for _ in range(60):
        damaged = bytearray(content)
        for place in rng.integers(0, min(len(content), 200), 4):
            damaged[place] = rng.integers(256)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                assert read_image(bytes(damaged), max_pixels=10**6).dtype == np.uint8
            except ImageError as error:
                assert len(str(error).splitlines()) == 1


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no FIFOs on this system")
def test_a_fifo_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    assert stat.S_ISFIFO((tmp_path / "pipe.jpg").stat().st_mode)
    with pytest.raises(ImageError, match="not a regular file"):
        read_image(tmp_path / "pipe.jpg")


@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="no /proc on this system")
def test_a_file_that_gives_an_error_when_read() -> None:
    with pytest.raises(ImageError, match=r"/proc/self/mem: can't be read \(Input/output error\)"):
        read_image("/proc/self/mem")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root reads all files")
def test_an_unreadable_file(tmp_path: Path) -> None:
    path = tmp_path / "secret.png"
    path.write_bytes(_encoded(Image.fromarray(SMOOTH), "PNG"))
    path.chmod(0)
    with pytest.raises(ImageError, match="Permission denied"):
        read_image(path)


@pytest.mark.skipif(os.name != "posix", reason="names are Unicode on this system")
def test_a_name_that_is_no_utf8_is_read_and_printed(tmp_path: Path) -> None:
    name = os.fsencode(tmp_path) + b"/caf\xe9.png"
    try:
        Path(os.fsdecode(name)).write_bytes(_encoded(Image.fromarray(SMOOTH), "PNG"))
    except OSError:
        pytest.skip("this file system takes Unicode names only")
    np.testing.assert_array_equal(read_image(os.fsdecode(name)), SMOOTH)
    Path(os.fsdecode(name)).write_bytes(b"no picture")
    with pytest.raises(ImageError) as caught:
        read_image(os.fsdecode(name))
    assert "caf\\udce9.png: is not a picture" in str(caught.value).encode("utf-8").decode()


def test_text_streams_and_broken_streams_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(_encoded(Image.fromarray(SMOOTH), "PNG"))
    with path.open(encoding="latin-1") as stream, pytest.raises(ImageError, match="binary mode"):
        read_image(stream)
    closed = path.open("rb")
    closed.close()
    with pytest.raises(ImageError, match="can't be read"):
        read_image(closed)


def test_a_closed_pil_image_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(_encoded(Image.fromarray(SMOOTH), "PNG"))
    image = Image.open(path)
    image.close()
    with pytest.raises(ImageError):
        read_image(image)


def test_a_bomb_is_refused_before_it_is_decoded(tmp_path: Path) -> None:
    bomb = tmp_path / "bomb.png"
    bomb.write_bytes(_encoded(Image.new("1", (30_000, 30_000)), "PNG"))
    assert bomb.stat().st_size < 200_000
    with pytest.raises(ImageError, match="900,000,000 pixels, more than the limit of 100,000,000"):
        read_image(bomb)


def test_the_limit_is_adjustable_both_ways() -> None:
    content = _encoded(Image.fromarray(SMOOTH), "PNG")
    pixels = SMOOTH.shape[0] * SMOOTH.shape[1]
    for source in (content, SMOOTH, Image.fromarray(SMOOTH)):
        assert read_image(source, max_pixels=pixels).shape == SMOOTH.shape
        with pytest.raises(ImageError, match="limit"):
            read_image(source, max_pixels=pixels - 1)


def test_pillows_own_limit_neither_warns_nor_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read_image(_encoded(Image.fromarray(SMOOTH), "PNG")).shape == SMOOTH.shape
    assert Image.MAX_IMAGE_PIXELS == 100
    with pytest.raises(ImageError):
        read_image(b"no picture")
    assert Image.MAX_IMAGE_PIXELS == 100


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


def test_the_error_travels_between_processes() -> None:
    error = ImageError("a.jpg", "is empty (0 bytes)")
    again = pickle.loads(pickle.dumps(error))
    assert (str(again), again.name, again.reason) == (str(error), "a.jpg", "is empty (0 bytes)")


def test_names() -> None:
    assert display_name("a\nb\x1b[31m.jpg") == "a\\nb\\x1b[31m.jpg"
    assert display_name("käse 猫.jpg") == "käse 猫.jpg"
    assert display_name(b"abc") == "<bytes>"
    assert display_name(io.BytesIO()) == "<file object>"
    assert display_name(SMOOTH) == "<array>"
    assert display_name(Image.fromarray(SMOOTH)) == "<PIL image>"
    assert reading.printable("tab\t") == "tab\\t"
