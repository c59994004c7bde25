"""A small data set by class whose classes can be told apart, with boxes."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

BoxedByClass = Callable[..., Path]


def boxed_by_class(root: Path, count: int = 12, classes: tuple[str, ...] = ("cat", "dog")) -> Path:
    """Pictures of a bright square of the class's colour on noise, and boxes.csv."""
    rng = np.random.default_rng(0)
    rows: list[tuple[object, ...]] = [("path", "x0", "y0", "x1", "y1")]
    for label, name in enumerate(classes):
        (root / name).mkdir(parents=True)
        for n in range(count):
            picture = rng.integers(90, 150, (40, 40, 3), np.uint8)
            x, y = (int(v) for v in rng.integers(2, 18, 2))
            picture[y : y + 20, x : x + 20, label] = 255
            Image.fromarray(picture).save(root / name / f"{n:02d}.png")
            rows.append((f"{name}/{n:02d}.png", x, y, x + 20, y + 20))
    with (root / "boxes.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    return root


@pytest.fixture(scope="session")
def squares(tmp_path_factory) -> Path:
    """Two classes of twelve pictures."""
    return boxed_by_class(tmp_path_factory.mktemp("squares") / "data")
