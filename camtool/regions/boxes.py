"""Boxes and masks from a class activation map.

A map is a float32 array [H, W] of signed evidence in logits, NaN where the network saw
nothing. A pixel is kept when its evidence is positive and above a cut; the connected regions
of kept pixels are the components, and a box is a component's extent.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import combinations, starmap
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, get_args

import numpy as np
import numpy.typing as npt

from camtool.choices import Rule
from camtool.images import LARGE
from camtool.images.resample import measured
from camtool.opencv import cv2

if TYPE_CHECKING:
    from camtool.explanation import Explanation

FloatMap = npt.NDArray[np.float32]
BoolMap = npt.NDArray[np.bool_]
Box = tuple[int, int, int, int]
Choice = Literal["largest", "all"]

ZHOU_THRESHOLD = 0.2
OTSU_BINS = 256
IVR_PERCENTILE = 0.45
"""That of Kim et al. 2021 for ResNet-50."""
_FEW_OUTLINES = 16


class Component(NamedTuple):
    """One connected region of a thresholded map.

    Attributes:
        box: (x0, y0, x1, y1) in pixels of the map, end-exclusive.
        share: Part of the whole map's positive evidence that lies inside the box, in [0, 1].
        area: Number of pixels of the region itself.
    """

    box: Box
    share: float
    area: int


def cut_value(heatmap: FloatMap, threshold: float = ZHOU_THRESHOLD, rule: Rule = "max") -> float:
    """The evidence, in logits, that a pixel has to exceed to be kept; never below zero.

    Args:
        heatmap: [H, W], float32, logits; NaN marks pixels that the network did not see.
        threshold: For "max" the fraction of the map's maximum (Zhou et al. 2016, section 3.2:
            0.2), for "percentile" the fraction of the seen pixels that are dropped; both in
            [0, 1]; for "ivr" the fraction of the way from the 45th percentile to the maximum.
            "otsu" does not use it.
        rule: "max", "percentile", "otsu" (Otsu 1979: the cut that separates the positive part
            of the map into two classes of greatest between-class variance), or "ivr" (Kim et
            al. 2021, "Normalization matters in weakly supervised object localization", 3.3: a
            percentile of the map takes the place of its minimum).

    Raises:
        ValueError: If the threshold lies outside [0, 1], the rule is unknown, or the map is
            not two-dimensional or holds an infinity.
    """
    return float(cut_values(heatmap, [threshold], rule)[0])


def cut_values(heatmap: FloatMap, thresholds: Sequence[float], rule: Rule) -> list[float]:
    """`cut_value` for several thresholds of one rule, in one go."""
    for threshold in thresholds:
        if not 0.0 <= threshold <= 1.0:
            raise ValueError(f"threshold must lie in [0, 1], got {threshold}")
    if rule not in get_args(Rule):
        raise ValueError(f"unknown rule {rule!r}: use {', '.join(get_args(Rule))}")
    highest = float(np.fmax.reduce(heatmap, axis=None))
    if not highest > 0:
        return [0.0] * len(thresholds)
    if rule == "max":
        cuts = [threshold * highest for threshold in thresholds]
    else:
        cuts = _cuts_by_spread(heatmap[~np.isnan(heatmap)], thresholds, rule)
    # Rounded to the map's own type, so that every comparison is made in float32.
    return [max(0.0, float(np.float32(cut))) for cut in cuts]


def _cuts_by_spread(seen: FloatMap, thresholds: Sequence[float], rule: Rule) -> list[float]:
    """The cuts of a rule that looks at all values, not at the greatest alone."""
    if rule == "otsu":
        return [_otsu(seen)] * len(thresholds)
    if rule == "percentile":
        return [float(cut) for cut in np.quantile(seen, thresholds)]
    low = float(np.quantile(seen, IVR_PERCENTILE))
    return [low + threshold * (float(seen.max()) - low) for threshold in thresholds]


def components_from_map(
    heatmap: FloatMap,
    threshold: float = ZHOU_THRESHOLD,
    *,
    rule: Rule = "max",
    connectivity: Literal[4, 8] = 8,
    components: Choice = "all",
) -> list[Component]:
    """The connected regions above the cut, largest area first.

    Regions of equal area are ordered from top to bottom, then from left to right. A map
    without positive evidence has none. Arguments and errors as in `mask_from_map`.
    """
    values = _checked(heatmap)
    stats = _regions(values > cut_value(values, threshold, rule), connectivity)
    stats = stats[_order(stats)]
    if components == "largest":
        stats = stats[:1]
    boxes = np.stack(
        [stats[:, 0], stats[:, 1], stats[:, 0] + stats[:, 2], stats[:, 1] + stats[:, 3]], axis=1
    )
    shares = positive_shares(values, boxes)
    return [
        Component((x0, y0, x1, y1), share, area)
        for (x0, y0, x1, y1), share, area in zip(
            boxes.tolist(), shares.tolist(), stats[:, 4].tolist(), strict=True
        )
    ]


def components_of(
    explanation: Explanation,
    k: int = 0,
    threshold: float = ZHOU_THRESHOLD,
    rule: Rule = "max",
) -> list[Component]:
    """The components of an explained class's map, in pixels of the original picture.

    Those of a very large picture are found on a coarser grid, and are good to a pixel of it.
    """
    width, height = explanation.geometry.size
    if width * height <= LARGE:
        return components_from_map(explanation.heatmap(k), threshold, rule=rule)
    heat = measured(explanation.maps[k], explanation.geometry)
    across, down = width / heat.shape[1], height / heat.shape[0]
    return [
        Component(
            (
                math.floor(x0 * across),
                math.floor(y0 * down),
                math.ceil(x1 * across),
                math.ceil(y1 * down),
            ),
            share,
            round(area * across * down),
        )
        for (x0, y0, x1, y1), share, area in components_from_map(heat, threshold, rule=rule)
    ]


def mask_from_map(
    heatmap: FloatMap,
    threshold: float = ZHOU_THRESHOLD,
    *,
    rule: Rule = "max",
    connectivity: Literal[4, 8] = 8,
    components: Choice = "all",
) -> BoolMap:
    """The kept pixels as a mask.

    Args:
        heatmap: [H, W], float32, logits; NaN marks pixels that the network did not see.
        threshold: As in `cut_value`.
        rule: As in `cut_value`.
        connectivity: 8 joins diagonal neighbours, 4 does not.
        components: "all" regions, or only the "largest" one.

    Returns:
        Mask [H, W], bool.

    Raises:
        ValueError: As `cut_value`, or if connectivity or components is none of the above.
    """
    values = _checked(heatmap)
    mask: BoolMap = values > cut_value(values, threshold, rule)
    if components == "all":
        return mask
    labels, stats = _label(mask, connectivity)
    if len(stats) == 0:
        return mask
    return np.asarray(labels == _order(stats)[0] + 1)


def positive_shares(heatmap: FloatMap, boxes: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Part of the map's positive evidence inside each box.

    Args:
        heatmap: [H, W], float32; NaN counts as no evidence.
        boxes: [N, 4], integers (x0, y0, x1, y1) inside the map, end-exclusive.

    Returns:
        [N], float64, in [0, 1]; zeros if the map has no positive evidence.
    """
    positive = np.fmax(heatmap, np.float32(0))
    inside = [_sum(positive[y0:y1, x0:x1]) for x0, y0, x1, y1 in np.asarray(boxes)]
    return np.asarray(inside, dtype=np.float64) / (_sum(positive) or 1.0)


