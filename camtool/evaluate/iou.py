"""Intersection over union of boxes."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from camtool.evaluate.figures import Floats


def box_iou(found: npt.ArrayLike, true: npt.ArrayLike, *, closed: bool = False) -> Floats:
    """Intersection over union of every found box with every true box.

    Args:
        found: [N, 4], (x0, y0, x1, y1).
        true: [M, 4], in the same frame.
        closed: Count both end pixels, a width being x1 - x0 + 1, as Choe et al. 2020 do;
            otherwise boxes are end-exclusive and have no pixels, only extent.

    Returns:
        [N, M], float64, in [0, 1]; 0 for two boxes without area.

    Raises:
        ValueError: If either is not a list of four numbers a box.
    """
    one, other = (np.asarray(boxes, dtype=np.float64) for boxes in (found, true))
    if one.ndim != 2 or other.ndim != 2 or one.shape[1] != 4 or other.shape[1] != 4:
        raise ValueError(f"boxes come as [N, 4], got {one.shape} and {other.shape}")
    extra = 1.0 if closed else 0.0
    one, other = one[:, None, :], other[None, :, :]
    sides = np.minimum(one[..., 2:], other[..., 2:]) - np.maximum(one[..., :2], other[..., :2])
    shared = np.maximum(sides + extra, 0).prod(axis=2)
    union = _area(one, extra) + _area(other, extra) - shared
    return np.asarray(np.where(union > 0, shared / np.where(union > 0, union, 1), 0.0))


def _area(boxes: Floats, extra: float) -> Floats:
    return np.asarray((boxes[..., 2:] - boxes[..., :2] + extra).prod(axis=-1))
