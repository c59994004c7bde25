"""Folders by class with boxes in a CSV, Tiny ImageNet, and folders of nothing but pictures."""

from __future__ import annotations

import csv
from pathlib import Path

from camtool.evaluate.datasets.records import Findings, Record, read_lines
from camtool.images import ImageError, read_size

PICTURES = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".gif", ".tif", ".tiff"}
_CORNERS = ("x0", "y0", "x1", "y1")


def read_csv(root: Path, images: Path | None, found: Findings) -> None:
    """Pictures in folders named by class, boxes in `boxes.csv` beside the folders.

    The CSV has the columns path, x0, y0, x1, y1 (end-exclusive) and optionally label; paths are
    relative to the folder. A picture of several boxes has several rows.
    """
    folder = images or root
    boxes: dict[str, list[list[float]]] = {}
    labels: dict[str, str] = {}
    with (root / "boxes.csv").open(newline="", encoding="utf-8", errors="surrogateescape") as file:
        rows = csv.DictReader(file)
        missing = {"path", *_CORNERS} - set(rows.fieldnames or ())
        if missing:
            raise ValueError(f"{file.name} lacks the columns {', '.join(sorted(missing))}")
        for row in rows:
            name = Path(row["path"]).as_posix()
            boxes.setdefault(name, [])
            labels[name] = row.get("label") or Path(name).parent.name
            try:
                boxes[name].append([float(row[corner]) for corner in _CORNERS])
            except (TypeError, ValueError):
                found.problem(name, f"row {rows.line_num} of boxes.csv has no four numbers")
    for name, here in boxes.items():
        found.add(folder / name, labels[name], here)
    for path in sorted(folder.glob("*/*")):
        name = path.relative_to(folder).as_posix()
        if path.suffix.lower() in PICTURES and name not in boxes:
            found.problem(path, "it has no row in boxes.csv")


def read_tiny_imagenet(root: Path, images: Path | None, found: Findings) -> None:
    """Tiny ImageNet's validation half: `val/val_annotations.txt` and `val/images`.

    Its boxes count their last pixel, 0 to 63; here the end is exclusive.
    """
    half = root / "val" if (root / "val").is_dir() else root
    folder = images or half / "images"
    for line in read_lines(half / "val_annotations.txt"):
        name, *rest = line.split("\t")
        try:
            synset, *numbers = rest
            x0, y0, x1, y1 = map(int, numbers)
        except ValueError:
            found.problem(name, f"not a line of val_annotations.txt: {line!r}")
            continue
        found.add(folder / name, synset, [(x0, y0, x1 + 1, y1 + 1)])


def read_folder(root: Path, images: Path | None, found: Findings) -> None:
    """Every picture in a folder and below, of which nothing is known to be true."""
    for path in sorted((images or root).rglob("*")):
        if path.suffix.lower() in PICTURES and path.is_file():
            try:
                found.records.append(Record(path, "", (), None, read_size(path)))
            except ImageError as error:
                found.problem(path, error.reason)
    if not found.records and not found.problems:
        raise ValueError("there is no picture in it")
