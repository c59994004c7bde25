"""The boxes of a run in the text format of YOLO, a file for each picture.

https://docs.ultralytics.com/datasets/detect/ describes it. Programs look for a picture's file by
its name without the ending: of those that differ in the ending alone they find one's boxes for all.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import chain, count
from pathlib import Path, PurePosixPath

from camtool.files import make_folders, write_atomically
from camtool.folder.entry import Entry, Explained, Row, box_of
from camtool.folder.names import YOLO, folders_of, same_name
from camtool.folder.results import Entries
from camtool.views.save import fitting
from camtool.views.text import display_text


def write_yolo(
    output: Path,
    entries: Entries,
    keys: Sequence[str],
    labels: Sequence[str],
    warn: Callable[[str], None],
) -> None:
    """Write `yolo/labels/NAME.txt` of every picture, `yolo/classes.txt` and `yolo/data.yaml`.

    A line is a box: class index, centre, width and height as parts of the picture's. A picture
    without a box has an empty file, one that could not be explained has none.

    Args:
        output: Folder of the results.
        entries: Of the journal.
        keys: Of all pictures of the run, in its order.
        labels: Of all classes.
        warn: Told how many pictures have a file that programs will not find.

    Raises:
        OSError: A file can't be written.
    """
    folder, names = output / YOLO, label_files(keys)
    make_folders(folder / "labels")
    shown = [display_text(label) for label in labels]
    # In the subset of JSON that YAML has, for a label may be called "no" or "- a: b".
    lines = [f"  {n}: {json.dumps(label, ensure_ascii=False)}" for n, label in enumerate(shown)]
    data = ["train: images", "val: images", "names:", *lines]
    for name, content in (("classes.txt", shown), ("data.yaml", data)):
        write_atomically(folder / name, _text(content))
    for number, entry in entries():
        _write(folder / "labels" / names[number], entry)
    hidden = sum(name != _plain(key) for name, key in zip(names, keys, strict=True))
    if hidden:
        warn(f"{hidden:,} pictures differ from others in their ending alone, which YOLO can't tell")


def _write(path: Path, entry: Entry) -> None:
    if isinstance(entry, Explained):
        write_atomically(path, _text(_lines(entry.rows)))
    else:
        # An earlier run may have explained it; or else its name is one that no file can have.
        with suppress(OSError, ValueError):
            path.unlink()


def _text(lines: Iterable[str]) -> bytes:
    return "".join(f"{line}\n" for line in lines).encode()


def _lines(rows: Iterable[Row]) -> Iterator[str]:
    for row in rows:
        if box := box_of(row):
            width, height = row["width"], row["height"]
            x0, y0, x1, y1 = box[0] / width, box[1] / height, box[2] / width, box[3] / height
            numbers = (x0 + x1) / 2, (y0 + y1) / 2, x1 - x0, y1 - y0
            yield " ".join([str(row["index"]), *(f"{number:.9g}" for number in numbers)])


def label_files(keys: Sequence[str]) -> list[str]:
    """What the file of each picture is called below `labels`: its key with the ending ".txt".

    Where that is taken, as by `same_name`, the key's own ending stays before it; where that is
    taken too, it has "~2" after it, and so on.

    Args:
        keys: Of the pictures, in the order of the run; unique.
    """
    taken = {same_name(folder) for folder in folders_of(keys)}
    names = []
    for key in keys:
        tries = chain((_plain(key), f"{key}.txt"), (f"{key}~{n}.txt" for n in count(2)))
        name = next(name for name in map(_fitting, tries) if same_name(name) not in taken)
        taken.add(same_name(name))
        names.append(name)
    return names


def _plain(key: str) -> str:
    return f"{PurePosixPath(key).with_suffix('')}.txt"


def _fitting(name: str) -> str:
    return f"{fitting(name.removesuffix('.txt'))}.txt"
