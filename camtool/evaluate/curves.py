"""Threshold curves as a picture: what a metric would be at every threshold."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from PIL import Image, ImageDraw

from camtool.views import text

# Okabe and Ito, "Color Universal Design" (2008): told apart with every colour-vision deficiency.
COLOURS: tuple[text.Colour, ...] = (
    (0, 114, 178),
    (213, 94, 0),
    (0, 158, 115),
    (204, 121, 167),
    (230, 159, 0),
    (86, 180, 233),
)
# Lengths of dash and gap in pixels, so that the curves differ without colour too.
_DASHES: tuple[tuple[float, ...], ...] = ((), (9, 5), (2, 4), (12, 4, 2, 4), (5, 3), (1, 3))

_HEAD, _TITLE, _BODY, _SMALL = 26, 19, 15, 14
_MARGIN, _GAP = 32, 36
_PLOT_WIDTH, _PLOT_HEIGHT = 440, 300
# Room for the numbers beside the plot, and for a curve's end on its right.
_LEFT, _RIGHT = 46, 12
_WIDTH = _LEFT + _PLOT_WIDTH + _RIGHT
_TOP, _BELOW = 62, 56
_LEGEND_LINE = 24
_SWATCH = 30
_MOST_COLUMNS = 3
# Lines are drawn so many times larger and then shrunk: Pillow does not smooth them.
_FINE = 4
_LINE_WIDTH = 2.5
_GRID: text.Colour = (228, 228, 232)
_AXIS: text.Colour = (150, 150, 156)

Point = tuple[float, float]


@dataclass(frozen=True)
class Series:
    """One curve.

    Attributes:
        name: What it is of.
        x: Thresholds, ascending.
        y: Percent at each of them; where it is not finite, the curve has a gap.
        best: The point to mark, as (x, y).

    Raises:
        ValueError: `x` and `y` differ in length.
    """

    name: str
    x: Sequence[float]
    y: Sequence[float]
    best: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        if len(self.x) != len(self.y):
            raise ValueError(f"{self.name}: {len(self.x)} thresholds, {len(self.y)} values")


@dataclass(frozen=True)
class Chart:
    """One diagram; its vertical axis runs from 0 to 100 %.

    Attributes:
        title: Name of the metric.
        x_label: What the horizontal axis means.
        y_label: What the vertical axis means.
        series: Curves; the first is drawn on top.
    """

    title: str
    x_label: str
    y_label: str
    series: tuple[Series, ...]


def curves(charts: Sequence[Chart], *, title: str, footer: str = "") -> Image.Image:
    """Lay out diagrams side by side on a white sheet, at most three in a row.

    Args:
        charts: At least one.
        title: Headline.
        footer: Small print, broken into lines as needed.

    Returns:
        RGB image.

    Raises:
        ValueError: There is no chart.
    """
    if not charts:
        raise ValueError("a sheet of curves needs a chart")
    rows = math.ceil(len(charts) / _MOST_COLUMNS)
    columns = math.ceil(len(charts) / rows)
    cells = [_chart(chart, max(len(c.series) for c in charts)) for chart in charts]
    height = cells[0].height
    content = columns * (_WIDTH + _GAP) - _GAP
    notes = text.wrap(footer, _SMALL, content)
    top = _MARGIN + 56
    bottom = top + rows * (height + _GAP)
    sheet = Image.new("RGB", (content + 2 * _MARGIN, bottom + 20 * len(notes)), text.WHITE)
    heading = text.elide(title, _HEAD, content, middle=True)
    sheet.paste(text.line([(heading, text.INK)], _HEAD, content), (_MARGIN, _MARGIN))
    for number, cell in enumerate(cells):
        row, column = divmod(number, columns)
        sheet.paste(cell, (_MARGIN + column * (_WIDTH + _GAP), top + row * (height + _GAP)))
    for number, note in enumerate(notes):
        small = text.line([(note, text.GREY)], _SMALL, content)
        sheet.paste(small, (_MARGIN, bottom - _GAP // 2 + 20 * number))
    return sheet


def ticks(low: float, high: float) -> list[float]:
    """Round numbers between two ends: multiples of 1, 2 or 5 times a power of ten.

    Args:
        low: The lower end.
        high: The upper end, above `low`.

    Returns:
        Four to eleven numbers, ascending, none outside the ends.
    """
    # The largest round step of which four fit between the ends: then at most eleven numbers do.
    widest = (high - low) / 4
    power = 10.0 ** math.floor(math.log10(widest))
    step = max(m * power for m in (1, 2, 5) if m == 1 or m * power <= widest)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [n * step for n in range(first, last + 1)]


class _Axes:
    """Where values lie in a diagram, in pixels from its upper left corner."""

    def __init__(self, series: Sequence[Series]) -> None:
        values = [x for one in series for x in one.x if math.isfinite(x)] or [0.0]
        self.low, self.high = min(values), max(values)
        if self.low == self.high:
            self.low, self.high = self.low - 0.5, self.high + 0.5

    def point(self, x: float, y: float) -> Point:
        across = (min(max(x, self.low), self.high) - self.low) / (self.high - self.low)
        up = min(max(y, 0.0), 100.0) / 100.0
        return _LEFT + across * _PLOT_WIDTH, _TOP + (1 - up) * _PLOT_HEIGHT


def _chart(chart: Chart, entries: int) -> Image.Image:
    """Draw one diagram with room for a legend of so many entries."""
    axes = _Axes(chart.series)
    height = _TOP + _PLOT_HEIGHT + _BELOW + _LEGEND_LINE * entries
    fine = Image.new("RGB", (_WIDTH * _FINE, height * _FINE), text.WHITE)
    draw = ImageDraw.Draw(fine)
    _grid(draw, axes)
    styled = list(zip(chart.series, _styles(len(chart.series)), strict=True))
    for series, style in reversed(styled):
        _curve(draw, axes, series, *style)
    for series, (colour, _) in reversed(styled):
        _mark(draw, axes, series, colour)
    legend = _TOP + _PLOT_HEIGHT + _BELOW
    for number, (_, (colour, dashes)) in enumerate(styled):
        middle = legend + _LEGEND_LINE * (number + 0.5)
        _stroke(draw, [(_LEFT, middle), (_LEFT + _SWATCH, middle)], colour, dashes)
    image = fine.resize((_WIDTH, height), Image.Resampling.BOX)
    _letter(image, axes, chart)
    return image


def _styles(count: int) -> list[tuple[text.Colour, tuple[float, ...]]]:
    return [(COLOURS[n % len(COLOURS)], _DASHES[n % len(_DASHES)]) for n in range(count)]


def _grid(draw: ImageDraw.ImageDraw, axes: _Axes) -> None:
    for percent in range(0, 101, 20):
        ends = [axes.point(x, percent) for x in (axes.low, axes.high)]
        _stroke(draw, ends, _AXIS if percent == 0 else _GRID, (), 1)
    for x in ticks(axes.low, axes.high):
        left, bottom = axes.point(x, 0)
        _stroke(draw, [(left, bottom), (left, bottom + 5)], _AXIS, (), 1)


def _curve(
    draw: ImageDraw.ImageDraw,
    axes: _Axes,
    series: Series,
    colour: text.Colour,
    dashes: tuple[float, ...],
) -> None:
    for run in _runs(series):
        points = [axes.point(x, y) for x, y in run]
        if len(points) == 1:
            _disc(draw, points[0], 4, colour)
        _stroke(draw, points, colour, dashes)


def _runs(series: Series) -> list[list[Point]]:
    """Cut a curve where it has no value."""
    runs: list[list[Point]] = [[]]
    for x, y in zip(series.x, series.y, strict=True):
        if math.isfinite(x) and math.isfinite(y):
            runs[-1].append((x, y))
        elif runs[-1]:
            runs.append([])
    return [run for run in runs if run]


def _mark(draw: ImageDraw.ImageDraw, axes: _Axes, series: Series, colour: text.Colour) -> None:
    """Mark the best point and drop a line from it to the axis."""
    if series.best is None:
        return
    spot = axes.point(*series.best)
    foot = axes.point(series.best[0], 0)
    _stroke(draw, [spot, foot], colour, (2, 3), 1)
    _disc(draw, spot, 7, text.WHITE)
    _disc(draw, spot, 5, colour)


def _stroke(
    draw: ImageDraw.ImageDraw,
    points: Sequence[Point],
    colour: text.Colour,
    dashes: tuple[float, ...],
    width: float = _LINE_WIDTH,
) -> None:
    wide = max(1, round(width * _FINE))
    for piece in _dashed(points, dashes):
        fine = [(x * _FINE, y * _FINE) for x, y in piece]
        draw.line(fine, fill=colour, width=wide, joint="curve")


def _dashed(points: Sequence[Point], dashes: tuple[float, ...]) -> list[list[Point]]:
    """Cut a line into dashes along its length; without a pattern it stays whole."""
    if not dashes:
        return [list(points)]
    pieces: list[list[Point]] = [[points[0]]]
    place, left = 0, dashes[0]
    for start, end in pairwise(points):
        length, done = math.dist(start, end), 0.0
        while length - done > left:
            done += left
            between = _between(start, end, done / length)
            if place % 2 == 0:
                pieces[-1].append(between)
            else:
                pieces.append([between])
            place = (place + 1) % len(dashes)
            left = dashes[place]
        left -= length - done
        if place % 2 == 0:
            pieces[-1].append(end)
    return [piece for piece in pieces if len(piece) > 1]


def _between(start: Point, end: Point, share: float) -> Point:
    return start[0] + share * (end[0] - start[0]), start[1] + share * (end[1] - start[1])


def _disc(draw: ImageDraw.ImageDraw, centre: Point, radius: float, colour: text.Colour) -> None:
    x, y = (value * _FINE for value in centre)
    reach = radius * _FINE
    draw.ellipse((x - reach, y - reach, x + reach, y + reach), fill=colour)


def _letter(image: Image.Image, axes: _Axes, chart: Chart) -> None:
    """Write the title, the numbers, the axes' names and the legend."""
    draw = ImageDraw.Draw(image)
    title = text.line([(chart.title, text.INK)], _TITLE, _WIDTH)
    image.paste(title, (0, 0))
    image.paste(text.line([(chart.y_label, text.GREY)], _SMALL, _WIDTH), (0, 28))
    for percent in range(0, 101, 20):
        left = (_LEFT - 8, axes.point(axes.low, percent)[1])
        draw.text(left, str(percent), fill=text.GREY, font=text.font(_SMALL), anchor="rm")
    bottom = _TOP + _PLOT_HEIGHT
    for x in ticks(axes.low, axes.high):
        under = (axes.point(x, 0)[0], bottom + 8)
        draw.text(under, f"{x:g}", fill=text.GREY, font=text.font(_SMALL), anchor="mt")
    label = text.elide(chart.x_label, _SMALL, _PLOT_WIDTH)
    middle = (_LEFT + _PLOT_WIDTH / 2, bottom + 28)
    draw.text(middle, label, fill=text.GREY, font=text.font(_SMALL), anchor="mt")
    for number, series in enumerate(chart.series):
        spans = [(series.name, text.INK), (_said(series), text.GREY)]
        line = text.line(spans, _BODY, _WIDTH - _LEFT - _SWATCH - 10)
        image.paste(line, (_LEFT + _SWATCH + 10, bottom + _BELOW + _LEGEND_LINE * number))


def _said(series: Series) -> str:
    if series.best is None:
        return ""
    return f"best {series.best[1]:.1f} % at {series.best[0]:.3g}"
