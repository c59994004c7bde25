"""Maps from one grid to another, by two small matrix products."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

Extent = Sequence[float]


def interpolation_matrix(
    cells: int, extent: tuple[float, float], samples: int, onto: tuple[float, float]
) -> Tensor:
    """Linear interpolation along one axis as a matrix.

    Args:
        cells: Number of cells of the source, which tile `extent` evenly; a value belongs to the
            centre of its cell. Beyond the outermost centres the last value is kept.
        extent: (start, end) of the source, in any unit.
        samples: Number of cells of the target, which tile `onto` evenly.
        onto: (start, end) of the target, in the same unit.

    Returns:
        float32 [samples, cells]; every row sums to 1, or is NaN where the centre of the target's
        cell lies outside `extent`.
    """
    start, end = extent
    step = (onto[1] - onto[0]) / samples
    centres = onto[0] + (torch.arange(samples, dtype=torch.float64) + 0.5) * step
    inside = (centres >= start) & (centres <= end)
    position = ((centres - start) / (end - start) * cells - 0.5).clamp(0, cells - 1)
    left = position.floor().clamp(max=max(cells - 2, 0)).long()
    share = (position - left).clamp(0, 1)
    right = (left + 1).clamp(max=cells - 1)
    matrix = torch.zeros(samples, cells, dtype=torch.float64)
    matrix.scatter_add_(1, left[:, None], (1 - share)[:, None])
    matrix.scatter_add_(1, right[:, None], share[:, None])
    matrix[~inside] = float("nan")
    return matrix.float()


def resample(maps: Tensor, extent: Extent, onto: Extent, shape: tuple[int, int]) -> Tensor:
    """Bilinear resampling of maps between two rectangles of one coordinate system.

    Args:
        maps: float [..., h, w], covering `extent`.
        extent: (x0, y0, x1, y1) that the maps cover.
        onto: (x0, y0, x1, y1) that the result covers.
        shape: (rows, columns) of the result.

    Returns:
        float32 [..., rows, columns] on the maps' device; NaN where `onto` leaves `extent`. For
        equal rectangles this is torch's `interpolate(mode="bilinear", align_corners=False)`.
    """
    rows = interpolation_matrix(
        maps.shape[-2], (extent[1], extent[3]), shape[0], (onto[1], onto[3])
    )
    columns = interpolation_matrix(
        maps.shape[-1], (extent[0], extent[2]), shape[1], (onto[0], onto[2])
    )
    return rows.to(maps.device) @ maps.float() @ columns.to(maps.device).T


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
