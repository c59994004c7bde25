"""Figures of a fit's answers, by the laws that they keep."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from camtool.evaluate.figures import Figure
from camtool.fit.figures import (
    calibration,
    class_figures,
    confusions,
    counts,
    mistakes,
    taken_for,
    with_twice_the_pictures,
)
from camtool.fit.outcome import Answer, Point
from camtool.folder.truth import wilson

CLASSES = 4
FORMS = pytest.mark.parametrize("form", ["softmax", "sigmoid"])


SEEDS = st.integers(0, 10_000)
NUMBERS = st.integers(1, 80)


@FORMS
@given(SEEDS, NUMBERS)
def test_figures_of_classes_count_every_answer_once(answered, outcome_of, form, seed, number):
    answers = answered(seed, number, form)
    found = class_figures(outcome_of(answers, form))
    for k, one in enumerate(found):
        said = [k in taken_for(answer, form) for answer in answers]
        shown = [k in answer.truth for answer in answers]
        both = sum(np.logical_and(said, shown))
        for figure, whole in ((one.precision, sum(said)), (one.recall, sum(shown))):
            assert (figure is None) == (whole == 0)
            if figure:
                assert figure.value == pytest.approx(100 * both / whole)
                assert (figure.low / 100, figure.high / 100) == pytest.approx(wilson(both, whole))
    assert [one.held for one in found] == [
        sum(k in answer.truth for answer in answers) for k in range(CLASSES)
    ]


@given(SEEDS, NUMBERS)
def test_confusions_are_what_is_off_the_diagonal(answered, seed, number):
    answers = answered(seed, number)
    found = counts(answers, CLASSES)
    pairs = confusions(answers)
    assert found.sum() == number
    assert sum(pair.pictures for pair in pairs) == number - np.trace(found)
    assert len({(pair.truth, pair.predicted) for pair in pairs}) == len(pairs)
    assert [pair.pictures for pair in pairs] == sorted((p.pictures for p in pairs), reverse=True)
    for pair in pairs:
        assert pair.truth != pair.predicted
        wrong = [a for a in answers if (a.truth[0], a.probabilities.argmax()) == pair[:2]]
        assert len(wrong) == pair.pictures


@FORMS
@given(SEEDS, NUMBERS)
def test_bins_hold_every_answer_and_their_distance_is_the_error(answered, form, seed, number):
    found = calibration(answered(seed, number, form), form)
    total = number * (CLASSES if form == "sigmoid" else 1)
    assert sum(one.answers for one in found.bins) == total
    places = [one.probability for one in found.bins]
    assert places == sorted(places)
    distance = sum(abs(one.probability - one.right.value) * one.answers for one in found.bins)
    assert found.error == pytest.approx(distance / total)
    assert 0 <= found.error <= 100


def test_a_network_that_is_as_often_right_as_it_says_is_calibrated():
    certain = [Answer("", (0,), np.array([0.75, 0.25], np.float32))] * 3
    wrong = [Answer("", (1,), np.array([0.75, 0.25], np.float32))]
    assert calibration([*certain, *wrong], "softmax").error == pytest.approx(0)
    sure = [Answer("", (0,), np.array([1.0, 0.0], np.float32))]
    assert calibration(sure, "softmax").bins[0].probability == 100
    assert calibration(wrong, "softmax").error == pytest.approx(75)
    # With "sigmoid" what is not shown was told too: 0.75 and 0.25, each right as often.
    assert len(calibration([*certain, *wrong], "sigmoid").bins) == 2


@FORMS
@given(SEEDS, NUMBERS, st.integers(0, 20))
def test_mistakes_are_the_wrong_answers_the_least_sure_of_the_truth_first(
    answered, form, seed, number, most
):
    answers = answered(seed, number, form)
    wrong = [a for a in answers if set(taken_for(a, form)) != set(a.truth)]
    found = mistakes(answers, form, most)
    assert len(found) == min(most, len(wrong))
    assert [one.truth for one in found] == sorted(one.truth for one in found)
    for one in found:
        told = one.answer.probabilities
        assert any(one.answer is answer for answer in wrong)
        taken = taken_for(one.answer, form)
        assert one.said is None or one.said in {*taken} - {*one.answer.truth}
        assert one.missed is None or one.missed in {*one.answer.truth} - {*taken}
        assert (one.said, one.missed) != (None, None)
        if form == "softmax":
            assert one.said == told.argmax()
            assert one.truth == pytest.approx(told[one.answer.truth[0]])
        else:
            given_to = [told[k] if k in one.answer.truth else 1 - told[k] for k in range(CLASSES)]
            assert one.truth == pytest.approx(min(given_to), abs=1e-6)
            assert one.truth <= 0.5
    others = [a for a in wrong if all(a is not one.answer for one in found)]
    if found and form == "softmax":
        assert all(a.probabilities[a.truth[0]] >= found[-1].truth for a in others)


def curve_of(power, scale, sizes=(32, 64, 128, 256), half=2.0):
    values = [100 - scale * n**-power for n in sizes]
    return [
        Point(n, Figure(value, value - half, value + half))
        for n, value in zip(sizes, values, strict=True)
    ]


@given(st.floats(0.3, 1.5), st.floats(20, 95))
def test_a_curve_that_is_a_power_goes_on_as_one(power, scale):
    first = scale * 32**power
    found = with_twice_the_pictures(curve_of(power, first, half=0.01))
    assert found.value == pytest.approx(100 - first * 512**-power, abs=1e-6)
    assert found.low <= found.value <= found.high


@given(st.floats(0.3, 1.5), st.floats(20, 95))
def test_surer_points_make_a_surer_guess(power, scale):
    sure, unsure = (
        with_twice_the_pictures(curve_of(power, scale * 32**power, half=half))
        for half in (0.01, 0.1)
    )
    if unsure:
        assert unsure.high - unsure.low > sure.high - sure.low


@given(st.lists(st.floats(0, 100), min_size=0, max_size=6), st.floats(0, 50))
def test_a_guess_is_a_share_whatever_the_points(values, half):
    points = [
        Point(2**n, Figure(v, max(0, v - half), min(100, v + half))) for n, v in enumerate(values)
    ]
    found = with_twice_the_pictures(points)
    if found:
        assert 0 <= found.low <= found.value <= found.high <= 100
        assert all(map(math.isfinite, (found.low, found.value, found.high)))


@pytest.mark.parametrize(
    "points",
    [
        curve_of(0.5, 200, sizes=(64, 128)),
        curve_of(0.0, 20),
        curve_of(-0.3, 5),
        # Errors fall a little, within what the intervals allow.
        curve_of(0.05, 30, half=6.0),
        # Nothing is wrong any more, so that a power of it is nothing too.
        [*curve_of(0.5, 200)[:3], Point(256, Figure(100, 98, 100))],
        # Up and down.
        [Point(2**n, Figure(v, v - 2, v + 2)) for n, v in enumerate((20, 80, 20, 80))],
    ],
)
def test_points_that_allow_no_guess_give_none(points):
    assert with_twice_the_pictures(points) is None
