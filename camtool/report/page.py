"""Writes the report: rows are streamed through a temporary file into one HTML page.

The rows are read once and never held together. The first pass writes each picture's JSON to an
unnamed temporary file and sums up the classes; the second reads it back to find the pictures that
deviate from the mean of their class; the third copies the lines into the page.
"""

from __future__ import annotations

import base64
import hashlib
import json
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib.resources import files
from itertools import groupby
from pathlib import Path
from typing import IO

import numpy as np

from camtool.files import replacing
from camtool.report.aggregate import (
    ClassAggregator,
    ClassSummary,
    Deviators,
    Evidence,
    evidence,
)
from camtool.report.rows import (
    ReportRow,
    display_text,
    encode_class,
    encode_picture,
    json_text,
    number,
    unpack_map,
)
from camtool.views.colormaps import POSITIVE_DEFAULT, SIGNED_DEFAULT, table

SCRIPTS = ("maps.js", "grid.js", "viewer.js", "pictures.js", "classes.js", "main.js")
EVERY_CLASS = -1


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
    with tempfile.TemporaryFile("w+", encoding="ascii", dir=out) as spool:
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
    deviators: Deviators = field(default_factory=Deviators)

    def position(self, row: ReportRow) -> int:
        return self.positions.setdefault((row.index, row.label), len(self.positions))


def _spool(rows: Iterable[ReportRow], spool: IO[str]) -> _Folder:
    folder = _Folder()
    for _, group in groupby(rows, key=lambda row: (row.path, row.thumb)):
        first, *others = group
        encoded = [encode_class(row, folder.position(row)) for row in (first, *others)]
        line = json_text(encode_picture(first, encoded))
        spool.write(line + "\n")
        folder.pictures += 1
        for key, found in _predicted(line):
            folder.classes.update(key, found)
            folder.classes.update(EVERY_CLASS, found)
    return folder


def _predicted(line: str) -> Iterator[tuple[int, Evidence]]:
    """Class and evidence of a spooled picture's predicted class, from the map as it is shown."""
    _, width, height, *_, classes = json.loads(line)
    for position, rank, *_, region, packed in classes:
        if rank == 0:
            yield position, evidence(unpack_map(packed), tuple(region), (width, height))


def _find_deviators(folder: _Folder, spool: IO[str]) -> None:
    spool.seek(0)
    for picture, line in enumerate(spool):
        for key, found in _predicted(line):
            for group in (key, EVERY_CLASS):
                deviation = folder.classes.deviation(group, found)
                if deviation is not None:
                    folder.deviators.add(group, picture, deviation)


def _choose(folder: _Folder, limit: int) -> dict[int, int]:
    """Number in the folder to place on the page, for the pictures that the page lists."""
    stride = max(1, -(-folder.pictures // limit))
    chosen = set(range(0, folder.pictures, stride))
    for key in folder.classes:
        chosen.update(picture for picture, _ in folder.deviators.top(key))
    return {picture: place for place, picture in enumerate(sorted(chosen))}


def _page(
    folder: _Folder,
    spool: IO[str],
    shown: Mapping[int, int],
    meta: Mapping[str, object],
    failed: Iterable[tuple[str, str]],
) -> Iterator[str]:
    before, after = _skeleton().split("@data@")
    summaries = [_encode_summary(folder, key, shown) for key in folder.classes]
    head = {
        "meta": [[name, display_text(str(value))] for name, value in meta.items()],
        "total": folder.pictures,
        "labels": [[index, display_text(label)] for index, label in folder.positions],
        "classes": summaries,
        "colors": [
            base64.b64encode(table(name).tobytes()).decode()
            for name in (POSITIVE_DEFAULT, SIGNED_DEFAULT)
        ],
    }
    yield before + json_text(head)[:-1] + ',"failed":'
    yield from _array(json_text([display_text(part) for part in pair]) for pair in failed)
    yield ',"pictures":'
    spool.seek(0)
    yield from _array(line.rstrip() for picture, line in enumerate(spool) if picture in shown)
    yield "}" + after


def _array(items: Iterable[str]) -> Iterator[str]:
    separator = "["
    for item in items:
        yield separator + item
        separator = ",\n"
    yield "]" if separator != "[" else "[]"


def _encode_summary(folder: _Folder, key: int, shown: Mapping[int, int]) -> list[object]:
    summary: ClassSummary = folder.classes.summary(key)
    agreement = None if summary.agreement is None else number(summary.agreement)
    top = summary.mean.max()
    levels = np.rint(summary.mean * (255.0 / top if top > 0 else 0.0)).astype(np.uint8)
    return [
        key,
        summary.pictures,
        summary.silent,
        number(summary.area),
        agreement,
        number(summary.border),
        number(summary.border_chance),
        base64.b64encode(levels.tobytes()).decode(),
        [[shown[picture], number(value)] for picture, value in folder.deviators.top(key)],
    ]


def _skeleton() -> str:
    """The page around its data. Only the script and style with these hashes may run (CSP)."""
    here = files(__package__)
    style = (here / "report.css").read_text("utf-8")
    script = "\n".join((here / name).read_text("utf-8") for name in SCRIPTS)
    page = (here / "template.html").read_text("utf-8")
    parts = {
        "@style-hash@": _csp_hash(style),
        "@script-hash@": _csp_hash(script),
        "@style@": style,
        "@script@": script,
    }
    for name, text in parts.items():
        page = page.replace(name, text)
    return page


def _csp_hash(text: str) -> str:
    digest = hashlib.sha256(text.encode("utf-8")).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"
