"""The metadata folders of Choe et al. 2020: class_labels, localization, image_sizes."""

from __future__ import annotations

from pathlib import Path

from camtool.evaluate.datasets.masks import MaskFiles
from camtool.evaluate.datasets.records import Findings, read_lines


def read(root: Path, images: Path | None, found: Findings) -> None:
    """`class_labels.txt` (path,index) and `localization.txt`, boxes or masks.

    A line of boxes is path,x0,y0,x1,y1; a line of masks is path,mask,ignore, where only a
    picture's first line has an ignored region. Pictures and masks are relative to `images`, by
    default to the folder itself. `image_sizes.txt` (path,width,height) saves opening pictures;
    `image_ids.txt` (path), where it is there, says which are evaluated, and in which order.
    Boxes are taken as they stand, as the published evaluation does, which counts both ends.
    """
    folder = images or root
    boxes: dict[str, list[list[float]]] = {}
    masks: dict[str, list[tuple[str, str]]] = {}
    for line in read_lines(root / "localization.txt"):
        name, *rest = line.split(",")
        if len(rest) == 2:
            masks.setdefault(name, []).append((rest[0], rest[1]))
            continue
        try:
            x0, y0, x1, y1 = map(float, rest)
        except ValueError:
            found.problem(name, f"not a line of localization.txt: {line!r}")
            continue
        boxes.setdefault(name, []).append([x0, y0, x1, y1])
    sizes = _sizes(root / "image_sizes.txt", found)
    labels = _labels(root / "class_labels.txt", found)
    for name in _listed(root / "image_ids.txt", [*labels, *boxes, *masks]):
        if name not in labels:
            found.problem(name, "it has no line in class_labels.txt")
            continue
        mask = _mask(folder, masks.get(name, []))
        here, size = boxes.get(name, []), sizes.get(name)
        found.add(folder / name, labels[name], here, mask=mask, size=size, closed=True)


def _listed(path: Path, names: list[str]) -> list[str]:
    return read_lines(path) if path.is_file() else list(dict.fromkeys(names))


def _labels(path: Path, found: Findings) -> dict[str, int]:
    labels = {}
    for line in read_lines(path):
        name, _, number = line.rpartition(",")
        try:
            labels[name] = int(number)
        except ValueError:
            found.problem(name or line, f"not a line of class_labels.txt: {line!r}")
    return labels


def _sizes(path: Path, found: Findings) -> dict[str, tuple[int, int]]:
    sizes: dict[str, tuple[int, int]] = {}
    for line in read_lines(path) if path.is_file() else []:
        name, *numbers = line.split(",")
        try:
            width, height = map(int, numbers)
        except ValueError:
            found.problem(name, f"not a line of image_sizes.txt: {line!r}")
            continue
        sizes[name] = (width, height)
    return sizes


def _mask(folder: Path, lines: list[tuple[str, str]]) -> MaskFiles | None:
    if not lines:
        return None
    ignored = [folder / ignore for _, ignore in lines if ignore]
    return MaskFiles(tuple(folder / mask for mask, _ in lines), ignored[0] if ignored else None)