def _sum(values: FloatMap) -> float:
    """Row by row, in an order that does not depend on where the values lie in memory."""
    return float(cv2.reduce(values, 1, cv2.REDUCE_SUM, dtype=cv2.CV_64F).sum())


def _checked(heatmap: FloatMap) -> FloatMap:
    values = np.asarray(heatmap, dtype=np.float32)
    if values.ndim != 2 or values.size == 0:
        raise ValueError(f"a map has two dimensions and at least one pixel, got {values.shape}")
    # Unlike min and max, these two pass over NaN.
    if np.isinf([np.fmin.reduce(values, axis=None), np.fmax.reduce(values, axis=None)]).any():
        raise ValueError("the map holds an infinity")
    return values


def _regions(mask: BoolMap, connectivity: int) -> npt.NDArray[np.int32]:
    """The rows of `_label`, without its image of labels where a few outlines tell as much."""
    if connectivity == 8:
        levels = mask.view(np.uint8)
        contours, nesting = cv2.findContours(levels, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
        outer = [contours[n] for n in range(len(contours)) if nesting[0, n, 3] < 0]
        boxes = [cv2.boundingRect(contour) for contour in outer[: _FEW_OUTLINES + 1]]
        if len(boxes) <= _FEW_OUTLINES and not any(starmap(_overlap, combinations(boxes, 2))):
            areas = [cv2.countNonZero(levels[y : y + h, x : x + w]) for x, y, w, h in boxes]
            rows = [(*box, area) for box, area in zip(boxes, areas, strict=True)]
            return np.array(rows, dtype=np.int32).reshape(-1, 5)
    return _label(mask, connectivity)[1]


def _overlap(one: Sequence[int], other: Sequence[int]) -> bool:
    """Whether two boxes (left, top, width, height) share a pixel."""
    return all(
        one[axis] < other[axis] + other[axis + 2] and other[axis] < one[axis] + one[axis + 2]
        for axis in (0, 1)
    )


def _label(mask: BoolMap, connectivity: int) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]:
    """Labels [H, W] from 1 on, and rows (left, top, width, height, area) without background."""
    if connectivity not in (4, 8):
        raise ValueError(f"connectivity must be 4 or 8, got {connectivity}")
    _, labels, stats, _ = cv2.connectedComponentsWithStats(
        mask.astype(np.uint8), connectivity=connectivity
    )
    return np.asarray(labels, dtype=np.int32), np.asarray(stats[1:], dtype=np.int32)


def _order(stats: npt.NDArray[np.int32]) -> npt.NDArray[np.intp]:
    return np.lexsort((stats[:, 0], stats[:, 1], -stats[:, 4]))


def _otsu(values: FloatMap) -> float:
    """Otsu's threshold of the positive parts of values, from a histogram of 256 bins."""
    positive = np.maximum(values, 0)
    counts, edges = np.histogram(positive, bins=OTSU_BINS, range=(0.0, float(positive.max())))
    centres = (edges[:-1] + edges[1:]) / 2
    below = np.cumsum(counts)[:-1]
    above = positive.size - below
    mass = np.cumsum(counts * centres)
    valid = (below > 0) & (above > 0)
    below, above = np.where(valid, below, 1), np.where(valid, above, 1)
    gap = mass[:-1] / below - (mass[-1] - mass[:-1]) / above
    variance = np.where(valid, below * above * gap**2, -1.0)
    return float(edges[1:-1][int(np.argmax(variance))])
