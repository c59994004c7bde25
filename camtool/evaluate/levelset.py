"""Every connected region of a map at every threshold, in one pass.

The regions of nested level sets form a tree (`mergetree`). A region stands at every threshold
between its birth and its death; its extent and area there are those of its pixels above the
threshold, accumulated downwards, and of the regions that merged into it on the way.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from camtool.evaluate.mergetree import Levels, MergeTree, merge_tree
from camtool.opencv import cv2
from camtool.regions.boxes import FloatMap

Whole = npt.NDArray[np.signedinteger[Any]]

# Of a table of all regions and thresholds: 200 MB for all five. Only noise has so many regions.
_MOST_CELLS = 1 << 23
_INT16_LEVELS = 32_000
_MAX_ERROR = 0.1


@dataclass(frozen=True)
class LevelSets:
    """The connected regions of a map at each of T thresholds.

    Attributes:
        count: T, the number of thresholds.
        indices: [P], integers, the threshold (0 to T - 1) at which a region stands.
        boxes: [P, 4], integers, its box (x0, y0, x1, y1), end-exclusive.
        areas: [P], integers, its number of pixels.
    """

    count: int
    indices: Whole
    boxes: Whole
    areas: Whole

    def best(self, scores: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """The highest of the regions' scores [P] at each threshold, [T]; 0 where none is."""
        result: npt.NDArray[np.float64] = np.zeros(self.count)
        np.maximum.at(result, self.indices, scores)
        return result

    def largest(self) -> tuple[Whole, npt.NDArray[np.bool_]]:
        """The box of the region of greatest area at each threshold.

        Returns:
            Boxes [T, 4], zeros where no pixel is kept; and whether there is one, [T], bool.
        """
        if not len(self.indices):
            return np.zeros((self.count, 4), dtype=np.int64), np.zeros(self.count, dtype=bool)
        most = np.zeros(self.count, dtype=self.areas.dtype)
        np.maximum.at(most, self.indices, self.areas)
        candidates = np.flatnonzero(self.areas == most[self.indices])
        found = most > 0
        if len(candidates) > np.count_nonzero(found):
            x0, y0, x1, y1 = self.boxes[candidates].T
            candidates = candidates[np.lexsort((x1, y1, x0, y0))][::-1]
        # Of several rows for one threshold the last one stays, which is the first in order.
        first = np.zeros(self.count, dtype=np.intp)
        first[self.indices[candidates]] = candidates
        boxes = self.boxes.take(first, axis=0)
        boxes[~found] = 0
        return boxes, found


def relative_cuts(heatmap: FloatMap, thresholds: npt.ArrayLike) -> npt.NDArray[np.float32]:
    """Cuts threshold * maximum in the map's own unit, as `boxes.cut_value` defines them."""
    peak = float(np.fmax.reduce(heatmap, axis=None, initial=0.0))
    return (np.asarray(thresholds, dtype=np.float64) * peak).astype(np.float32)


def sweep(heatmap: FloatMap, cuts: npt.ArrayLike) -> LevelSets:
    """All connected regions of `heatmap > cut`, diagonal neighbours joined, for all cuts at once.

    Args:
        heatmap: [H, W], float32; NaN pixels are never kept.
        cuts: [T], ascending, in the unit of the map.

    Returns:
        Exactly the regions that a connected-component labelling finds at each cut.

    Raises:
        ValueError: If the map is not two-dimensional or empty, or the cuts are not ascending.
    """
    values = np.asarray(heatmap, dtype=np.float32)
    limits = np.atleast_1d(np.asarray(cuts, dtype=np.float32))
    if values.ndim != 2 or values.size == 0:
        raise ValueError(f"a map has two dimensions and at least one pixel, got {values.shape}")
    if limits.ndim != 1 or np.any(limits[1:] < limits[:-1]):
        raise ValueError("cuts must be one ascending row of numbers")
    # A maximum is NaN as soon as one value is.
    if np.isnan(values.max()):
        values = np.where(np.isnan(values), np.float32(-np.inf), values)
    levels = levels_of(values, limits)
    tree = merge_tree(levels)
    if len(tree.birth) * len(limits) > _MOST_CELLS:
        return _labelled(levels, len(limits))
    return _states(levels, tree, len(limits))


def levels_of(values: FloatMap, cuts: npt.NDArray[np.float32]) -> Levels:
    """The number of cuts strictly below each value, [H, W]; no value may be NaN."""
    values = np.ascontiguousarray(values)
    guess, error = _linear_guess(values, cuts)
    if guess is None:
        found = np.searchsorted(cuts, values.ravel(), side="left").reshape(values.shape)
        return _compact(found, len(cuts))
    levels = _compact(guess, len(cuts))
    # Only a value close to a cut can have been counted on its wrong side.
    guess -= np.floor(guess)
    close = np.flatnonzero((guess < error) | (guess > 1 - error))
    levels.ravel()[close] = np.searchsorted(cuts, values.ravel()[close], side="left")
    return levels


