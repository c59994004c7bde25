"""Pillow's resizing on a GPU, level for level, as two matrix products."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image, __version__
from torch import Tensor

from camtool.device import onto
from camtool.images.geometry import LARGE, MAX_ASPECT, Expected, Geometry, Size, resized_whole

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Values = NDArray[np.float64]

BITS = 22
"""Of the fraction of Pillow's weights: what 32 leave beside 8 of a level and 2 to spare."""

_KEPT_ENTRIES = 1 << 18
_SINCE_13 = int(__version__.partition(".")[0]) >= 13


def _linear(x: Values) -> Values:
    return np.asarray(np.maximum(1 - np.abs(x), 0))


def _cubic(x: Values) -> Values:
    # Keys 1981, equation 4, with a = -1/2.
    x = np.abs(x)
    near, far = (1.5 * x - 2.5) * x * x + 1, ((-0.5 * x + 2.5) * x - 4) * x + 2
    return np.where(x < 1, near, np.where(x < 2, far, 0))


def _lanczos(x: Values) -> Values:
    return np.where(np.abs(x) < 3, np.sinc(x) * np.sinc(x / 3), 0)


_FILTERS: dict[str, tuple[int, Callable[[Values], Values]]] = {
    "bilinear": (1, _linear),
    "bicubic": (2, _cubic),
    "lanczos": (3, _lanczos),
}
"""Half the width of each filter in samples, and what it is."""


def resizable(pixels: NDArray[np.generic], geometry: Geometry, spec: Expected) -> bool:
    """Whether `resized` does for a picture what Pillow does."""
    width, height = geometry.size
    whole = pixels.dtype == np.uint8 and pixels.shape == (height, width, 3)
    longish = geometry.fit == "crop" and max(geometry.size) > MAX_ASPECT * min(geometry.size)
    known = spec.interpolation in _FILTERS and pixels.size <= 3 * LARGE
    return whole and known and not longish and as_pillow()


@lru_cache(maxsize=1)
def as_pillow() -> bool:
    """Whether the levels are this Pillow's: tried on a few shapes, once in a process."""
    picture = np.random.default_rng(0).integers(0, 256, (90, 60, 3), np.uint8)
    return all(
        np.array_equal(
            np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.BICUBIC)),
            _resized(torch.from_numpy(picture), size, (0, 0), size, "bicubic"),
        )
        for size in ((45, 30), (50, 40), (80, 30), (30, 100), (30, 45))
    )


def resized(pixels: Tensor, geometry: Geometry, spec: Expected) -> Tensor:
    """What the network sees of a picture.

    Args:
        pixels: uint8 [H,W,3], the whole original, on any device.
        geometry: How the network's input lies on it.
        spec: What the network expects.

    Returns:
        uint8 [h,w,3] on the same device, equal to what `prepare` makes of the picture: weights are
        multiples of 2^-`BITS`, and so are sums, which float64 holds exactly in whatever order.
    """
    size, corner = resized_whole(geometry, spec)
    return _resized(pixels, size, corner, geometry.input[::-1], spec.interpolation)


def _resized(pixels: Tensor, size: Size, corner: Size, cut: Size, kind: str) -> Tensor:
    """A picture resized to (W, H) whole, and of that what lies between a corner and the next."""
    height, width = pixels.shape[:2]
    across, down = (
        _weights_on(cells, samples, slice(start, start + kept), kind, pixels.device)
        for cells, samples, start, kept in zip((width, height), size, corner, cut, strict=True)
    )
    half = _half(pixels.device)

    def narrower(levels: Tensor) -> Tensor:
        return torch.baddbmm(half, levels, across.T.expand(3, -1, -1)).clamp_(0, 255).floor_()

    def lower(levels: Tensor) -> Tensor:
        return torch.baddbmm(half, down.expand(3, -1, -1), levels).clamp_(0, 255).floor_()

    first, second = (narrower, lower)[:: -1 if _rows_first((width, height), size) else 1]
    return second(first(pixels.permute(2, 0, 1).double())).byte().permute(1, 2, 0)


@lru_cache(maxsize=8)
def _half(device: torch.device) -> Tensor:
    """What turns cutting off into rounding."""
    return torch.full((1, 1, 1), 0.5, dtype=torch.float64, device=device)


def _rows_first(size: Size, onto: Size) -> bool:
    """Whether Pillow makes fewer rows before it makes fewer columns; each is rounded to levels."""
    fewer_columns, fewer_rows = size[0] - onto[0], size[1] - onto[1]
    return _SINCE_13 and fewer_rows > max(0, 2 * fewer_columns)


def _weights_on(cells: int, samples: int, kept: slice, kind: str, device: torch.device) -> Tensor:
    # Pictures of a folder share their sizes; the large ones of huge pictures are not worth keeping.
    small = cells * (kept.stop - kept.start) <= _KEPT_ENTRIES
    make = _kept_on if small else _kept_on.__wrapped__
    return make(cells, samples, kept.start, kept.stop, kind, device)


@lru_cache(maxsize=64)
def _kept_on(
    cells: int, samples: int, start: int, stop: int, kind: str, device: torch.device
) -> Tensor:
    both = torch.from_numpy(np.stack(weights(cells, samples, kind))[:, start:stop])
    moved = onto(both, device)
    matrix = torch.zeros(stop - start, cells, dtype=torch.float64, device=device)
    return matrix.scatter_add_(1, moved[0].long(), moved[1])


def weights(cells: int, samples: int, kind: str) -> tuple[Values, Values]:
    """What each of the samples takes of the cells of a row.

    Args:
        cells: Of the row.
        samples: To which it is resized.
        kind: Of the filter, widened where there are fewer samples than cells.

    Returns:
        float64 [samples, k] which cells, and [samples, k] how much of each, rounded as Pillow
        rounds it, to parts of 2^`BITS`; of cells that are named too often nothing.
    """
    scale = cells / samples
    wider = max(scale, 1.0)
    half, kernel = _FILTERS[kind]
    support = half * wider
    centres = ((np.arange(samples) + 0.5) * scale)[:, None]
    first = np.maximum((centres - support + 0.5).astype(int), 0)
    last = np.minimum((centres + support + 0.5).astype(int), cells)
    places = first + np.arange(math.ceil(support) * 2 + 1.0)
    values = kernel((places - centres + 0.5) / wider)
    values[places >= last] = 0
    values /= values.sum(1, keepdims=True)
    parts = np.trunc(values * (1 << BITS) + np.copysign(0.5, values)) / (1 << BITS)
    return np.minimum(places, cells - 1), parts
