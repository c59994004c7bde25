"""Typed figures: what a metric came to, for the network and for the trivial baselines."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from camtool.evaluate import Mode

Floats = npt.NDArray[np.float64]

TITLES = {
    "gt_known": "GT-known localization",
    "top1_loc": "Top-1 localization",
    "top5_loc": "Top-5 localization",
    "max_box_acc": "MaxBoxAcc",
    "top1_loc_best": "Top-1 localization, best threshold",
    "top5_loc_best": "Top-5 localization, best threshold",
    "max_box_acc_v2": "MaxBoxAccV2",
    "max_box_acc_v2_30": "MaxBoxAccV2 at IoU 0.3",
    "max_box_acc_v2_50": "MaxBoxAccV2 at IoU 0.5",
    "max_box_acc_v2_70": "MaxBoxAccV2 at IoU 0.7",
    "pxap": "PxAP",
    "pointing": "Pointing game",
    "pointing_15": "Pointing game, 15 px",
    "energy": "Energy pointing game",
}
"""Every metric by its key in metrics.json, in the order in which they are shown."""


def _none() -> Floats:
    return np.empty(0)


@dataclass(frozen=True, eq=False)
class Figure:
    """What one metric came to, in percent.

    Attributes:
        value: The figure.
        low: Lower end of its 95 % bootstrap interval.
        high: Upper end.
        threshold: Where it was reached; None where the metric has no single threshold.
        thresholds: [T], what the curve runs over: fractions of the map's maximum, or sides of the
            centred box as fractions of the image's; empty where the metric has no curve.
        curve: [T], percent at each threshold.
    """

    value: float
    low: float
    high: float
    threshold: float | None = None
    thresholds: Floats = field(default_factory=_none)
    curve: Floats = field(default_factory=_none)


@dataclass(frozen=True, eq=False)
class PrecisionRecall(Figure):
    """An area under a precision-recall curve, and the curve.

    Attributes:
        precision: [B], 0 to 1, from the highest threshold to the lowest.
        recall: [B], likewise.
    """

    precision: Floats = field(default_factory=_none)
    recall: Floats = field(default_factory=_none)


class Metric(NamedTuple):
    """One metric of the network, and of what needs no network, on the same images.

    Attributes:
        network: The network's maps.
        centre_box: One box in the middle of every image, always at its best size for the metric,
            as the network has its best threshold.
        whole_image: The whole image as the box.
    """

    network: Figure
    centre_box: Figure
    whole_image: Figure


@dataclass(frozen=True, eq=False)
class Localization:
    """All metrics of localization over a number of images.

    Attributes:
        mode: How was measured.
        images: Their number.
        threshold: At which GT-known, top-1 and top-5 localization of the network are taken.
        thresholds: [T], what was swept.
        metrics: By the keys of `TITLES`, in their order; those that the data allows.
    """

    mode: Mode
    images: int
    threshold: float
    thresholds: Floats
    metrics: Mapping[str, Metric]
