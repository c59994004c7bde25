"""Maps on matplotlib's axes, for notebooks and papers.

Importing this needs matplotlib (extra `plot`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

try:
    from matplotlib import pyplot
except ImportError:
    raise ImportError("plots need matplotlib: pip install 'camtool[plot]'") from None
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import ListedColormap, Normalize
from matplotlib.figure import Figure

from camtool.views.legend import colours
from camtool.views.overlay import Look, Scale, scale_of_maps
from camtool.views.panel import overlay_of
from camtool.views.text import display_text, number, percent

if TYPE_CHECKING:
    from camtool.explanation import Explanation

_SHADES = 256
_INCHES = 3.4


def plot(explanation: Explanation, k: int = 0, ax: Axes | None = None, **look: Any) -> Axes:
    """Draw a picture with one of its maps, and a colour bar in logits.

    Args:
        explanation: The result.
        k: Which of the explained classes.
        ax: Where to draw; None for axes of a new pyplot figure.
        **look: Fields of `Look`: signed, colormap, opacity, ...

    Returns:
        The axes; their unit is the picture's pixel, as of boxes. The bar is
        `ax.images[0].colorbar`.

    Raises:
        IndexError: `k` is none of the explained classes.
    """
    title = explanation.titles[k]
    if ax is None:
        ax = pyplot.subplots(layout="constrained")[1]
    width, height = explanation.geometry.size
    view = Look(**look)
    painted = ax.imshow(overlay_of(explanation, k, **look), extent=(0, width, height, 0))
    painted.colorbar = ax.figure.colorbar(_shades(explanation, k, view), ax=ax, label="logits")
    # A dollar sign begins no formula.
    ax.set_title(f"{display_text(title)}\n{_numbers(explanation, k)}", parse_math=False)
    ax.set_axis_off()
    return ax


def plot_grid(
    explanations: Sequence[Explanation], k: int = 0, columns: int = 4, **look: Any
) -> Figure:
    """Draw one map of each of several pictures, in rows, as `plot` does.

    Args:
        explanations: The results.
        k: Which of the explained classes of each.
        columns: Most pictures side by side.
        **look: Fields of `Look`. With `normalize="none"` all bars end at `full_scale`.

    Returns:
        A new pyplot figure.

    Raises:
        ValueError: There is nothing to draw.
    """
    if not explanations or columns < 1:
        raise ValueError("plot_grid needs at least one explanation and one column")
    across = min(columns, len(explanations))
    down = math.ceil(len(explanations) / across)
    size = (_INCHES * across, _INCHES * down)
    figure, axes = pyplot.subplots(down, across, squeeze=False, figsize=size, layout="constrained")
    for ax in axes.flat[len(explanations) :]:
        ax.set_axis_off()
    for explanation, ax in zip(explanations, axes.flat, strict=False):
        plot(explanation, k, ax, **look)
    return figure


def _shades(explanation: Explanation, k: int, look: Look) -> ScalarMappable:
    high = float(scale_of_maps(explanation.maps[k][None], explanation.geometry, look)[0])
    scale = Scale(-high if look.signed else 0.0, high)
    shades = ListedColormap(colours(look, scale, _SHADES) / np.float32(255))
    return ScalarMappable(Normalize(scale.low, scale.high), shades)


def _numbers(explanation: Explanation, k: int) -> str:
    logit = f"{number(float(explanation.logits[k]))} logits"
    probability = explanation.probability(k)
    told = probability is not None and not explanation.versus[k]
    return f"{percent(probability or 0.0)}, {logit}" if told else logit
