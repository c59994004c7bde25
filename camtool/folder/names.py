"""What the files of a run are called: no two alike, and none like one of the run's own."""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import count
from pathlib import Path

from camtool.remote import Remote
from camtool.views.save import fitting

FORMATS = ("parquet", "csv", "jsonl")
RESULTS = (
    *(f"results.{form}" for form in FORMATS),
    *("failed.csv", "timings.csv", "coco.json", "run.json", "report.html"),
)
HIDDEN = ".camtool"
JOURNAL = f"{HIDDEN}/journal.jsonl"
THUMBNAILS = "report/thumbs"
YOLO = "yolo"
PICTURES = {
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".webp", ".gif", ".bmp", ".dib"),
    *(".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".pnm", ".jp2", ".j2k", ".ico", ".tga", ".avif"),
    *(".heic", ".heif", ".hif", ".jxl", ".npy"),
}
_VIEW = re.compile(
    r"(.+)\.(?:cam\.(?:png|npz|json|html)|(?:overlay|heatmap|boxes)-\d+\.(?:jpg|png|webp))",
    re.DOTALL,
)


def shown_in(name: str) -> str:
    """What the picture is called that a file shows, if it is named as `save_views` does; or ""."""
    match = _VIEW.fullmatch(name)
    return match[1] if match else ""


def thumbnail_of(name: str) -> str:
    """The thumbnail, relative to the results, of a picture whose files are called `name`."""
    return f"{THUMBNAILS}/{name}.jpg"


def output_names(
    keys: Sequence[str], sources: Iterable[object], output: Path | Remote
) -> list[str]:
    """What the files of each picture are called under the output, without their endings.

    It is the picture's key, where nothing is in the way. A folder named like one of the run's own
    files has "~2" after it; so has a picture whose files would be named like another's, like a
    folder, or like a picture of the source ("~3" if that is taken too, and so on). Names that
    differ in case or in Unicode's normal form alone count as the same, as on some disks they are.
    All of it follows from the list of pictures, so that a continued run finds the same names.

    Args:
        keys: Of the pictures, in the order of the run; unique.
        sources: Their files; what else can be read is in nobody's way.
        output: Folder of the results.
    """
    apart = {folder: _apart_from_own(folder) for folder in folders_of(keys)}
    wanted = [_moved(key, apart) for key in keys]
    taken = {*_called_like_folders(wanted), *_called_like_sources(sources, output)}
    names = []
    for key in wanted:
        name, tries = fitting(key), count(2)
        while (same := same_name(name)) in taken:
            name = fitting(f"{key}~{next(tries)}")
        taken.add(same)
        names.append(name)
    return names


def _apart_from_own(folder: str) -> str:
    """A folder that neither is nor lies in one of the run's own files and folders."""
    parts = folder.split("/")
    own = {*RESULTS, THUMBNAILS, YOLO}
    for depth in range(min(2, len(parts))):
        if same_name("/".join(parts[: depth + 1])) in own:
            parts[depth] += "~2"
    return "/".join(f"{part}~2" if same_name(part).startswith(HIDDEN) else part for part in parts)


def _moved(key: str, apart: Mapping[str, str]) -> str:
    folder, slash, name = key.rpartition("/")
    # The key itself where nothing is moved: one text in place of two, for there may be millions.
    return key if apart.get(folder, folder) == folder else f"{apart[folder]}{slash}{name}"


def _called_like_folders(names: Iterable[str]) -> Iterator[str]:
    """Pictures that would have a file or a thumbnail named like a folder that others need."""
    for folder in map(same_name, folders_of(names)):
        yield from _shown_at(folder)
        yield from _shown_at(f"{THUMBNAILS}/{folder}")


def _called_like_sources(sources: Iterable[object], output: Path | Remote) -> Iterator[str]:
    """Pictures whose files would take the place of a picture that lies in the output."""
    start = f"{_whole(output)}/"
    for source in sources:
        path = _whole(source)
        if path.startswith(start):
            yield from _shown_at(same_name(path[len(start) :]))


def _whole(place: object) -> str:
    """A path from the root, or an address, with "/" between folders; "" for what has neither."""
    if isinstance(place, Path):
        return Path(os.path.normpath(place.absolute())).as_posix().rstrip("/")
    return place.address if isinstance(place, Remote) else ""


def _shown_at(path: str) -> Iterator[str]:
    """What the pictures are called of which a file or a thumbnail would lie at a path."""
    yield shown_in(path)
    if path.startswith(THUMBNAILS) and path.endswith(".jpg"):
        yield path[len(THUMBNAILS) + 1 : -len(".jpg")]


def folders_of(names: Iterable[str]) -> set[str]:
    """Every folder that the names lead through."""
    found: set[str] = set()
    for name in names:
        while (name := name.rpartition("/")[0]) and name not in found:
            found.add(name)
    return found


def same_name(name: str) -> str:
    """One text for names that some disks take for one."""
    return name.lower() if name.isascii() else unicodedata.normalize("NFC", name).casefold()
