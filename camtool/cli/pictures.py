"""What `camtool explain` looks at: files, folders, patterns, standard input, addresses."""

from __future__ import annotations

import glob
import os
import sys
from collections.abc import Sequence
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit
from urllib.request import Request, urlopen

from camtool.cli import common
from camtool.remote import Stored

STDIN = "-"
MOST_BYTES = 256 << 20
"""Of a picture on a server."""

SECONDS = 30
"""After which a silent server is given up."""


class Address:
    """A picture on a server, fetched when it is read."""

    def __init__(self, url: str) -> None:
        self.name = url

    def read(self) -> bytes:
        """Its bytes.

        Raises:
            OSError, ValueError: It can't be had, or is larger than `MOST_BYTES`.
        """
        request = Request(self.name, headers={"User-Agent": "camtool"})
        try:
            with urlopen(request, timeout=SECONDS) as answer:
                content: bytes = answer.read(MOST_BYTES + 1)
        except HTTPException as error:
            raise OSError(f"{type(error).__name__} {error}".strip()) from None
        if len(content) > MOST_BYTES:
            raise ValueError(f"more than {MOST_BYTES >> 20} MB")
        return content


def sources_of(names: Sequence[str]) -> tuple[list[Any], int]:
    """The pictures that some words of the command line mean.

    A folder means all that is in it, a pattern whatever matches, a shard its pictures. What
    camtool made itself is left out, unless it is the only thing that is named.

    Returns:
        Paths, and files to read from, as `CamModel.explain` takes them; and how many were left out.
    """
    from camtool.folder.discovery import discover
    from camtool.folder.lists import SourceError
    from camtool.folder.names import shown_in
    from camtool.folder.shards import is_shard
    from camtool.remote import Remote, is_address

    sources: list[Any] = []
    own = 0
    for name in names:
        if name == STDIN:
            sources.append(_stdin())
        elif name.startswith(("http://", "https://")) and not is_shard(Remote(name)):
            sources.append(Address(name))
        elif is_address(name) or _stands_for_several(name):
            try:
                found = discover(name)
            except SourceError as error:
                common.usage(str(error))
            sources += [picture.source for picture in found.pictures]
            own += found.own
        elif len(names) > 1 and shown_in(Path(name).name):
            own += 1
        else:
            sources.append(Path(name))
    return sources, own


def _stands_for_several(name: str) -> bool:
    from camtool.folder.discovery import is_directory
    from camtool.folder.shards import is_shard

    path, pattern = Path(name), glob.has_magic(name) and not os.path.lexists(name)
    return pattern or is_directory(path) or is_shard(path)


def place_of(source: Any) -> Path:
    """The path beside which a picture's files belong: the current folder for what is no file."""
    if isinstance(source, Path):
        return source
    if isinstance(source, Address):
        parts = urlsplit(source.name)
        return Path(Path(unquote(parts.path)).name or parts.netloc)
    return Path(Path(source.name).name if isinstance(source, Stored) else "stdin")


def _stdin() -> Any:
    if sys.stdin.isatty():
        common.usage("- reads a picture from standard input: pipe one in")
    return sys.stdin.buffer
