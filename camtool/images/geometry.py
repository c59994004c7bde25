"""How the network's input lies on the original picture: the one place that knows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol, TypeAlias, get_args

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

Fit: TypeAlias = Literal["whole", "crop", "squash"]
Box: TypeAlias = tuple[float, float, float, float]

FITS: tuple[Fit, ...] = get_args(Fit)

MAX_ASPECT = 32
"""`whole` keeps the aspect ratio of pictures up to 1:32; a longer side is squashed to that. Up to
there `crop` resizes a picture before it cuts; it would be too large to hold beyond."""

_RESAMPLING = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}


class Expected(Protocol):
    """What a network expects of its input, as far as resizing asks for it."""

    @property
    def size(self) -> int:
        """Side of the square input that the network was evaluated on, in pixels (S)."""

    @property
    def resize(self) -> int:
        """Short side to which `crop` resizes before it cuts the centre, in pixels."""

    @property
    def interpolation(self) -> str:
        """One of nearest, bilinear, bicubic, lanczos; always antialiased."""


@dataclass(frozen=True)
class Geometry:
    """Where the network's input lies on the original picture (after EXIF rotation).

    Attributes:
        fit: How the picture met the network.
        size: (W, H) of the original picture, in pixels.
        extent: (x0, y0, x1, y1) of what the network saw, in original pixels; fractional.
        input: (height, width) of the network's input, in pixels.
    """

    fit: Fit
    size: tuple[int, int]
    extent: Box
    input: tuple[int, int]

    @property
    def region(self) -> tuple[int, int, int, int]:
        """`extent` in whole pixels, end-exclusive, inside the picture."""
        width, height = self.size
        x0, y0, x1, y1 = (round(value) for value in self.extent)
        return max(x0, 0), max(y0, 0), min(x1, width), min(y1, height)

    @property
    def _scale(self) -> tuple[float, float]:
        x0, y0, x1, y1 = self.extent
        return (x1 - x0) / self.input[1], (y1 - y0) / self.input[0]

    def to_original(self, box: Sequence[float]) -> Box:
        """A box in pixels of the network's input, in pixels of the original picture."""
        sx, sy = self._scale
        left, top = self.extent[:2]
        return left + box[0] * sx, top + box[1] * sy, left + box[2] * sx, top + box[3] * sy

    def to_input(self, box: Sequence[float]) -> Box:
        """A box in original pixels, in pixels of the network's input; may reach outside it."""
        sx, sy = self._scale
        left, top = self.extent[:2]
        return (
            (box[0] - left) / sx,
            (box[1] - top) / sy,
            (box[2] - left) / sx,
            (box[3] - top) / sy,
        )

    def cell(self, shape: tuple[int, int]) -> tuple[float, float]:
        """(width, height) in original pixels of one cell of a feature map of `shape` (h, w)."""
        x0, y0, x1, y1 = self.extent
        return (x1 - x0) / shape[1], (y1 - y0) / shape[0]


def whole_size(size: tuple[int, int], short: int, stride: int) -> tuple[int, int]:
    """(height, width) of the input on which a picture of `size` (W, H) is seen whole.

    The short side becomes `short`; the long side keeps the aspect ratio, rounded to the nearest
    multiple of `stride`, so a folder of pictures gives few shapes.
    """
    width, height = size
    ratio = min(max(width, height) / min(width, height), MAX_ASPECT)
    long = max(short, round(short * ratio / stride) * stride)
    return (long, short) if height > width else (short, long)


def geometry_of(size: tuple[int, int], spec: Expected, fit: Fit, stride: int = 32) -> Geometry:
    """Where the input of a picture of `size` (W, H) lies under a fit mode.

    `crop` follows torchvision's evaluation transform: the short side to `spec.resize` with the
    long side truncated, then the centre cut at a rounded offset.

    Raises:
        ValueError: `fit` is not one of `FITS`.
    """
    width, height = size
    everything = (0.0, 0.0, float(width), float(height))
    if fit == "whole":
        return Geometry(fit, size, everything, whole_size(size, spec.size, stride))
    if fit == "squash":
        return Geometry(fit, size, everything, (spec.size, spec.size))
    if fit != "crop":
        raise ValueError(f"fit must be one of {', '.join(FITS)}, not {fit!r}")
    resized, (left, top) = _centre(size, spec)
    sx, sy = width / resized[0], height / resized[1]
    extent = (left * sx, top * sy, (left + spec.size) * sx, (top + spec.size) * sy)
    return Geometry(fit, size, extent, (spec.size, spec.size))


def _centre(size: tuple[int, int], spec: Expected) -> tuple[tuple[int, int], tuple[int, int]]:
    """(W, H) to which `crop` resizes a picture, and (left, top) of the square that it cuts."""
    width, height = size
    resize, short = max(spec.resize, spec.size), min(size)
    resized = int(resize * width / short), int(resize * height / short)
    return resized, (round((resized[0] - spec.size) / 2), round((resized[1] - spec.size) / 2))


def prepare(
    image: NDArray[np.uint8], spec: Expected, fit: Fit, stride: int = 32
) -> tuple[NDArray[np.uint8], Geometry]:
    """Resize a picture to the network's input.

    Args:
        image: uint8 [H,W,3], RGB.
        spec: What the network expects.
        fit: How the picture meets the network.
        stride: Input pixels to one cell of the last feature map, for `whole`.

    Returns:
        uint8 [h,w,3], RGB, not yet normalised, and the geometry that maps back.
    """
    height, width = image.shape[:2]
    geometry = geometry_of((width, height), spec, fit, stride)
    rows, columns = geometry.input
    picture, method = Image.fromarray(image), _RESAMPLING[spec.interpolation]
    if fit == "crop" and max(width, height) <= MAX_ASPECT * min(width, height):
        # First all of it, then the cut, as torchvision does it: Pillow's `box` has only float32's
        # precision, and differs by a grey level here and there.
        resized, (left, top) = _centre((width, height), spec)
        seen = picture.resize(resized, method).crop((left, top, left + columns, top + rows))
    else:
        seen = picture.resize((columns, rows), method, box=_inside(geometry))
    return np.asarray(seen), geometry


def _inside(geometry: Geometry) -> Box:
    """The extent, without the float rounding that Pillow would refuse as outside the picture."""
    width, height = geometry.size
    x0, y0, x1, y1 = geometry.extent
    return max(x0, 0.0), max(y0, 0.0), min(x1, float(width)), min(y1, float(height))
