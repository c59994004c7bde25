from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from camtool.views import legend
from camtool.views.colormaps import table
from camtool.views.overlay import Look, Scale

HIGHS = st.floats(1e-5, 1e7)


def scale(high, signed):
    return Scale(-high if signed else 0.0, high)


@given(high=HIGHS, signed=st.booleans())
def test_few_ticks_from_end_to_end_with_zero_among_them(high, signed):
    bar = scale(high, signed)
    ticks = legend.ticks(bar.low, bar.high)
    assert {bar.low, 0.0, bar.high} <= set(ticks)
    assert len(ticks) == len(set(ticks)) <= 10
    assert all(bar.low <= tick <= bar.high for tick in ticks)


def test_inner_ticks_are_round():
    assert sorted(legend.ticks(0.0, 245.0)) == [0, 50, 100, 150, 200, 245]
    assert sorted(legend.ticks(-3.0, 3.0)) == [-3, -2, 0, 2, 3]


@given(high=HIGHS, signed=st.booleans(), length=st.integers(160, 480))
def test_numbers_lie_under_the_bar_and_never_touch(high, signed, length):
    bar = scale(high, signed)
    numbers = sorted(legend.placed(bar, length), key=lambda number: number[1])
    assert bar.high in [value for value, _, _ in numbers]
    assert bar.low in [value for value, _, _ in numbers]
    assert all(0 <= left < right <= length for _, left, right in numbers)
    for (_, _, right), (_, left, _) in pairwise(numbers):
        assert left - right >= 10


@example(high=0.4, length=186)
@given(high=HIGHS, length=st.integers(160, 480))
def test_a_signed_bar_is_numbered_symmetrically(high, length):
    values = {value for value, _, _ in legend.placed(scale(high, True), length)}
    assert values == {-value for value in values}


@pytest.mark.parametrize("signed", [False, True])
def test_the_bar_runs_from_no_colour_to_the_colour_of_the_end(signed):
    look = Look(signed=signed, opacity=1.0)
    image = np.asarray(legend.bar(look, scale(30.0, signed), 300))
    row = image[2].astype(int)
    length = np.flatnonzero((row == 255).all(-1))[0]
    neutral = row[length // 2 if signed else 0]
    assert np.ptp(neutral) <= 4
    assert row[length - 1].tolist() == table(look.table_name)[-1].tolist()
    # Below the bar and its numbers nothing is drawn, and beside it only the unit.
    assert np.all(image[-1] == 255)
    assert image[:, 260:].min() < 200


@pytest.mark.parametrize(
    ("normalize", "said"),
    [
        ("image", "scale: each map its own maximum"),
        ("shared", "scale: one maximum for all maps"),
        ("none", "scale: fixed, ends at 30 logits"),
    ],
)
def test_the_normalisation_is_said(normalize, said):
    assert said in legend.notes(Look(normalize=normalize))


def test_the_signed_look_says_which_end_is_for_the_label():
    assert "above zero for" in legend.notes(Look(signed=True))[0]
