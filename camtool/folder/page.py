"""The report of a run, made of its journal."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from camtool.folder.discovery import Picture
from camtool.folder.entry import box_of
from camtool.folder.names import thumbnail_of
from camtool.folder.results import Entries, explained, failures

if TYPE_CHECKING:
    from camtool.report import ReportRow


def write_page(
    output: Path, pictures: Sequence[Picture], entries: Entries, meta: Mapping[str, str]
) -> None:
    """Write the report.

    Args:
        output: Folder of the results.
        pictures: Of the run, in its order.
        entries: Of the journal.
        meta: What to say of the run.

    Raises:
        OSError: It can't be written.
    """
    from camtool.report import write_report

    write_report(output, _rows(output, pictures, entries), meta, failures(entries))


def _rows(output: Path, pictures: Sequence[Picture], entries: Entries) -> Iterator[ReportRow]:
    from camtool.report import ReportRow

    for number, entry in explained(entries):
        picture = pictures[number]
        overlays = [name for name in entry.files if name.startswith(f"{entry.name}.overlay-")]
        for k, (row, heat) in enumerate(zip(entry.rows, entry.heatmaps(), strict=True)):
            yield ReportRow(
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
                picture=os.path.relpath(picture.source, output),
                overlay=overlays[0] if overlays else "",
                target=picture.target or "",
            )


def _or_nan(value: float | None) -> float:
    return float("nan") if value is None else value
