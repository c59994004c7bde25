"""Every connected region of a map at every threshold, in one pass.

The regions of nested level sets form a tree (`mergetree`). A region is one chain of states,
one for each threshold between its birth and its death; its extent and area at a threshold are
those of its pixels above it, accumulated downwards, and of the regions it took in on the way.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from camtool.evaluate.mergetree import Ints, Levels, MergeTree, merge_tree
from camtool.regions.boxes import FloatMap

Whole = npt.NDArray[np.int32] | npt.NDArray[np.int64]

_INT16_LEVELS = 32_000
_DENSE_CELLS = 4
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
    if not len(tree.birth):
        none = np.empty(0, dtype=np.int64)
        return LevelSets(len(limits), none, none.reshape(0, 4), none)
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


def _narrow(limit: int) -> type[np.int32] | type[np.int64]:
    return np.int32 if limit < np.iinfo(np.int32).max else np.int64


class _Layout(NamedTuple):
    """States of all regions in one row, chain after chain, each from its birth downwards."""

    offsets: Ints
    lengths: Ints
    chain: Whole
    level: Whole

    @classmethod
    def of(cls, tree: MergeTree, side: int) -> _Layout:
        lengths = tree.birth - tree.death
        offsets = np.cumsum(lengths) - lengths
        # The type must hold any state's number, and any chain's times twice the side.
        kind = _narrow(max(int(lengths.sum()), len(lengths) * (2 * side + 4)))
        chain: Whole = np.repeat(np.arange(len(lengths)).astype(kind), lengths)
        level: Whole = np.repeat((tree.birth + offsets).astype(kind), lengths)
        level -= np.arange(len(chain)).astype(kind)
        return cls(offsets, lengths, chain, level)

    def state_of(self, tree: MergeTree, region: Ints, level: Ints) -> Ints:
        """The state to which pixels of a region and a level belong; overwrites `region`."""
        late = np.flatnonzero(level <= tree.death[region])
        while len(late):
            region[late] = tree.into[region[late]]
            late = late[level[late] <= tree.death[region[late]]]
        return self.offsets[region] + tree.birth[region] - level


def _states(levels: Levels, tree: MergeTree, count: int) -> LevelSets:
    side = max(levels.shape)
    layout = _Layout.of(tree, side)
    extents = _own_extents(levels, tree, layout)
    areas = _own_areas(levels, tree, layout, count)
    _pass_on_to_elders(tree, layout, extents, areas)
    # Shifted apart, the chains can share one running minimum.
    shift = layout.chain * (2 * side + 4)
    extents -= shift
    np.minimum.accumulate(extents, axis=1, out=extents)
    extents += shift
    extents[2:] *= -1
    summed = np.cumsum(areas)
    summed -= np.repeat(np.concatenate([[0], summed])[layout.offsets], layout.lengths)
    return LevelSets(count, layout.level - 1, extents.T, summed)


def _own_extents(levels: Levels, tree: MergeTree, layout: _Layout) -> Whole:
    """Rows x0, y0, -x1, -y1 of the pixels that join a region in each of its states.

    The peaks of the runs of rows and of columns are enough: they reach as far.
    """
    width = levels.shape[1]
    peaks = np.concatenate([tree.column_peaks, tree.row_peaks])
    region = tree.run_regions[tree.run_of[peaks]]
    states = layout.state_of(tree, region, levels.ravel()[peaks].astype(np.intp))
    extents = np.full((4, len(layout.chain)), max(levels.shape) + 1, dtype=layout.chain.dtype)
    columns = len(tree.column_peaks)
    for axis, own, place in (
        (0, states[:columns], tree.column_peaks % width),
        (1, states[columns:], tree.row_peaks // width),
    ):
        near = place.astype(extents.dtype)
        np.minimum.at(extents[axis], own, near)
        np.minimum.at(extents[axis + 2], own, -near - 1)
    return extents


def _own_areas(levels: Levels, tree: MergeTree, layout: _Layout, count: int) -> Ints:
    """Number of pixels that join a region in each of its states."""
    bits = count.bit_length()
    size = len(tree.birth) << bits
    cells = np.repeat(tree.run_regions << bits, tree.run_lengths)
    cells += levels.ravel()
    if size > _DENSE_CELLS * levels.size:
        return _sparse_areas(cells, bits, tree, layout)
    histogram = np.bincount(cells, minlength=size)
    death, into = tree.death.tolist(), tree.into.tolist()
    for region in tree.order:
        own, elder, levels_left = region << bits, into[region] << bits, death[region] + 1
        histogram[elder : elder + levels_left] += histogram[own : own + levels_left]
    return histogram[(layout.chain.astype(np.intp) << bits) + layout.level]


def _sparse_areas(cells: Ints, bits: int, tree: MergeTree, layout: _Layout) -> Ints:
    """`_own_areas` without a table of all regions and levels, for maps of very many regions."""
    used, numbers = np.unique(cells, return_counts=True)
    level = used & ((1 << bits) - 1)
    positive = level > 0
    region = used[positive] >> bits
    areas = np.zeros(len(layout.chain), dtype=np.intp)
    np.add.at(areas, layout.state_of(tree, region, level[positive]), numbers[positive])
    return areas


def _pass_on_to_elders(tree: MergeTree, layout: _Layout, extents: Whole, areas: Ints) -> None:
    """Give what a region holds at its death to the state of the region it merges into."""
    if not tree.order:
        return
    alive = np.flatnonzero(layout.lengths > 0)
    sums = np.full((5, len(layout.lengths)), np.iinfo(np.int32).max, dtype=np.intp)
    sums[4] = 0
    sums[:4, alive] = np.minimum.reduceat(extents, layout.offsets[alive], axis=1)
    sums[4, alive] = np.add.reduceat(areas, layout.offsets[alive])
    totals = sums.T.tolist()
    death, into = tree.death.tolist(), tree.into.tolist()
    givers = []
    for region in tree.order:
        elder = into[region]
        *near, area = totals[region]
        totals[elder] = [*map(min, totals[elder], near), totals[elder][4] + area]
        # An elder region that dies at the same level hands it on itself.
        if death[elder] < death[region]:
            givers.append(region)
    taken = np.array([totals[region] for region in givers], dtype=np.intp).T
    elders, levels = tree.into[givers], tree.death[givers]
    states = layout.offsets[elders] + tree.birth[elders] - levels
    for axis in range(4):
        np.minimum.at(extents[axis], states, taken[axis].astype(extents.dtype))
    np.add.at(areas, states, taken[4])
