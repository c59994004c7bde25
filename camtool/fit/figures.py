"""What the answers of a fitted network come to: figures of each class, confusions, calibration."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from camtool.evaluate.figures import Figure
from camtool.fit.outcome import Answer, Form, Outcome, Point
from camtool.folder.truth import wilson

BINS = 10
"""Of the calibration curve, of equal width."""
_QUANTILE = 1.959963984540054
"""Of the normal distribution, for an interval that holds 95 %."""
_WIDEST = 30.0
"""Percent; an extrapolation with a wider interval says nothing."""


class ClassFigures(NamedTuple):
    """What is known of one class.

    Attributes:
        label: Its name.
        fitted: Pictures that were fitted on.
        held: Pictures that were held out.
        precision: Of the held-out pictures that were taken for it, how many show it, in percent,
            with Wilson's 95 % interval; None where none was.
        recall: Of those that show it, how many were taken for it; None where there is none.
    """

    label: str
    fitted: int
    held: int
    precision: Figure | None
    recall: Figure | None


class Confusion(NamedTuple):
    """Pictures of one class that were taken for another, by indices."""

    truth: int
    predicted: int
    pictures: int


class Bin(NamedTuple):
    """Answers of like probability.

    Attributes:
        probability: Their mean, in percent.
        right: How many are right, in percent, with Wilson's 95 % interval.
        answers: Their number.
    """

    probability: float
    right: Figure
    answers: int


class Calibration(NamedTuple):
    """How often the network is right when it says how sure it is.

    Attributes:
        bins: Those that hold answers, by rising probability.
        error: Expected calibration error (Guo et al. 2017, equation 3), in percent: the mean over
            answers of the distance between both sides of their bin.
    """

    bins: tuple[Bin, ...]
    error: float


@dataclass(frozen=True)
class Mistake:
    """A picture that was held out, and taken for what it is not.

    Attributes:
        answer: What was said of it.
        said: The class that it is wrongly taken for, of several the most probable; with "sigmoid"
            there may be none.
        missed: The class that it shows and is not taken for, of several the least probable;
            likewise.
        truth: Probability that is given to the truth: to `missed`, or with "sigmoid" that against
            `said` where it is less.
    """

    answer: Answer
    said: int | None
    missed: int | None
    truth: float


def taken_for(answer: Answer, form: Form) -> tuple[int, ...]:
    """The classes that a picture is taken for."""
    if form == "softmax":
        return (int(answer.probabilities.argmax()),)
    return tuple(np.flatnonzero(answer.probabilities >= 0.5).tolist())


def share_of(part: int, whole: int) -> Figure | None:
    """A share in percent with Wilson's 95 % interval; None of nothing."""
    if not whole:
        return None
    low, high = wilson(part, whole)
    return Figure(100 * part / whole, 100 * low, 100 * high)


def class_figures(outcome: Outcome) -> list[ClassFigures]:
    """The figures of each class, in the order of the labels."""
    said = Counter(k for one in outcome.answers for k in taken_for(one, outcome.form))
    right = Counter(
        k for one in outcome.answers for k in taken_for(one, outcome.form) if k in one.truth
    )
    shown = Counter(k for one in outcome.answers for k in one.truth)
    return [
        ClassFigures(label, fitted, held, share_of(right[k], said[k]), share_of(right[k], shown[k]))
        for k, (label, fitted, held) in enumerate(
            zip(outcome.labels, outcome.fitted, outcome.held, strict=True)
        )
    ]


def counts(answers: Sequence[Answer], classes: int) -> npt.NDArray[np.int64]:
    """How often each class was taken for each other: int64 [K,K], a row for each truth.

    Args:
        answers: Each with one truth.
        classes: K.
    """
    found = np.zeros((classes, classes), np.int64)
    for one in answers:
        found[one.truth[0], one.probabilities.argmax()] += 1
    return found


def confusions(answers: Sequence[Answer]) -> list[Confusion]:
    """The pairs of classes that were confused, the most frequent first.

    Args:
        answers: Each with one truth.
    """
    pairs = Counter((one.truth[0], int(one.probabilities.argmax())) for one in answers)
    found = [Confusion(*pair, number) for pair, number in pairs.items() if pair[0] != pair[1]]
    return sorted(found, key=lambda pair: (-pair.pictures, pair.truth, pair.predicted))


