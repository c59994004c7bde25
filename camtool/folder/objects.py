"""What lies behind an address: which of the objects there are pictures, and how they are called."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from camtool.folder.names import HIDDEN, PICTURES, THUMBNAILS, shown_in
from camtool.folder.shards import is_shard
from camtool.remote import Remote

_SPAN = re.compile(r"\{(\d+)\.\.(\d+)\}")


@dataclass
class Objects:
    """Some objects, told apart by their names.

    Attributes:
        pictures: Pictures and shards by their names, in the order in which a folder of them is
            gone through.
        skipped: Others.
        own: What camtool made itself.
    """

    pictures: list[tuple[str, Remote]] = field(default_factory=list)
    skipped: int = 0
    own: int = 0


def objects_below(place: Remote, exclude: Path | Remote | None, recursive: bool) -> Objects:
    """What a folder holds, less one inside of it."""
    found = {name: one for name, one in place.below().items() if recursive or "/" not in name}
    runs = {name.rpartition(f"{HIDDEN}/")[0] for name in found if f"/{HIDDEN}/" in f"/{name}"}
    return _told_apart(found, runs, exclude)


def objects_matching(pattern: Remote, exclude: Path | Remote | None) -> Objects:
    """What a pattern matches, less what is inside of a folder."""
    found, bucket = pattern.matching(), Remote(pattern.bucket)
    maybe = {name.partition(f"{THUMBNAILS}/")[0] for name in found if f"{THUMBNAILS}/" in name}
    runs = {run for run in maybe if (bucket / f"{run}{HIDDEN}/settings.json").exists()}
    return _told_apart(found, runs, exclude)


def _told_apart(
    found: Mapping[str, Remote], runs: Collection[str], exclude: Path | Remote | None
) -> Objects:
    objects = Objects()
    own = tuple(f"{run}{folder}/" for run in runs for folder in (HIDDEN, THUMBNAILS))
    out = (f"{exclude.address}/",) if isinstance(exclude, Remote) else ()
    for name in sorted(found, key=lambda name: [*map(os.fsencode, name.split("/"))]):
        one = found[name]
        if name.startswith(own) or one.address.startswith(out):
            continue
        if shown_in(name.rpartition("/")[2]):
            objects.own += 1
        elif PurePosixPath(name).suffix.lower() in PICTURES or is_shard(one):
            objects.pictures.append((name, one))
        else:
            objects.skipped += 1
    return objects


def safe_key(name: str) -> str:
    """A name from elsewhere as a key: no part of it leads out of a folder, or nowhere."""
    parts = [part for part in name.split("/") if part not in ("", ".")]
    return "/".join("~" if part == ".." else part for part in parts) or "~"


def numbered(source: str) -> Iterator[str]:
    """The names that a source stands for, which differ in the numbers of its spans."""
    span = _SPAN.search(source)
    if span is None:
        yield source
        return
    first, last = span.groups()
    for number in range(int(first), int(last) + 1):
        here = f"{source[: span.start()]}{number:0{len(first)}d}{source[span.end() :]}"
        yield from numbered(here)
