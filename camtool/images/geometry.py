"""How the network's input lies on the original picture: the one place that knows."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeAlias, TypeVar, get_args

import numpy as np
from PIL import Image

from camtool.choices import Fit

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

Box: TypeAlias = tuple[float, float, float, float]
Size: TypeAlias = tuple[int, int]
PixelsT = TypeVar("PixelsT", "NDArray[np.uint8]", "NDArray[np.float32]")

FITS: tuple[Fit, ...] = get_args(Fit)

LARGE = 20_000_000
"""Pixels; what is made of pictures with more of them is made a few rows at a time, or smaller."""

MAX_ASPECT = 32
"""`whole` keeps the aspect ratio of pictures up to 1:32; a longer side is squashed to that. Up to
there `crop` resizes a picture before it cuts; it would be too large to hold beyond."""

_ROOM = 3
_LOOKED_AT = 1200

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


def resized_whole(geometry: Geometry, spec: Expected) -> tuple[Size, Size]:
    """(W, H) to which all of a picture is resized, and (left, top) of the input in that."""
    if geometry.fit == "crop":
        return _centre(geometry.size, spec)
    return geometry.input[::-1], (0, 0)


def enough(size: Size, spec: Expected, fit: Fit, stride: int = 32) -> Size:
    """(width, height) at which a picture of `size` (W, H) is still as good as whole.

    Three times what the resizing for the network asks for, after which reducing by a whole factor
    first can't be seen in the result, and not less than anybody looks at in a panel.
    """
    needed = resized_whole(geometry_of(size, spec, fit, stride), spec)[0]
    share = max(_ROOM * needed[0] / size[0], _ROOM * needed[1] / size[1], _LOOKED_AT / max(size))
    return math.ceil(size[0] * min(share, 1.0)), math.ceil(size[1] * min(share, 1.0))


def prepare(
    image: PixelsT, spec: Expected, fit: Fit, stride: int = 32, size: Size | None = None
) -> tuple[PixelsT, Geometry]:
    """Resize a picture to the network's input.

    Args:
        image: uint8 [H,W,3], RGB; or [H,W,C], uint8 or float32, of any number of channels.
        spec: What the network expects.
        fit: How the picture meets the network.
        stride: Input pixels to one cell of the last feature map, for `whole`.
        size: (W, H) of the original, where `image` is it reduced by a whole factor.

    Returns:
        [h,w,C] of the same type, not yet normalised, and the geometry that maps back to the
        original.
    """
    height, width = image.shape[:2]
    geometry = geometry_of(size or (width, height), spec, fit, stride)
    return _by_bands(image, lambda picture: _seen(picture, geometry, spec)), geometry


def _seen(picture: Image.Image, geometry: Geometry, spec: Expected) -> Image.Image:
    """What the network sees of a picture, at the size of its input."""
    width, height = geometry.size
    # The last pixel of a reduced side may cover less than the others do.
    sx, sy = 1 / -(-width // picture.width), 1 / -(-height // picture.height)
    (rows, columns), method = geometry.input, _RESAMPLING[spec.interpolation]
    if geometry.fit == "crop" and max(width, height) <= MAX_ASPECT * min(width, height):
        # First all of it, then the cut, as torchvision does it: Pillow's `box` has only float32's
        # precision, and differs by a grey level here and there.
        resized, (left, top) = _centre(geometry.size, spec)
        whole = picture.resize(resized, method, box=(0, 0, width * sx, height * sy))
        return whole.crop((left, top, left + columns, top + rows))
    x0, y0, x1, y1 = _inside(geometry)
    return picture.resize((columns, rows), method, box=(x0 * sx, y0 * sy, x1 * sx, y1 * sy))


def _by_bands(image: PixelsT, change: Callable[[Image.Image], Image.Image]) -> PixelsT:
    """A change of RGB pictures of 8 bits, done to pixels of any kind."""
    if image.shape[2] == 3 and image.dtype == np.uint8:
        return np.asarray(change(Image.fromarray(image)))
    bands = [
        np.asarray(change(Image.fromarray(np.ascontiguousarray(image[..., band]))))
        for band in range(image.shape[2])
    ]
    return np.stack(bands, axis=-1)


def _inside(geometry: Geometry) -> Box:
    """The extent, without the float rounding that Pillow would refuse as outside the picture."""
    width, height = geometry.size
    x0, y0, x1, y1 = geometry.extent
    return max(x0, 0.0), max(y0, 0.0), min(x1, float(width)), min(y1, float(height))
