"""Where points and ticks lie on the charts of a fit."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from camtool.evaluate.figures import Figure
from camtool.fit.charts import learning, penalties, reliability
from camtool.fit.figures import calibration
from camtool.fit.outcome import Penalty, Point

SHARES = st.floats(0, 100)
CURVES = st.lists(st.tuples(SHARES, st.floats(0, 20)), min_size=2, max_size=5)


def inside(chart):
    """Every mark and tick lies in the room, ticks at round numbers, in rising order."""
    for mark in chart.marks:
        assert all(-1e-9 <= part <= 1 + 1e-9 for part in mark[:4]), mark
        assert mark.low <= mark.y <= mark.high
    for ticks in (chart.x_ticks, chart.y_ticks):
        places = [place for place, _ in ticks]
        assert places == sorted(places)
        assert all(-1e-9 <= place <= 1 + 1e-9 for place in places)
    assert 2 <= len(chart.y_ticks) <= 8
    assert all(len(text) <= 6 for _, text in chart.y_ticks)
    assert len(chart.table) == len(chart.marks) + 1


@given(CURVES, st.booleans())
def test_a_learning_curve_lies_in_its_room(values, guessed):
    curve = [
        Point(10 * 2**n, Figure(v, max(0, v - half), min(100, v + half)))
        for n, (v, half) in enumerate(values)
    ]
    chart = learning(curve, Figure(90, 85, 93) if guessed else None)
    inside(chart)
    steps = [b.x - a.x for a, b in zip(chart.marks, chart.marks[1:], strict=False)]
    # Each point has twice the pictures of the one before.
    assert steps == pytest.approx([steps[0]] * len(steps))
    assert [mark.kind for mark in chart.marks].count("guess") == guessed
    assert len(chart.measured) == len(curve)
    assert ("about 90 % (85 to 93)" in chart.note) == guessed


@given(st.lists(st.floats(1e-4, 50), min_size=2, max_size=9), st.integers(0, 8))
def test_penalties_lie_in_their_room(losses, taken):
    tried = [Penalty(10.0 ** (n / 2 - 3), loss, 80) for n, loss in enumerate(losses)]
    strength = tried[taken % len(tried)].strength
    chart = penalties(tried[::-1], strength)
    assert [mark.x for mark in chart.marks] == sorted(mark.x for mark in chart.marks)
    assert [mark.kind for mark in chart.marks].index("chosen") == taken % len(tried)
    order = sorted(range(len(losses)), key=lambda n: losses[n])
    heights = [chart.marks[n].y for n in order]
    assert heights == sorted(heights)
    assert all(-1e-9 <= mark.y <= 1 + 1e-9 for mark in chart.marks)


@given(st.integers(0, 1000), st.integers(1, 60))
def test_answers_lie_in_their_room(answered, seed, number):
    chart = reliability(calibration(answered(seed, number), "softmax"))
    inside(chart)
    assert chart.diagonal
    assert [chart.x_ticks[0], chart.x_ticks[-1]] == [(0, "0 %"), (1, "100 %")]
