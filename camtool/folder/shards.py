"""Pictures inside of other files: tar as WebDataset has it, Parquet as Hugging Face has it.

A shard is gone through once, to list what is in it; each picture is then read by its place.
"""

from __future__ import annotations

import os
import tarfile
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path, PurePosixPath
from threading import Lock
from typing import Any, BinaryIO, TypeAlias

from camtool.folder.names import PICTURES
from camtool.remote import Remote, RemoteError, Stored

SHARDS = {".tar", ".parquet"}
GROUPS = 2
"""Row groups of Parquet files kept in memory, for pictures are read one after the other."""

LONGEST_LABEL = 1000

Shard: TypeAlias = "Path | Remote"
Origin: TypeAlias = "Path | Stored"
Member: TypeAlias = "tuple[str, Origin, str | None]"
"""A picture's name in its shard, the picture, and its class by index or label if that is known."""


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A shard, or a part of one, that can't be read: in its place stands one picture that fails."""

    name: str
    reason: str
    state: tuple[int, ...] = ()

    def read(self) -> bytes:
        """Nothing.

        Raises:
            OSError: Always.
        """
        raise OSError(self.reason)


@dataclass(frozen=True, slots=True)
class Part:
    """A picture that is so many bytes of a file."""

    shard: Shard
    name: str
    start: int
    size: int
    state: tuple[int, ...]

    def read(self) -> bytes:
        """Its bytes."""
        if isinstance(self.shard, Remote):
            return self.shard.read(self.start, self.start + self.size)
        with self.shard.open("rb") as stream:
            stream.seek(self.start)
            return stream.read(self.size)


@dataclass(frozen=True, slots=True)
class Cell:
    """A picture that is a cell of a Parquet file."""

    shard: Shard
    name: str
    column: str
    group: int
    row: int
    state: tuple[int, ...]

    def read(self) -> bytes:
        """Its bytes."""
        with _reading:
            content = _group(self.shard, self.column, self.group)[self.row].as_py()
        if not content:
            raise OSError("the cell is empty")
        return bytes(content)


_reading = Lock()


@dataclass
class _Sample:
    """What a tar has under one name: pictures, and their class."""

    pictures: list[tuple[str, int, int]] = field(default_factory=list)
    label: str | None = None


def members(shard: Shard, state: tuple[int, ...]) -> Iterator[Member]:
    """The pictures of a shard, a .tar or .parquet file, in its order; its state is theirs."""
    listed = _of_tar if _suffix(shard) == ".tar" else _of_parquet
    try:
        yield from listed(shard, state)
    except (OSError, tarfile.TarError, ValueError) as error:
        reason = f"can't be read any further ({error})"
        yield "", Unreadable(_name(shard), reason), None


def is_shard(place: Shard) -> bool:
    """Whether a file is called like one that has pictures in it."""
    return _suffix(place) in SHARDS


def _name(shard: Shard) -> str:
    return shard.name if isinstance(shard, Remote) else str(shard)


def _suffix(shard: Shard) -> str:
    return PurePosixPath(_name(shard)).suffix.lower()


def _opened(shard: Shard) -> AbstractContextManager[BinaryIO]:
    return shard.opened() if isinstance(shard, Remote) else shard.open("rb")


def _of_tar(shard: Shard, state: tuple[int, ...]) -> Iterator[Member]:
    samples: dict[str, _Sample] = {}
    broken: Exception | None = None
    with _opened(shard) as stream:
        try:
            _index(stream, samples)
        except (OSError, tarfile.TarError) as error:
            broken = error
    for sample in samples.values():
        for name, start, size in sample.pictures:
            yield name, Part(shard, f"{_name(shard)}/{name}", start, size, state), sample.label
    if broken:
        raise broken


def _index(stream: BinaryIO, samples: dict[str, _Sample]) -> None:
    """Note what a tar holds, as far as it is whole."""
    end = stream.seek(0, os.SEEK_END)
    stream.seek(0)
    with tarfile.open(fileobj=stream, mode="r:") as tar:
        for member in tar:
            folder, slash, name = member.name.rpartition("/")
            stem, _, ending = name.partition(".")
            sample = samples.setdefault(f"{folder}{slash}{stem}", _Sample())
            if not member.isreg():
                continue
            # A size that is only claimed is not to be allocated.
            if member.offset_data + member.size > end:
                raise tarfile.ReadError("unexpected end of data")
            if ending == "cls" and (content := tar.extractfile(member)):
                sample.label = content.read(LONGEST_LABEL).decode(errors="replace").strip() or None
            elif PurePosixPath(name).suffix.lower() in PICTURES:
                sample.pictures.append((member.name, member.offset_data, member.size))
            # The library would keep every member.
            tar.members = []  # type: ignore[attr-defined]


def _of_parquet(shard: Shard, state: tuple[int, ...]) -> Iterator[Member]:
    try:
        import pyarrow.parquet as pq
    except ImportError:
        raise RemoteError("Parquet needs pyarrow: pip install 'camtool[parquet]'") from None
    with _opened(shard) as stream:
        file = pq.ParquetFile(stream)
        content, others = _columns(file.schema_arrow)
        if content is None:
            return
        number = 0
        for group in range(file.num_row_groups):
            rows = file.read_row_group(group, columns=list(others.values()))
            rows = rows.flatten().to_pydict() if others else {}
            for row in range(file.metadata.row_group(group).num_rows):
                name, label = (
                    rows[others[key]][row] if key in others else None for key in ("path", "label")
                )
                name = name or f"{number:06d}"
                picture = Cell(shard, f"{_name(shard)}/{name}", content, group, row, state)
                yield name, picture, str(label) if isinstance(label, (int, str)) else None
                number += 1


def _columns(schema: Any) -> tuple[str | None, dict[str, str]]:
    """The column of the pictures' bytes, and those of their names and classes."""
    import pyarrow as pa

    others = {"label": "label"} if _is_class(schema) else {}
    for name in ("image", "img", "bytes"):
        if name not in schema.names:
            continue
        kind = schema.field(name).type
        if pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0:
            path = {"path": f"{name}.path"} if kind.get_field_index("path") >= 0 else {}
            return f"{name}.bytes", {**path, **others}
        if pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
            return name, others
    return None, others


def _is_class(schema: Any) -> bool:
    """Whether there is one class a picture, by index or label."""
    import pyarrow as pa

    if "label" not in schema.names:
        return False
    kind = schema.field("label").type
    return bool(pa.types.is_integer(kind) or pa.types.is_string(kind))


@lru_cache(GROUPS)
def _group(shard: Shard, column: str, group: int) -> Any:
    import pyarrow.parquet as pq

    with _opened(shard) as stream:
        table = pq.ParquetFile(stream).read_row_group(group, columns=[column])
    return table.flatten().column(0)
