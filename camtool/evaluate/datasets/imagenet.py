"""ImageNet's validation set, in the layouts it is kept in."""

from __future__ import annotations

import re
import zlib
from pathlib import Path
from xml.etree import ElementTree

from camtool.evaluate.datasets.folders import PICTURES
from camtool.evaluate.datasets.records import Findings, read_lines

_SYNSET = re.compile(r"n\d{8}")
_MAT_HEADER = 128
_MAT_COMPRESSED = 15
_PLACES = ("val", "ILSVRC/Data/CLS-LOC/val", "Data/CLS-LOC/val")
_TRUTH = "ILSVRC2012_validation_ground_truth.txt"


def read(root: Path, images: Path | None, found: Findings) -> None:
    """Pictures in synset folders or in one flat folder, boxes in VOC XML files.

    The label is a synset id: that of the folder; else that of the XML's objects; else that of
    the development kit's list (`ILSVRC2012_validation_ground_truth.txt` beside `meta.mat`),
    whose lines belong to the pictures in the order of their names. XML files are found by name
    anywhere under the root but in folders named `train`. Boxes are taken as they stand in them.
    """
    folder = images or next((root / place for place in _PLACES if (root / place).is_dir()), root)
    pictures = sorted(
        (path for path in folder.rglob("*") if path.suffix.lower() in PICTURES),
        key=lambda path: path.name,
    )
    files = {
        path.stem: path
        for path in root.rglob("*.xml")
        if "train" not in path.relative_to(root).parts
    }
    listed = _listed(root, pictures, found)
    for path in pictures:
        synset = path.parent.name if _SYNSET.fullmatch(path.parent.name) else None
        try:
            objects = _objects(files.pop(path.stem)) if path.stem in files else []
        except (ElementTree.ParseError, ValueError) as error:
            found.problem(path, f"its XML file can't be used: {error}")
            continue
        label = synset or listed.get(path) or (objects[0][0] if objects else None)
        found.add(path, label, [box for name, box in objects if name == label])
    for stem in sorted(files):
        found.problem(files[stem], "there is no picture of this name")


def _objects(path: Path) -> list[tuple[str, tuple[float, float, float, float]]]:
    """Names and boxes of a VOC file. Raises ParseError, or ValueError for a missing number."""
    objects = []
    for item in ElementTree.parse(path).getroot().iter("object"):
        corners = [item.findtext(f"bndbox/{key}", "") for key in ("xmin", "ymin", "xmax", "ymax")]
        x0, y0, x1, y1 = map(float, corners)
        objects.append((item.findtext("name", "").strip(), (x0, y0, x1, y1)))
    return objects


def _listed(root: Path, pictures: list[Path], found: Findings) -> dict[Path, str]:
    """Synsets by the development kit's list, if the root holds one."""
    truth = next(root.rglob(_TRUTH), None)
    if truth is None:
        return {}
    numbers = [int(line) for line in read_lines(truth)]
    if len(numbers) != len(pictures):
        found.problem(truth, f"{len(numbers)} labels for {len(pictures)} pictures; not used")
        return {}
    synsets = _synsets(truth.parent / "meta.mat")
    return {path: synsets[number - 1] for path, number in zip(pictures, numbers, strict=True)}


def _synsets(path: Path) -> list[str]:
    """Synset ids in the order of the development kit's numbers, from its `meta.mat`.

    The file (MATLAB 5) holds a structure for each synset, by ascending number, and the only
    texts of this form in it are their ids; so the ids in their order are all that is read.
    """
    data = path.read_bytes()
    content, offset = b"", _MAT_HEADER
    while offset + 8 <= len(data):
        kind = int.from_bytes(data[offset : offset + 4], "little")
        length = int.from_bytes(data[offset + 4 : offset + 8], "little")
        element = data[offset + 8 : offset + 8 + length]
        content += zlib.decompress(element) if kind == _MAT_COMPRESSED else element
        offset += 8 + length
    # Texts are stored in one or in two bytes a letter.
    return _SYNSET.findall(content.replace(b"\0", b"").decode("latin-1"))
