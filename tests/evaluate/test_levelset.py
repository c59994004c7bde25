from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from camtool.evaluate import levelset
from camtool.evaluate.levelset import levels_of, relative_cuts, sweep
from camtool.regions import components_from_map
from camtool.regions.boxes import FloatMap

SHAPES = hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=10)
TIED = hnp.arrays(np.float32, SHAPES, elements=st.integers(-2, 5).map(float))
HOLED = hnp.arrays(
    np.float32, SHAPES, elements=st.sampled_from([-1.0, 0.0, 1.0, 2.0, float("nan")])
)


def resized(coarse: FloatMap, size: tuple[int, int]) -> FloatMap:
    """OpenCV keeps float32, which its types do not say."""
    return cv2.resize(coarse, size).astype(np.float32, copy=False)


def naive(heatmap, cut):
    mask = (heatmap > np.float32(cut)).astype(np.uint8)
    _, _, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=8)
    rows = [(x, y, x + w, y + h, area) for x, y, w, h, area in stats[1:].tolist()]
    return sorted(rows)


def found(regions, index):
    here = regions.indices == index
    rows = np.column_stack([regions.boxes[here], regions.areas[here]])
    return sorted(map(tuple, rows.tolist()))


def check(heatmap, cuts):
    regions = sweep(heatmap, cuts)
    largest, exists = regions.largest()
    for index, cut in enumerate(cuts):
        expected = naive(heatmap, cut)
        assert found(regions, index) == expected
        assert exists[index] == bool(expected)
        if expected:
            first = min(expected, key=lambda row: (-row[4], row[1], row[0], row[3], row[2]))
            assert tuple(largest[index]) == first[:4]


@given(TIED)
def test_equals_labelling_at_every_cut_with_ties_and_plateaus(heatmap):
    check(heatmap, np.arange(-3, 6))


@given(HOLED)
def test_unseen_pixels_are_in_no_region(heatmap):
    check(heatmap, np.linspace(-2, 2, 9))


@given(
    hnp.arrays(np.float32, SHAPES, elements=st.floats(-1, 1, width=32)),
    st.lists(st.floats(-1, 1, width=32), min_size=1, max_size=6).map(sorted),
)
@example(np.zeros((1, 1), np.float32), [0.0, 1e-41])
def test_cuts_may_be_uneven_and_repeat(heatmap, cuts):
    check(heatmap, np.array(cuts, np.float32))


@settings(max_examples=20)
@given(st.integers(0, 2**32 - 1), st.sampled_from([7, 14]))
def test_smooth_maps(seed, side):
    coarse = np.random.default_rng(seed).standard_normal((side, side)).astype(np.float32)
    heatmap = resized(coarse, (60, 45))
    check(heatmap, relative_cuts(heatmap, np.arange(50) / 50))


def test_maps_longer_than_a_short_number_holds():
    heatmap = np.zeros((2, 33_000), np.float32)
    heatmap[:, 32_900:] = 1
    heatmap[0, 32_990] = 2
    check(heatmap, [0.0, 1.0])


def test_maps_of_very_many_regions(monkeypatch):
    heatmap = np.random.default_rng(0).standard_normal((40, 50)).astype(np.float32)
    cuts = np.linspace(-1, 1, 60, dtype=np.float32)
    check(heatmap, cuts)
    # As if the tables of all regions and cuts had become too large.
    assert len(naive(heatmap, 0.5)) * len(cuts) > 5_000
    monkeypatch.setattr(levelset, "_MOST_CELLS", 5_000)
    monkeypatch.setattr(levelset, "_states", None)
    check(heatmap, cuts)


def test_agrees_with_components_from_map():
    coarse = np.random.default_rng(1).standard_normal((9, 9)).astype(np.float32)
    heatmap = resized(coarse, (80, 70))
    thresholds = np.arange(100) / 100
    regions = sweep(heatmap, relative_cuts(heatmap, thresholds))
    for index, threshold in enumerate(thresholds):
        here = regions.boxes[regions.indices == index]
        assert sorted(map(tuple, here)) == sorted(
            one.box for one in components_from_map(heatmap, threshold)
        )


def test_maps_need_not_be_contiguous():
    heatmap = resized(np.random.default_rng(2).random((5, 6), np.float32), (30, 20))
    for view in (heatmap.T, heatmap[::-1, ::2]):
        check(view, relative_cuts(view, np.arange(40) / 40))


def test_nothing_kept():
    regions = sweep(np.zeros((5, 5), np.float32), [0.0, 1.0])
    boxes, exists = regions.largest()
    assert len(regions.areas) == 0
    assert not exists.any()
    assert not boxes.any()


def test_best_is_the_maximum_per_threshold():
    heatmap = np.array([[2, 0, 1]], np.float32)
    regions = sweep(heatmap, [0.0, 1.0, 2.0])
    scores = regions.boxes[:, 0].astype(float)
    assert regions.best(scores).tolist() == [2.0, 0.0, 0.0]


@given(
    hnp.arrays(np.float32, (4, 5), elements=st.floats(-1e6, 1e6, width=32)),
    st.floats(0.001, 1e5),
    st.floats(-1e5, 1e5),
)
def test_levels_count_the_cuts_below(values, step, first):
    cuts = (first + step * np.arange(64)).astype(np.float32)
    expected = (values[..., None] > cuts).sum(axis=-1)
    assert np.array_equal(levels_of(values, cuts), expected)


def test_levels_of_values_next_to_a_cut():
    cuts = (np.arange(1000) * 0.01).astype(np.float32)
    below, above = np.nextafter(cuts, -np.inf), np.nextafter(cuts, np.inf)
    values = np.stack([below, cuts, above]).astype(np.float32)
    counts = np.arange(1000)
    assert np.array_equal(levels_of(values, cuts), [counts, counts, counts + 1])


@pytest.mark.parametrize(
    ("heatmap", "cuts"),
    [(np.zeros((2, 2, 2)), [0.0]), (np.zeros((0, 3)), [0.0]), (np.zeros((2, 2)), [1.0, 0.0])],
)
def test_wrong_arguments_are_refused(heatmap, cuts):
    with pytest.raises(ValueError, match=r"map|cuts"):
        sweep(heatmap, cuts)
