"""Which pictures a run is about: those of a folder, a pattern, or a list."""

from __future__ import annotations

import glob
import os
import stat
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice, takewhile
from pathlib import Path, PurePosixPath
from typing import TypeGuard

from camtool.engines.engine import Job
from camtool.folder.lists import LISTS, SourceError, listed
from camtool.folder.names import HIDDEN, PICTURES, THUMBNAILS, shown_in
from camtool.folder.objects import numbered, objects_below, objects_matching, safe_key
from camtool.folder.shards import Member, Origin, is_shard, members
from camtool.images import display_name
from camtool.images.read import printable
from camtool.remote import WEB, Remote, RemoteError, Stored, at_once, is_address, place_at, shown

MOST_NUMBERS = 1_000_000
_SAME = "is where the results should go too; choose another --output"
_MAGIC = (
    *(b"\xff\xd8\xff", b"\x89PNG", b"GIF8", b"BM", b"II*\0", b"MM\0*", b"RIFF"),
    *(b"P1", b"P2", b"P3", b"P4", b"P5", b"P6", b"\0\0\0\x0cjP"),
)


@dataclass(frozen=True, slots=True)
class Picture(Job):
    """One picture of a folder run.

    Attributes:
        source: The file, or what else can be read.
        key: Its name in the run: the path relative to the source, "/" between folders; unique.
        name: What its files in the results are called, without their endings; unique.
        state: Of the file before it was read, as from `state_of`.
        listed: The class that a list names, by index or label; None if it names none.
        truth: The class that it is known to show.
    """

    source: Origin
    key: str = ""
    name: str = ""
    state: tuple[int, ...] = ()
    listed: str | None = None
    truth: int | None = None


@dataclass
class Source:
    """What a source holds.

    Attributes:
        root: The folder that has to stay there for the run to make sense.
        pictures: In the order of the run.
        skipped: Files of a folder that are no pictures by name or by their first bytes.
        own: Files of a folder that camtool made, which are not explained again.
    """

    root: Path | Remote
    pictures: list[Picture] = field(default_factory=list)
    skipped: int = 0
    own: int = 0

    def add(self, origin: Origin, key: str, target: str | None = None) -> None:
        """Put a picture at the end."""
        number = len(self.pictures)
        self.pictures.append(Picture(number, origin, target, key=key, listed=target))


def discover(source: str, exclude: Path | Remote | None = None, recursive: bool = True) -> Source:
    """The pictures of a folder, of a pattern, or of a list.

    A folder or a pattern gives every file that is a picture by its ending or by its first bytes;
    a folder in the order of names, folder by folder; links are followed, each folder once. Panels,
    overlays, heatmaps and the like, which are known by their names, and the thumbnails of an
    earlier run are left out. A list is a text file with a path a line, and after a tab a target if
    wanted, or CSV with a column `path` and, if wanted, `target`; it is taken as it is.

    All of these may be behind addresses, as s3://bucket/photos, and lists may name addresses.
    Behind an address endings alone tell pictures. In place of a shard, a .tar or .parquet file,
    come the pictures in it; "{0000..0099}" stands for each of these numbers.

    Args:
        source: Folder, glob pattern, list, shard, or one picture.
        exclude: A folder inside `source` to leave out: where the results go.
        recursive: Go into sub-folders.

    Raises:
        SourceError: Nothing is there, or it holds no picture, or a list can't be read.
    """
    try:
        found = _spread(_found(source, exclude, recursive))
    except RemoteError as error:
        raise SourceError(f"{printable(shown(source))}: {printable(str(error))}") from None
    if not found.pictures:
        but = f" but {found.own:,} of camtool's own" if found.own else ""
        raise SourceError(f"{printable(shown(source))}: holds no pictures{but}")
    return found


