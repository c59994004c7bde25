from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from camtool.report.aggregate import GRID, ODD, TYPICAL, ClassAggregator, evidence, overlap

finite = st.floats(width=32, allow_nan=False, allow_infinity=False)
maps = hnp.arrays(
    np.float32,
    hnp.array_shapes(min_dims=2, max_dims=2, max_side=20),
    elements=st.floats(-50, 50, width=32) | finite,
)
positive = maps.filter(lambda heatmap: heatmap.max() > 0)


def spot(row: int, column: int, side: int = 8) -> np.ndarray:
    heatmap = np.zeros((side, side), np.float32)
    heatmap[row, column] = 5.0
    return heatmap


def seen(heatmap: np.ndarray):
    return evidence(heatmap, (0, 0, 80, 60), (80, 60))


def aggregate(heatmaps: list[np.ndarray]) -> ClassAggregator:
    aggregator = ClassAggregator()
    for heatmap in heatmaps:
        aggregator.update(3, seen(heatmap))
    return aggregator


@given(st.integers(1, 40), st.integers(1, 40), st.floats(0, 0.6), st.floats(0.1, 0.4))
def test_overlap_keeps_the_total(cells, bins, start, length):
    matrix = overlap(cells, start, start + length, bins)
    np.testing.assert_allclose(matrix.sum(axis=0), 1.0, rtol=1e-9)


def test_overlap_divides_a_cell_by_length():
    np.testing.assert_allclose(overlap(1, 0.25, 1.0, 2), [[1 / 3], [2 / 3]])


@given(maps)
def test_evidence_is_a_share_of_the_positive_part(heatmap):
    grid = seen(heatmap).grid
    if heatmap.max() <= 0:
        assert grid is None
        return
    assert grid.min() >= 0
    assert grid.sum() == pytest.approx(1.0)


@given(positive, st.floats(0.01, 100))
def test_evidence_does_not_depend_on_the_scale_of_the_map(heatmap, factor):
    scaled = seen(heatmap.astype(np.float64) * factor).grid
    np.testing.assert_allclose(seen(heatmap).grid, scaled, atol=1e-9)


def test_evidence_respects_the_region():
    crop = evidence(np.ones((4, 4)), (20, 0, 60, 40), (80, 40)).grid
    assert crop[:, : GRID // 4].sum() == 0
    assert crop[:, 3 * GRID // 4 :].sum() == 0
    np.testing.assert_allclose(crop[:, GRID // 4 : 3 * GRID // 4], 1 / (GRID * GRID / 2))


def test_nan_is_no_evidence():
    heatmap = spot(0, 0)
    heatmap[7, 7] = np.nan
    np.testing.assert_array_equal(seen(heatmap).grid, seen(spot(0, 0)).grid)


@pytest.mark.parametrize(
    ("row", "column", "border"), [(0, 3, True), (7, 7, True), (3, 0, True), (1, 6, False)]
)
def test_border(row, column, border):
    found = seen(spot(row, column))
    assert found.border is border
    assert found.border_chance == pytest.approx(28 / 64)


@settings(max_examples=30)
@given(st.lists(positive, min_size=2, max_size=6))
def test_agreement_is_the_mean_pairwise_cosine(heatmaps):
    grids = [seen(heatmap).grid.ravel() for heatmap in heatmaps]
    units = [grid / np.linalg.norm(grid) for grid in grids]
    expected = np.mean([a @ b for a, b in combinations(units, 2)])
    aggregator = aggregate(heatmaps)
    assert aggregator.summary(3).agreement == pytest.approx(expected, abs=1e-9)
    np.testing.assert_allclose(aggregator.mean(3).ravel(), np.mean(grids, axis=0), atol=1e-12)


@settings(max_examples=30)
@given(st.lists(positive, min_size=2, max_size=6))
def test_deviation_is_the_cosine_distance_to_the_other_pictures(heatmaps):
    aggregator = aggregate(heatmaps)
    first, *others = [seen(heatmap).grid.ravel() for heatmap in heatmaps]
    mean = np.mean(others, axis=0)
    expected = 1 - first @ mean / np.linalg.norm(first) / np.linalg.norm(mean)
    assert aggregator.deviation(3, seen(heatmaps[0])) == pytest.approx(expected, abs=1e-9)


@given(positive, positive)
def test_two_pictures_deviate_equally_from_each_other(first, second):
    aggregator = aggregate([first, second])
    assert aggregator.deviation(3, seen(first)) == aggregator.deviation(3, seen(second))


def test_evidence_spread_evenly_fills_the_picture():
    assert aggregate([np.ones((5, 7))]).summary(3).area == pytest.approx(1.0)


def test_one_place_is_a_small_area_in_full_agreement():
    summary = aggregate([spot(7, 7)] * 5).summary(3)
    assert summary.area == pytest.approx(1 / 64)
    assert summary.agreement == pytest.approx(1.0)
    assert summary.border == 1.0
    assert summary.chance == pytest.approx(28 / 64)


def test_a_single_picture_has_no_agreement_and_no_deviation():
    aggregator = aggregate([spot(1, 1)])
    assert aggregator.summary(3).agreement is None
    assert aggregator.deviation(3, seen(spot(1, 1))) is None


def test_pictures_without_evidence_are_counted_and_left_out():
    silent = -np.ones((8, 8))
    aggregator = aggregate([silent, spot(2, 2), silent])
    summary = aggregator.summary(3)
    assert (summary.pictures, summary.silent) == (3, 2)
    assert aggregator.mean(3).sum() == pytest.approx(1.0)
    assert aggregator.deviation(3, seen(silent)) is None
    assert aggregate([silent]).summary(3).area == 0.0


def test_an_unknown_class_is_an_error():
    with pytest.raises(KeyError):
        ClassAggregator().summary(1)


@settings(max_examples=30)
@given(st.lists(st.sampled_from([spot(0, 0), spot(0, 1), spot(4, 4), -spot(1, 1)]), max_size=30))
def test_the_pictures_that_deviate_most_and_least(heatmaps):
    aggregator = aggregate([spot(0, 0), *heatmaps])
    found = [(i, aggregator.deviation(3, seen(heatmap))) for i, heatmap in enumerate(heatmaps)]
    known = [(i, deviation) for i, deviation in found if deviation is not None]
    order = sorted(known, key=lambda pair: -pair[1])
    for i, heatmap in enumerate(heatmaps):
        aggregator.compare(3, i, seen(heatmap))
    summary = aggregator.summary(3)
    speaking = summary.pictures - summary.silent
    near = min(TYPICAL, speaking // 2)
    assert summary.typical == sorted(known, key=lambda pair: pair[1])[:near]
    assert summary.odd == order[: min(ODD, speaking - len(summary.typical))]
