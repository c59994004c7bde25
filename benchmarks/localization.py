"""What the benchmarks of maps share: boxes from maps at every threshold, and paired intervals.

A figure over pictures is computed from a table of IoUs [N, T], one row a picture, one column a
threshold, once for the pictures as they are and once for every bootstrap sample of them. Ways that
are compared get the same samples, so that differences are paired.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from camtool.evaluate.datasets import Record
from camtool.evaluate.metrics import IOUS, centre_ious, map_ious, to_map
from camtool.regions.boxes import FloatMap

Floats = npt.NDArray[np.float64]
THRESHOLDS = np.arange(200) / 200
REPLICATES = 500


def ious_of(heatmap: FloatMap, record: Record, from_zero: bool) -> tuple[Floats, Floats]:
    """IoUs of a picture's map with its boxes at every threshold, [T] each.

    Args:
        heatmap: [H, W] over the whole picture.
        record: The picture.
        from_zero: Thresholds run from 0 to the map's maximum; else from its minimum, as Choe et
            al. 2020 have it.

    Returns:
        Of the largest region's box, and of the best of all regions' boxes.
    """
    raised = heatmap if from_zero else heatmap - heatmap.min()
    return map_ious(raised, to_map(record.boxes, record.size, heatmap.shape), THRESHOLDS)


def centred(records: Sequence[Record]) -> Floats:
    """IoUs of a box in the middle of each picture, one column a size of the box."""
    return np.array([centre_ious(record.boxes, record.size) for record in records])


def draws(count: int) -> Floats:
    """Weights [R + 1, N] of the pictures: all alike first, then R bootstrap samples."""
    random = np.random.default_rng(0)
    samples = random.multinomial(count, np.full(count, 1 / count), REPLICATES)
    return np.concatenate([np.ones((1, count)), samples]) / count


def max_box_acc(ious: npt.ArrayLike, weights: Floats, least: float = 0.5) -> Floats:
    """MaxBoxAcc (Choe et al. 2020, 3.2) in percent, [R + 1], of a table of IoUs [N, T]."""
    right = np.asarray(np.asarray(ious) >= least, dtype=np.float64)
    return np.asarray(100 * (weights @ right).max(axis=1))


def mean_box_acc(ious: npt.ArrayLike, weights: Floats) -> Floats:
    """Mean of MaxBoxAcc over the IoUs 0.3, 0.5 and 0.7, each at its own best threshold."""
    return np.asarray(np.mean([max_box_acc(ious, weights, iou) for iou in IOUS], axis=0))


def figure(values: Floats, sign: str = "") -> str:
    """A figure with its 95 % interval, for people."""
    low, high = np.percentile(values[1:], (2.5, 97.5))
    return f"{values[0]:{sign}.1f} ({low:{sign}.1f} to {high:{sign}.1f})"


def gain(values: Floats, plain: Floats) -> str:
    """A difference with its paired 95 % interval, for people."""
    return figure(values - plain, "+")