def _compact(levels: npt.NDArray[Any], count: int) -> Levels:
    """The smallest of two integer types that holds the levels: the passes run over less memory."""
    if count < _INT16_LEVELS:
        return levels.astype(np.int16)
    return levels.astype(np.int32)


def _linear_guess(values: FloatMap, cuts: npt.NDArray[np.float32]) -> tuple[FloatMap | None, float]:
    """Position of each value among evenly spaced cuts, and its greatest possible error.

    The first cut is at 1, so that the whole part is the number of cuts below, save on a cut.
    None if the cuts are not spaced evenly enough for an error well below one half.
    """
    if len(cuts) < 2 or not cuts[-1] > cuts[0]:
        return None, 0.0
    first = float(cuts[0])
    step = (float(cuts[-1]) - first) / (len(cuts) - 1)
    # Below the normal numbers a float32 is too coarse, and 1 / step overflows.
    if step < np.finfo(np.float32).tiny:
        return None, 0.0
    even = first + step * np.arange(len(cuts))
    rounding = (abs(first) / step + len(cuts) + 2) * 4 * float(np.finfo(np.float32).eps)
    error = float(np.abs(cuts - even).max()) / step + rounding
    if not error < _MAX_ERROR:
        return None, 0.0
    position = values - np.float32(first - step)
    position *= np.float32(1 / step)
    # Values outside all cuts go where they are not taken to be close to one.
    np.clip(position, np.float32(0.5), np.float32(len(cuts) + 0.5), out=position)
    return position, error


def _states(levels: Levels, tree: MergeTree, count: int) -> LevelSets:
    """Extents and areas of all regions in tables [B, T + 1], by the level at which they count."""
    areas = _own_areas(levels, tree, count)
    extents = _own_extents(levels, tree, count)
    # Downwards: at a lower level a region has all the pixels that it has at a higher one.
    np.cumsum(areas[:, ::-1], axis=1, out=areas[:, ::-1])
    np.minimum.accumulate(extents[..., ::-1], axis=2, out=extents[..., ::-1])
    death, into = tree.death.tolist(), tree.into.tolist()
    for region in tree.order:
        elder, below = into[region], slice(death[region] + 1)
        areas[elder, below] += areas[region, below]
        np.minimum(
            extents[:, elder, below], extents[:, region, below], out=extents[:, elder, below]
        )
    level = np.arange(count + 1)
    alive = np.flatnonzero((level > tree.death[:, None]) & (level <= tree.birth[:, None]))
    boxes = extents.reshape(4, -1).take(alive, axis=1)
    boxes[2:] *= -1
    return LevelSets(count, alive % (count + 1) - 1, boxes.T, areas.take(alive))


def _own_areas(levels: Levels, tree: MergeTree, count: int) -> Whole:
    """Number of pixels of each region [B, T + 1] at exactly one level."""
    cells = tree.region_of * (count + 1)
    cells += levels.ravel()
    size = len(tree.birth) * (count + 1)
    return np.asarray(np.bincount(cells, minlength=size)[:size].reshape(-1, count + 1))


def _own_extents(levels: Levels, tree: MergeTree, count: int) -> Whole:
    """x0, y0, -x1, -y1 [4, B, T + 1] of the pixels of each region at exactly one level.

    The peaks of the runs of rows and of columns are enough: they reach as far.
    """
    width = levels.shape[1]
    beyond = max(levels.shape) + 1
    kind = np.int16 if beyond < np.iinfo(np.int16).max else np.int32
    extents: Whole = np.full((4, len(tree.birth), count + 1), beyond, dtype=kind)
    for axis, peaks, place in (
        (0, tree.column_peaks, tree.column_peaks % width),
        (1, tree.row_peaks, tree.row_peaks // width),
    ):
        own = tree.region_of[peaks], levels.ravel()[peaks]
        near = place.astype(kind)
        np.minimum.at(extents[axis], own, near)
        np.minimum.at(extents[axis + 2], own, -near - 1)
    return extents


def _labelled(levels: Levels, count: int) -> LevelSets:
    """The regions by labelling each threshold, for maps of so many that tables are too large."""
    rows = []
    for index in range(count):
        mask = (levels > index).astype(np.uint8)
        stats = cv2.connectedComponentsWithStats(mask, connectivity=8)[2][1:]
        rows.append(np.column_stack([np.full(len(stats), index, np.int32), stats]))
    index, x0, y0, width, height, areas = np.concatenate(rows).T
    return LevelSets(count, index, np.stack([x0, y0, x0 + width, y0 + height], axis=1), areas)
