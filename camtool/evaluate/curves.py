"""Threshold curves as a picture: what a metric would be at every threshold.

Importing this needs matplotlib. Figures are made by its objects alone: pyplot's global state and
windows stay untouched.
"""

from __future__ import annotations

import io
import math
import warnings
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure as Sheet
from matplotlib.layout_engine import ConstrainedLayoutEngine

from camtool.evaluate.figures import TITLES, Figure, Metric, PrecisionRecall
from camtool.evaluate.results import EvaluationResult
from camtool.views.text import display_text, elide

# Okabe and Ito, "Color Universal Design" (2008): told apart with every colour-vision deficiency.
# The dashes tell the curves apart without colour, too.
STYLES: dict[str, dict[str, Any]] = {
    "network": {"color": "#0072b2", "linestyle": "-", "zorder": 3},
    "centre_box": {"color": "#d55e00", "linestyle": (0, (4, 2))},
    # The whole image has all pixels or none: a point.
    "whole_image": {"color": "#009e73", "linestyle": "none", "marker": "s", "clip_on": False},
}
_SWEPT = ("max_box_acc", "max_box_acc_v2_30", "max_box_acc_v2_70")
_INK, _GREY, _GRID = "#1c1c1e", "#5f5f66", "#e4e4e8"
_WIDTH, _HEIGHT = 5.0, 4.4
_DPI = 110
_MOST_COLUMNS = 3
_TITLE_PIXELS = 240


def draw_curves(result: EvaluationResult) -> Sheet:
    """The curves that the figures were taken from, side by side on a white sheet.

    The network's run over thresholds relative to the map's maximum; the centre box's over its
    side relative to the picture's. Only for masks, precision over recall is drawn.
    """
    found = result.localization
    shown = {name: metric for name, metric in found.metrics.items() if name in (*_SWEPT, "pxap")}
    rows = max(1, math.ceil(len(shown) / _MOST_COLUMNS))
    columns = max(1, math.ceil(len(shown) / rows))
    size = _WIDTH * columns, _HEIGHT * rows + 0.7
    layout = ConstrainedLayoutEngine(w_pad=0.16, h_pad=0.1)
    sheet = Sheet(figsize=size, dpi=_DPI, facecolor="white", layout=layout)
    FigureCanvasAgg(sheet)
    title = display_text(f"{result.settings.name} on {found.images:,} pictures")
    title = elide(title, 14, _TITLE_PIXELS * columns, middle=True)
    # A dollar sign begins no formula.
    sheet.suptitle(title, x=0.015, ha="left", fontsize=15, color=_INK, parse_math=False)
    settings = f"{found.mode} mode, fit {result.settings.fit}, input size {result.settings.size}"
    note = f"{settings}; dots mark the best points"
    sheet.supxlabel(note, x=0.015, ha="left", fontsize=9, color=_GREY)
    for number, (name, metric) in enumerate(shown.items(), 1):
        axes = sheet.add_subplot(rows, columns, number)
        _prepare(axes, TITLES[name])
        (_precision_recall if name == "pxap" else _threshold_curves)(axes, metric)
        axes.legend(
            loc="upper left", bbox_to_anchor=(-0.02, -0.15), frameon=False, fontsize=9,
            labelcolor=_INK,
        )  # fmt: skip
    return sheet


def encode(sheet: Sheet) -> bytes:
    """A sheet as PNG."""
    stream = io.BytesIO()
    with warnings.catch_warnings():
        # Of characters that the typeface lacks; they are drawn as boxes.
        warnings.filterwarnings("ignore", message="Glyph")
        sheet.savefig(stream, format="png")
    return stream.getvalue()


def _prepare(axes: Axes, title: str) -> None:
    axes.set_title(title, loc="left", fontsize=11, color=_INK)
    axes.set_ylim(0, 100)
    axes.set_axisbelow(True)
    axes.grid(axis="y", color=_GRID, linewidth=0.8)
    axes.tick_params(colors=_GREY, labelsize=9, length=3)
    for side, spine in axes.spines.items():
        spine.set_visible(side == "bottom")
        spine.set_color(_GREY)


def _threshold_curves(axes: Axes, metric: Metric) -> None:
    axes.set_xlim(0, 1)
    axes.set_xlabel("threshold, share of the maximum (centre box: side)", color=_GREY, fontsize=9)
    axes.set_ylabel("% of pictures", color=_GREY, fontsize=9)
    for name, figure in (("network", metric.network), ("centre_box", metric.centre_box)):
        label = f"{_spoken(name)}: best {figure.value:.1f} % at {figure.threshold:.3g}"
        axes.plot(figure.thresholds, figure.curve, label=label, linewidth=1.8, **STYLES[name])
        _mark(axes, figure, STYLES[name]["color"])


def _mark(axes: Axes, figure: Figure, colour: str) -> None:
    """Mark the best point and drop a line from it to the axis."""
    assert figure.threshold is not None
    axes.vlines(figure.threshold, 0, figure.value, color=colour, linewidth=1, linestyle=":")
    axes.plot(
        [figure.threshold], [figure.value], "o", color=colour, markersize=8,
        markeredgecolor="white", zorder=4, clip_on=False,
    )  # fmt: skip


def _precision_recall(axes: Axes, metric: Metric) -> None:
    axes.set_xlim(0, 100)
    axes.set_xlabel("recall, %", color=_GREY, fontsize=9)
    axes.set_ylabel("precision, %", color=_GREY, fontsize=9)
    for name, figure in metric._asdict().items():
        assert isinstance(figure, PrecisionRecall)
        label = f"{_spoken(name)}: area {figure.value:.1f} %"
        recall, precision = 100 * figure.recall, 100 * figure.precision
        axes.plot(recall, precision, label=label, linewidth=1.8, **STYLES[name])


def _spoken(name: str) -> str:
    return name.replace("_", " ")