def calibration(answers: Sequence[Answer], form: Form) -> Calibration:
    """The calibration of the most probable classes, or with "sigmoid" of every class.

    Args:
        answers: One or more.
        form: Of the network.
    """
    probabilities, right = _verdicts(answers, form)
    places = np.minimum((probabilities * BINS).astype(int), BINS - 1)
    bins, distance = [], 0.0
    for place in np.unique(places):
        inside = places == place
        share = share_of(int(right[inside].sum()), int(inside.sum()))
        assert share is not None
        mean = 100 * float(probabilities[inside].mean())
        bins.append(Bin(mean, share, int(inside.sum())))
        distance += abs(share.value - mean) * inside.sum() / len(inside)
    return Calibration(tuple(bins), float(distance))


def _verdicts(
    answers: Sequence[Answer], form: Form
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
    """Probabilities [N] that were told, and whether what they were told of is so."""
    if form == "softmax":
        best = [int(one.probabilities.argmax()) for one in answers]
        told = [float(one.probabilities[k]) for one, k in zip(answers, best, strict=True)]
        so = [k in one.truth for one, k in zip(answers, best, strict=True)]
        return np.array(told), np.array(so)
    shown = [np.isin(np.arange(len(one.probabilities)), one.truth) for one in answers]
    every = np.concatenate([one.probabilities for one in answers]).astype(np.float64)
    return every, np.concatenate(shown)


def mistakes(answers: Sequence[Answer], form: Form, most: int) -> list[Mistake]:
    """The worst mistakes: those that give the truth the least probability, the worst first.

    Args:
        answers: Any number.
        form: Of the network.
        most: How many at most.
    """
    found = (_mistake(one, form) for one in answers if set(taken_for(one, form)) != {*one.truth})
    return sorted(found, key=lambda one: (one.truth, one.answer.path))[:most]


def _mistake(answer: Answer, form: Form) -> Mistake:
    told, taken = answer.probabilities, taken_for(answer, form)
    wrong = [k for k in taken if k not in answer.truth]
    lost = [k for k in answer.truth if k not in taken]
    said = max(wrong, key=lambda k: float(told[k])) if wrong else None
    missed = min(lost, key=lambda k: float(told[k])) if lost else None
    against = 1.0 if said is None or form == "softmax" else 1 - float(told[said])
    given = 1.0 if missed is None else float(told[missed])
    return Mistake(answer, said, missed, min(given, against))


def with_twice_the_pictures(curve: Sequence[Point]) -> Figure | None:
    """The accuracy that twice the pictures would give, if the learning curve goes on as it does.

    Errors are taken to fall as a power of the number of pictures (Hestness et al. 2017): a straight
    line through their logarithms, by least squares, each weighted by its interval. The 95 %
    interval is that of the line, widened where points lie further from it than their own
    intervals tell, and that of the last point, for all points are measured on the same pictures.

    Args:
        curve: By rising number of pictures.

    Returns:
        In percent; None where there are fewer than three points, one without a mistake or
        without a right answer, where it is not clear that errors fall, or where the interval is
        too wide to mean anything.
    """
    errors = np.array([100 - point.accuracy.value for point in curve])
    if len(curve) < 3 or errors.min() <= 0 or errors.max() >= 100:
        return None
    half = np.array([point.accuracy.high - point.accuracy.low for point in curve]) / 2
    deviation = np.maximum(half / _QUANTILE, 1e-6) / errors
    pictures = np.log([point.pictures for point in curve])
    line, covariance = _line(pictures - pictures[-1], np.log(errors), deviation)
    if line[1] + _QUANTILE * math.sqrt(covariance[1, 1]) >= 0:
        return None
    place = np.array([1.0, math.log(2)])
    spread = math.sqrt(place @ covariance @ place + deviation[-1] ** 2)
    ends = [place @ line + sign * _QUANTILE * spread for sign in (0, 1, -1)]
    value, low, high = (100 - min(100.0, math.exp(end)) for end in ends)
    return None if high - low > _WIDEST else Figure(value, low, high)


def _line(
    x: npt.NDArray[np.float64], y: npt.NDArray[np.float64], deviation: npt.NDArray[np.float64]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Intercept and slope by weighted least squares [2], and their covariance [2,2]."""
    design = np.stack([np.ones_like(x), x], 1) / deviation[:, None]
    covariance = np.linalg.inv(design.T @ design)
    line = covariance @ design.T @ (y / deviation)
    residual = design @ line - y / deviation
    return line, np.asarray(covariance * max(1.0, float(residual @ residual) / (len(x) - 2)))
