"""How well a fitted layer does on pictures that were held out."""

from __future__ import annotations

from collections import Counter

import torch
from torch import Tensor

from camtool.evaluate.figures import Figure
from camtool.fit.outcome import Answer, Point
from camtool.fit.sample import Sample
from camtool.fit.solver import ROUGH, Examples, Layer, fitted_layer, right
from camtool.fit.split import Kinds, first_share
from camtool.folder.truth import wilson
from camtool.results import probabilities_of

SHARES = (1 / 8, 1 / 4, 1 / 2)
"""Of the pictures that are fitted on, for the learning curve."""

ENOUGH = 20
"""Pictures held out, from which on a learning curve says something."""

_NAN = float("nan")


def accuracy(layer: Layer, sample: Sample, examples: Examples) -> Figure:
    """How many pictures held out a layer is right on, in percent; NaN where there are none."""
    count = len(sample.held)
    if not count:
        return Figure(_NAN, _NAN, _NAN)
    hits = int(right(_logits(layer, sample), sample.matrix(sample.held), examples.form).sum())
    low, high = wilson(hits, count)
    return Figure(100 * hits / count, 100 * low, 100 * high)


def answers(layer: Layer, sample: Sample, examples: Examples) -> tuple[Answer, ...]:
    """What a layer says of each picture held out."""
    probabilities = probabilities_of(_logits(layer, sample), examples.form).float().numpy()
    return tuple(
        Answer(str(sample.pictures[number].path), sample.truths[number], row)
        for number, row in zip(sample.held, probabilities, strict=True)
    )


def _logits(layer: Layer, sample: Sample) -> Tensor:
    return layer(torch.from_numpy(sample.plain[sample.held]))


def majority(sample: Sample) -> float:
    """How many pictures held out the most frequent answer alone is right on, in percent."""
    most = Counter(sample.truths[number] for number in sample.held).most_common(1)
    return 100 * most[0][1] / len(sample.held) if most else _NAN


def learning_curve(
    sample: Sample, examples: Examples, kinds: Kinds, strength: float, whole: Figure
) -> tuple[Point, ...]:
    """Accuracy where fewer pictures are fitted on, and with all of them (`whole`)."""
    if len(sample.held) < ENOUGH:
        return ()
    points = []
    for share in SHARES:
        some = first_share(kinds, share)
        layer = fitted_layer(examples.some(some), strength, ROUGH)
        points.append(Point(len(some), accuracy(layer, sample, examples)))
    return (*points, Point(len(examples.truth), whole))
