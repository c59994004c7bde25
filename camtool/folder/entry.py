"""What a run keeps of each picture: one entry of the journal, of which every result is a view."""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, TypedDict, get_args, get_type_hints

import numpy as np
from numpy.typing import NDArray

from camtool.choices import Rule
from camtool.engines.engine import Shape
from camtool.explanation import Explanation
from camtool.folder.discovery import Picture, state_of
from camtool.regions.measure import entropy


class Row(TypedDict):
    """One class of one picture in the results; what may be None is unknown, or not there.

    The box is in pixels of the picture, its right and lower end excluded; logit, peak and residual
    are in logits, all others without a unit. Residual, exact, method and steps are those of
    `Explanation`. The rank is the place among the classes explained; that of
    the truth, where it is not among the best asked for, its place among all.
    """

    path: str
    rank: int
    label: str
    index: int
    probability: float | None
    logit: float
    x0: int | None
    y0: int | None
    x1: int | None
    y1: int | None
    share: float | None
    peak: float
    entropy: float
    width: int
    height: int
    target: str | None
    residual: float
    exact: bool
    method: str
    steps: int
    truth: str | None
    predicted: str
    right: bool | None


COLUMNS: dict[str, type] = {
    name: (get_args(kind) or (kind,))[0] for name, kind in get_type_hints(Row).items()
}
"""Columns of the results and their types, in order."""


def box_of(row: Row) -> tuple[int, int, int, int] | None:
    """The box (x0, y0, x1, y1) of a row, if it has one."""
    x0, y0, x1, y1 = row["x0"], row["y0"], row["x1"], row["y1"]
    if x0 is None or y0 is None or x1 is None or y1 is None:
        return None
    return x0, y0, x1, y1


@dataclass(frozen=True)
class Explained:
    """A picture that was explained.

    Attributes:
        key: Its name in the run.
        name: What its files are called.
        state: Of the source before it was read, as from `state_of`.
        changed: Whether the source was another while the work was done; then it is done again.
        input: (height, width) of the network's input.
        region: (x0, y0, x1, y1) in pixels of the picture that the maps cover.
        rows: What the results say of it, a row for each class explained, best first.
        shape: Of the maps, [K,h,w].
        maps: float32, in logits, in base64.
        files: Written for it, by name relative to the results, with their bytes.
        milliseconds: Work that it took.
        predicted: Index of the class with the greatest logit.
        truth: Index of the class that the picture is known to show.
    """

    key: str
    name: str
    state: tuple[int, ...]
    changed: bool
    input: list[int]
    region: list[int]
    rows: list[Row]
    shape: list[int]
    maps: str
    files: dict[str, int]
    milliseconds: float
    predicted: int
    truth: int | None = None

    def heatmaps(self) -> NDArray[np.float32]:
        """The maps [K,h,w], in logits, at feature resolution."""
        return np.frombuffer(base64.b64decode(self.maps), dtype=np.float32).reshape(self.shape)


@dataclass(frozen=True)
class Unexplained:
    """A picture that could not be explained.

    Attributes:
        key: Its name in the run.
        failed: Why, in one line.
    """

    key: str
    failed: str


Entry: TypeAlias = Explained | Unexplained


def from_record(record: dict[str, Any]) -> Entry:
    """The entry whose `vars` were written as JSON.

    Raises:
        TypeError, KeyError: It is none.
    """
    if "failed" in record:
        return Unexplained(**record)
    return Explained(**{**record, "state": tuple(record["state"])})


def predicted_by(explanation: Explanation) -> int:
    """Index of the class with the greatest logit; of equals the one that was explained first."""
    logits = explanation.all_logits
    first = int(explanation.indices[0])
    return first if logits[first] == logits.max() else int(logits.argmax())


def rows_of(
    picture: Picture,
    explanation: Explanation,
    labels: Sequence[str],
    threshold: float,
    rule: Rule = "max",
) -> list[Row]:
    """A row for each class explained, best first; none for a contrast.

    Args:
        picture: What was explained.
        explanation: What was found.
        labels: Of all classes.
        threshold: Of the box, as for `Explanation.components`.
        rule: What the threshold is a share of.
    """
    predicted, truth = predicted_by(explanation), picture.truth
    spread = entropy(explanation.maps)
    width, height = explanation.geometry.size
    rows: list[Row] = []
    for k, label in enumerate(explanation.labels):
        if explanation.versus[k]:
            continue
        index = int(explanation.indices[k])
        beside = picture.target is not None and index == truth
        largest = next(iter(explanation.components(k, threshold, rule)), None)
        x0, y0, x1, y1 = largest.box if largest else (None,) * 4
        rows.append(
            {
                "path": picture.key,
                "rank": explanation.rank(k) if beside else k + 1,
                "label": label,
                "index": index,
                "probability": explanation.probability(k),
                "logit": float(explanation.logits[k]),
                "x0": x0,
                "y0": y0,
                "x1": x1,
                "y1": y1,
                "share": largest.share if largest else None,
                "peak": float(explanation.maps[k].max()),
                "entropy": float(spread[k]),
                "width": width,
                "height": height,
                "target": picture.listed,
                "residual": float(explanation.residual[k]),
                "exact": explanation.exact,
                "method": explanation.method,
                "steps": explanation.steps,
                "truth": None if truth is None else labels[truth],
                "predicted": labels[predicted],
                "right": None if truth is None else truth == predicted,
            }
        )
    return rows


def finished_shape(
    picture: Picture, entry: Entry, size_of: Callable[[str], int | None]
) -> Shape | None:
    """The input shape of a picture that needs no more work; None if it has to be done (again).

    It does where it failed, was changed since or meanwhile, lacks a file or a part of one, is
    called otherwise now, or is said to show another class.

    Args:
        picture: Of the run that is continued.
        entry: What was noted of it last.
        size_of: Bytes of a file of the results by its name; None where it is not there.
    """
    if isinstance(entry, Unexplained) or entry.changed or entry.name != picture.name:
        return None
    listed = entry.rows[0]["target"]
    if (listed, entry.truth) != (picture.listed, picture.truth):
        return None
    if entry.state != state_of(picture.source):
        return None
    if any(size_of(name) != size for name, size in entry.files.items()):
        return None
    return entry.input[0], entry.input[1]
