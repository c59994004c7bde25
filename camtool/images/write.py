"""Pictures as the bytes of a file."""

from __future__ import annotations

import io
import math
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from camtool.images.geometry import LARGE
from camtool.opencv import cv2

if TYPE_CHECKING:
    from numpy.typing import NDArray

_JPEG_SIDE = 65_500
"""Pixels; libjpeg's own limit (JPEG_MAX_DIMENSION in jmorecfg.h)."""
_QUALITIES = (85, 70, 50, 30)


def encode(picture: Image.Image | NDArray[np.uint8], suffix: str, quality: int = 90) -> bytes:
    """A picture as a file's bytes.

    Args:
        picture: A PIL image or uint8 [H,W,3], in RGB.
        suffix: The file's ending, as ".png" or ".jpg".
        quality: For the formats that lose something.

    Raises:
        ValueError: Pillow writes no format of that ending.
        OSError: The format can't hold the picture.
    """
    form = Image.registered_extensions().get(suffix.lower())
    if form is None:
        raise ValueError(f"no picture format has the ending {suffix!r}; use .png, .jpg or .webp")
    if form == "JPEG":
        return _jpeg(np.asarray(picture), quality)
    if form == "PNG" and _large(picture):
        # By OpenCV: a quarter larger, in an eighth of the time and half of the memory.
        return _by_opencv(np.asarray(picture), ".png")
    if not isinstance(picture, Image.Image):
        picture = Image.fromarray(picture)
    stream = io.BytesIO()
    picture.save(stream, form, quality=quality)
    return stream.getvalue()


def small_jpeg(
    picture: NDArray[np.uint8], side: int, most_bytes: int
) -> tuple[bytes, tuple[int, int]]:
    """A picture made small, for a page.

    Args:
        picture: uint8 [H,W,3], RGB.
        side: Pixels of its longer side at most.
        most_bytes: It is as good as fits into them; if even the least quality does not, that.

    Returns:
        A JPEG, and its (width, height).
    """
    image = Image.fromarray(picture)
    image.thumbnail((side, side), Image.Resampling.LANCZOS, reducing_gap=3.0)
    for quality in _QUALITIES:
        content = encode(image, ".jpg", quality)
        if len(content) <= most_bytes:
            break
    return content, image.size


def _jpeg(picture: NDArray[np.uint8], quality: int) -> bytes:
    """By OpenCV: Pillow's encoder holds Python's lock, and with it the other threads of a run."""
    height, width = picture.shape[:2]
    if max(height, width) > _JPEG_SIDE:
        raise OSError(f"{width}×{height} pixels are too many for a JPEG; choose PNG")
    return _by_opencv(picture, ".jpg", cv2.IMWRITE_JPEG_QUALITY, quality)


def _by_opencv(picture: NDArray[np.uint8], suffix: str, *options: int) -> bytes:
    bgr = cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)
    return cv2.imencode(suffix, bgr, options)[1].tobytes()


def _large(picture: Image.Image | NDArray[np.uint8]) -> bool:
    sides = picture.size if isinstance(picture, Image.Image) else picture.shape[:2]
    return math.prod(sides) > LARGE
