"""The merge tree of an image of levels: where regions are born and where they meet.

Lowering a threshold over an image makes its connected regions appear at local maxima, grow,
and merge at saddles. Of two regions that merge the one with the higher peak lives on (the
elder rule of persistent homology), so that a region is one peak with a birth and a death.

Work is done on few things instead of on all pixels. A row is cut into runs that first rise and
then fall. Such a run is one piece at every level, and it is joined to its neighbours at the
highest level at which both hold touching pixels. Runs that reach a higher neighbour without
descending are contracted. What remains are the peaks and the saddles between them.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Levels = npt.NDArray[np.int16] | npt.NDArray[np.int32]
Ints = npt.NDArray[np.intp]
Flags = npt.NDArray[np.bool_]


class MergeTree(NamedTuple):
    """Regions of an image of levels, one for each peak.

    Attributes:
        birth: [B], level of the peak.
        death: [B], level at which the region merges into an elder one; 0 if it never does.
        into: [B], the elder region; itself if it never merges.
        order: The regions that merge, in the order in which they do.
        row_peaks: Flat indices of one highest pixel of each run of a row, positive ones only.
        column_peaks: The same for the runs of columns.
        region_of: [H * W], the region of every pixel: at each level at which the pixel counts, it
            is connected to that region's peak.
    """

    birth: Ints
    death: Ints
    into: Ints
    order: list[int]
    row_peaks: Ints
    column_peaks: Ints
    region_of: Ints


class _Edges(NamedTuple):
    """Touching runs and the highest level at which they touch, each [E]."""

    one: Ints
    other: Ints
    level: Ints


def merge_tree(levels: Levels) -> MergeTree:
    """The merge tree of an image of levels; diagonal neighbours touch, level 0 is in no region.

    Args:
        levels: [H, W], integers from 0 on, contiguous.
    """
    # Everything runs over the flat image: slices of it are contiguous, those of its rows not.
    flat, width = levels.ravel(), levels.shape[1]
    right, down = _slopes(flat, width)
    first = _run_starts(right, width)
    starts = np.flatnonzero(first)
    lengths = np.append(starts[1:], flat.size) - starts
    run_of = np.repeat(np.arange(len(starts), dtype=np.int32), lengths)
    peaks = _row_peaks(right, width)
    peak_levels = flat[peaks].astype(np.intp)
    sides, above = _side_pairs(flat, width, starts), _vertical_pairs(flat, width, first)
    edges = _edges(run_of, [sides, above, _diagonal_pairs(flat, width, right, down)])
    region, roots = _contract(peak_levels, edges)
    birth = peak_levels[roots]
    death, into, order = _merge(birth, _saddles(region, edges))
    rows, columns = peaks[peak_levels > 0], _column_peaks(flat, width, down)
    return MergeTree(birth, death, into, order, rows, columns, np.repeat(region, lengths))


def _slopes(flat: Levels, width: int) -> tuple[Flags, Flags]:
    """Where a pixel is above its left neighbour, and above the one over it, each [H * W].

    True in the first column, and in the first row.
    """
    right, down = np.ones((2, flat.size), dtype=bool)
    np.greater(flat[1:], flat[:-1], out=right[1:])
    right[::width] = True
    np.greater(flat[width:], flat[:-width], out=down[width:])
    return right, down


def _run_starts(rising: Flags, width: int) -> Flags:
    """The first pixel of every run: where a row begins, or begins to rise again."""
    first = np.ones(rising.size, dtype=bool)
    np.greater(rising[1:], rising[:-1], out=first[1:])
    first[::width] = True
    return first


def _row_peaks(rising: Flags, width: int) -> Ints:
    """Flat index of the last rising pixel of every run of a row."""
    last = rising.copy()
    np.greater(rising[:-1], rising[1:], out=last[:-1])
    last[width - 1 :: width] = rising[width - 1 :: width]
    return np.flatnonzero(last)


def _column_peaks(flat: Levels, width: int, rising: Flags) -> Ints:
    """Flat index of the last rising pixel of every run of a column, positive ones only."""
    last = rising.copy()
    np.greater(rising[:-width], rising[width:], out=last[:-width])
    peaks = np.flatnonzero(last)
    return peaks[flat[peaks] > 0]


def _edges(run_of: npt.NDArray[np.int32], pairs: list[tuple[Ints, Ints, Levels]]) -> _Edges:
    one, other, level = (np.concatenate(part) for part in zip(*pairs, strict=True))
    touching = np.flatnonzero(level)
    return _Edges(
        run_of[one[touching]].astype(np.intp),
        run_of[other[touching]].astype(np.intp),
        level[touching].astype(np.intp),
    )


def _side_pairs(flat: Levels, width: int, starts: Ints) -> tuple[Ints, Ints, Levels]:
    """Where one run of a row ends and the next begins: two flat indices and the level."""
    inner = starts[starts % width > 0]
    return inner - 1, inner, flat[inner - 1]


def _vertical_pairs(flat: Levels, width: int, first: Flags) -> tuple[Ints, Ints, Levels]:
    """For every two runs above one another, the highest level of a column they share."""
    cells = np.flatnonzero(first[:-width] | first[width:])
    shared = np.minimum(flat[:-width], flat[width:])
    level = np.maximum.reduceat(shared, cells) if len(cells) else shared
    return cells, cells + width, level


def _diagonal_pairs(
    flat: Levels, width: int, right: Flags, down: Flags
) -> tuple[Ints, Ints, Levels]:
    """Diagonal neighbours that no path over the two pixels beside them joins as high."""
    # Of a b / c d only those corners remain where both slopes turn over in the same sense.
    turned = right[1:-width] != right[width + 1 :]
    turned &= down[width:-1] != down[width + 1 :]
    turned &= right[width + 1 :] == down[width + 1 :]
    corner = np.flatnonzero(turned)
    # The last pixel of a row and the first of the next are no neighbours.
    corner = corner[corner % width < width - 1]
    a, b, c, d = (flat[corner + step] for step in (0, 1, width, width + 1))
    falling, rising = np.minimum(a, d), np.minimum(b, c)
    falls, rises = falling > np.maximum(b, c), rising > np.maximum(a, d)
    one = np.concatenate([corner[falls], corner[rises] + 1])
    other = np.concatenate([corner[falls] + width + 1, corner[rises] + width])
    return one, other, np.concatenate([falling[falls], rising[rises]])


def _contract(peak_levels: Ints, edges: _Edges) -> tuple[Ints, Ints]:
    """Join every run to a higher one that it reaches at its own peak's level.

    Ties are broken by the index, so that no cycle can arise.

    Returns:
        The region of every run, and the run that is the root of every region.
    """
    peak_one, peak_other = peak_levels[edges.one], peak_levels[edges.other]
    reaches = np.flatnonzero(edges.level == np.minimum(peak_one, peak_other))
    one, other = edges.one[reaches], edges.other[reaches]
    rise = peak_other[reaches] - peak_one[reaches]
    upward = (rise > 0) | ((rise == 0) & (one < other))
    runs = np.arange(len(peak_levels))
    parent = runs.copy()
    parent[np.where(upward, one, other)] = np.where(upward, other, one)
    while True:
        grand = parent[parent]
        if (grand == parent).all():
            break
        parent = grand
    roots = np.flatnonzero((parent == runs) & (peak_levels > 0))
    region = np.zeros(len(parent), dtype=np.intp)
    region[roots] = np.arange(len(roots))
    return region[parent], roots


def _saddles(region: Ints, edges: _Edges) -> _Edges:
    """The highest edge between every two regions that touch, highest first."""
    one, other = region[edges.one], region[edges.other]
    between = one != other
    one, other, level = one[between], other[between], edges.level[between]
    low, high = np.minimum(one, other), np.maximum(one, other)
    order = np.lexsort((-level, high, low))
    low, high, level = low[order], high[order], level[order]
    first = np.ones(len(low), dtype=bool)
    first[1:] = (low[1:] != low[:-1]) | (high[1:] != high[:-1])
    low, high, level = low[first], high[first], level[first]
    order = np.argsort(-level, kind="stable")
    return _Edges(low[order], high[order], level[order])


def _merge(birth: Ints, saddles: _Edges) -> tuple[Ints, Ints, list[int]]:
    """Kruskal's algorithm from the highest saddle down, with the elder rule."""
    peaks = birth.tolist()
    parent = list(range(len(peaks)))
    death, into, order = [0] * len(peaks), list(range(len(peaks))), []

    def find(item: int) -> int:
        while parent[item] != item:
            parent[item] = parent[parent[item]]
            item = parent[item]
        return item

    for one, other, level in zip(*(part.tolist() for part in saddles), strict=True):
        elder, younger = find(one), find(other)
        if elder == younger:
            continue
        if peaks[elder] < peaks[younger]:
            elder, younger = younger, elder
        parent[younger] = into[younger] = elder
        death[younger] = level
        order.append(younger)
    return np.array(death, dtype=np.intp), np.array(into, dtype=np.intp), order
