"""A small data set with boxes, for the commands that measure."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture
def boxed(tmp_path, make_picture) -> Callable[[int], Path]:
    """Makes a data set: pictures of a class of the tiny network, and one that is not there."""

    def make(count: int) -> Path:
        folder = tmp_path / "data" / "cat"
        folder.mkdir(parents=True)
        rows: list[tuple[object, ...]] = [("path", "x0", "y0", "x1", "y1")]
        for n in range(count):
            (folder / f"{n}.jpg").write_bytes(make_picture(n))
            rows.append((f"cat/{n}.jpg", 8 * n, 4, 8 * n + 40, 60))
        rows.append(("cat/gone.jpg", 0, 0, 8, 8))
        with (folder.parent / "boxes.csv").open("w", newline="") as file:
            csv.writer(file).writerows(rows)
        return folder.parent

    return make
