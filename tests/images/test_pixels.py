"""Pixels that are not 8-bit RGB: as levels where a picture is wanted, else as they are."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from camtool.images import ImageError, as_picture, prepare, read_image, read_pixels
from camtool.images.geometry import FITS
from camtool.networks.preprocessing import Preprocessing

RAMP = np.linspace(0, 1, 24 * 40).reshape(24, 40)
COLOURS = np.stack([255 * RAMP, 255 - 255 * RAMP, 90 + 0 * RAMP], -1).round().astype(np.uint8)


def _encoded(image: Image.Image, form: str = "TIFF", **options) -> bytes:
    stream = io.BytesIO()
    image.save(stream, form, **options)
    return stream.getvalue()


def _npy(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def _grey(content: bytes) -> np.ndarray:
    found = read_image(content)
    assert (found == found[..., :1]).all()
    return found[..., 0].astype(int)


@pytest.mark.parametrize(
    ("low", "high"), [(-50, 1000), (0, 1000), (3.5, 7.5), (-1, 1), (1e-5, 1.5), (-3e38, 3e38)]
)
def test_floats_that_name_no_black_and_white_are_stretched(low: float, high: float) -> None:
    values = ((1 - RAMP) * low + RAMP * high).astype(np.float32)
    found = _grey(_encoded(Image.fromarray(values)))
    assert np.abs(found - 255 * RAMP).max() <= 0.51


@pytest.mark.parametrize(("low", "high"), [(-300, 900), (0, 100_000), (10, 2_000_000_000)])
def test_integers_of_32_bits_are_stretched(low: int, high: int) -> None:
    values = np.rint(low + RAMP * (high - low)).astype(np.int32)
    found = _grey(_encoded(Image.fromarray(values)))
    assert np.abs(found - 255 * RAMP).max() <= 0.8


def test_what_is_not_finite_is_black_and_does_not_set_the_scale() -> None:
    values = (1000 * RAMP - 50).astype(np.float32)
    values[0, :3] = np.nan, np.inf, -np.inf
    found = _grey(_encoded(Image.fromarray(values)))
    assert found[0, :3].tolist() == [0, 0, 0]
    assert np.abs(found - 255 * RAMP).max() <= 1.5
    assert (_grey(_encoded(Image.fromarray(np.full((3, 4), np.nan, np.float32)))) == 0).all()


@pytest.mark.parametrize("value", [-3.0, 700.5])
def test_one_value_alone_is_black(value: float) -> None:
    assert (_grey(_encoded(Image.fromarray(np.full((3, 4), value, np.float32)))) == 0).all()


@pytest.mark.parametrize("kind", [np.float32, np.int32])
def test_whole_numbers_of_eight_bits_stay(kind: type) -> None:
    levels = np.rint(80 + 60 * RAMP)
    np.testing.assert_array_equal(_grey(_encoded(Image.fromarray(levels.astype(kind)))), levels)


def test_sixteen_bits_in_a_pgm_keep_their_black_and_white() -> None:
    dark = np.rint(2000 * RAMP).astype(np.uint16)
    content = b"P5 40 24 65535\n" + dark.astype(">u2").tobytes()
    np.testing.assert_array_equal(_grey(content), np.rint(dark / 257))


def test_twelve_bits_in_a_tiff_are_stretched_to_eight() -> None:
    # Two samples in three bytes: 0x000 and 0xfff, then twice 0x800.
    tags = {258: 12, 256: 2, 257: 2, 259: 1, 262: 1, 273: 8, 277: 1, 278: 2, 279: 6}
    entries = [struct.pack("<HHII", tag, 4, 1, value) for tag, value in sorted(tags.items())]
    rows = b"\x00\x0f\xff" + b"\x80\x08\x00"
    start = struct.pack("<2sHI", b"II", 42, 14) + rows
    content = start + struct.pack("<H", len(entries)) + b"".join(entries) + bytes(4)
    assert _grey(content).tolist() == [[0, 255], [128, 128]]


def test_an_npy_file_is_read_as_the_array_in_it(tmp_path: Path) -> None:
    for array in (COLOURS, COLOURS[..., 0], COLOURS / 255, COLOURS.astype(np.uint16) * 257):
        np.testing.assert_array_equal(read_image(_npy(array)), read_image(array))
    np.save(tmp_path / "a.npy", np.asfortranarray(COLOURS))
    np.testing.assert_array_equal(read_image(tmp_path / "a.npy"), COLOURS)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (_npy(np.array([{}], object)), "holds object, not numbers"),
        (_npy(np.zeros((3, 4), complex)), "holds complex128, not numbers"),
        (_npy(np.zeros((3, 4), "S5")), "not numbers"),
        (_npy(COLOURS)[:-1], "is broken or truncated"),
        (_npy(COLOURS)[:40], "is broken or truncated"),
        (b"\x93NUMPY", "is broken or truncated"),
        (b"\x93NUMPY\x09\x00" + bytes(90), "is broken or truncated"),
        (_npy(np.zeros((2, 3, 4, 5))), "has shape (2, 3, 4, 5)"),
    ],
)
def test_other_npy_files_are_refused_in_one_line(content: bytes, reason: str) -> None:
    for channels in (1, 3, 5):
        with pytest.raises(ImageError) as caught:
            read_pixels(content, channels)
        assert reason in caught.value.reason
        assert len(str(caught.value).splitlines()) == 1


def test_an_npy_file_that_says_it_is_huge_is_refused_before_anything_is_allocated() -> None:
    header = b"{'descr': '<f8', 'fortran_order': False, 'shape': (99999999, 99999999, 3), }\n"
    content = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header
    with pytest.raises(ImageError, match="more than the limit"):
        read_image(content)


def test_three_channels_are_a_picture() -> None:
    np.testing.assert_array_equal(read_pixels(_encoded(Image.fromarray(COLOURS)), 3), COLOURS)


def test_a_network_of_one_channel_sees_grey() -> None:
    levels = COLOURS[..., 0]
    for form in ("PNG", "TIFF"):
        found = read_pixels(_encoded(Image.fromarray(levels), form), 1)
        assert found.dtype == np.uint8
        np.testing.assert_array_equal(found, levels[..., None])
    luma = (COLOURS @ np.array([0.299, 0.587, 0.114]))[..., None]
    tensor = torch.from_numpy(COLOURS).permute(2, 0, 1)
    for source in (COLOURS, _encoded(Image.fromarray(COLOURS)), tensor):
        assert np.abs(read_pixels(source, 1).astype(float) - luma).max() <= 1


@pytest.mark.parametrize("channels", [1, 2, 4, 11])
def test_arrays_of_as_many_channels_are_taken_as_they_are(channels: int) -> None:
    rng = np.random.default_rng(0)
    values = (rng.normal(size=(24, 40, channels)) * 1000).astype(np.float32)
    for source in (
        values,
        values.astype(np.float64),
        values.transpose(2, 0, 1),
        torch.from_numpy(values).permute(2, 0, 1),
        _npy(values),
        _npy(np.asfortranarray(values.transpose(2, 0, 1))),
    ):
        found = read_pixels(source, channels)
        assert (found.dtype, found.flags.c_contiguous) == (np.float32, True)
        np.testing.assert_array_equal(found, values)
    levels = rng.integers(0, 256, values.shape, np.uint8)
    assert read_pixels(levels, channels).dtype == np.uint8
    np.testing.assert_array_equal(read_pixels(levels, channels), levels)
    deep = rng.integers(0, 65536, values.shape, np.uint16)
    assert read_pixels(deep, channels).dtype == np.float32
    np.testing.assert_array_equal(read_pixels(deep, channels), deep)
    if channels == 1:
        np.testing.assert_array_equal(read_pixels(values[..., 0], 1), values)


@pytest.mark.parametrize(
    ("source", "channels", "reason"),
    [
        (np.zeros((24, 40, 5)), 4, "has shape (24, 40, 5); the network takes 4 channels"),
        (np.zeros((24, 40)), 2, "has shape (24, 40); the network takes 2 channels"),
        (np.full((24, 40, 5), np.inf), 5, "holds values that are not finite"),
        (np.full((24, 40, 5), 1e300), 5, "holds values that are not finite"),
        (np.zeros((0, 40, 5)), 5, "has 40×0 pixels: none"),
        (np.zeros((24, 41, 5)), 5, "has 41×24 pixels; the limit is 960"),
        (_encoded(Image.fromarray(COLOURS)), 11, "has 3 channels, the network takes 11"),
        (_encoded(Image.fromarray(COLOURS).convert("RGBA")), 5, "has 4 channels"),
        (_encoded(Image.new("L", (41, 24))), 5, "has 41×24 = 984 pixels, more than the limit"),
        (_encoded(Image.new("P", (40, 24)), "GIF"), 2, "has 1 channel, the network takes 2"),
    ],
)
def test_wrong_channels_are_one_line(source, channels: int, reason: str) -> None:
    with pytest.raises(ImageError) as caught:
        read_pixels(source, channels, max_pixels=960)
    assert reason in caught.value.reason
    assert len(str(caught.value).splitlines()) == 1


def test_bands_of_a_picture_are_channels_where_there_are_as_many() -> None:
    rng = np.random.default_rng(0)
    for mode, channels in (("LA", 2), ("RGBA", 4), ("CMYK", 4)):
        levels = rng.integers(0, 256, (24, 40, channels), np.uint8)
        content = _encoded(Image.fromarray(levels, mode), "TIFF" if mode == "CMYK" else "PNG")
        np.testing.assert_array_equal(read_pixels(content, channels), levels)


@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.float32])
def test_the_pages_of_a_tiff_are_channels(kind: type) -> None:
    pages: np.ndarray = np.stack([(n + 1) * 20 * RAMP for n in range(11)], -1).astype(kind)
    images = [Image.fromarray(np.ascontiguousarray(pages[..., n])) for n in range(11)]
    content = _encoded(images[0], save_all=True, append_images=images[1:])
    found = read_pixels(content, 11)
    assert found.dtype == (np.uint8 if kind is np.uint8 else np.float32)
    np.testing.assert_array_equal(found, pages)
    with pytest.raises(ImageError, match="has 11 pages, the network takes 10; give an array"):
        read_pixels(content, 10)


@pytest.mark.parametrize("odd", [Image.new("L", (41, 24)), Image.new("RGB", (40, 24))])
def test_pages_that_differ_are_refused(odd: Image.Image) -> None:
    even = Image.new("L", (40, 24))
    content = _encoded(even, save_all=True, append_images=[even, odd, even])
    with pytest.raises(ImageError, match=r"page 3 is 4\d×24 in mode .*the first is: 40×24"):
        read_pixels(content, 4)


fits = st.sampled_from(FITS)
kinds = st.sampled_from(["bilinear", "bicubic", "nearest"])
sides = st.integers(20, 90)


@given(sides, sides, st.integers(1, 6), fits, kinds)
def test_each_channel_is_resized_as_if_it_were_alone(height, width, channels, fit, kind) -> None:
    spec = Preprocessing(size=32, resize=40, interpolation=kind)
    levels = np.random.default_rng(0).integers(0, 256, (height, width, channels), np.uint8)
    found, geometry = prepare(levels, spec, fit, 8)
    assert (found.shape, found.dtype) == ((*geometry.input, channels), np.uint8)
    values, _ = prepare(levels.astype(np.float32), spec, fit, 8)
    assert (values.shape, values.dtype) == (found.shape, np.float32)
    # Floats are not rounded between the two passes; nor clipped, where bicubic overshoots.
    assert kind == "bicubic" or np.abs(values - found).max() <= 1
    for channel in range(channels):
        grey = np.repeat(levels[..., channel : channel + 1], 3, axis=2)
        alone, _ = prepare(grey, spec, fit, 8)
        np.testing.assert_array_equal(found[..., channel], alone[..., 0])


@given(st.floats(-1e6, 1e6, width=32), fits)
def test_a_constant_float_stays_itself(value: float, fit) -> None:
    image = np.full((50, 70, 5), value, np.float32)
    found, _ = prepare(image, Preprocessing(size=32, resize=40), fit, 8)
    np.testing.assert_allclose(found, value, rtol=1e-6)


def test_what_is_shown_of_other_channels() -> None:
    np.testing.assert_array_equal(as_picture(COLOURS), COLOURS)
    np.testing.assert_array_equal(as_picture(np.concatenate([COLOURS] * 2, 2)), COLOURS)
    for channels in (1, 2):
        shown = as_picture(COLOURS[..., :channels])
        np.testing.assert_array_equal(shown, np.repeat(COLOURS[..., :1], 3, 2))
    values = (np.stack([RAMP] * 4, -1) * 500 - 100).astype(np.float32)
    shown = as_picture(values)
    assert (shown.shape, shown.dtype, shown.min(), shown.max()) == ((24, 40, 3), np.uint8, 0, 255)
    assert (as_picture(np.full((3, 4, 1), 7, np.float32)) == 0).all()
