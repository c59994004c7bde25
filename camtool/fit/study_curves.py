"""How the heads learned, as a picture. Importing this needs matplotlib."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure as Sheet
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import MaxNLocator

_COLUMNS = 3
_INK, _GREY, _GRID = "#1c1c1e", "#5f5f66", "#e4e4e8"
# Okabe and Ito 2008, as in the curves of an evaluation; the dashes tell them apart without colour.
_STYLES: dict[str, dict[str, Any]] = {
    "train_accuracy": {"color": "#d55e00", "linestyle": (0, (4, 2)), "label": "training"},
    "accuracy": {"color": "#0072b2", "linestyle": "-", "label": "validation"},
}


def draw(document: Mapping[str, Any]) -> Sheet:
    """Accuracy by epoch, means over seeds: a panel for each head, on one scale.

    Args:
        document: What `Study.to_json` gives.
    """
    heads = document["heads"]
    rows = math.ceil(len(heads) / _COLUMNS)
    layout = ConstrainedLayoutEngine(w_pad=0.08, h_pad=0.08)
    sheet = Sheet(figsize=(9.0, 2.3 * rows + 0.5), dpi=100, facecolor="white", layout=layout)
    FigureCanvasAgg(sheet)
    low = min(min(head["curves"][key]) for head in heads for key in _STYLES)
    for number, head in enumerate(heads, 1):
        axes = sheet.add_subplot(rows, _COLUMNS, number)
        axes.set_title(head["title"], loc="left", fontsize=10, color=_INK)
        axes.set_ylim(max(0.0, 100 * low - 3), 100)
        axes.grid(axis="y", color=_GRID, linewidth=0.8)
        axes.tick_params(colors=_GREY, labelsize=8, length=3)
        for side, spine in axes.spines.items():
            spine.set_visible(side == "bottom")
            spine.set_color(_GREY)
        for key, style in _STYLES.items():
            values = [100 * value for value in head["curves"][key]]
            axes.plot(range(1, len(values) + 1), values, linewidth=1.6, **style)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    lines = sheet.axes[0].lines
    sheet.legend(handles=lines, loc="outside upper right", ncols=2, frameon=False, fontsize=9)
    note = "accuracy in % by epoch, mean over seeds; training: of the batches while it learned"
    sheet.supxlabel(note, x=0.01, ha="left", fontsize=8, color=_GREY)
    return sheet
