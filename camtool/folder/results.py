"""The results of a run as files that other programs read; all of them views of the journal."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import IO, TypeAlias

from camtool.files import replacing
from camtool.folder.entry import COLUMNS, Entry, Explained, Row, Unexplained, box_of

FORMATS = ("parquet", "csv", "jsonl")
ROWS_AT_ONCE = 4096

Entries: TypeAlias = "Callable[[], Iterator[tuple[int, Entry]]]"


def parquet_available() -> bool:
    """Whether pyarrow, an optional part, is installed."""
    from importlib.util import find_spec

    return find_spec("pyarrow") is not None


def explained(entries: Entries) -> Iterator[tuple[int, Explained]]:
    """The pictures that have results, by number."""
    return ((number, entry) for number, entry in entries() if isinstance(entry, Explained))


def write_results(path: Path, entries: Entries) -> None:
    """Write a row for each class explained as Parquet, CSV or JSON lines, by the ending of `path`.

    Names that are no Unicode (a file name may hold any bytes) have those bytes escaped.
    """
    rows = (_clean(row) for _, entry in explained(entries) for row in entry.rows)
    if path.suffix == ".parquet":
        _write_parquet(path, rows)
    elif path.suffix == ".csv":
        with replacing(path) as stream:
            writer = csv.writer(_UnixLines(stream))
            writer.writerow(COLUMNS)
            writer.writerows(row.values() for row in rows)
    else:
        with replacing(path) as stream:
            stream.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


class _UnixLines:
    r"""Ends lines with "\n", of a writer that ends them with "\r\n" so that it quotes a "\r"."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream

    def write(self, line: str) -> int:
        return self._stream.write(line.removesuffix("\r\n") + "\n")


def _clean(row: Row) -> dict[str, object]:
    """A row with what is no Unicode escaped."""
    return {name: _text(value) if type(value) is str else value for name, value in row.items()}


def _text(name: str) -> str:
    """A name with the bytes that are no Unicode escaped."""
    return name.encode("utf-8", "backslashreplace").decode()


def _write_parquet(path: Path, rows: Iterator[dict[str, object]]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    kinds = {str: pa.string(), int: pa.int64(), float: pa.float64()}
    schema = pa.schema([(name, kinds[kind]) for name, kind in COLUMNS.items()])
    with replacing(path, "wb") as stream, pq.ParquetWriter(stream, schema) as writer:
        while some := list(islice(rows, ROWS_AT_ONCE)):
            writer.write_table(pa.Table.from_pylist(some, schema=schema))


def failures(entries: Entries) -> Iterator[tuple[str, str]]:
    """Key and reason of every picture that could not be explained."""
    for _, entry in entries():
        if isinstance(entry, Unexplained):
            yield entry.key, entry.failed


def write_failed(path: Path, entries: Entries) -> int:
    """Write path and reason of every picture that failed; return their number."""
    count = 0
    with replacing(path) as stream:
        writer = csv.writer(_UnixLines(stream))
        writer.writerow(("path", "reason"))
        for name, reason in failures(entries):
            writer.writerow((_text(name), reason))
            count += 1
    return count


def write_timings(path: Path, entries: Entries) -> None:
    """Write the milliseconds of work that each picture took; they differ from run to run."""
    with replacing(path) as stream:
        writer = csv.writer(_UnixLines(stream))
        writer.writerow(("path", "milliseconds"))
        for _, entry in explained(entries):
            writer.writerow((_text(entry.key), entry.milliseconds))


def write_coco(path: Path, entries: Entries, labels: Sequence[str]) -> None:
    """Write the boxes as a COCO detection file: images, annotations, categories.

    Boxes are [x, y, width, height] in pixels, category ids the class indices, scores the
    probabilities (https://cocodataset.org/#format-data).
    """
    with replacing(path) as stream:
        stream.write('{"info":{"description":"camtool"},"images":[')
        _write_list(stream, _coco_images(entries))
        stream.write('],"annotations":[')
        _write_list(stream, _coco_annotations(entries))
        categories = [{"id": index, "name": label} for index, label in enumerate(labels)]
        stream.write(f'],"categories":{json.dumps(categories)}}}\n')


def _write_list(stream: IO[str], records: Iterator[dict[str, object]]) -> None:
    for number, record in enumerate(records):
        stream.write(("," if number else "") + "\n" + json.dumps(record))


def _coco_images(entries: Entries) -> Iterator[dict[str, object]]:
    for number, entry in explained(entries):
        size = {"width": entry.rows[0]["width"], "height": entry.rows[0]["height"]}
        yield {"id": number + 1, "file_name": _text(entry.key), **size}


def _coco_annotations(entries: Entries) -> Iterator[dict[str, object]]:
    boxes = (
        (number, row, box)
        for number, entry in explained(entries)
        for row in entry.rows
        if (box := box_of(row))
    )
    for identity, (number, row, (x0, y0, x1, y1)) in enumerate(boxes, 1):
        yield {
            "id": identity,
            "image_id": number + 1,
            "category_id": row["index"],
            "bbox": [x0, y0, x1 - x0, y1 - y0],
            "area": (x1 - x0) * (y1 - y0),
            "iscrowd": 0,
            "score": row["probability"],
        }
