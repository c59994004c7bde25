"""Small charts for a page: where everything lies, as parts of the room, and what is said of it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

from camtool.evaluate.figures import Figure
from camtool.fit.figures import Calibration
from camtool.fit.outcome import Penalty, Point

Tick: TypeAlias = tuple[float, str]
Range: TypeAlias = tuple[float, float]
_MOST_TICKS = 6


class Mark(NamedTuple):
    """A point with its interval, in parts of the room, from the left and from below.

    Attributes:
        x: Of the point.
        y: Likewise.
        low: Lower end of the interval.
        high: Upper end.
        text: What is said of it.
        kind: "point", "chosen" or "guess".
    """

    x: float
    y: float
    low: float
    high: float
    text: str
    kind: str = "point"


@dataclass(frozen=True)
class Chart:
    """What a page draws.

    Attributes:
        title: Its heading.
        note: What is to be seen, in a sentence or two.
        across: Title of the horizontal axis.
        up: Title of the vertical one.
        x_ticks: Places of the horizontal axis, 0 to 1, and what stands there.
        y_ticks: Likewise.
        marks: From left to right; those that are no guess are joined by a line.
        diagonal: Whether points should lie on the diagonal.
        table: The same as rows of text, the heading first.
    """

    title: str
    note: str
    across: str
    up: str
    x_ticks: Sequence[Tick]
    y_ticks: Sequence[Tick]
    marks: Sequence[Mark]
    table: Sequence[Sequence[str]]
    diagonal: bool = False

    @property
    def measured(self) -> list[Mark]:
        """The marks that are joined."""
        return [mark for mark in self.marks if mark.kind != "guess"]


def interval(figure: Figure | None) -> str:
    """A figure in percent with its interval."""
    if figure is None:
        return "–"
    return f"{figure.value:.1f} % ({figure.low:.1f} to {figure.high:.1f})"


def reliability(found: Calibration) -> Chart:
    """How often answers are right against how sure they were."""
    percents = [(value / 100, f"{value} %") for value in range(0, 101, 20)]
    return Chart(
        title="Confidence",
        note=f"Points below the line are answers that are surer than they are right. On average "
        f"the distance is {found.error:.1f} percentage points (expected calibration error).",
        across="probability that was given",
        up="right",
        x_ticks=percents,
        y_ticks=percents,
        marks=[
            _mark(one.probability / 100, one.right, (0, 100), f"{one.answers:,} answers")
            for one in found.bins
        ],
        diagonal=True,
        table=[
            ("Probability", "Right", "Answers"),
            *((f"{b.probability:.1f} %", interval(b.right), f"{b.answers:,}") for b in found.bins),
        ],
    )


def learning(curve: Sequence[Point], guess: Figure | None) -> Chart:
    """Accuracy against the number of pictures, with what twice as many would give."""
    last = curve[-1].pictures
    marked = [(point.pictures, point.accuracy, "point") for point in curve]
    told = "What more pictures would give can't be told from these points."
    if guess:
        marked.append((2 * last, guess, "guess"))
        told = (
            f"Twice the pictures would give about {guess.value:.0f} % ({guess.low:.0f} to "
            f"{guess.high:.0f}), if errors go on falling as a power of their number."
        )
    # Equal steps for equal factors.
    across = math.log(marked[0][0]), math.log(marked[-1][0] * 1.001)
    up = _range(bound for _, figure, _ in marked for bound in (figure.low, figure.high))
    return Chart(
        title="Pictures",
        note=f"Accuracy on the same held-out pictures when fewer are fitted on. {told}",
        across="pictures fitted on",
        up="right",
        x_ticks=[(_part(math.log(n), across), f"{n:,}") for n, _, _ in marked],
        y_ticks=[(_part(value, up), f"{value:g} %") for value in _ticks(up)],
        marks=[
            _mark(_part(math.log(n), across), figure, up, f"{n:,} pictures", kind)
            for n, figure, kind in marked
        ],
        table=[
            ("Pictures", "Right"),
            *((f"{n:,}" + " (guess)" * (kind == "guess"), interval(f)) for n, f, kind in marked),
        ],
    )


def penalties(tried: Sequence[Penalty], strength: float) -> Chart:
    """Loss in cross-validation against the strength of the penalty."""
    tried = sorted(tried, key=lambda one: one.strength)
    across = math.log(tried[0].strength), math.log(tried[-1].strength * 1.001)
    up = _range(one.loss for one in tried)
    powers = range(math.ceil(across[0] / math.log(10) - 1e-9), int(across[1] / math.log(10)) + 1)
    shown = [*powers][:: math.ceil(len(powers) / _MOST_TICKS) or 1]
    return Chart(
        title="Penalty",
        note=f"Mean loss over the folds of cross-validation; C = {strength:.3g} was taken.",
        across="C, the inverse of the penalty",
        up="loss, nats",
        x_ticks=[(_part(power * math.log(10), across), f"{10.0**power:g}") for power in shown],
        y_ticks=[(_part(value, up), f"{value:g}") for value in _ticks(up)],
        marks=[
            Mark(
                _part(math.log(one.strength), across),
                y := _part(one.loss, up),
                y,
                y,
                f"C = {one.strength:.3g}: {one.loss:.4f} nats",
                "chosen" if one.strength == strength else "point",
            )
            for one in tried
        ],
        table=[
            ("C", "Loss, nats", "Right"),
            *((f"{p.strength:.3g}", f"{p.loss:.4f}", f"{p.accuracy:.1f} %") for p in tried),
        ],
    )


def _mark(x: float, figure: Figure, up: Range, of: str, kind: str = "point") -> Mark:
    y, low, high = (_part(value, up) for value in (figure.value, figure.low, figure.high))
    return Mark(x, y, low, high, f"{of}: {interval(figure)} right", kind)


def _part(value: float, ends: Range) -> float:
    return (value - ends[0]) / (ends[1] - ends[0])


def _step(ends: Range) -> float:
    """A round distance of ticks: 1, 2 or 5 times a power of ten."""
    rough = (ends[1] - ends[0]) / _MOST_TICKS
    power = 10.0 ** math.floor(math.log10(rough))
    return power * next(factor for factor in (1, 2, 5, 10) if factor * power >= rough * 0.999)


def _range(values: Iterable[float]) -> Range:
    """Round ends around values."""
    values = list(values)
    low, high = min(values), max(values)
    if high - low < 1e-6:
        low, high = low - 0.5, high + 0.5
    step = _step((low, high))
    return math.floor(low / step) * step, math.ceil(high / step) * step


def _ticks(ends: Range) -> list[float]:
    step = _step(ends)
    first, last = math.ceil(ends[0] / step - 1e-6), math.floor(ends[1] / step + 1e-6)
    return [round(n * step, 10) for n in range(first, last + 1)]
