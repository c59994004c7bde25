"""Writing: the picture that was given, in the format that the ending names."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from camtool.images import encode

SMOOTH = np.stack(
    np.broadcast_arrays(
        np.linspace(0, 255, 40)[None, :], np.linspace(255, 30, 24)[:, None], np.float64(90)
    ),
    -1,
).astype(np.uint8)


@pytest.mark.parametrize(("suffix", "form"), [(".png", "PNG"), (".bmp", "BMP"), (".TIF", "TIFF")])
def test_lossless_formats_keep_every_pixel(suffix: str, form: str) -> None:
    for picture in (SMOOTH, Image.fromarray(SMOOTH)):
        found = Image.open(io.BytesIO(encode(picture, suffix)))
        assert found.format == form
        np.testing.assert_array_equal(np.asarray(found), SMOOTH)


@pytest.mark.parametrize(("suffix", "form"), [(".jpg", "JPEG"), (".jpeg", "JPEG")])
def test_a_jpeg_is_nearly_the_picture_and_nearer_with_more_quality(suffix: str, form: str) -> None:
    apart = []
    for quality in (30, 90):
        for picture in (SMOOTH, Image.fromarray(SMOOTH)):
            found = Image.open(io.BytesIO(encode(picture, suffix, quality)))
            assert found.format == form
            apart.append(np.abs(np.asarray(found).astype(int) - SMOOTH).mean())
    assert apart[0] == apart[1] > apart[2] == apart[3]
    assert apart[3] < 3


def test_an_unknown_ending_names_those_that_work() -> None:
    with pytest.raises(ValueError, match=r"no picture format has the ending '\.xyz'; use \.png"):
        encode(SMOOTH, ".xyz")


def test_a_side_too_long_for_a_jpeg_is_refused() -> None:
    with pytest.raises(OSError, match="65501×1 pixels are too many for a JPEG"):
        encode(np.zeros((1, 65_501, 3), np.uint8), ".jpg")
