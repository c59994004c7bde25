"""What an evaluation found: typed, as the JSON of metrics.json, and as rows of a table."""

from __future__ import annotations

import heapq
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from camtool import __version__
from camtool.evaluate.datasets import Problem, Record
from camtool.evaluate.figures import TITLES, Figure, Localization, PrecisionRecall
from camtool.evaluate.predictions import MapSettings, Prediction

PUBLISHED: dict[str, dict[str, str]] = {
    "tiny-imagenet": {"top1_loc_best": "43.34 (infoCAM, 2019)"},
    "imagenet": {
        "top1_loc": "43.60 (ImageNet, GoogLeNet-GAP, Zhou 2016)",
        "top5_loc": "57.00 (ImageNet, GoogLeNet-GAP, Zhou 2016)",
        "max_box_acc_v2": "63.7 (ImageNet, ResNet-50, Choe 2020)",
    },
    "cub": {"max_box_acc_v2": "63.0 (ResNet-50, Choe 2020)"},
}
"""Figures that others published, by a data set's format and a key of `TITLES`.

ImageNet's is the format of other data too, so that those name it. Accuracies in percent; where a
paper gives errors, 100 minus the error. How boxes were taken and which pictures were measured
differs from paper to paper: compare with care.
"""

HEADINGS = (
    "metric, %", "network (95 % interval)", "threshold", "centre box", "whole image", "published",
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class Case:
    """One picture that was measured.

    Attributes:
        record: What is true of it.
        prediction: What the network makes of it.
        iou: Of the box at the evaluation's threshold with a true box; None without a true box.
    """

    record: Record
    prediction: Prediction
    iou: float | None


@dataclass
class Highlights:
    """The best, the worst and the most confident wrong pictures so far.

    Attributes:
        keep: How many of each.
    """

    keep: int = 24
    best: list[Case] = field(default_factory=list)
    worst: list[Case] = field(default_factory=list)
    wrong: list[Case] = field(default_factory=list)

    def add(self, case: Case) -> None:
        """Look at one more picture."""
        if case.iou is not None:
            self.best = heapq.nlargest(self.keep, [*self.best, case], lambda c: c.iou or 0.0)
            if case.iou < 1:
                self.worst = heapq.nsmallest(self.keep, [*self.worst, case], lambda c: c.iou or 0.0)
        if case.prediction.rank > 0:
            cases = [*self.wrong, case]
            self.wrong = heapq.nlargest(self.keep, cases, lambda c: c.prediction.probability)


@dataclass(frozen=True, eq=False)
class EvaluationResult:
    """What an evaluation found.

    Attributes:
        settings: What the maps were made with.
        data_format: Of the data set; "" if it is of none.
        root: Folder of the data set.
        top1: Percent of pictures whose label was the first guess.
        top5: Percent of pictures whose label was among the first five guesses.
        localization: The metrics of the maps.
        problems: What could not be used, named.
        highlights: Pictures worth looking at.
    """

    settings: MapSettings
    data_format: str
    root: Path
    top1: float
    top5: float
    localization: Localization
    problems: list[Problem]
    highlights: Highlights

    @property
    def published(self) -> dict[str, str]:
        """Figures that others published for the data, by metric."""
        return PUBLISHED.get(self.data_format, {})

    def to_json(self) -> dict[str, Any]:
        """The document of metrics.json; everything but the pictures worth looking at."""
        found = self.localization
        return {
            "camtool": __version__,
            "model": self.settings.to_json(),
            "format": self.data_format,
            "fit": self.settings.fit,
            "top1": self.top1,
            "top5": self.top5,
            "mode": found.mode,
            "images": found.images,
            "threshold": found.threshold,
            "thresholds": found.thresholds.tolist(),
            "metrics": {
                name: {who: _figure(figure) for who, figure in metric._asdict().items()}
                for name, metric in found.metrics.items()
            },
            "published": self.published,
            "problems": [problem._asdict() for problem in self.problems],
        }

    def table(self) -> list[tuple[str, ...]]:
        """The metrics as text, headings first.

        Returns:
            For each metric its title, the network's figure with its 95 % interval, the threshold
            that gave it, and the figures of the centred box and of the whole image, in percent;
            and what others published, where there is anything.
        """
        rows: list[tuple[str, ...]] = [HEADINGS]
        for name, (network, centre, whole) in self.localization.metrics.items():
            row = (
                TITLES[name],
                f"{network.value:.1f} ({network.low:.1f} to {network.high:.1f})",
                "" if network.threshold is None else f"{network.threshold:.3f}",
                f"{centre.value:.1f}",
                f"{whole.value:.1f}",
                self.published.get(name, ""),
            )
            rows.append(row)
        return rows if self.published else [row[:-1] for row in rows]


def _figure(figure: Figure) -> dict[str, Any]:
    found: dict[str, Any] = {
        name: getattr(figure, name) for name in ("value", "low", "high", "threshold")
    }
    if isinstance(figure, PrecisionRecall):
        curves = {"precision": figure.precision, "recall": figure.recall}
    else:
        curves = {"curve": figure.curve}
    return {**found, **{name: curve.tolist() for name, curve in curves.items()}}
