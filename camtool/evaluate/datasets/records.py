"""Records of a data set, and the checks that every one of them passes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from operator import le, lt
from pathlib import Path
from typing import NamedTuple

from camtool.evaluate.datasets.masks import MaskFiles
from camtool.images import ImageError, read_size
from camtool.networks.labels import classes_by_name, plain

TrueBox = tuple[float, float, float, float]


@dataclass(frozen=True)
class Record:
    """One picture with what is true of it.

    Attributes:
        path: The picture.
        label: Index of its class, or its name (a synset id or a word).
        boxes: (x0, y0, x1, y1) in pixels of the picture, end-exclusive, within it. A box of no
            width or height is one pixel wide or high.
        mask: Files of its mask, if the data set has masks.
        size: (width, height) of the picture, as people see it.
    """

    path: Path
    label: int | str
    boxes: tuple[TrueBox, ...]
    mask: MaskFiles | None
    size: tuple[int, int]


class Problem(NamedTuple):
    """Something in a data set that can't be used, or not as it stands."""

    path: str
    reason: str


@dataclass(frozen=True)
class Dataset:
    """Usable records and what was found to be wrong.

    Attributes:
        records: In the data set's own order.
        problems: What could not be used, or not as it stands.
        format: What it was read as.
        root: Its folder.
    """

    records: list[Record]
    problems: list[Problem]
    format: str = ""
    root: Path = Path()

    def evenly(self, count: int) -> Dataset:
        """At most so many of the records, evenly spaced."""
        step = max(1.0, len(self.records) / count)
        some = [self.records[int(n * step)] for n in range(min(count, len(self.records)))]
        return replace(self, records=some)


@dataclass
class Findings:
    """What a reader has found so far."""

    records: list[Record] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)

    def add(
        self,
        path: Path,
        label: int | str | None,
        boxes: Iterable[Sequence[float]],
        *,
        mask: MaskFiles | None = None,
        size: tuple[int, int] | None = None,
        closed: bool = False,
    ) -> None:
        """Add a picture, or the reason why it can't be used.

        A box that reaches over the picture's edge is cut off there, one wholly outside or
        without area is left out; both are named.

        Args:
            path: The picture.
            label: Index or name of its class; None if the data set does not say.
            boxes: (x0, y0, x1, y1) in pixels, end-exclusive.
            mask: Files of its mask.
            size: (width, height), read from the picture if not given.
            closed: The boxes' ends belong to them: one whose ends coincide is a pixel wide.
        """
        if label is None or label == "":
            self.problem(path, "it has no label")
            return
        if not path.is_file():
            self.problem(path, "the picture is missing")
            return
        try:
            actual = size or read_size(path)
        except ImageError as error:
            self.problem(path, error.reason)
            return
        missing = [file for file in mask.files() if not file.is_file()] if mask else []
        for file in missing:
            self.problem(file, "the mask is missing")
        usable = mask if not missing else None
        kept = tuple(self._within(path, boxes, actual, closed))
        if not kept and usable is None:
            self.problem(path, "it has no usable box or mask")
            return
        self.records.append(Record(path, label, kept, usable, actual))

    def problem(self, path: Path | str, reason: str) -> None:
        """Note something that can't be used."""
        self.problems.append(Problem(str(path), reason))

    def _within(
        self, path: Path, boxes: Iterable[Sequence[float]], size: tuple[int, int], closed: bool
    ) -> Iterator[TrueBox]:
        holds = le if closed else lt
        for box in boxes:
            x0, y0, x1, y1 = map(float, box)
            inside = (max(x0, 0.0), max(y0, 0.0), min(x1, float(size[0])), min(y1, float(size[1])))
            named = f"box {tuple(box)}"
            # Written so that a NaN, which compares false with everything, is left out too.
            if not (holds(x0, x1) and holds(y0, y1)):
                self.problem(path, f"{named} has no area")
            elif not (holds(inside[0], inside[2]) and holds(inside[1], inside[3])):
                self.problem(path, f"{named} lies outside the picture of {size[0]} x {size[1]}")
            else:
                if inside != (x0, y0, x1, y1):
                    self.problem(path, f"{named} was cut off at {size[0]} x {size[1]}")
                yield inside


def match_labels(dataset: Dataset, labels: Sequence[str], synsets: Sequence[str] = ()) -> Dataset:
    """Replace every record's label by the index of the network's class.

    Args:
        dataset: Records with labels as the data set has them.
        labels: The network's labels, in order; several words for one may be given, separated by
            commas.
        synsets: The network's synset ids, in order, if it has them.

    Returns:
        Records whose label is an index, and one more problem for each that the network can't
        name.
    """
    known = classes_by_name(labels, synsets)
    matched, problems = [], list(dataset.problems)
    for record in dataset.records:
        given = record.label
        found = given if isinstance(given, int) else known.get(given, known.get(plain(given)))
        if found is None or not 0 <= found < len(labels):
            problems.append(Problem(str(record.path), f"the network has no one label {given!r}"))
        else:
            matched.append(replace(record, label=found))
    return replace(dataset, records=matched, problems=problems)


def read_lines(path: Path) -> list[str]:
    """Lines of a text file without their ends, empty ones left out. Raises OSError."""
    text = path.read_text(encoding="utf-8", errors="surrogateescape")
    return [line for line in text.splitlines() if line.strip()]