def _found(source: str, exclude: Path | Remote | None, recursive: bool) -> Source:
    """What a source holds, shards as they are."""
    names = [*islice(numbered(source), MOST_NUMBERS)]
    if len(names) == MOST_NUMBERS:
        raise SourceError(f"{printable(source)}: stands for {MOST_NUMBERS:,} names or more")
    if names != [source] and not os.path.lexists(source):
        return _listed([(place_at(name), None) for name in names])
    if is_address(source):
        return _behind(Remote.at(source), exclude, recursive)
    path, exclude = Path(source), exclude if isinstance(exclude, Path) else None
    if is_directory(path):
        return _folder(path, exclude, recursive)
    if _is_file(path):
        return _listed(listed(path)) if path.suffix.lower() in LISTS else _listed([(path, None)])
    if glob.has_magic(source):
        return _pattern(source, exclude)
    raise SourceError(f"{printable(source)}: no such folder, list or pattern")


def _behind(place: Remote, exclude: Path | Remote | None, recursive: bool) -> Source:
    """What is behind an address, told by the address alone where it has an ending."""
    ending = PurePosixPath(place.name).suffix.lower()
    if isinstance(exclude, Remote) and exclude.address == place.address:
        raise SourceError(f"{display_name(place)}: {_SAME}")
    if ending in LISTS:
        return _listed(listed(place))
    if place.scheme not in WEB and glob.has_magic(place.address):
        objects = objects_matching(place, exclude)
        found = _listed([(one, None) for _, one in objects.pictures])
    elif ending in PICTURES or is_shard(place):
        return _listed([(place, None)])
    elif place.scheme in WEB:
        name = display_name(place)
        raise SourceError(f"{name}: a web server lists nothing; give a list of addresses")
    else:
        objects, found, keys = objects_below(place, exclude, recursive), Source(place), _Keys()
        for name, one in objects.pictures:
            found.add(one, keys.unlike(safe_key(name)))
    return replace(found, skipped=objects.skipped, own=objects.own)


def _spread(source: Source) -> Source:
    """A source with the pictures of its shards in their place."""
    shards = [picture.source for picture in source.pictures if _is_shard(picture.source)]
    if not shards:
        return source
    insides = at_once(lambda shard: list(members(shard, state_of(shard))), shards)
    found, keys = replace(source, pictures=[]), _Keys()
    for picture in source.pictures:
        whole: list[Member] = [("", picture.source, None)]
        for name, one, target in next(insides) if _is_shard(picture.source) else whole:
            key = safe_key(f"{picture.key}/{name}") if name else picture.key
            found.add(one, keys.unlike(key), picture.listed or target)
    return found


def _is_shard(origin: Origin) -> TypeGuard[Path | Remote]:
    return isinstance(origin, (Path, Remote)) and is_shard(origin)


def _folder(root: Path, exclude: Path | None, recursive: bool) -> Source:
    left_out = identity(exclude) if exclude else None
    if left_out and left_out == identity(root):
        raise SourceError(f"{display_name(root)}: {_SAME}")
    found = Source(root)
    for path, unreadable in _walk(root, left_out, recursive):
        if not unreadable and shown_in(path.name):
            found.own += 1
        elif unreadable or _is_picture(path):
            found.add(path, path.relative_to(root).as_posix())
        else:
            found.skipped += 1
    return found


def _walk(
    root: Path, left_out: tuple[int, int] | None, recursive: bool
) -> Iterator[tuple[Path, bool]]:
    """Files below a folder, and folders that can't be read: named like pictures that can't."""
    seen, own = {left_out}, set()
    pending = [(root, True)]
    while pending:
        path, is_folder = pending.pop()
        if not is_folder:
            yield path, False
            continue
        if path in own or (path != root and not recursive):
            continue
        try:
            status = path.stat()
            entries = sorted(os.scandir(path), key=lambda entry: os.fsencode(entry.name))
        except OSError:
            yield path, True
            continue
        if (status.st_dev, status.st_ino) not in seen:
            seen.add((status.st_dev, status.st_ino))
            if any(entry.name == HIDDEN for entry in entries):
                own |= {path / HIDDEN, path / THUMBNAILS}
            pending += [(path / entry.name, _is_folder(entry)) for entry in reversed(entries)]


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False


def _status(path: Path) -> os.stat_result | None:
    """What the file system says of a path; pathlib's own questions raise where it is too long."""
    try:
        return path.stat()
    except (OSError, ValueError):
        return None


