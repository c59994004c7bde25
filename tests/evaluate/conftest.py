"""Results of an evaluation, made up where only their form counts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from camtool.evaluate.datasets import Problem, Record
from camtool.evaluate.figures import Figure, Localization, Metric, PrecisionRecall
from camtool.evaluate.predictions import MapSettings, Prediction
from camtool.evaluate.results import Case, EvaluationResult, Highlights

THRESHOLDS = np.arange(5) / 5


def figure(value, threshold=None, curve=()):
    curve = np.array(curve, float)
    return Figure(value, value - 1, value + 1, threshold, THRESHOLDS[: len(curve)], curve)


def box_metric(*values):
    sizes = np.arange(1, 101) / 100
    centre = Figure(values[1], values[1] - 1, values[1] + 1, 0.76, sizes, sizes * values[1])
    return Metric(figure(values[0], 0.2, [10, values[0], 30, 20, 0]), centre, figure(values[2], 1))


def area(value, precision):
    recall = np.linspace(0.25, 1, len(precision))
    return PrecisionRecall(
        value, value - 1, value + 1, precision=np.array(precision), recall=recall
    )


METRICS = {
    "gt_known": box_metric(60.0, 56, 52),
    "max_box_acc": box_metric(63.5, 57, 52),
    "max_box_acc_v2": Metric(figure(62.25), figure(55), figure(50)),
    "max_box_acc_v2_30": box_metric(80.0, 75, 70),
    "max_box_acc_v2_70": box_metric(42.0, 36, 34),
    "pxap": Metric(*(area(v, [1, v / 100, 0.4, 0.3]) for v in (70.0, 60.0, 50.0))),
}


def prediction(**fields):
    plain = Prediction(np.ones((1, 1), np.float32), (0, 0, 8, 6), (8, 6), 1, 0, 0.5)
    return replace(plain, **fields)


def case(iou, path="a.png", **fields):
    box = () if iou is None else ((0, 0, 4, 4),)
    return Case(Record(Path(path), 0, box, None, (8, 6)), prediction(**fields), iou)


@pytest.fixture
def make_case():
    return case


@pytest.fixture
def make_result():
    """An evaluation's result, some of its metrics left out, its fields replaced."""

    def make(names=tuple(METRICS), name="gapnet", **fields):
        model = {"name": name, "weights": "x.pth", "head": {"kind": "linear"}}
        settings = MapSettings(model, "whole", 72, "float32", ("cat", "dog"), ())
        metrics = {key: METRICS[key] for key in names}
        found = Localization("plain", 40, 0.2, THRESHOLDS, metrics)
        problems = [Problem("b.png", "the picture is missing")]
        result = EvaluationResult(
            settings, "csv", Path(), 50.0, 80.0, found, problems, Highlights()
        )
        return replace(result, **fields)

    return make
