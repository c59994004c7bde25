"""What the page is told: the one place that names the data which the writer and the scripts share.

A record travels as the JSON list of its values, an array as base64 of its bytes, a number that is
not finite as null. `RECORDS` travels once beside them; by it the scripts give every value the name
that it has here, whatever its place.
"""

from __future__ import annotations

from typing import NamedTuple, get_args, get_type_hints

import numpy as np
import numpy.typing as npt

Region = tuple[float, float, float, float]
"""(x0, y0, x1, y1) in picture pixels, end-exclusive."""


class ClassMap(NamedTuple):
    """What a `ReportRow` says of its class, and its map."""

    position: int  # of the class in `Page.labels`
    rank: int
    versus: int | None  # position of the class that this one is contrasted with
    probability: float
    logit: float
    peak: float
    share: float
    entropy: float
    residual: float
    box: Region | None
    region: Region
    rows: int
    columns: int
    levels: npt.NDArray[np.int8]  # [rows, columns]; 127 is the map's largest magnitude


class Picture(NamedTuple):
    """What the rows of one picture share; thumb, original and overlay are URLs, or ""."""

    path: str
    width: int
    height: int
    thumb: str
    original: str
    overlay: str
    target: str
    truth: int | None  # position of the class that it is known to show
    predicted: int  # position of the class with the greatest logit
    classes: list[ClassMap]


class Label(NamedTuple):
    """Number and name of a class."""

    number: int
    label: str


class Deviator(NamedTuple):
    """A picture far from the mean of its class."""

    place: int  # of the picture in the folder, on the page in `Page.pictures`
    deviation: float  # from the mean of the others, in [0, 1]


class Flag(NamedTuple):
    """Why a class is suspicious: a place where its evidence lies, and that of others does not."""

    where: str
    area: Region  # parts of the picture, in [0, 1]
    share: float  # of its evidence that lies there, on average
    others: float  # of that of the other classes
    by_chance: float  # probability of any class so far apart by luck, in (0, 1]


class ClassSummary(NamedTuple):
    """What the maps of one class have in common; silent pictures are counted and in no figure."""

    position: int  # of the class in `Page.labels`, or EVERY_CLASS
    pictures: int
    silent: int  # pictures whose map has no positive value
    mean: npt.NDArray[np.uint8]  # [GRID, GRID], mean share of the evidence; 255 is the largest
    area: float  # effective part of the picture, exp(H(mean)) / GRID**2 with H in nats, in (0, 1]
    agreement: float | None  # mean cosine similarity of two pictures' evidence, None below two
    border: float  # part of the pictures whose peak touches the edge of the map
    chance: float  # what `border` would be if peaks fell anywhere with equal chance
    typical: list[Deviator]  # smallest deviation first
    odd: list[Deviator]  # largest deviation first
    apart: float | None  # standard deviations from the other classes, None where not judged
    flags: list[Flag]  # one, or none


class Confusion(NamedTuple):
    """How many pictures of one class were taken for another; positions in `Page.labels`."""

    truth: int
    predicted: int
    number: int


class Failure(NamedTuple):
    """A picture that could not be explained."""

    path: str
    reason: str


class Page(NamedTuple):
    """All of it. The last two may be long and are written piece by piece."""

    meta: dict[str, str]
    total: int  # pictures in the folder; the page may list fewer
    labels: list[Label]
    classes: list[ClassSummary]
    confusions: list[Confusion]  # the most frequent first
    colors: list[npt.NDArray[np.uint8]]  # positive and signed table, [256, 3]
    failed: list[Failure]
    pictures: list[Picture]


KINDS = (ClassMap, Picture, Label, Deviator, Flag, ClassSummary, Confusion, Failure, Page)

RECORDS = {
    kind.__name__: {
        name: next((inner.__name__ for inner in KINDS if inner in get_args(hint)), None)
        for name, hint in get_type_hints(kind).items()
    }
    for kind in KINDS
}
"""The names of each kind's fields in their order, each with the kind that it lists, if any."""
