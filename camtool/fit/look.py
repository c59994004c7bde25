"""Where a fitted network looks: on average for each class, and in single pictures."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from camtool.engines.engine import Failed, Job
from camtool.engines.stream import explain_jobs
from camtool.report.aggregate import ClassAggregator, Evidence, evidence
from camtool.report.suspicion import Suspicions
from camtool.views.text import display_text

if TYPE_CHECKING:
    from camtool.engines.engine import Engine
    from camtool.explanation import Explanation
    from camtool.report.schema import ClassSummary, Flag
    from camtool.targets import Target

PER_CLASS = 24
"""Most pictures of a class that are looked at, evenly spaced."""
IN_ALL = 2000
"""About so many pictures are looked at where there are many classes, but `FEWEST` of each."""
FEWEST = 6

Pictures: TypeAlias = "Sequence[tuple[str, tuple[int, ...]]]"
"""Paths, each with the classes that the picture shows."""
Progress: TypeAlias = "Callable[[int, int], None]"
"""Told how many are done, and of how many."""


@dataclass(frozen=True)
class ClassLook:
    """Where the evidence for a class lies in pictures that show it.

    Attributes:
        summary: Of their maps, `position` being the index of the class; flagged where the place
            gives the class away.
        typical: Paths of the pictures nearest to the mean, nearest first.
    """

    summary: ClassSummary
    typical: tuple[str, ...]

    @property
    def flag(self) -> Flag | None:
        """Why the class is suspicious, if it is."""
        return next(iter(self.summary.flags), None)


def warnings(looks: Sequence[ClassLook], labels: Sequence[str]) -> list[str]:
    """A line for each class that is flagged, with what a person should look at."""
    return [
        f"look at {display_text(labels[one.summary.position])} ({flag.where}): {flag.share:.0%} of "
        f"its evidence lies there, of the other classes' {flag.others:.0%}"
        for one in looks
        if (flag := one.flag)
    ]


def look_at_classes(
    engine: Engine, pictures: Pictures, classes: int, progress: Progress = lambda done, total: None
) -> list[ClassLook]:
    """Where the evidence for each class lies, with the class flagged that its place gives away.

    Pictures that can't be read any more are passed over.

    Args:
        engine: With the fitted network.
        pictures: What it was fitted on, and what was held out.
        classes: Of the network.
        progress: Told after every picture.

    Returns:
        One for each class that a picture shows, in their order.
    """
    shown = list(_sampled(pictures, classes))
    sums, suspicions = ClassAggregator(), Suspicions()
    kept: list[tuple[int, int, Evidence]] = []
    targets = [(path, [k]) for path, k in shown]
    for number, explanation in explained(engine, targets):
        progress(number + 1, len(shown))
        if isinstance(explanation, Failed):
            continue
        geometry, key = explanation.geometry, shown[number][1]
        found = evidence(explanation.maps[0], geometry.region, geometry.size)
        kept.append((key, number, found))
        sums.update(key, found)
        if found.grid is not None:
            suspicions.update(key, found.grid)
    for key, number, found in kept:
        sums.compare(key, number, found)
    apart = suspicions.flags()
    return [_look(sums, key, apart, shown) for key in sorted(sums)]


def _look(
    sums: ClassAggregator,
    key: int,
    apart: Mapping[int, tuple[float, Flag | None]],
    shown: Sequence[tuple[str, int]],
) -> ClassLook:
    distance, flag = apart.get(key, (None, None))
    summary = sums.summary(key)._replace(apart=distance, flags=[flag] if flag else [])
    return ClassLook(summary, tuple(shown[place][0] for place, _ in summary.typical))


def _sampled(pictures: Pictures, classes: int) -> Iterator[tuple[str, int]]:
    """Some pictures of each class, evenly spaced, with the class."""
    most = min(PER_CLASS, max(FEWEST, IN_ALL // classes))
    of_class: list[list[str]] = [[] for _ in range(classes)]
    for path, truth in pictures:
        for k in truth:
            of_class[k].append(path)
    for k, paths in enumerate(of_class):
        places = np.linspace(0, len(paths) - 1, min(most, len(paths))).round().astype(int)
        yield from ((paths[place], k) for place in places)


def explained(
    engine: Engine, targets: Sequence[tuple[str, Sequence[Target]]]
) -> Iterator[tuple[int, Explanation | Failed]]:
    """Explanations of pictures, by their number, a few at a time.

    Args:
        engine: With the network.
        targets: Paths, each with as many targets.
    """
    jobs = (Job(number, path, some) for number, (path, some) in enumerate(targets))
    return ((job.number, result) for job, result in explain_jobs(engine, jobs))
