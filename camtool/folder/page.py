"""The report of a run, made of its journal."""

from __future__ import annotations

import math
import os
import posixpath
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from camtool.folder.discovery import Picture
from camtool.folder.entry import Explained, box_of
from camtool.folder.names import thumbnail_of
from camtool.folder.results import Entries, explained, failures
from camtool.folder.shards import Origin
from camtool.remote import WEB, Remote

if TYPE_CHECKING:
    from camtool.report import ReportRow


def write_page(
    output: Path,
    pictures: Sequence[Picture],
    entries: Entries,
    labels: Sequence[str],
    meta: Mapping[str, str],
    place: Path | Remote | None = None,
) -> None:
    """Write the report.

    Args:
        output: Folder of the results.
        pictures: Of the run, in its order.
        entries: Of the journal.
        labels: Of all classes.
        meta: What to say of the run.
        place: Where it will lie, if that is not `output`.

    Raises:
        OSError: It can't be written.
    """
    from camtool.report import write_report

    rows = _rows(place or output, pictures, entries, labels)
    write_report(output, rows, meta, failures(entries))


def _rows(
    place: Path | Remote, pictures: Sequence[Picture], entries: Entries, labels: Sequence[str]
) -> Iterator[ReportRow]:
    from camtool.report import ReportRow

    def named(index: int | None) -> tuple[int, str] | None:
        return None if index is None else (index, labels[index])

    for number, entry in explained(entries):
        picture = pictures[number]
        overlays = [name for name in entry.files if name.startswith(f"{entry.name}.overlay-")]
        shown = []
        for k, (row, heat) in enumerate(zip(entry.rows, entry.heatmaps(), strict=True)):
            one = ReportRow(
                path=picture.key,
                label=row["label"],
                index=row["index"],
                probability=_or_nan(row["probability"]),
                logit=row["logit"],
                peak=row["peak"],
                share=_or_nan(row["share"]),
                entropy=row["entropy"],
                residual=row["residual"],
                box=box_of(row),
                width=row["width"],
                height=row["height"],
                rank=k,
                thumb=thumbnail_of(entry.name),
                map=heat,
                region=(entry.region[0], entry.region[1], entry.region[2], entry.region[3]),
                picture=_link(picture.source, place),
                overlay=overlays[0] if overlays else "",
                target=picture.listed or "",
                truth=named(entry.truth),
                predicted=named(entry.predicted),
            )
            shown.append(one)
            yield one
        yield from _contrast(entry, shown)


def _link(origin: Origin, place: Path | Remote) -> str:
    """Where a page finds a picture; "" where a browser can't."""
    if isinstance(origin, Path) and isinstance(place, Path):
        return os.path.relpath(origin, place)
    if not isinstance(origin, Remote):
        return ""
    if origin.scheme in WEB:
        return origin.name
    near = isinstance(place, Remote) and origin.bucket == place.bucket
    return posixpath.relpath(origin.address, place.name) if near else ""


def _contrast(entry: Explained, rows: Sequence[ReportRow]) -> Iterator[ReportRow]:
    """Prediction rather than truth, where both were explained and differ."""
    by_class = {row.index: row for row in rows}
    one = by_class.get(entry.predicted)
    other = None if entry.truth is None else by_class.get(entry.truth)
    if one is None or other is None or one is other:
        return
    heat = one.map - other.map
    yield replace(
        one,
        versus=other.truth,
        map=heat,
        logit=one.logit - other.logit,
        peak=float(heat.max()),
        probability=math.nan,
        share=math.nan,
        entropy=math.nan,
        box=None,
        rank=len(rows),
    )


def _or_nan(value: float | None) -> float:
    return math.nan if value is None else value
