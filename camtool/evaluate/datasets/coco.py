"""COCO's instance annotations."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from camtool.evaluate.datasets.records import Findings


def read(root: Path, images: Path | None, found: Findings) -> None:
    """A COCO JSON, or a folder with `annotations/instances_val*.json`.

    A picture gives one record for each category on it, with the boxes of that category; the
    label is the category's name. Regions of a crowd are no single objects and are left out.
    """
    source = _annotations(root)
    data = json.loads(source.read_text(encoding="utf-8"))
    if not isinstance(data, dict) or not {"images", "annotations", "categories"} <= data.keys():
        raise ValueError(f"{source} is not a COCO file of instances")
    names = {category["id"]: str(category["name"]) for category in data["categories"]}
    boxes = _boxes(data["annotations"], {image["id"] for image in data["images"]}, found)
    for image in data["images"]:
        path = _picture(source, images, image["file_name"])
        here = boxes.get(image["id"], {})
        if not here:
            found.problem(path, "it has no annotation")
        for category, corners in here.items():
            found.add(path, names.get(category), corners)


def _annotations(root: Path) -> Path:
    if root.is_file():
        return root
    files = sorted((root / "annotations").glob("instances_val*.json"))
    if len(files) != 1:
        raise ValueError(
            f"holds {len(files)} files annotations/instances_val*.json; name the file itself"
        )
    return files[0]


def _boxes(
    annotations: list[dict[str, Any]], known: set[Any], found: Findings
) -> dict[Any, dict[Any, list[tuple[float, float, float, float]]]]:
    boxes: dict[Any, dict[Any, list[tuple[float, float, float, float]]]] = {}
    for annotation in annotations:
        name = f"annotation {annotation.get('id')}"
        if annotation.get("image_id") not in known:
            found.problem(name, f"there is no image {annotation.get('image_id')!r}")
        elif annotation.get("iscrowd"):
            found.problem(name, "a region of a crowd, left out")
        elif len(annotation.get("bbox") or ()) != 4:
            found.problem(name, "it has no box of four numbers")
        else:
            x, y, width, height = map(float, annotation["bbox"])
            categories = boxes.setdefault(annotation["image_id"], {})
            corners = categories.setdefault(annotation.get("category_id"), [])
            corners.append((x, y, x + width, y + height))
    return boxes


def _picture(source: Path, images: Path | None, name: str) -> Path:
    if images is not None:
        return images / name
    base = source.parent.parent if source.parent.name == "annotations" else source.parent
    split = source.stem.rpartition("_")[2]
    places = [base / split / name, base / "images" / split / name, base / "images" / name]
    return next((place for place in places if place.is_file()), base / name)
