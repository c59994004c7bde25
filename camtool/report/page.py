"""Writes the report: rows are streamed through a temporary file into one HTML page.

The rows are read once and never held together. The first pass puts each picture's record into an
unnamed temporary file and sums up the classes; the second reads it back to find the pictures that
deviate from the mean of their class; the third writes the records into the page.
"""

from __future__ import annotations

import pickle
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from itertools import groupby
from pathlib import Path
from typing import IO

from camtool.files import replacing
from camtool.report.aggregate import ClassAggregator, Evidence, evidence
from camtool.report.rows import ReportRow, to_class_map, to_picture
from camtool.report.schema import (
    RECORDS,
    ClassSummary,
    Confusion,
    Deviator,
    Failure,
    Label,
    Page,
    Picture,
)
from camtool.report.suspicion import Suspicions
from camtool.views.colormaps import POSITIVE_DEFAULT, SIGNED_DEFAULT, table
from camtool.views.html import json_text, page_of
from camtool.views.text import display_text

SHARED = ("maps.js", "page.js")
SCRIPTS = ("grid.js", "viewer.js", "pictures.js", "classes.js", "main.js")
EVERY_CLASS = -1
CONFUSIONS = 200
"""Most pairs of classes to filter by."""


def write_report(
    out: Path,
    rows: Iterable[ReportRow],
    meta: Mapping[str, object],
    failed: Iterable[tuple[str, str]] = (),
    *,
    limit: int = 50_000,
) -> Path:
    """Write ``out/report.html``, whole or not at all.

    Args:
        out: existing folder; thumbnails and other files of the rows are relative to it.
        rows: read once; the rows of one picture follow each other.
        meta: what to say about the run, in this order, name to value. The value of "Source" is
            also in the heading.
        failed: (path, reason) of each picture that could not be explained.
        limit: most pictures that the page lists. Of a larger folder every n-th picture is listed,
            and each that deviates most from its class; the class page always counts all of them.

    Returns:
        The path of the page.

    Raises:
        OSError: ``out`` can't be written to.
        ValueError: a row holds an empty map.
    """
    page = out / "report.html"
    with tempfile.TemporaryFile(dir=out) as spool:
        folder = _spool(rows, spool)
        _find_deviators(folder, spool)
        shown = _choose(folder, limit)
        with replacing(page) as stream:
            stream.writelines(_page(folder, spool, shown, meta, failed))
    return page


@dataclass
class _Folder:
    """What is known of the folder besides the spooled pictures."""

    pictures: int = 0
    positions: dict[tuple[int, str], int] = field(default_factory=dict)
    classes: ClassAggregator = field(default_factory=ClassAggregator)

    suspicions: Suspicions = field(default_factory=Suspicions)
    confusions: Counter[tuple[int, int]] = field(default_factory=Counter)

    def position(self, named: tuple[int, str]) -> int:
        """Place of a class, by number and label, in the list of classes."""
        return self.positions.setdefault(named, len(self.positions))

    def picture(self, rows: Sequence[ReportRow]) -> Picture:
        """The record of one picture."""
        classes = [
            to_class_map(
                row,
                self.position((row.index, row.label)),
                None if row.versus is None else self.position(row.versus),
            )
            for row in rows
        ]
        first = rows[0]
        truth = None if first.truth is None else self.position(first.truth)
        predicted = self.position(first.predicted or (first.index, first.label))
        return to_picture(first, classes, truth, predicted)


def _spool(rows: Iterable[ReportRow], spool: IO[bytes]) -> _Folder:
    folder = _Folder()
    for _, group in groupby(rows, key=lambda row: (row.path, row.thumb)):
        picture = folder.picture(list(group))
        pickle.dump(picture, spool)
        folder.pictures += 1
        for key, found in _predicted(picture):
            folder.classes.update(key, found)
            if key != EVERY_CLASS and found.grid is not None:
                folder.suspicions.update(key, found.grid)
        if picture.truth is not None and picture.truth != picture.predicted:
            folder.confusions[picture.truth, picture.predicted] += 1
    return folder


def _spooled(folder: _Folder, spool: IO[bytes]) -> Iterator[Picture]:
    spool.seek(0)
    return (pickle.load(spool) for _ in range(folder.pictures))


def _predicted(picture: Picture) -> Iterator[tuple[int, Evidence]]:
    """Evidence for the predicted class, for this class and for all, from the map as it is shown."""
    for row in picture.classes:
        if row.rank == 0:
            found = evidence(row.levels, row.region, (picture.width, picture.height))
            yield from ((row.position, found), (EVERY_CLASS, found))


def _find_deviators(folder: _Folder, spool: IO[bytes]) -> None:
    for number, picture in enumerate(_spooled(folder, spool)):
        for key, found in _predicted(picture):
            folder.classes.compare(key, number, found)


def _choose(folder: _Folder, limit: int) -> dict[int, int]:
    """Number in the folder to place on the page, for the pictures that the page lists."""
    stride = max(1, -(-folder.pictures // limit))
    chosen = set(range(0, folder.pictures, stride))
    for key in folder.classes:
        summary = folder.classes.summary(key)
        chosen.update(picture for picture, _ in (*summary.typical, *summary.odd))
    return {picture: place for place, picture in enumerate(sorted(chosen))}


def _page(
    folder: _Folder,
    spool: IO[bytes],
    shown: Mapping[int, int],
    meta: Mapping[str, object],
    failed: Iterable[tuple[str, str]],
) -> Iterator[str]:
    before, after = _skeleton(data="\0").split("\0")
    page = Page(
        meta={name: display_text(str(value)) for name, value in meta.items()},
        total=folder.pictures,
        labels=[Label(number, display_text(label)) for number, label in folder.positions],
        classes=_summaries(folder, shown),
        confusions=[
            Confusion(*pair, number) for pair, number in folder.confusions.most_common(CONFUSIONS)
        ],
        colors=[table(name) for name in (POSITIVE_DEFAULT, SIGNED_DEFAULT)],
        failed=[],
        pictures=[],
    )
    head = json_text(page).removesuffix("[],[]]")
    yield f'{before}{{"records":{json_text(RECORDS)},"page":{head}'
    yield from _array(Failure(*map(display_text, pair)) for pair in failed)
    yield ","
    pictures = enumerate(_spooled(folder, spool))
    yield from _array(picture for number, picture in pictures if number in shown)
    yield "]}" + after


def _array(records: Iterable[object]) -> Iterator[str]:
    separator = "["
    for record in records:
        yield separator + json_text(record)
        separator = ",\n"
    yield "]" if separator != "[" else "[]"


def _summaries(folder: _Folder, shown: Mapping[int, int]) -> list[ClassSummary]:
    flags = folder.suspicions.flags()

    def placed(deviators: Iterable[Deviator]) -> list[Deviator]:
        return [Deviator(shown[picture], deviation) for picture, deviation in deviators]

    def told(key: int) -> ClassSummary:
        summary, (apart, flag) = folder.classes.summary(key), flags.get(key, (None, None))
        return summary._replace(
            typical=placed(summary.typical),
            odd=placed(summary.odd),
            apart=apart,
            flags=[flag] if flag else [],
        )

    return [told(key) for key in folder.classes]


def _skeleton(data: str) -> str:
    here, shared = files(__package__), files("camtool.views")
    return page_of(
        here / "template.html",
        [shared / "web" / "base.css", here / "report.css"],
        [*(shared / "web" / name for name in SHARED), *(here / name for name in SCRIPTS)],
        data,
        "'self' file:",
    )
