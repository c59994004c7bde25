"""The explorer: one HTML file in which a picture's maps can be asked."""

from __future__ import annotations

import html
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from camtool.images.write import small_jpeg
from camtool.views.colormaps import POSITIVE_DEFAULT, SIGNED_DEFAULT, table
from camtool.views.html import json_text, page_of
from camtool.views.panel import COMPLETE
from camtool.views.text import display_text

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from camtool.explanation import Explanation

MOST_CLASSES = 1000
AFFORDABLE = 50
"""Classes to hold where the map of each takes a pass back through what follows the cut."""
MAP_BYTES = 420_000
PICTURE_BYTES = 220_000
PICTURE_SIDE = 1200
"""Pixels of the longer side; with them a file stays below 1 MB, its bytes being written as text."""

_NOTEBOOK_BYTES = 1_500_000


class Levels(NamedTuple):
    """Maps as whole numbers: a level times its map's step is its evidence, within half a step.

    Attributes:
        fine: int16 [F,h,w], the first of the maps.
        coarse: int8 [N-F,h,w], those that follow.
        steps: float32 [N], logits to one level.
    """

    fine: NDArray[np.int16]
    coarse: NDArray[np.int8]
    steps: NDArray[np.float32]


def explorer_of(explanation: Explanation, first: int = 1) -> str:
    """The explorer of everything that an explanation holds.

    It opens with the first map. Besides the `first` the best by logit are kept, `MOST_CLASSES` in
    all, or as many as `MAP_BYTES` hold. Logits, biases and residuals are exact; a map's values are
    within half of its step, 1/65534 of its largest magnitude, or 1/254 for those that fit in bytes
    only.

    Args:
        explanation: The result.
        first: How many of its maps, from the first on, are kept whatever their logits.

    Returns:
        HTML, to be written as UTF-8.
    """
    kept = _kept(explanation, first)
    levels = quantised(explanation.maps[kept], MAP_BYTES)
    rows, columns = explanation.maps.shape[1:]
    width, height = explanation.geometry.size
    picture, _ = small_jpeg(explanation.image, PICTURE_SIDE, PICTURE_BYTES)
    record = {
        "name": display_text(Path(explanation.name).name),
        "model": display_text(explanation.model),
        "method": explanation.method,
        "adds": explanation.method in COMPLETE or explanation.exact,
        "linear": explanation.method == "cam",
        "width": width,
        "height": height,
        "extent": explanation.geometry.extent,
        "rows": rows,
        "columns": columns,
        "classes": len(explanation.all_logits),
        "titles": [display_text(explanation.titles[k]) for k in kept],
        "contrasts": [bool(explanation.versus[k]) for k in kept],
        "indices": explanation.indices[kept].tolist(),
        "ranks": [explanation.rank(k) for k in kept],
        "logits": explanation.logits[kept],
        "bias": explanation.bias[kept],
        "residual": explanation.residual[kept],
        "probabilities": [
            None if explanation.versus[k] else explanation.probability(k) for k in kept
        ],
        **levels._asdict(),
        "colors": [table(name) for name in (POSITIVE_DEFAULT, SIGNED_DEFAULT)],
        "picture": np.frombuffer(picture, np.uint8),
    }
    shared = files("camtool.views")
    web = shared / "web"
    return page_of(
        web / "explorer.html",
        [web / "base.css", web / "explorer.css"],
        [web / name for name in SCRIPTS],
        json_text(record),
    )


SCRIPTS = (
    "maps.js",
    "page.js",
    "evidence.js",
    "regions.js",
    "stage.js",
    "labels.js",
    "explorer.js",
)


def notebook_frame(explanation: Explanation) -> str | None:
    """The explorer in a frame of its own, for a notebook; None where it would be large."""
    page = explorer_of(explanation)
    if len(page) > _NOTEBOOK_BYTES:
        return None
    return (
        f'<iframe srcdoc="{html.escape(page)}" sandbox="allow-scripts" title="camtool explorer" '
        'width="100%" height="680" style="border:0"></iframe>'
    )


def _kept(explanation: Explanation, first: int) -> list[int]:
    """The maps that the page holds: the first ones, then by logit, none of them twice."""
    most = max(1, min(MOST_CLASSES, MAP_BYTES // explanation.maps[0].size))
    by_logit = np.argsort(-explanation.logits, kind="stable").tolist()
    named: dict[tuple[int, str], int] = {}
    for k in [*range(min(first, len(by_logit))), *by_logit]:
        named.setdefault((int(explanation.indices[k]), explanation.versus[k]), k)
    return list(named.values())[:most]


def quantised(maps: NDArray[np.float32], budget: int) -> Levels:
    """Maps as whole numbers, as many as fit into a number of bytes of 16 bits, the others of 8.

    Args:
        maps: float32 [N,h,w], the most important first.
        budget: Bytes.
    """
    cells = maps[0].size
    fine = min(len(maps), max(0, budget // cells - len(maps)))
    largest = np.abs(maps).max((1, 2))
    most = np.where(np.arange(len(maps)) < fine, 32767, 127)
    steps = (largest / most).astype(np.float32)
    # In float64: the rounding of a quotient near 32,767 would be a part of a level.
    levels = np.rint(maps / np.where(steps > 0, steps, 1).astype(np.float64)[:, None, None])
    levels = np.clip(levels, -most[:, None, None], most[:, None, None])
    return Levels(levels[:fine].astype("<i2"), levels[fine:].astype(np.int8), steps)
