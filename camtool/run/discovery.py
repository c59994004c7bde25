"""Which pictures a run is about: those of a folder, a pattern, or a list."""

from __future__ import annotations

import csv
import glob
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

LISTS = {".txt", ".csv", ".tsv", ".lst"}
PICTURES = {
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".webp", ".gif", ".bmp", ".dib"),
    *(".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".pnm", ".jp2", ".j2k", ".ico", ".tga", ".avif"),
}
_PATH_COLUMNS = ("path", "file", "filename", "file_name", "image", "image_path")
_TARGET_COLUMNS = ("target", "label", "class", "category")
_MAGIC = (
    *(b"\xff\xd8\xff", b"\x89PNG", b"GIF8", b"BM", b"II*\0", b"MM\0*", b"RIFF"),
    *(b"P1", b"P2", b"P3", b"P4", b"P5", b"P6", b"\0\0\0\x0cjP"),
)


class SourceError(ValueError):
    """A source that names no pictures; the message says what to do."""


@dataclass(frozen=True)
class Item:
    """One picture of a run.

    Attributes:
        path: The file.
        key: Its name in the run: the path relative to the source, "/" between folders; unique.
        target: The class that a list asks for, by index or label; None if it asks for none.
    """

    path: Path
    key: str
    target: str | None = None


@dataclass
class Found:
    """What a source holds.

    Attributes:
        items: The pictures, in the order of the run.
        root: The folder or list that has to stay there for the run to make sense.
        skipped: Files of a folder that are no pictures by name or by their first bytes.
    """

    items: list[Item]
    root: Path
    skipped: int = 0
    _keys: set[str] = field(default_factory=set, repr=False)


def discover(source: str, exclude: Path | None = None, recursive: bool = True) -> Found:
    """The pictures of a folder, of a pattern, or of a list.

    A folder gives every file that is a picture by its ending or by its first bytes, folder by
    folder in the order of names; links are followed, each folder once. A list is a text file with
    a path a line, or CSV with a column `path` and, if wanted, `target`.

    Args:
        source: Folder, glob pattern, list, or one picture.
        exclude: A folder inside `source` to leave out: where the results go.
        recursive: Go into sub-folders.

    Raises:
        SourceError: Nothing is there, or it holds no picture.
    """
    path = Path(source)
    if path.is_dir():
        found = _folder(path, exclude, recursive)
    elif path.is_file():
        found = _list(path) if path.suffix.lower() in LISTS else _listed([(path, None)], path)
    elif glob.has_magic(source):
        names = sorted(glob.glob(source, recursive=True))
        paths = [Path(name) for name in names if not Path(name).is_dir()]
        found = _listed([(path, None) for path in paths], _common(paths))
    else:
        raise SourceError(f"{source}: no such folder, list or pattern")
    if not found.items:
        raise SourceError(f"{source}: holds no pictures")
    return found


def _folder(root: Path, exclude: Path | None, recursive: bool) -> Found:
    found = Found([], root)
    left_out = exclude.resolve() if exclude else None
    for name in _walk(root, left_out, recursive, set()):
        if name.suffix.lower() in PICTURES or _looks_like_picture(name):
            found.items.append(Item(name, name.relative_to(root).as_posix()))
        else:
            found.skipped += 1
    return found


def _walk(
    folder: Path, left_out: Path | None, recursive: bool, seen: set[tuple[int, int]]
) -> Iterator[Path]:
    try:
        status = folder.stat()
        entries = sorted(os.scandir(folder), key=lambda entry: os.fsencode(entry.name))
    except OSError:
        # Named in failed.csv like a picture: what is in it is not explained.
        yield folder
        return
    if (status.st_dev, status.st_ino) in seen or folder.resolve() == left_out:
        return
    seen.add((status.st_dev, status.st_ino))
    for entry in entries:
        path = folder / entry.name
        if _is_folder(entry):
            if recursive:
                yield from _walk(path, left_out, recursive, seen)
        else:
            yield path


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False


def _looks_like_picture(path: Path) -> bool:
    try:
        if path.is_dir():
            return True
        if not path.is_file():
            return False
        with path.open("rb") as stream:
            start = stream.read(16)
    except OSError:
        return False
    return start.startswith(_MAGIC) or start[4:8] == b"ftyp"


def _list(path: Path) -> Found:
    try:
        text = path.read_text(encoding="utf-8-sig", errors="surrogateescape")
    except OSError as error:
        raise SourceError(f"{path}: can't be read ({error.strerror})") from None
    if path.suffix.lower() in (".csv", ".tsv"):
        delimiter = "\t" if path.suffix.lower() == ".tsv" else ","
        rows = list(csv.reader(text.splitlines(), delimiter=delimiter))
        pairs = list(_columns(rows))
    else:
        lines = [line.rstrip("\r") for line in text.split("\n")]
        pairs = [
            (name, target or None)
            for name, _, target in (line.partition("\t") for line in lines if line.strip())
        ]
    paths = [(_locate(name, path.parent), target) for name, target in pairs]
    return _listed(paths, path)


def _columns(rows: Sequence[Sequence[str]]) -> Iterator[tuple[str, str | None]]:
    """Path and target of each row; without a header the first column and the second."""
    rows = [row for row in rows if row]
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


def _locate(name: str, folder: Path) -> Path:
    """A listed path: relative to the list's folder, or else to the current one."""
    beside = folder / name
    return beside if beside.exists() or not Path(name).exists() else Path(name)


def _listed(pairs: Iterable[tuple[Path, str | None]], root: Path) -> Found:
    pairs = list(pairs)
    found = Found([], root)
    parent = _common([path for path, _ in pairs])
    for path, target in pairs:
        key = Path(os.path.relpath(path.absolute(), parent)).as_posix()
        unique = next(
            name
            for name in (key, *(f"{key}~{n}" for n in range(2, 1_000_000)))
            if name not in found._keys
        )
        found._keys.add(unique)
        found.items.append(Item(path, unique, target))
    return found


def _common(paths: Sequence[Path]) -> Path:
    parents = [path.absolute().parent for path in paths]
    return Path(os.path.commonpath(parents)) if parents else Path()
