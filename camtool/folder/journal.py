"""What a run has finished, line by line, so that it can be stopped at any moment."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from camtool.files import make_folders
from camtool.folder.entry import Entry, from_record

SYNC_SECONDS = 2.0
"""At most so much finished work is lost with the power; none with the process alone."""


class Journal:
    """An append-only file of JSON lines, one for each picture, the latest counting.

    A line torn by a crash is cut off when the file is opened again. In memory there is one
    number for each picture of the run.

    Args:
        path: The file; made if it is missing.
        keys: The pictures of the run, in its order.
    """

    def __init__(self, path: Path, keys: Sequence[str]) -> None:
        make_folders(path.parent)
        self._path = path
        self._offsets = np.full(len(keys), -1, dtype=np.int64)
        self._index(keys)
        self._stream = path.open("ab")
        self._synced = time.monotonic()

    def _index(self, keys: Sequence[str]) -> None:
        """Find each picture's last whole line, and cut off what follows the last whole one."""
        if not self._path.exists():
            return
        numbers = {key: number for number, key in enumerate(keys)}
        end = 0
        for entry, length in _whole_lines(self._path):
            number = numbers.get(entry.key)
            if number is not None:
                self._offsets[number] = end
            end += length
        if end < self._path.stat().st_size:
            os.truncate(self._path, end)

    def append(self, entries: Sequence[tuple[int, Entry]]) -> None:
        """Note pictures as finished, or as failed.

        Args:
            entries: Number in the run, and what to note.

        Raises:
            OSError: The file can't be written.
        """
        for number, entry in entries:
            line = json.dumps(vars(entry), separators=(",", ":")).encode() + b"\n"
            offset = self._stream.tell()
            self._stream.write(line)
            self._offsets[number] = offset
        self._stream.flush()
        if time.monotonic() - self._synced > SYNC_SECONDS:
            self.sync()

    def sync(self) -> None:
        """Have the file on the disk."""
        self._stream.flush()
        os.fsync(self._stream.fileno())
        self._synced = time.monotonic()

    def is_gone(self) -> bool:
        """Whether the file was removed or moved, and with it what its entries tell of."""
        try:
            return not os.path.samestat(self._path.stat(), os.fstat(self._stream.fileno()))
        except OSError:
            return True

    def entries(self) -> Iterator[tuple[int, Entry]]:
        """Every picture that is noted, in the order of the run."""
        self._stream.flush()
        with self._path.open("rb") as stream:
            for number in np.flatnonzero(self._offsets >= 0):
                stream.seek(int(self._offsets[number]))
                yield int(number), from_record(json.loads(stream.readline()))

    def close(self) -> None:
        """Have the file on the disk, and let go of it."""
        try:
            self.sync()
        finally:
            self._stream.close()


def read_entries(path: Path) -> Iterator[Entry]:
    """Every entry of a journal, older ones of a picture too; none where there is no journal."""
    if path.exists():
        for entry, _ in _whole_lines(path):
            yield entry


def _whole_lines(path: Path) -> Iterator[tuple[Entry, int]]:
    """Entries and their lengths in bytes, up to the first line that is torn."""
    with path.open("rb") as stream:
        for line in stream:
            entry = _parse(line)
            if entry is None:
                return
            yield entry, len(line)


def _parse(line: bytes) -> Entry | None:
    if not line.endswith(b"\n"):
        return None
    try:
        return from_record(json.loads(line))
    except (ValueError, TypeError, KeyError):
        return None
