"""Data sets with true boxes or masks, in the formats people have.

A reader turns a folder into records and says what it could not use. To add one, write a
function `read(root, images, found)` that calls `found.add(...)` for every annotated picture and
`found.problem(...)` for everything else, and name it in `READERS`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from camtool.evaluate import DataFormat
from camtool.evaluate.datasets import coco, cub, folders, imagenet, pets, wsol
from camtool.evaluate.datasets.masks import MaskFiles, load_mask
from camtool.evaluate.datasets.records import (
    Dataset,
    Findings,
    Problem,
    Record,
    match_labels,
)

__all__ = [
    "READERS",
    "Dataset",
    "Findings",
    "MaskFiles",
    "Problem",
    "Record",
    "load_mask",
    "match_labels",
    "read_dataset",
]

Reader = Callable[[Path, Path | None, Findings], None]

READERS: dict[DataFormat, Reader] = {
    "csv": folders.read_csv,
    "imagenet": imagenet.read,
    "cub": cub.read,
    "pets": pets.read,
    "tiny-imagenet": folders.read_tiny_imagenet,
    "coco": coco.read,
    "wsol": wsol.read,
    "folder": folders.read_folder,
}


def read_dataset(root: Path, kind: DataFormat, images: Path | None = None) -> Dataset:
    """Read a data set.

    Args:
        root: Its folder; for "coco" also the JSON file.
        kind: A name of `READERS`.
        images: Folder of the pictures, where it is not the usual place under `root`.

    Returns:
        The usable records, in the data set's own order, and everything that was not usable.

    Raises:
        ValueError: If the kind is unknown, or a file is not of the format.
        OSError: If a file that the format needs is missing.
    """
    if kind not in READERS:
        raise ValueError(f"unknown format {kind!r}: use one of {', '.join(READERS)}")
    found = Findings()
    READERS[kind](root, images, found)
    return Dataset(found.records, found.problems, kind, root)
