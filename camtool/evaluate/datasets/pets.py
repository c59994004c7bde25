"""Oxford-IIIT Pet: trimaps, from which the boxes are taken."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from camtool.evaluate.datasets.masks import OBJECT, MaskFiles, load_mask
from camtool.evaluate.datasets.records import Findings, TrueBox, read_lines
from camtool.images import ImageError


def read(root: Path, images: Path | None, found: Findings) -> None:
    """The test half (`annotations/test.txt`), labels by breed as the file names have it.

    The boxes that come with the data are of heads and cover the training half only; here a
    box is the extent of the trimap's object.
    """
    folder = images or root / "images"
    for line in read_lines(root / "annotations" / "test.txt"):
        if line.startswith("#"):
            continue
        name = line.split()[0]
        breed = name.rpartition("_")[0].replace("_", " ")
        mask = MaskFiles((root / "annotations" / "trimaps" / f"{name}.png",), trimap=True)
        try:
            boxes = _extent(mask)
        except ImageError as error:
            found.problem(mask.objects[0], error.reason)
            continue
        found.add(folder / f"{name}.jpg", breed, boxes, mask=mask if boxes else None)


def _extent(mask: MaskFiles) -> list[TrueBox]:
    rows, columns = np.nonzero(load_mask(mask) == OBJECT)
    if len(rows) == 0:
        return []
    return [
        (float(columns.min()), float(rows.min()), float(columns.max()) + 1, float(rows.max()) + 1)
    ]
