"""Files that appear whole or not at all."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import takewhile
from pathlib import Path
from typing import IO, Any, Literal


@contextmanager
def replacing(path: Path, mode: Literal["w", "wb"] = "w") -> Iterator[IO[Any]]:
    """A file that takes its place when all of it is written, and never before.

    A reader, or a run that is continued after a crash, never sees half a file.

    Args:
        path: Where it goes; missing folders are made.
        mode: "wb" for bytes. Text is UTF-8, lines end as they are written, and what UTF-8 can't
            hold is escaped.

    Raises:
        OSError: It can't be written; nothing is left behind.
    """
    part = path.with_name(f".camtool-{secrets.token_hex(8)}.part")
    try:
        stream = _created(part, mode)
    except FileNotFoundError:
        make_folders(path.parent)
        stream = _created(part, mode)
    try:
        with stream:
            yield stream
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def make_folders(path: Path) -> None:
    """Make a folder and those above it, however many; pathlib calls itself once for each.

    Raises:
        OSError: One can't be made.
    """
    missing = takewhile(lambda folder: not folder.exists(), path.parents)
    for folder in [*reversed([*missing]), path]:
        folder.mkdir(exist_ok=True)


def _created(path: Path, mode: Literal["w", "wb"]) -> IO[Any]:
    if mode == "wb":
        return path.open("xb")
    return path.open("x", encoding="utf-8", errors="backslashreplace", newline="")


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file whole; `replacing` for what is in memory."""
    with replacing(path, "wb") as stream:
        stream.write(content)
