"""Where the network looks for a class, on average over a folder.

Every map is reduced to its *evidence*: the positive part, divided by its sum, laid on a fixed
grid over the whole picture. Evidence grids of pictures of any size can be added up, so a class
costs the same memory whether it has ten pictures or a million.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from camtool.report.schema import ClassSummary, Deviator, Region

GRID = 16
ODD = 12
TYPICAL = 6

Floats = npt.NDArray[np.float64]


@lru_cache(maxsize=4096)
def overlap(cells: int, start: float, stop: float, bins: int) -> Floats:
    """Resampling matrix that keeps the total: part of each source cell in each target bin.

    Args:
        cells: number of equal source cells, laid on [start, stop].
        start: left end of the source, in units of the whole target (0 is its left end).
        stop: right end of the source, 1 is the target's right end; ``start < stop``.
        bins: number of equal target bins, laid on [0, 1].

    Returns:
        float64 [bins, cells]; a column sums to 1 where its cell lies inside [0, 1].
    """
    source = np.linspace(start, stop, cells + 1)
    target = np.linspace(0.0, 1.0, bins + 1)
    right = np.minimum(target[1:, None], source[None, 1:])
    left = np.maximum(target[:-1, None], source[None, :-1])
    matrix: Floats = np.maximum(right - left, 0.0) / (source[1:] - source[:-1])
    matrix.flags.writeable = False
    return matrix


@dataclass(frozen=True)
class Evidence:
    """Where one map's positive evidence lies.

    Attributes:
        grid: float64 [GRID, GRID], share of the positive evidence in each cell of a fixed grid
            over the whole picture, summing to 1; None where the map has no positive value.
        border: whether the highest cell of the map touches the map's edge.
        border_chance: part of the map's cells that touch the edge, in (0, 1].
    """

    grid: Floats | None
    border: bool
    border_chance: float


def evidence(heatmap: npt.ArrayLike, region: Region, size: tuple[int, int]) -> Evidence:
    """Reduce a map to where its positive evidence lies.

    Args:
        heatmap: [h, w], signed, in logits; NaN counts as no evidence.
        region: (x0, y0, x1, y1) in picture pixels that the map covers, end-exclusive.
        size: (width, height) of the picture in pixels.
    """
    values = np.nan_to_num(np.asarray(heatmap, dtype=np.float64))
    (height, width), (x0, y0, x1, y1) = values.shape, region
    rows = overlap(height, y0 / size[1], y1 / size[1], GRID)
    columns = overlap(width, x0 / size[0], x1 / size[0], GRID)
    grid: Floats = rows @ np.maximum(values, 0.0) @ columns.T
    total = grid.sum()
    row, column = divmod(int(values.argmax()), width)
    inner = max(height - 2, 0) * max(width - 2, 0)
    return Evidence(
        grid=grid / total if total > 0 else None,
        border=row in (0, height - 1) or column in (0, width - 1),
        border_chance=1.0 - inner / (height * width),
    )


@dataclass
class _Sums:
    pictures: int = 0
    silent: int = 0
    border: int = 0
    border_chance: float = 0.0
    share: Floats = field(default_factory=lambda: np.zeros((GRID, GRID)))
    unit: Floats = field(default_factory=lambda: np.zeros((GRID, GRID)))
    odd: list[tuple[float, int]] = field(default_factory=list)
    typical: list[tuple[float, int]] = field(default_factory=list)


class ClassAggregator:
    """Running sums of the evidence grids of each class; fixed memory for each class.

    Every picture is given to `update`, and then every picture to `compare`.

    Example:
        >>> aggregator = ClassAggregator()
        >>> corner = evidence([[0.0, 0.0], [0.0, 3.0]], (0, 0, 64, 64), (64, 64))
        >>> aggregator.update(281, corner)
        >>> round(aggregator.summary(281).area, 6)
        0.25
    """

    def __init__(self) -> None:
        self._sums: dict[int, _Sums] = {}

    def __iter__(self) -> Iterator[int]:
        return iter(self._sums)

    def update(self, key: int, found: Evidence) -> None:
        """Add one picture's evidence to class ``key``."""
        sums = self._sums.setdefault(key, _Sums())
        sums.pictures += 1
        if found.grid is None:
            sums.silent += 1
            return
        sums.border += found.border
        sums.border_chance += found.border_chance
        sums.share += found.grid
        sums.unit += found.grid / np.linalg.norm(found.grid)

    def mean(self, key: int) -> Floats:
        """Mean share of the evidence of class ``key``: [GRID, GRID], sums to 1, or 0 if silent."""
        sums = self._sums[key]
        return sums.share / max(sums.pictures - sums.silent, 1)

    def summary(self, key: int) -> ClassSummary:
        """Figures of class ``key``; its pictures have the numbers that `compare` was given.

        No picture is typical and odd: of a small class the nearer half is the typical one. How far
        the class lies apart is left for `Suspicions` to say.

        Raises:
            KeyError: no picture of that class was added.
        """
        sums, mean = self._sums[key], self.mean(key)
        seen = sums.pictures - sums.silent
        typical = sorted((-negative, -number) for negative, number in sums.typical)[: seen // 2]
        odd = sorted(sums.odd)[::-1][: seen - len(typical)]
        return ClassSummary(
            position=key,
            pictures=sums.pictures,
            silent=sums.silent,
            mean=np.rint(mean * (255.0 / (mean.max() or 1.0))).astype(np.uint8),
            area=_effective_area(mean),
            agreement=_mean_pairwise_cosine(sums.unit, seen),
            border=sums.border / max(seen, 1),
            chance=sums.border_chance / max(seen, 1),
            typical=[Deviator(number, value) for value, number in typical],
            odd=[Deviator(-negative, value) for value, negative in odd],
            apart=None,
            flags=[],
        )

    def compare(self, key: int, picture: int, found: Evidence) -> None:
        """Keep picture number ``picture`` if it deviates enough, or little enough.

        That is among the ODD of its class that deviate most, or the TYPICAL that deviate least; of
        equals the earlier is kept.
        """
        deviation = self.deviation(key, found)
        if deviation is None:
            return
        sums = self._sums[key]
        for heap, value, most in ((sums.odd, deviation, ODD), (sums.typical, -deviation, TYPICAL)):
            heapq.heappush(heap, (value, -picture))
            if len(heap) > most:
                heapq.heappop(heap)

    def deviation(self, key: int, found: Evidence) -> float | None:
        """How far a picture that was added lies from the mean of the *other* pictures of its class.

        Leaving the picture out keeps a class of few pictures from agreeing with itself.

        Returns:
            1 - cosine similarity, in [0, 1]; 1 means no evidence in a common place. None where
            the picture or every other picture of the class has no evidence.
        """
        sums, grid = self._sums[key], found.grid
        if grid is None or sums.pictures - sums.silent < 2:
            return None
        others = np.maximum(sums.share - grid, 0.0)
        cosine = float((grid * others).sum() / (np.linalg.norm(grid) * np.linalg.norm(others)))
        # Rounded, so that two pictures of a class, which lie equally far apart, compare equal.
        return round(min(max(1.0 - cosine, 0.0), 1.0), 9)


def _effective_area(mean: Floats) -> float:
    inside = mean[mean > 0]
    return float(np.exp(-(inside * np.log(inside)).sum()) / mean.size) if inside.size else 0.0


def _mean_pairwise_cosine(unit_sum: Floats, count: int) -> float | None:
    """Mean of <u_i, u_j> over i != j, from the sum of the unit vectors alone."""
    if count < 2:
        return None
    pairs = (float((unit_sum**2).sum()) - count) / (count * (count - 1))
    return min(max(pairs, 0.0), 1.0)
