"""Classes whose evidence lies in one place, as where a watermark gives them away.

That ordinary objects lie in the middle is no sign: their classes share the place, and within a
class it moves. What gives a class away is a place where almost all of its pictures have more
evidence than those of the other classes have there, and where the other classes do not differ as
much among themselves. A place is a window of 3 x 3 on an 8 x 8 grid over the picture, one of the
four edges, or all of the border. A mark in the middle, where the objects are, is not told apart.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from camtool.report.schema import Flag, Region

PER_CLASS = 64
"""Pictures of a class that are compared, drawn at random from all."""
LEAST = 5
"""Pictures below which a class is not judged."""
APART = 1.65
"""Standard deviations of pictures between a flagged class and the others."""
UNLIKE = 3.3
"""Standard deviations of classes between a flagged class and the others.

Both were chosen on layers trained on pictures of Tiny ImageNet: of 3 to 20 classes without a mark
none reached 0.95 of both, those with a mark at a corner, which alone told the class, 1.2 to 2.4.
"""
LEVEL = 0.05
"""Most chance, by Bonferroni over the classes, that any class is flagged by luck alone."""

_CELLS, _WINDOW = 8, 3
_AT_ONCE = 500
_ROUNDING = 0.02
"""Added to deviations of pictures: shares of evidence closer than this are alike."""
_PRIOR, _SPREAD = 4, 0.05
"""Few classes say little of how much classes differ: as if so many had this deviation."""
_TELLING = 0.7
"""Part of the greatest distance at which a place may stand for what tells a class apart."""

Floats = npt.NDArray[np.float64]


def shares(grid: Floats) -> Floats:
    """Share of the evidence in each place: float64 [places], of a grid [16,16] that sums to 1."""
    fold = grid.shape[0] // _CELLS
    cells = grid.reshape(_CELLS, fold, _CELLS, fold).sum((1, 3))
    windows = np.lib.stride_tricks.sliding_window_view(cells, (_WINDOW, _WINDOW)).sum((2, 3))
    edges = [cells[0].sum(), cells[-1].sum(), cells[:, 0].sum(), cells[:, -1].sum()]
    return np.array([*windows.flat, *edges, 1.0 - cells[1:-1, 1:-1].sum()])


def _places() -> Iterator[tuple[str, Region]]:
    """What each place is called, and its (x0, y0, x1, y1) as parts of the picture."""
    side, part = _CELLS - _WINDOW + 1, 1 / _CELLS
    for row in range(side):
        for column in range(side):
            thirds = 3 * row // side, 3 * column // side
            words = ("upper ", "", "lower ")[thirds[0]], ("left", "", "right")[thirds[1]]
            name = "".join(words).strip() + (" side" if "" in words else "")
            x, y = column * part, row * part
            yield (
                "middle" if name == " side" else name,
                (x, y, x + _WINDOW * part, y + _WINDOW * part),
            )
    yield "upper edge", (0.0, 0.0, 1.0, part)
    yield "lower edge", (0.0, 1.0 - part, 1.0, 1.0)
    yield "left edge", (0.0, 0.0, part, 1.0)
    yield "right edge", (1.0 - part, 0.0, 1.0, 1.0)
    yield "border", (0.0, 0.0, 1.0, 1.0)


PLACES = tuple(_places())


@dataclass
class _Sample:
    seen: int = 0
    rows: list[Floats] = field(default_factory=list)


class Suspicions:
    """A sample of each class's pictures in fixed memory, and what is suspicious in it."""

    def __init__(self) -> None:
        self._samples: dict[int, _Sample] = {}
        self._random = np.random.default_rng(0)

    def update(self, key: int, grid: Floats) -> None:
        """Add one picture's evidence to class ``key``."""
        sample = self._samples.setdefault(key, _Sample())
        sample.seen += 1
        if len(sample.rows) < PER_CLASS:
            sample.rows.append(shares(grid))
        elif (at := int(self._random.integers(sample.seen))) < PER_CLASS:
            sample.rows[at] = shares(grid)

    def flags(self) -> dict[int, tuple[float, Flag | None]]:
        """How far each class lies apart at its most telling place, and its flag if it has one.

        The distance is the smaller of that in deviations of pictures over `APART`, and that in
        deviations of classes over `UNLIKE`. A class is flagged where it is 1 or more, and greater
        than that of classes of its size drawn at random from all pictures: a permutation test over
        all places, with Bonferroni's correction for the number of classes. Classes below `LEAST`
        pictures are left out.
        """
        rows = np.array([row for sample in self._samples.values() for row in sample.rows])
        sizes = [len(sample.rows) for sample in self._samples.values()]
        judged = {
            key: np.arange(end - size, end)
            for key, size, end in zip(self._samples, sizes, np.cumsum(sizes), strict=True)
            if size >= LEAST and len(rows) - size >= LEAST
        }
        if len(judged) < 2:
            return {}
        totals = np.array([rows.sum(0), (rows**2).sum(0)])
        unlike = _unlikeness(np.array([rows[members].mean(0) for members in judged.values()]))
        return {
            key: self._flag(rows, totals, members, classes, len(judged))
            for (key, members), classes in zip(judged.items(), unlike, strict=True)
        }

    def _flag(
        self,
        rows: Floats,
        totals: Floats,
        members: npt.NDArray[np.intp],
        unlike: Floats,
        classes: int,
    ) -> tuple[float, Flag | None]:
        pictures = _separation(rows, totals, members[None])[0]
        apart = np.minimum(pictures / APART, unlike / UNLIKE)
        most = float(apart.max())
        if most < 1.0:
            return most, None
        reached = pictures[apart.argmax()]
        chance = min(1.0, classes * self._chance(rows, totals, len(members), reached, classes))
        if chance > LEVEL:
            return most, None
        inside = rows[members].mean(0)
        outside = np.delete(rows, members, axis=0).mean(0)
        # Of the places that tell the class apart the one that holds most of what is its own.
        place = int(np.where(apart >= _TELLING * most, inside - outside, -1.0).argmax())
        name, region = PLACES[place]
        return most, Flag(name, region, float(inside[place]), float(outside[place]), chance)

    def _chance(self, rows: Floats, totals: Floats, size: int, most: float, classes: int) -> float:
        """How often a class drawn at random from all pictures lies as far apart, in (0, 1]."""
        rounds = max(999, int(2 * classes / LEVEL))
        reached = 0
        for start in range(0, rounds, _AT_ONCE):
            draws = [
                self._random.choice(len(rows), size, replace=False)
                for _ in range(min(_AT_ONCE, rounds - start))
            ]
            reached += int((_separation(rows, totals, np.array(draws)).max(1) >= most).sum())
        return (1 + reached) / (1 + rounds)