def is_directory(path: Path) -> bool:
    """Whether a path is a folder; False where it can't be one."""
    status = _status(path)
    return status is not None and stat.S_ISDIR(status.st_mode)


def _is_file(path: Path) -> bool:
    status = _status(path)
    return status is not None and stat.S_ISREG(status.st_mode)


def identity(path: Path) -> tuple[int, int] | None:
    """What tells a folder from another that took its place; None where nothing answers."""
    status = _status(path)
    return (status.st_dev, status.st_ino) if status else None


def state_of(origin: Origin) -> tuple[int, ...]:
    """What tells that a file was changed: its time of modification in ns, and its size.

    What is no file of its own has the state in which it was listed.
    """
    if not isinstance(origin, Path):
        return origin.state
    status = _status(origin)
    return (status.st_mtime_ns, status.st_size) if status else ()


def _is_picture(path: Path) -> bool:
    """Whether a file calls itself a picture, or begins like one."""
    if path.suffix.lower() in PICTURES or is_shard(path):
        return True
    # Opening a pipe would wait for whoever writes into it.
    if not _is_file(path):
        return False
    try:
        with path.open("rb") as stream:
            start = stream.read(16)
    except OSError:
        return False
    return start.startswith(_MAGIC) or start[4:8] == b"ftyp"


def _pattern(pattern: str, exclude: Path | None) -> Source:
    left_out = Path(os.path.realpath(exclude)) if exclude else None
    paths, skipped, own = [], 0, 0
    # Path.glob takes no absolute pattern.
    names = glob.glob(pattern, recursive=True)  # noqa: PTH207
    for path in sorted(map(Path, names), key=lambda path: [*map(os.fsencode, path.parts)]):
        folder = Path(os.path.realpath(path.parent))
        if is_directory(path) or left_out in (folder, *folder.parents):
            continue
        if shown_in(path.name) or _among_thumbnails(path):
            own += 1
        elif _is_picture(path):
            paths.append(path)
        else:
            skipped += 1
    return replace(_listed([(path, None) for path in paths]), skipped=skipped, own=own)


def _among_thumbnails(path: Path) -> bool:
    """Whether a file is a thumbnail of an earlier run."""
    return any(
        is_directory(folder.parent.parent / HIDDEN)
        for folder in path.parents
        if folder.name == "thumbs" and folder.parent.name == "report"
    )


@dataclass
class _Keys:
    """The names of pictures so far."""

    taken: set[str] = field(default_factory=set)
    copies: dict[str, int] = field(default_factory=lambda: defaultdict(lambda: 1))

    def unlike(self, name: str) -> str:
        """A name that no other has."""
        key = name
        while key in self.taken:
            self.copies[name] += 1
            key = f"{name}~{self.copies[name]}"
        self.taken.add(key)
        return key


def _listed(pairs: Sequence[tuple[Origin, str | None]]) -> Source:
    common = _common([place for place, _ in pairs if isinstance(place, Path)])
    parts = [_parts(place) for place, _ in pairs if not isinstance(place, Path)]
    shared = _shared([part[:-1] for part in parts])
    alone = shared > 1 and all(isinstance(place, Remote) for place, _ in pairs)
    root = Remote("{}://{}".format(parts[0][0], "/".join(parts[0][1:shared]))) if alone else common
    found, keys = Source(root), _Keys()
    for place, target in pairs:
        if isinstance(place, Path):
            name = Path(os.path.relpath(place, common)).as_posix()
        else:
            name = safe_key("/".join(_parts(place)[shared:]))
        found.add(place, keys.unlike(name), target)
    return found


def _shared(folders: Sequence[list[str]]) -> int:
    """How many parts all begin with; the first and the last in order differ where any two do."""
    if not folders:
        return 0
    pairs = zip(min(folders), max(folders), strict=False)
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))


def _parts(place: Stored) -> list[str]:
    scheme, _, rest = place.name.partition("://")
    return [scheme, *rest.split("/")]


def _common(paths: Iterable[Path]) -> Path:
    """The folder that holds all of them; with ".." resolved, so that no key leads out of it."""
    parents = [Path(os.path.normpath(path.absolute())).parent for path in paths]
    return Path(os.path.commonpath(parents)) if parents else Path()
