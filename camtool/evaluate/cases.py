"""A page of pictures with their true and found boxes: one HTML file that opens from disk.

The page has no script, loads nothing, and shows text from outside only escaped.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from camtool.images.write import encode
from camtool.views.html import data_url, page_of

Box: TypeAlias = tuple[float, float, float, float]


@dataclass(frozen=True, eq=False)
class Card:
    """One picture of the page.

    Attributes:
        path: What the picture is called.
        picture: uint8 [h, w, 3], a thumbnail with its map on it, without boxes.
        label: Name of the true class.
        guess: Name of the class that the network takes it for.
        probability: Of the guess, 0 to 1.
        iou: Intersection over union of the found and a true box, 0 to 1; None without one.
        true: (x0, y0, x1, y1) in pixels of the thumbnail, end-exclusive.
        found: Likewise.
    """

    path: str
    picture: NDArray[np.uint8]
    label: str
    guess: str
    probability: float
    iou: float | None
    true: Sequence[Box]
    found: Sequence[Box]

    @property
    def data_url(self) -> str:
        """The thumbnail as JPEG."""
        return data_url(encode(self.picture, ".jpg", quality=93))


@dataclass(frozen=True)
class Section:
    """Pictures that belong together.

    Attributes:
        title: Its heading.
        note: One sentence on what was chosen, and how.
        cards: The pictures, in their order.
    """

    title: str
    note: str
    cards: Sequence[Card]


def render(
    *,
    title: str,
    facts: Mapping[str, str],
    sections: Sequence[Section],
    table: Sequence[Sequence[str]] = (),
) -> str:
    """The page as HTML.

    Args:
        title: Headline.
        facts: What to say about the evaluation, name to value, in this order.
        sections: Shown in this order.
        table: Rows of the metrics, the heading first.
    """
    root = files("camtool")
    return page_of(
        root / "evaluate" / "cases.html",
        [root / "evaluate" / "cases.css"],
        title=title,
        facts=facts,
        sections=sections,
        table=table,
    )
