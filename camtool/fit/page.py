"""The page of a fit: one HTML file that opens from disk, without a script and without a network.

Texts from outside are shown escaped, long ones cut; lists end where the page would grow beyond
`MOST_BYTES`, and say so.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from camtool.engines.engine import Failed
from camtool.files import write_atomically
from camtool.fit.charts import Chart, interval, learning, penalties, reliability
from camtool.fit.figures import (
    ClassFigures,
    Mistake,
    calibration,
    class_figures,
    confusions,
    counts,
    mistakes,
    with_twice_the_pictures,
)
from camtool.fit.look import ClassLook, explained, warnings
from camtool.images.write import encode, small_jpeg
from camtool.views.colormaps import POSITIVE_DEFAULT, table
from camtool.views.html import data_url, page_of
from camtool.views.overlay import Look, overlays_of
from camtool.views.text import display_text, percent

if TYPE_CHECKING:
    from camtool.engines.engine import Engine
    from camtool.explanation import Explanation
    from camtool.fit.outcome import Outcome
    from camtool.report.schema import Flag
    from camtool.targets import Target

MOST_BYTES = 4_000_000
WORST = 12
"""Mistakes that are shown."""
ROWS = 500
"""Classes of which there are figures: then those of the least recall."""
LOOKS = 120
"""Classes whose mean map is shown: then those that stand apart the most."""
MATRIX = 30
"""Classes up to which every count of confusions is shown."""
LISTED = 100
"""Entries of a list: confusions, duplicates, problems."""
ALIKE = 4
"""Pictures of a group of duplicates."""
STRIPS = 6
"""Flagged classes of which pictures are shown, and pictures of each."""
SIDE = 240
"""Pixels of the longer side of a picture."""
PICTURE_BYTES = 18_000
TEXT = 120
"""Characters of a label or a reason; of a path twice as many."""

_LEVELS = 9


class Shown(NamedTuple):
    """A picture with a map.

    Attributes:
        url: Of the picture, or "".
        width: In pixels.
        height: In pixels.
        text: What it shows.
        value: A probability in words.
    """

    url: str
    width: int
    height: int
    text: str
    value: str = ""


@dataclass(frozen=True)
class Case:
    """A mistake, as the page shows it."""

    path: str
    pictures: Sequence[Shown]


@dataclass(frozen=True)
class Place:
    """Where the network looks for a class, as the page shows it."""

    label: str
    pictures: int
    mean: str
    flag: Flag | None
    typical: Sequence[Shown]


def write_page(path: Path, outcome: Outcome, engine: Engine, looks: Sequence[ClassLook]) -> None:
    """Write the page of a fit, whole or not at all.

    Args:
        path: Where it goes.
        outcome: What came of the fit.
        engine: With the fitted network.
        looks: Where it looks, as from `look_at_classes`.

    Raises:
        OSError: It can't be written.
    """
    wrong = mistakes(outcome.answers, outcome.form, WORST)
    page = page_of(
        files("camtool") / "fit" / "page.html",
        [files("camtool") / name for name in ("evaluate/cases.css", "fit/page.css")],
        title=f"{len(outcome.labels):,} classes on {outcome.base}",
        outcome=outcome,
        facts=_facts(outcome),
        warnings=warnings(looks, outcome.labels),
        rows=_class_rows(outcome),
        left_out=max(0, len(outcome.labels) - ROWS),
        matrix=_matrix(outcome),
        pairs=_pairs(outcome),
        charts=list(_charts(outcome)),
        cases=list(_cases(engine, wrong, outcome.labels)),
        places=_places(engine, looks, outcome.labels),
        unseen=max(0, len(looks) - LOOKS),
        duplicates=[_alike(group) for group in outcome.duplicates[:LISTED]],
        problems=[(short_path(p.path), short(p.reason)) for p in outcome.problems[:LISTED]],
        listed=LISTED,
    )
    write_atomically(path, page.encode())


def short(text: str, most: int = TEXT) -> str:
    """A text, every character showing, cut in the middle where it is long."""
    text = display_text(text)
    half = most // 2
    return text if len(text) <= most else f"{text[: half - 1]}…{text[-half:]}"


def short_path(path: str) -> str:
    """A path, likewise."""
    return short(path, 2 * TEXT)


def _alike(group: Sequence[str]) -> tuple[list[str], int]:
    """Paths of a group of duplicates, and how many more there are."""
    return [short_path(path) for path in group[:ALIKE]], max(0, len(group) - ALIKE)


def _facts(outcome: Outcome) -> dict[str, str]:
    # With several classes a picture, their numbers do not add up to that of the pictures.
    fitted = f"{sum(outcome.fitted):,} fitted on, " if outcome.form == "softmax" else ""
    return {
        "Base": short(outcome.base),
        "Pictures": f"{fitted}{len(outcome.answers):,} held out",
        "Classes": f"{len(outcome.labels):,}, "
        + ("one a picture" if outcome.form == "softmax" else "any number a picture"),
        "Penalty": f"C = {outcome.strength:.3g}, by cross-validation",
    }


def _class_rows(outcome: Outcome) -> list[tuple[str, ClassFigures, str, str]]:
    """Rows of the table of classes, that with the least recall first."""
    rows = sorted(class_figures(outcome), key=lambda row: row.recall.value if row.recall else 101.0)
    return [
        (short(row.label), row, interval(row.precision), interval(row.recall))
        for row in rows[:ROWS]
    ]


def _matrix(outcome: Outcome) -> list[tuple[str, list[tuple[int, int]]]]:
    """A row for each class: its label, and counts with their level of colour, 0 to `_LEVELS`."""
    if outcome.form == "sigmoid" or not 2 <= len(outcome.labels) <= MATRIX or not outcome.answers:
        return []
    found = counts(outcome.answers, len(outcome.labels))
    levels = np.ceil(_LEVELS * found / np.maximum(found.sum(1, keepdims=True), 1)).astype(int)
    return [
        (short(label), list(zip(row.tolist(), level.tolist(), strict=True)))
        for label, row, level in zip(outcome.labels, found, levels, strict=True)
    ]


def _pairs(outcome: Outcome) -> list[tuple[int, str, str]]:
    if outcome.form == "sigmoid":
        return []
    pairs = confusions(outcome.answers)[:LISTED]
    return [
        (pair.pictures, short(outcome.labels[pair.truth]), short(outcome.labels[pair.predicted]))
        for pair in pairs
    ]


def _charts(outcome: Outcome) -> Iterator[Chart]:
    if outcome.answers:
        yield reliability(calibration(outcome.answers, outcome.form))
    if len(outcome.curve) > 1:
        yield learning(outcome.curve, with_twice_the_pictures(outcome.curve))
    if len(outcome.penalties) > 1:
        yield penalties(outcome.penalties, outcome.strength)


def _cases(engine: Engine, wrong: Sequence[Mistake], labels: Sequence[str]) -> Iterator[Case]:
    """The mistakes with the map of the answer, that of the truth, and of one rather than the other.

    Where there is no answer, or no truth, with the one map that there is.
    """
    both = [one for one in wrong if one.said is not None and one.missed is not None]
    single = [one for one in wrong if one.said is None or one.missed is None]
    found: dict[int, Case] = {}
    for some in (both, single):
        for number, result in explained(engine, [(m.answer.path, _targets(m)) for m in some]):
            one = some[number]
            shown = [] if isinstance(result, Failed) else list(_maps(result, one, labels))
            found[id(one)] = Case(short_path(one.answer.path), shown)
    return (found[id(one)] for one in wrong)


def _targets(mistake: Mistake) -> list[Target]:
    said, missed = mistake.said, mistake.missed
    if said is None or missed is None:
        return [k for k in (said, missed) if k is not None]
    return [said, missed, (said, missed)]


def _maps(explanation: Explanation, mistake: Mistake, labels: Sequence[str]) -> Iterator[Shown]:
    told: list[tuple[str, str]] = []
    for verb, k in (("taken for", mistake.said), ("shows", mistake.missed)):
        if k is not None:
            probability = percent(float(mistake.answer.probabilities[k]))
            told.append((f"{verb} {short(labels[k])}", probability))
    for place, (text, value) in enumerate(told):
        yield _shown(explanation, place, Look(), text, value)
    if len(told) == 2:
        yield _shown(explanation, 2, Look(signed=True), "one rather than the other")


def _shown(explanation: Explanation, place: int, look: Look, text: str, value: str = "") -> Shown:
    painted = next(overlays_of(explanation, look, slice(place, place + 1))[0])
    content, size = small_jpeg(painted, SIDE, PICTURE_BYTES)
    return Shown(data_url(content), *size, text, value)


def _places(engine: Engine, looks: Sequence[ClassLook], labels: Sequence[str]) -> list[Place]:
    """Where the network looks for each class, the suspicious ones and those apart first."""
    first = sorted(looks, key=lambda one: (one.flag is None, -(one.summary.apart or -9.0)))[:LOOKS]
    strips = {id(one): list(_strip(engine, one)) for one in first[:STRIPS] if one.flag}
    colours = table(POSITIVE_DEFAULT)
    return [
        Place(
            short(labels[one.summary.position]),
            one.summary.pictures,
            data_url(encode(colours[one.summary.mean], ".png"), "png"),
            one.flag,
            strips.get(id(one), ()),
        )
        for one in first
    ]


def _strip(engine: Engine, one: ClassLook) -> Iterator[Shown]:
    targets = [(path, [one.summary.position]) for path in one.typical[:STRIPS]]
    for _, result in explained(engine, targets):
        if not isinstance(result, Failed):
            yield _shown(result, 0, Look(), short_path(result.name))
