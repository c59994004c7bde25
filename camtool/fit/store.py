"""Pooled features on disk: computed once, found again by what the picture's file holds."""

from __future__ import annotations

import hashlib
import json
import os
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from camtool.engines.engine import Shape
from camtool.files import make_folders
from camtool.fit.outcome import Floats
from camtool.folder.workspace import lock

Key: TypeAlias = tuple[bytes, int]
"""SHA-256 of a picture's file, and the number of the view of it."""


Thumbs: TypeAlias = npt.NDArray[np.uint8]

SIDE = 16
"""Of the small picture that is kept of each view, in pixels: near-duplicates are found by it."""


class Feature(NamedTuple):
    """What the network pools of one view of a picture.

    Attributes:
        key: Of the view.
        shape: Of the network's input, (height, width) in pixels.
        values: float32 [C].
        thumb: uint8 [16,16,3], the view made small.
    """

    key: Key
    shape: Shape
    values: Floats
    thumb: Thumbs


class FeatureStore:
    """An append-only file of records of one size, each with a checksum.

    What a crash left of a record, and all behind it, is cut off when the file is opened again.

    Args:
        folder: Where it lies; made if it is missing.
        settings: Everything that the features depend on, as JSON; other settings have another file.
        channels: C.

    Raises:
        OSError: The file can't be made or read.
        RunError: Another fit is writing there.
    """

    def __init__(self, folder: Path, settings: Mapping[str, Any], channels: int) -> None:
        make_folders(folder)
        digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()
        self._path = folder / f"{digest[:16]}.features"
        fields: list[Any] = [("sha256", "V32"), ("view", "<u4"), ("shape", "<u4", 2)]
        fields += [("values", "<f4", channels)]
        fields += [("thumb", "u1", (SIDE, SIDE, 3)), ("check", "<u4")]
        self._record = np.dtype(fields)
        self._rows: dict[Key, int] = {}
        self._shapes: dict[Key, Shape] = {}
        self._stream = self._path.open("ab")
        try:
            lock(self._stream, folder)
            self._index()
        except BaseException:
            self._stream.close()
            raise

    def _index(self) -> None:
        """Find whole records, and cut off what follows the last one."""
        for record in self._records():
            if zlib.crc32(record.tobytes()[:-4]) != record["check"]:
                break
            self._note((record["sha256"].tobytes(), int(record["view"])), record["shape"])
        os.truncate(self._path, len(self._rows) * self._record.itemsize)

    def _note(self, key: Key, shape: Sequence[int]) -> None:
        self._rows[key] = len(self._rows)
        self._shapes[key] = int(shape[0]), int(shape[1])

    def _records(self) -> Any:
        whole = self._path.stat().st_size // self._record.itemsize
        if not whole:
            return np.empty(0, self._record)
        return np.memmap(self._path, self._record, mode="r", shape=(whole,))

    def __contains__(self, key: object) -> bool:
        return key in self._rows

    def append(self, features: Sequence[Feature]) -> None:
        """Keep features.

        Raises:
            OSError: The file can't be written.
        """
        for (digest, view), shape, values, thumb in features:
            record = np.zeros((), self._record)
            record["sha256"], record["view"] = np.void(digest), view
            record["shape"], record["values"], record["thumb"] = shape, values, thumb
            record["check"] = zlib.crc32(record.tobytes()[:-4])
            self._stream.write(record.tobytes())
            self._note((digest, view), shape)
        self._stream.flush()

    def shape(self, key: Key) -> Shape | None:
        """The input shape of a view whose features are kept; None if they are not."""
        return self._shapes.get(key)

    def values(self, keys: Sequence[Key]) -> Floats:
        """float32 [N,C], the features of N views, all of which are kept."""
        rows = [self._rows[key] for key in keys]
        return np.ascontiguousarray(self._records()["values"][rows], np.float32)

    def thumbs(self, keys: Sequence[Key]) -> Thumbs:
        """uint8 [N,16,16,3], the views made small."""
        rows = [self._rows[key] for key in keys]
        return np.ascontiguousarray(self._records()["thumb"][rows])

    def close(self) -> None:
        """Have the file on the disk, and let go of it."""
        self._stream.flush()
        os.fsync(self._stream.fileno())
        self._stream.close()
