"""The results of a run as files that other programs read; all of them views of the journal."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import IO, TypeAlias

from camtool.files import replacing
from camtool.folder.journal import Entry
from camtool.folder.record import COLUMNS, Row

FORMATS = ("parquet", "csv", "jsonl")
ROWS_AT_ONCE = 4096

Entries: TypeAlias = "Callable[[], Iterator[tuple[int, Entry]]]"


def parquet_available() -> bool:
    """Whether pyarrow, an optional part, is installed."""
    from importlib.util import find_spec

    return find_spec("pyarrow") is not None


def write_results(path: Path, rows: Iterator[Row]) -> None:
    """Write rows as Parquet, CSV or JSON lines, by the ending of `path`.

    Names that are no Unicode (a file name may hold any bytes) have those bytes escaped.
    """
    rows = (_clean(row) for row in rows)
    if path.suffix == ".parquet":
        _write_parquet(path, rows)
    elif path.suffix == ".csv":
        with replacing(path) as stream:
            writer = csv.writer(_UnixLines(stream))
            writer.writerow(COLUMNS)
            writer.writerows([row[name] for name in COLUMNS] for row in rows)
    else:
        with replacing(path) as stream:
            stream.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


class _UnixLines:
    r"""Ends lines with "\n", of a writer that ends them with "\r\n" so that it quotes a "\r"."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream

    def write(self, line: str) -> int:
        return self._stream.write(line.removesuffix("\r\n") + "\n")


def _clean(row: Row) -> Row:
    return {key: _text(value) if type(value) is str else value for key, value in row.items()}


def _text(name: str) -> str:
    """A name with the bytes that are no Unicode escaped."""
    return name.encode("utf-8", "backslashreplace").decode()


def _write_parquet(path: Path, rows: Iterator[Row]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    kinds = {str: pa.string(), int: pa.int64(), float: pa.float64()}
    schema = pa.schema([(name, kinds[kind]) for name, kind in COLUMNS.items()])
    with replacing(path, "wb") as stream, pq.ParquetWriter(stream, schema) as writer:
        while some := list(islice(rows, ROWS_AT_ONCE)):
            writer.write_table(pa.Table.from_pylist(some, schema=schema))


def write_failed(path: Path, failed: Iterator[tuple[str, str]]) -> int:
    """Write path and reason of every picture that failed; return their number."""
    count = 0
    with replacing(path) as stream:
        writer = csv.writer(_UnixLines(stream))
        writer.writerow(("path", "reason"))
        for name, reason in failed:
            writer.writerow((_text(name), reason))
            count += 1
    return count


def write_timings(path: Path, entries: Entries) -> None:
    """Write the milliseconds of work that each picture took; they differ from run to run."""
    with replacing(path) as stream:
        writer = csv.writer(_UnixLines(stream))
        writer.writerow(("path", "milliseconds"))
        for _, entry in entries():
            if "milliseconds" in entry:
                writer.writerow((_text(entry["key"]), entry["milliseconds"]))


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


def _write_list(stream: IO[str], records: Iterator[Row]) -> None:
    for number, record in enumerate(records):
        stream.write(("," if number else "") + "\n" + json.dumps(record))


def _coco_images(entries: Entries) -> Iterator[Row]:
    for number, entry in entries():
        for row in entry.get("rows", ())[:1]:
            name = _clean(row)["path"]
            size = {"width": row["width"], "height": row["height"]}
            yield {"id": number + 1, "file_name": name, **size}


def _coco_annotations(entries: Entries) -> Iterator[Row]:
    identity = 0
    for number, entry in entries():
        for row in entry.get("rows", ()):
            if row["x0"] is None:
                continue
            identity += 1
            width, height = row["x1"] - row["x0"], row["y1"] - row["y0"]
            yield {
                "id": identity,
                "image_id": number + 1,
                "category_id": row["index"],
                "bbox": [row["x0"], row["y0"], width, height],
                "area": width * height,
                "iscrowd": 0,
                "score": row["probability"],
            }
