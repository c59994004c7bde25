"""What a run keeps of each picture: one journal entry, of which every result is a view."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from camtool.engines.threads import Failed, Shape
from camtool.explanation import Explanation
from camtool.folder.discovery import Item
from camtool.folder.journal import Entry
from camtool.regions.measure import entropy

COLUMNS = {
    "path": str,
    "rank": int,
    "label": str,
    "index": int,
    "probability": float,
    "logit": float,
    "x0": int,
    "y0": int,
    "x1": int,
    "y1": int,
    "share": float,
    "peak": float,
    "entropy": float,
    "width": int,
    "height": int,
    "target": str,
}
"""Columns of the results and their types; the box, its share and the target may be missing."""

Row = dict[str, Any]


def finished_entry(
    item: Item,
    explanation: Explanation,
    rows: list[Row],
    files: list[Path],
    root: Path,
    milliseconds: float,
) -> Entry:
    """The journal entry of a picture that was explained.

    Args:
        item: The picture.
        explanation: Its result.
        rows: What the results say of it, as from `rows_of`.
        files: What was written for it, under `root`.
        root: The folder of the results.
        milliseconds: Work that it took.
    """
    maps = explanation.maps
    return {
        "key": item.key,
        "source": source_state(item.path),
        "input": list(explanation.geometry.input),
        "region": list(explanation.geometry.region),
        "rows": rows,
        "maps": {"shape": list(maps.shape), "data": base64.b64encode(maps.tobytes()).decode()},
        "files": {file.relative_to(root).as_posix(): file.stat().st_size for file in files},
        "milliseconds": round(milliseconds, 3),
    }


def failed_entry(item: Item, failed: Failed) -> Entry:
    """The journal entry of a picture that could not be explained."""
    return {"key": item.key, "failed": failed.reason}


def rows_of(item: Item, explanation: Explanation, threshold: float) -> list[Row]:
    """One row of results for each class explained, best first, in the order of `COLUMNS`."""
    spread = entropy(explanation.maps)
    rows = []
    for k, label in enumerate(explanation.labels):
        largest = next(iter(explanation.components(k, threshold)), None)
        x0, y0, x1, y1 = largest.box if largest else (None,) * 4
        rows.append(
            {
                "path": item.key,
                "rank": k + 1,
                "label": label,
                "index": int(explanation.indices[k]),
                "probability": explanation.probability(k),
                "logit": float(explanation.logits[k]),
                "x0": x0,
                "y0": y0,
                "x1": x1,
                "y1": y1,
                "share": largest.share if largest else None,
                "peak": float(explanation.maps[k].max()),
                "entropy": float(spread[k]),
                "width": explanation.geometry.size[0],
                "height": explanation.geometry.size[1],
                "target": item.target,
            }
        )
    return rows


def maps_of(entry: Entry) -> NDArray[np.float32]:
    """The maps [K,h,w] that an entry keeps, in logits."""
    data = base64.b64decode(entry["maps"]["data"])
    return np.frombuffer(data, dtype=np.float32).reshape(entry["maps"]["shape"])


def source_state(path: Path) -> list[int]:
    """What tells that a file was changed: its time of modification in ns, and its size."""
    try:
        status = path.stat()
    except OSError:
        return []
    return [status.st_mtime_ns, status.st_size]


def finished_shape(item: Item, entry: Entry | None, root: Path) -> Shape | None:
    """The input shape of a picture that needs no more work; None if it has to be done (again).

    It does where it failed, was changed since, lacks a file or a part of one, or is asked for
    another class.
    """
    if entry is None or "failed" in entry or entry["rows"][0]["target"] != item.target:
        return None
    if entry["source"] != source_state(item.path):
        return None
    for name, size in entry["files"].items():
        try:
            if (root / name).stat().st_size != size:
                return None
        except OSError:
            return None
    return entry["input"][0], entry["input"][1]
