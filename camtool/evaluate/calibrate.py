"""Where maps are best cut: chosen on one half of the pictures, measured on the other."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple, get_args

import numpy as np

from camtool import __version__
from camtool.choices import Rule
from camtool.evaluate.bootstrap import REPLICATES, estimate
from camtool.evaluate.datasets import Dataset, Record, match_labels
from camtool.evaluate.figures import Figure, Floats
from camtool.evaluate.iou import box_iou
from camtool.evaluate.levelset import sweep
from camtool.evaluate.metrics import IOUS, to_map
from camtool.evaluate.predictions import (
    EvaluationError,
    MapSettings,
    MapStore,
    Prediction,
    predict,
)
from camtool.images import MAX_PIXELS
from camtool.model import CamModel
from camtool.regions.boxes import ZHOU_THRESHOLD, FloatMap, cut_values

THRESHOLDS = np.arange(0, 100) / 100


class Choice(NamedTuple):
    """A rule and its threshold, as `regions.boxes.cut_value` takes them."""

    rule: Rule
    threshold: float


DEFAULT = Choice("max", ZHOU_THRESHOLD)
CHOICES = [
    Choice(rule, float(threshold))
    for rule in get_args(Rule)
    # Otsu's rule has no threshold.
    for threshold in ([ZHOU_THRESHOLD] if rule == "otsu" else THRESHOLDS)
]
_DEFAULT = CHOICES.index(DEFAULT)
_HALF = IOUS.index(0.5)


@dataclass(frozen=True, eq=False)
class Calibration:
    """What was chosen, and what it is worth on pictures that did not choose.

    Attributes:
        settings: What the maps were made with.
        data_format: Of the data set.
        choice: The rule and the threshold.
        chosen_on: Number of pictures that chose.
        measured_on: Number of the others.
        figures: Of those: GT-known localization by the default and by the choice, and the gain,
            each in percent: "default", "chosen", "gain"; and means over the IoUs 0.3, 0.5 and 0.7:
            "default_mean", "chosen_mean", "gain_mean". Intervals of gains are paired.
    """

    settings: MapSettings
    data_format: str
    choice: Choice
    chosen_on: int
    measured_on: int
    figures: dict[str, Figure]

    def to_json(self) -> dict[str, Any]:
        """The document that `--calibration` takes."""
        return {
            "camtool": __version__,
            "threshold_rule": self.choice.rule,
            "threshold": self.choice.threshold,
            "model": self.settings.to_json(),
            "format": self.data_format,
            "chosen_on": self.chosen_on,
            "measured_on": self.measured_on,
            "figures": {
                name: {"value": figure.value, "low": figure.low, "high": figure.high}
                for name, figure in self.figures.items()
            },
        }

    def to_bytes(self) -> bytes:
        """The document as a file holds it."""
        return json.dumps(self.to_json(), indent=1).encode()


@dataclass
class Calibrator:
    """Collects the boxes of every choice; every second picture chooses.

    Attributes:
        ious: For each picture, IoU of the largest region's box with a true one, by choice.
    """

    ious: list[Floats] = field(default_factory=list)

    def add(self, heatmap: FloatMap, record: Record) -> None:
        """Add a picture with at least one true box; the map as in `Evaluator.update`."""
        true = to_map(record.boxes, record.size, heatmap.shape)
        self.ious.append(np.concatenate(list(_ious_by_rule(heatmap, true))))

    def result(self, settings: MapSettings, data_format: str) -> Calibration:
        """Choose on the first, third, ... picture, and measure on the others.

        The choice has the best mean over the IoUs 0.3, 0.5 and 0.7 of the share of pictures whose
        largest region's box reaches them. The default stays where the best is not better by all of
        its paired 95 % interval.

        Raises:
            ValueError: There are fewer than two pictures.
        """
        if len(self.ious) < 2:
            raise ValueError("two pictures with true boxes are the least: one half chooses")
        choosing, others = (_reached(np.stack(self.ious[first::2])) for first in (0, 1))
        means = _means(choosing.mean(axis=0))
        best = int(means[0].argmax())
        if not estimate(means[:, best] - means[:, _DEFAULT])[1] > 0:
            best = _DEFAULT
        figures = {
            name: Figure(*estimate(values))
            for suffix, table in (("", others[_HALF]), ("_mean", others.mean(axis=0)))
            for name, values in _compared(_means(table), best, suffix)
        }
        counts = len(choosing[0]), len(others[0])
        return Calibration(settings, data_format, CHOICES[best], *counts, figures)


def _ious_by_rule(heatmap: FloatMap, true: Floats) -> Iterable[Floats]:
    for rule in get_args(Rule):
        thresholds = [one.threshold for one in CHOICES if one.rule == rule]
        boxes, found = sweep(heatmap, cut_values(heatmap, thresholds, rule)).largest()
        yield np.where(found, box_iou(boxes, true).max(axis=1), 0.0)


def _reached(ious: Floats) -> Floats:
    """For each IoU, picture and choice whether it is reached, in percent: [3, N, choices]."""
    return np.stack([100.0 * (ious >= least) for least in IOUS])


def _means(table: Floats) -> Floats:
    """Means over pictures [R + 1, choices]: as they are, then of bootstrap samples of them."""
    count = len(table)
    random = np.random.default_rng(0)
    samples = random.multinomial(count, np.full(count, 1 / count), REPLICATES) / count
    return np.concatenate([np.full((1, count), 1 / count), samples]) @ table


def _compared(means: Floats, best: int, suffix: str) -> Iterable[tuple[str, Floats]]:
    default, chosen = means[:, _DEFAULT], means[:, best]
    yield f"default{suffix}", default
    yield f"chosen{suffix}", chosen
    yield f"gain{suffix}", chosen - default


def calibrate(
    dataset: Dataset,
    settings: MapSettings,
    store: MapStore,
    model: Callable[[], CamModel],
    *,
    batch_size: int = 8,
    workers: int | None = None,
    max_pixels: int = MAX_PIXELS,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Calibration:
    """Choose rule and threshold on a data set with true boxes; arguments as in `run.evaluate`.

    Raises:
        EvaluationError: Fewer than two pictures could be measured.
        OSError: A map can't be kept.
    """
    dataset = match_labels(dataset, settings.labels, settings.synsets)
    records = [record for record in dataset.records if record.boxes]
    calibrator = Calibrator()
    predictions = predict(
        records, store, model, batch_size=batch_size, workers=workers, max_pixels=max_pixels
    )
    for number, (record, prediction) in enumerate(zip(records, predictions, strict=True), 1):
        if isinstance(prediction, Prediction):
            calibrator.add(prediction.heatmap(), record)
        progress(number, len(records))
    try:
        return calibrator.result(settings, dataset.format)
    except ValueError as error:
        raise EvaluationError(str(error)) from None
