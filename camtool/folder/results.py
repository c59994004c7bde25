"""The results of a run as files that other programs read; all of them views of the journal."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import IO, TypeAlias

from camtool.files import replacing
from camtool.folder.entry import COLUMNS, Entry, Explained, Row, Unexplained, box_of

ROWS_AT_ONCE = 4096
_ESCAPES = re.compile(r"(\\+)(?=[\ud800-\udfff]|ud[89a-f][0-9a-f]{2})")
_FORMULA = tuple("=+-@\t\r\n'＝＋－＠")

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

    Names that are no Unicode (a file name may hold any bytes) are written as by `escaped`.
    """
    rows = (row for _, entry in explained(entries) for row in entry.rows)
    if path.suffix == ".csv":
        _write_csv(path, COLUMNS, (row.values() for row in rows))
    elif path.suffix == ".parquet":
        _write_parquet(path, map(_clean, rows))
    else:
        with replacing(path) as stream:
            lines = (json.dumps(_clean(row), ensure_ascii=False) for row in rows)
            stream.writelines(f"{line}\n" for line in lines)


def escaped(name: str) -> str:
    r"""A name with each byte that is no Unicode as "\udcff", unlike any other name.

    Backslashes before such a byte, and before what looks like its escape, are doubled.
    """
    return _ESCAPES.sub(r"\1\1", name).encode("utf-8", "backslashreplace").decode()


def cell(text: str) -> str:
    """A text as a cell of a CSV file that people may open in a spreadsheet.

    One that a spreadsheet would run as a formula, for it begins with one of "=+-@", a tab or a
    line's end, has an apostrophe before it, and so has one that begins with an apostrophe. To
    read a cell, leave out the apostrophe at its begin, if there is one.
    """
    text = escaped(text)
    return f"'{text}" if text.startswith(_FORMULA) else text


def _clean(row: Row) -> dict[str, object]:
    return {name: escaped(value) if type(value) is str else value for name, value in row.items()}


def _write_csv(path: Path, header: Iterable[str], rows: Iterable[Iterable[object]]) -> int:
    """Write a table, its texts as by `cell`; return the number of rows."""
    with replacing(path) as stream:
        writer = csv.writer(_UnixLines(stream))
        writer.writerow(header)
        count = 0
        for row in rows:
            writer.writerow([cell(value) if type(value) is str else value for value in row])
            count += 1
        return count


class _UnixLines:
    r"""Ends lines with "\n", of a writer that ends them with "\r\n" so that it quotes a "\r"."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream

    def write(self, line: str) -> int:
        return self._stream.write(line.removesuffix("\r\n") + "\n")


def _write_parquet(path: Path, rows: Iterator[dict[str, object]]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    kinds = {str: pa.string(), int: pa.int64(), float: pa.float64(), bool: pa.bool_()}
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
    return _write_csv(path, ("path", "reason"), failures(entries))


def write_timings(path: Path, entries: Entries) -> None:
    """Write the milliseconds of work that each picture took; they differ from run to run."""
    rows = ((entry.key, entry.milliseconds) for _, entry in explained(entries))
    _write_csv(path, ("path", "milliseconds"), rows)


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
        yield {"id": number + 1, "file_name": escaped(entry.key), **size}


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
