"""A page of pictures with their true and found boxes: one HTML file that opens from disk.

The page has no script, loads nothing, and shows text from outside only escaped.
"""

from __future__ import annotations

import base64
import hashlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from camtool.files import write_atomically
from camtool.report import display_text
from camtool.views import text

Box: TypeAlias = tuple[float, float, float, float]

LONGEST_SIDE = 320
"""Longest side of a thumbnail, in pixels."""

# A picture at most so long is shown at twice its size or more: its pixels stay squares.
_TINY = 110
_QUALITY = 90


@dataclass(frozen=True, eq=False)
class Case:
    """One picture of the page.

    Attributes:
        path: What the picture is called.
        picture: uint8 [h, w, 3], a thumbnail with its map on it, without boxes.
        label: Name of the true class.
        guess: Name of the class that the network takes it for.
        probability: Of the guess, 0 to 1.
        overlap: Intersection over union of the found and a true box, 0 to 1; None without one.
        true: (x0, y0, x1, y1) in pixels of the thumbnail, end-exclusive.
        found: Likewise.

    Raises:
        ValueError: The picture is none, or larger than a thumbnail.
    """

    path: str
    picture: NDArray[np.uint8]
    label: str
    guess: str
    probability: float
    overlap: float | None
    true: Sequence[Box]
    found: Sequence[Box]

    def __post_init__(self) -> None:
        shape, kind = self.picture.shape, self.picture.dtype
        if len(shape) != 3 or shape[2] != 3 or kind != np.uint8 or not self.picture.size:
            raise ValueError(f"{self.path}: uint8 picture [h, w, 3], not {kind} {list(shape)}")
        if max(shape) > LONGEST_SIDE:
            found = f"{shape[1]} x {shape[0]}"
            raise ValueError(f"{self.path}: a thumbnail of at most {LONGEST_SIDE} px, not {found}")


@dataclass(frozen=True)
class Section:
    """Pictures that belong together.

    Attributes:
        title: Its heading.
        note: One sentence on what was chosen, and how.
        cases: The pictures, in their order.
    """

    title: str
    note: str
    cases: tuple[Case, ...]


def write_cases(
    path: Path,
    sections: Sequence[Section],
    *,
    title: str,
    facts: Mapping[str, str],
    table: Sequence[Sequence[str]] = (),
) -> Path:
    """Write the page, whole or not at all.

    Args:
        path: The HTML file; its folder exists.
        sections: Shown in this order.
        title: Headline.
        facts: What to say about the evaluation, name to value, in this order.
        table: Rows of the metrics, the heading first.

    Returns:
        `path`.

    Raises:
        OSError: It can't be written.
    """
    here = files("camtool.evaluate")
    style = _palette() + (here / "cases.css").read_text("utf-8")
    page = Template((here / "cases.html").read_text("utf-8")).substitute(
        style=style,
        style_hash=_csp_hash(style),
        title=_safe(title),
        links="".join(_link(number, section) for number, section in enumerate(sections)),
        facts="".join(f"<dt>{_safe(k)}</dt><dd>{_safe(v)}</dd>" for k, v in facts.items()),
        table=_table(table),
        sections="\n".join(_section(number, section) for number, section in enumerate(sections)),
    )
    write_atomically(path, page.encode())
    return path


def _palette() -> str:
    """The colours of the report: the first rule of its style sheet."""
    sheet = (files("camtool.report") / "report.css").read_text("utf-8")
    return sheet[: sheet.index("}") + 1] + "\n"


def _csp_hash(style: str) -> str:
    digest = hashlib.sha256(style.encode("utf-8")).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"


def _safe(value: str) -> str:
    return escape(display_text(value))


def _link(number: int, section: Section) -> str:
    count = f'<span class="n">{len(section.cases):,}</span>'
    return f'<a href="#section-{number}">{_safe(section.title)}{count}</a>'


def _table(rows: Sequence[Sequence[str]]) -> str:
    if not rows:
        return ""
    head = "".join(f'<th scope="col">{_safe(cell)}</th>' for cell in rows[0])
    body = "".join(
        f'<tr><th scope="row">{_safe(name)}</th>'
        + "".join(f"<td>{_safe(cell)}</td>" for cell in cells)
        + "</tr>"
        for name, *cells in rows[1:]
    )
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    return f'<div class="wide">{table}</div>'


def _section(number: int, section: Section) -> str:
    cases = "\n".join(map(_case, section.cases))
    shown = f'<div class="grid">\n{cases}\n</div>' if cases else '<p class="none">None.</p>'
    heading = f"<h2>{_safe(section.title)}</h2><p>{_safe(section.note)}</p>"
    return f'<section id="section-{number}">{heading}\n{shown}</section>'


def _case(case: Case) -> str:
    label, path = _safe(case.label), _safe(case.path)
    overlap = "no true box" if case.overlap is None else f"IoU {case.overlap:.2f}"
    return (
        f'<figure class="case"><div class="mat">{_picture(case)}</div><figcaption>'
        f'<div class="line"><span class="name" title="{label}">{label}</span>'
        f'<span class="value">{overlap}</span></div>'
        f"{_bar(case.overlap)}{_guess(case)}"
        f'<p class="path" title="{path}"><bdi>{path}</bdi></p></figcaption></figure>'
    )


def _picture(case: Case) -> str:
    """The thumbnail and its boxes as one drawing, so that they scale together."""
    height, width = case.picture.shape[:2]
    tiny = ' class="tiny"' if max(height, width) <= _TINY else ""
    return (
        f'<svg class="picture" viewBox="0 0 {width} {height}" role="img" '
        f'aria-label="{_safe(case.label)}">'
        f'<image{tiny} width="{width}" height="{height}" href="{_data_url(case.picture)}"/>'
        f"{_boxes('true', case.true)}{_boxes('found', case.found)}</svg>"
    )


def _boxes(kind: str, boxes: Sequence[Box]) -> str:
    """Every box twice: a dark casing under its line, which shows on any picture."""
    return "".join(f'<g class="{kind}">{_rectangle(box) * 2}</g>' for box in boxes)


def _rectangle(box: Box) -> str:
    x0, y0, x1, y1 = box
    sides = f'width="{max(x1 - x0, 0):.5g}" height="{max(y1 - y0, 0):.5g}"'
    return f'<rect x="{x0:.5g}" y="{y0:.5g}" {sides}/>'


def _bar(overlap: float | None) -> str:
    if overlap is None:
        return ""
    bar = f'<rect width="{100 * overlap:.4g}" height="1"/>'
    return (
        f'<svg class="bar" viewBox="0 0 100 1" preserveAspectRatio="none" aria-hidden="true">{bar}'
        "</svg>"
    )


def _guess(case: Case) -> str:
    odds = f'<span class="value">{_safe(text.percent(case.probability))}</span>'
    if case.guess == case.label:
        return f'<div class="line guess"><span class="name">guessed right</span>{odds}</div>'
    guess = _safe(case.guess)
    name = f'<span class="name" title="{guess}">taken for {guess}</span>'
    return f'<div class="line guess wrong">{name}{odds}</div>'


def _data_url(picture: NDArray[np.uint8]) -> str:
    stream = io.BytesIO()
    image = Image.fromarray(picture)
    image.save(stream, "JPEG", quality=_QUALITY, subsampling=0, optimize=True)
    return f"data:image/jpeg;base64,{base64.b64encode(stream.getvalue()).decode()}"
