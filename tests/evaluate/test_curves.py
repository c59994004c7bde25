from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from camtool.evaluate.curves import COLOURS, Chart, Series, curves, ticks
from camtool.views import text

WHITE = np.array(text.WHITE)


def chart(*series):
    return Chart("MaxBoxAcc", "threshold", "pictures, %", series)


def pixels(*charts, **words):
    return np.asarray(curves(charts, title="t", **words)).astype(int)


def of_colour(image, colour):
    """Rows and columns of the pixels that have a colour exactly."""
    return np.argwhere((image == np.array(colour)).all(axis=-1))


def curve_of(image, colour):
    """As `of_colour`, without the legend, which lies below the axis."""
    found = of_colour(image, colour)
    return found[found[:, 0] < 470]


def test_a_higher_value_is_drawn_higher():
    rows = [
        curve_of(pixels(chart(Series("a", (0, 1), (y, y)))), COLOURS[0])[:, 0].mean()
        for y in (10, 30, 90)
    ]
    assert rows[0] > rows[1] > rows[2]
    assert rows[1] - rows[2] == pytest.approx(3 * (rows[0] - rows[1]), abs=2)


def test_a_curve_spans_the_axis_and_values_beyond_it_stay_on_its_edge():
    inside = curve_of(pixels(chart(Series("a", (0, 1), (100, 100)))), COLOURS[0])
    beyond = curve_of(pixels(chart(Series("a", (0, 1), (1000, 130)))), COLOURS[0])
    np.testing.assert_array_equal(inside, beyond)
    assert np.ptp(inside[:, 1]) > 400


def test_a_gap_is_left_where_there_is_no_value():
    x = np.linspace(0, 1, 101)
    y = np.where((x > 0.4) & (x < 0.6), np.nan, 50.0)
    columns = np.unique(curve_of(pixels(chart(Series("a", x, y))), COLOURS[0])[:, 1])
    gaps = np.diff(columns)
    assert gaps.max() == pytest.approx(0.2 * np.ptp(columns), abs=8)
    assert (gaps > 1).sum() == 1


def test_the_best_point_is_marked_where_it_is():
    plain = pixels(chart(Series("a", (0, 1), (50, 50))))
    marked = pixels(chart(Series("a", (0, 1), (50, 50), best=(0.25, 50))))
    above = of_colour(marked, COLOURS[0])
    line = curve_of(plain, COLOURS[0])
    left, right = line[:, 1].min(), line[:, 1].max()
    disc = above[above[:, 0] < line[:, 0].min() - 1]
    assert disc[:, 1].mean() == pytest.approx(left + 0.25 * (right - left), abs=2)


def test_a_single_point_is_seen():
    found = of_colour(pixels(chart(Series("whole image", (1.0,), (37.0,)))), COLOURS[0])
    assert len(found) > 20


def test_curves_differ_in_colour_and_in_dashes():
    series = [Series(f"s{n}", (0, 1), (10 * n + 10,) * 2) for n in range(6)]
    image = pixels(chart(*series))
    parts = []
    for colour in COLOURS:
        found = curve_of(image, colour)
        columns = np.unique(found[found[:, 0] == np.median(found[:, 0]).round()][:, 1])
        parts.append(tuple(np.unique(np.diff(columns))))
    assert len(set(COLOURS)) == len(COLOURS)
    assert parts[0] == (1,)
    assert all(part != (1,) for part in parts[1:])


@pytest.mark.parametrize(("count", "columns", "rows"), [(1, 1, 1), (3, 3, 1), (4, 2, 2), (7, 3, 3)])
def test_charts_stand_side_by_side_and_wrap(count, columns, rows):
    one = curves([chart()], title="t").size
    many = curves([chart()] * count, title="t").size
    margin = 64
    assert (many[0] - margin) / (one[0] - margin) == pytest.approx(columns, rel=0.2)
    assert many[1] / one[1] == pytest.approx(rows, rel=0.25)


def test_every_chart_of_a_sheet_is_drawn():
    series = Series("a", (0, 1), (50, 50))
    image = pixels(*[chart(series)] * 5)
    half, third = image.shape[0] // 2, image.shape[1] // 3
    seen = [
        len(of_colour(image[y : y + half, x : x + third], COLOURS[0]))
        for y in (0, half)
        for x in (0, third, 2 * third)
    ]
    assert all(seen[:5])
    assert seen[5] == 0


def test_the_footer_is_wrapped_and_lengthens_the_sheet():
    bare, noted = (curves([chart()], title="t", footer=f) for f in ("", "word " * 60))
    assert noted.width == bare.width
    assert noted.height > bare.height + 40
    assert (np.asarray(noted)[bare.height - 10 :] != WHITE).any()


def test_long_and_hostile_texts_stay_on_the_sheet():
    series = Series("name \x00 " * 40, (0, 1), (1, 2), best=(0.123456, 99.99))
    long = Chart("title " * 50, "x " * 200, "y " * 200, (series,))
    image = np.asarray(curves([long], title="\n\tΩ" * 300))
    edges = [image[:10], image[-10:], image[:, :10], image[:, -10:]]
    assert all((edge == 255).all() for edge in edges)


def test_a_chart_without_a_series_shows_its_axes():
    image = pixels(chart())
    assert (image != WHITE).any(axis=-1).sum() > 500


def test_no_chart_and_uneven_lengths_are_refused():
    with pytest.raises(ValueError, match="needs a chart"):
        curves([], title="t")
    with pytest.raises(ValueError, match="3 thresholds, 2 values"):
        Series("a", (0, 1, 2), (1, 2))


@settings(max_examples=200)
@given(st.floats(-1e6, 1e6), st.floats(1e-3, 1e6))
def test_ticks_are_few_even_round_and_inside(low, span):
    high = low + span
    found = ticks(low, high)
    assert 4 <= len(found) <= 11
    steps = np.diff(found)
    assert (steps > 0).all()
    np.testing.assert_allclose(steps, steps[0], rtol=1e-3)
    slack = 1e-6 * span + 1e-8 * abs(low)
    assert low - slack <= found[0]
    assert found[-1] <= high + slack
