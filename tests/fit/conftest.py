"""Answers and outcomes to make figures and pages of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from camtool.evaluate.figures import Figure
from camtool.fit.outcome import Answer, Outcome, Penalty, Point

CLASSES = 4


def _answered(seed, number, form="softmax", classes=CLASSES, name="{:04d}.jpg"):
    """Answers of a network that is right more often than not."""
    random = np.random.default_rng(seed)
    found = []
    for n in range(number):
        logits = random.normal(0, 2, classes)
        if form == "softmax":
            shown = [int(random.integers(classes))]
            logits[shown] += 2
            probabilities = np.exp(logits) / np.exp(logits).sum()
        else:
            shown = np.flatnonzero(random.random(classes) < 0.4).tolist()
            probabilities = 1 / (1 + np.exp(-logits))
        found.append(Answer(name.format(n), tuple(shown), probabilities.astype(np.float32)))
    return tuple(found)


@pytest.fixture(scope="session")
def answered() -> Callable[..., tuple[Answer, ...]]:
    return _answered


@pytest.fixture(scope="session")
def outcome_of() -> Callable[..., Outcome]:
    """An outcome with these answers."""

    def make(answers, form="softmax", labels=tuple("abcd"), **changes):
        held = tuple(sum(k in one.truth for one in answers) for k in range(len(labels)))
        outcome = Outcome(
            labels=tuple(labels),
            form=form,
            base="efficientnet_lite0",
            fitted=(9,) * len(labels),
            held=held,
            penalties=tuple(Penalty(10.0**n, 1 + 0.1 * n * n, 70 - n) for n in range(-2, 3)),
            strength=1.0,
            answers=answers,
            accuracy=Figure(71.2, 60.1, 80.3),
            majority=25.0,
            curve=tuple(
                Point(9 * 2**n, Figure(v, v - 2, v + 2)) for n, v in enumerate((50, 65, 75))
            ),
            duplicates=(),
            problems=(),
        )
        return replace(outcome, **changes)

    return make
