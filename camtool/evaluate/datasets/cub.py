"""CUB-200-2011: five text files, boxes, and segmentations if they were fetched."""

from __future__ import annotations

from pathlib import Path

from camtool.evaluate.datasets.masks import MaskFiles
from camtool.evaluate.datasets.records import Findings, read_lines


def read(root: Path, images: Path | None, found: Findings) -> None:
    """The test half of CUB-200-2011, labels by the names in `classes.txt`."""
    folder = images or root / "images"
    paths = _table(root / "images.txt")
    classes = {key: name.split(".", 1)[-1] for key, name in _table(root / "classes.txt").items()}
    labels = _table(root / "image_class_labels.txt")
    boxes = _table(root / "bounding_boxes.txt")
    training = _table(root / "train_test_split.txt")
    for key, name in paths.items():
        if training.get(key) == "1":
            continue
        try:
            corners = [_corners(boxes[key])] if key in boxes else []
        except ValueError:
            found.problem(name, f"no box of four numbers: {boxes[key]!r}")
            corners = []
        segmentation = (root / "segmentations" / name).with_suffix(".png")
        mask = MaskFiles((segmentation,)) if segmentation.is_file() else None
        found.add(folder / name, classes.get(labels.get(key, "")), corners, mask=mask)


def _corners(text: str) -> tuple[float, float, float, float]:
    x, y, width, height = map(float, text.split())
    return x, y, x + width, y + height


def _table(path: Path) -> dict[str, str]:
    """A file of lines `key value`."""
    pairs = (line.partition(" ") for line in read_lines(path))
    return {key: value.strip() for key, _, value in pairs}
