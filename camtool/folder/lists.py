"""Lists of pictures: text with a path a line, or CSV."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

from camtool.folder.shards import Origin, Unreadable
from camtool.images import display_name
from camtool.remote import Remote, RemoteError, is_address, place_at, shown

LISTS = {".txt", ".csv", ".tsv", ".lst"}
_PATH_COLUMNS = ("path", "file", "filename", "file_name", "image", "image_path")
_TARGET_COLUMNS = ("target", "label", "class", "category")


class SourceError(ValueError):
    """A source that names no pictures; the message says what to do."""


def listed(path: Path | Remote) -> list[tuple[Origin, str | None]]:
    """What a list names: each picture, with its target if it has one.

    Raises:
        SourceError: It can't be read.
    """
    ending = PurePosixPath(path.name).suffix.lower()
    text = _read(path)
    if ending in (".csv", ".tsv"):
        pairs = list(_columns(_rows(path, text, "\t" if ending == ".tsv" else ",")))
    else:
        lines = [line.rstrip("\r") for line in text.split("\n")]
        pairs = [
            (name, target or None)
            for name, _, target in (line.partition("\t") for line in lines if line.strip())
        ]
    return [(_locate(name, path), target) for name, target in pairs]


def _read(path: Path | Remote) -> str:
    if isinstance(path, Remote):
        return path.read().decode("utf-8-sig", "surrogateescape")
    try:
        return path.read_text(encoding="utf-8-sig", errors="surrogateescape")
    except OSError as error:
        raise SourceError(f"{display_name(path)}: can't be read ({error.strerror})") from None


def _rows(path: Path | Remote, text: str, delimiter: str) -> list[list[str]]:
    try:
        return [
            row for row in csv.reader(io.StringIO(text, newline=""), delimiter=delimiter) if row
        ]
    except csv.Error as error:
        raise SourceError(f"{display_name(path)}: is no CSV ({error})") from None


def _columns(rows: Sequence[Sequence[str]]) -> Iterator[tuple[str, str | None]]:
    """Path and target of each row; without a header the first column and the second."""
    header = [name.strip().lower() for name in rows[0]] if rows else []
    named = next((header.index(name) for name in _PATH_COLUMNS if name in header), None)
    target = next((header.index(name) for name in _TARGET_COLUMNS if name in header), None)
    if named is None:
        named, target = 0, 1
    else:
        rows = rows[1:]
    for row in rows:
        if len(row) > named and row[named]:
            wanted = row[target].strip() if target is not None and len(row) > target else ""
            yield row[named], wanted or None


def _locate(name: str, listed: Path | Remote) -> Origin:
    """A listed path: an address, or relative to the list's folder, or else to the current one."""
    try:
        if is_address(name):
            return place_at(name)
    except RemoteError as error:
        return Unreadable(shown(name), str(error))
    if isinstance(listed, Remote):
        return listed.beside(name)
    beside = listed.parent / name
    # os.path's functions take any name; pathlib's raise where one is too long.
    return Path(name) if os.path.lexists(name) and not os.path.lexists(beside) else beside