def _separation(rows: Floats, totals: Floats, members: npt.NDArray[np.intp]) -> Floats:
    """How many standard deviations more evidence some pictures have at each place than the rest.

    The difference of the means over the root of the mean of both variances (Cohen 1988, 2.2).

    Args:
        rows: [N,places], as from `shares`.
        totals: [2,places], their sums, and those of their squares.
        members: int [R,n], which pictures are meant, R times.

    Returns:
        float64 [R,places].
    """
    size, rest = members.shape[1], len(rows) - members.shape[1]
    chosen = rows[members]
    inside, within = chosen.sum(1), (chosen**2).sum(1)
    outside, without = totals[0] - inside, totals[1] - within
    spread = (within - inside**2 / size) / (size - 1) + (without - outside**2 / rest) / (rest - 1)
    deviation = np.sqrt(np.maximum(spread, 0.0) / 2) + _ROUNDING
    separation: Floats = (inside / size - outside / rest) / deviation
    return separation


def _unlikeness(means: Floats) -> Floats:
    """How many standard deviations of classes more evidence each class has at each place.

    The deviation is that of the other classes and of one class more, with a prior as in moderated
    t-statistics (Smyth 2004).

    Args:
        means: [K,places], mean shares of each class, K at least 2.

    Returns:
        float64 [K,places].
    """
    others = len(means) - 1
    rest = (means.sum(0) - means) / others
    squares = ((means**2).sum(0) - means**2) - others * rest**2
    variance = (_PRIOR * _SPREAD**2 + np.maximum(squares, 0.0)) / (_PRIOR + others - 1)
    unlikeness: Floats = (means - rest) / np.sqrt(variance * (1 + 1 / others))
    return unlikeness
