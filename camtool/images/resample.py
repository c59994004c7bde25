"""Maps from one grid to another, by two small matrix products."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from camtool.images.geometry import LARGE, Geometry

Extent = Sequence[float]

_KEPT_ENTRIES = 1 << 15
_PIXELS_AT_ONCE = 1 << 22


def interpolation_matrix(
    cells: int,
    extent: tuple[float, float],
    samples: int,
    onto: tuple[float, float],
    smooth: bool = False,
) -> NDArray[np.float32]:
    """Interpolation along one axis as a matrix.

    Args:
        cells: Number of cells of the source, which tile `extent` evenly; a value belongs to the
            centre of its cell. Beyond the outermost centres the last value is kept.
        extent: (start, end) of the source, in any unit.
        samples: Number of cells of the target, which tile `onto` evenly.
        onto: (start, end) of the target, in the same unit.
        smooth: Cubic (Keys 1981, equation 15: a = -1/2) rather than linear.

    Returns:
        float32 [samples, cells], not to be changed; every row sums to 1, or is NaN where the
        centre of the target's cell lies outside `extent`.
    """
    # Pictures of a folder share their sizes; the large matrices of huge ones are not worth keeping.
    make = _matrix if samples * cells <= _KEPT_ENTRIES else _matrix.__wrapped__
    return make(cells, extent, samples, onto, smooth)


@lru_cache(maxsize=64)
def _matrix(
    cells: int,
    extent: tuple[float, float],
    samples: int,
    onto: tuple[float, float],
    smooth: bool,
) -> NDArray[np.float32]:
    start, end = extent
    step = (onto[1] - onto[0]) / samples
    centres = onto[0] + (np.arange(samples) + 0.5) * step
    inside = (centres >= start) & (centres <= end)
    position = np.clip((centres - start) / (end - start) * cells - 0.5, 0, cells - 1)
    left = np.minimum(position.astype(np.intp), max(cells - 2, 0))
    share = np.clip(position - left, 0, 1)
    rows = np.arange(samples)
    matrix = np.zeros((samples, cells))
    for offset, weight in _cubic(share).items() if smooth else {0: 1 - share, 1: share}.items():
        matrix[rows, np.clip(left + offset, 0, cells - 1)] += weight
    matrix[~inside] = np.nan
    return matrix.astype(np.float32)


def _cubic(share: NDArray[np.float64]) -> dict[int, NDArray[np.float64]]:
    """Weights of the four cells around places, by their distance from the left one."""
    s, rest = share, 1 - share
    return {-1: -s * rest**2 / 2, 0: _near(s), 1: _near(rest), 2: -rest * s**2 / 2}


def _near(distance: NDArray[np.float64]) -> NDArray[np.float64]:
    return 1 - 2.5 * distance**2 + 1.5 * distance**3


def resample(
    maps: Tensor, extent: Extent, onto: Extent, shape: tuple[int, int], smooth: bool = False
) -> Tensor:
    """Bilinear resampling of maps between two rectangles of one coordinate system.

    Args:
        maps: float [..., h, w], covering `extent`.
        extent: (x0, y0, x1, y1) that the maps cover.
        onto: (x0, y0, x1, y1) that the result covers.
        shape: (rows, columns) of the result.
        smooth: Bicubic, for the eye; values beyond the maps' own ends may come of it.

    Returns:
        float32 [..., rows, columns] on the maps' device; NaN where `onto` leaves `extent`. For
        equal rectangles this is torch's `interpolate(mode="bilinear", align_corners=False)`.
    """
    rows, columns = _matrices(maps, extent, onto, shape, smooth)
    return rows @ maps.float() @ columns.T


def _matrices(
    maps: Tensor, extent: Extent, onto: Extent, shape: tuple[int, int], smooth: bool
) -> list[Tensor]:
    return [
        torch.from_numpy(
            interpolation_matrix(
                maps.shape[axis - 2],
                (float(extent[1 - axis]), float(extent[3 - axis])),
                shape[axis],
                (float(onto[1 - axis]), float(onto[3 - axis])),
                smooth,
            )
        ).to(maps.device)
        for axis in (0, 1)
    ]


def upsample(maps: Tensor, extent: Extent, size: tuple[int, int]) -> Tensor:
    """Maps at the size of the original picture, in its coordinates.

    Args:
        maps: float [..., h, w], at feature resolution.
        extent: (x0, y0, x1, y1) in original pixels that the maps cover.
        size: (W, H) of the original picture.

    Returns:
        float32 [..., H, W], NaN where the network saw nothing.
    """
    width, height = size
    return resample(maps, extent, (0, 0, width, height), (height, width))


def strips(
    heat: NDArray[np.float32], geometry: Geometry, shape: tuple[int, int], smooth: bool = False
) -> Iterator[tuple[slice, NDArray[np.float32]]]:
    """A map on all of the original picture, a few rows at a time where that is `LARGE`.

    Args:
        heat: float32 [h, w], covering the geometry's extent.
        geometry: Where it lies on the original picture.
        shape: (rows, columns) of the result.
        smooth: Bicubic, clipped to the map's own ends.

    Yields:
        Which rows, and float32 [those rows, columns], NaN where the network saw nothing.
    """
    maps, everything = torch.from_numpy(heat), (0, 0, *geometry.size)
    rows, columns = _matrices(maps, geometry.extent, everything, shape, smooth)
    step = shape[0] if math.prod(shape) <= LARGE else max(1, _PIXELS_AT_ONCE // shape[1])
    for top in range(0, shape[0], step):
        part = slice(top, min(top + step, shape[0]))
        strip = (rows[part] @ maps @ columns.T).numpy()
        yield part, np.clip(strip, heat.min(), heat.max(), out=strip) if smooth else strip


def measured_shape(geometry: Geometry) -> tuple[int, int]:
    """(rows, columns) of the grid on which maps are measured: the original picture's own pixels.

    Where the picture is `LARGE` the grid is coarser, and everything measured on it is good to a
    pixel of that grid.
    """
    width, height = geometry.size
    pixels = width * height
    scale = 1.0 if pixels <= LARGE else math.sqrt(_PIXELS_AT_ONCE / pixels)
    return max(1, round(height * scale)), max(1, round(width * scale))


def measured(heat: NDArray[np.float32], geometry: Geometry) -> NDArray[np.float32]:
    """A map on the grid on which it is measured.

    Args:
        heat: float32 [h, w], covering the geometry's extent.
        geometry: Where it lies on the original picture.

    Returns:
        float32 [*measured_shape], NaN where the network saw nothing.
    """
    maps, everything = torch.from_numpy(heat), (0, 0, *geometry.size)
    return resample(maps, geometry.extent, everything, measured_shape(geometry)).numpy()
