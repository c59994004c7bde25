from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from camtool.regions import boxes
from camtool.regions.boxes import (
    components_from_map,
    cut_value,
    mask_from_map,
    positive_shares,
)

MAPS = hnp.arrays(
    np.float32,
    hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=9),
    elements=st.integers(-3, 6).map(float),
)


def boxes_from_map(heatmap, *arguments, **options):
    return [one.box for one in components_from_map(heatmap, *arguments, **options)]


def two_blobs() -> np.ndarray:
    heatmap = np.full((6, 8), -1, np.float32)
    heatmap[1:3, 1:4] = 5
    heatmap[4, 6] = 10
    return heatmap


def test_boxes_are_end_exclusive_and_largest_first():
    assert boxes_from_map(two_blobs()) == [(1, 1, 4, 3), (6, 4, 7, 5)]
    assert boxes_from_map(two_blobs(), components="largest") == [(1, 1, 4, 3)]


def test_threshold_is_a_fraction_of_the_maximum_and_strict():
    assert boxes_from_map(two_blobs(), 0.5) == [(6, 4, 7, 5)]
    assert boxes_from_map(two_blobs(), 0.49) == [(1, 1, 4, 3), (6, 4, 7, 5)]
    assert boxes_from_map(two_blobs(), 1.0) == []


def test_component_reports_share_and_area():
    large, small = components_from_map(two_blobs())
    assert (large.area, small.area) == (6, 1)
    assert large.share == pytest.approx(30 / 40)
    assert small.share == pytest.approx(10 / 40)


def test_no_positive_evidence_gives_no_box():
    assert boxes_from_map(np.full((4, 4), -2, np.float32)) == []
    assert boxes_from_map(np.zeros((4, 4), np.float32)) == []
    assert not mask_from_map(np.full((4, 4), np.nan, np.float32)).any()


def test_unseen_pixels_are_never_kept():
    heatmap = np.ones((3, 5), np.float32)
    heatmap[:, 2] = np.nan
    assert boxes_from_map(heatmap) == [(0, 0, 2, 3), (3, 0, 5, 3)]


@given(seed=st.integers(0, 2**31 - 1), height=st.integers(1, 20), width=st.integers(1, 40))
def test_unseen_pixels_hold_no_evidence(seed, height, width):
    random = np.random.default_rng(seed)
    heatmap = random.standard_normal((height, width)).astype(np.float32)
    heatmap[random.random((height, width)) < 0.4] = np.nan
    for component in components_from_map(heatmap):
        x0, y0, x1, y1 = component.box
        inside = np.nan_to_num(heatmap[y0:y1, x0:x1]).clip(0).sum(dtype=float)
        total = np.nan_to_num(heatmap).clip(0).sum(dtype=float)
        assert component.share == pytest.approx(inside / total)


def test_connectivity_decides_about_diagonals():
    heatmap = np.eye(3, dtype=np.float32)
    assert boxes_from_map(heatmap, connectivity=8) == [(0, 0, 3, 3)]
    assert len(boxes_from_map(heatmap, connectivity=4)) == 3


def test_percentile_keeps_the_stated_part():
    heatmap = np.arange(1, 101, dtype=np.float32).reshape(10, 10)
    assert mask_from_map(heatmap, 0.75, rule="percentile").sum() == 25


def test_otsu_separates_two_modes():
    heatmap = np.full((20, 20), 1, np.float32)
    heatmap[5:10, 5:10] = 9
    assert 1 <= cut_value(heatmap, rule="otsu") < 9
    assert boxes_from_map(heatmap, rule="otsu") == [(5, 5, 10, 10)]


def test_ivr_cuts_on_the_way_from_the_45th_percentile_to_the_maximum():
    heatmap = np.arange(101, dtype=np.float32).reshape(1, 101)
    assert cut_value(heatmap, 0.0, "ivr") == 45
    assert cut_value(heatmap, 0.2, "ivr") == 56
    assert cut_value(heatmap - 80, 0.0, "ivr") == 0, "what speaks against a class is never kept"
    assert mask_from_map(heatmap, 0.2, rule="ivr").sum() == 44


@given(threshold=st.floats(0, 1), shift=st.floats(0, 50), seed=st.integers(0, 99))
def test_ivr_moves_with_a_map_that_is_raised(threshold, shift, seed):
    heatmap = np.random.default_rng(seed).random((6, 9), dtype=np.float32)
    raised = cut_value(heatmap + np.float32(shift), threshold, "ivr")
    assert raised == pytest.approx(cut_value(heatmap, threshold, "ivr") + shift, abs=1e-4)


@pytest.mark.parametrize(
    "arguments",
    [
        {"threshold": 1.5},
        {"threshold": float("nan")},
        {"connectivity": 6},
        {"rule": "mean"},
    ],
)
def test_wrong_choices_are_refused(arguments):
    with pytest.raises(ValueError, match=r"threshold|connectivity|rule"):
        boxes_from_map(two_blobs(), **arguments)


def test_wrong_maps_are_refused():
    with pytest.raises(ValueError, match="two dimensions"):
        boxes_from_map(np.zeros((2, 3, 4), np.float32))
    with pytest.raises(ValueError, match="infinity"):
        boxes_from_map(np.array([[1, np.inf]], np.float32))


@given(MAPS, st.sampled_from([4, 8]))
def test_boxes_flip_and_shift_with_the_map(heatmap, connectivity):
    height, width = heatmap.shape
    plain = set(boxes_from_map(heatmap, connectivity=connectivity))
    flipped = set(boxes_from_map(heatmap[:, ::-1].copy(), connectivity=connectivity))
    assert flipped == {(width - x1, y0, width - x0, y1) for x0, y0, x1, y1 in plain}
    padded = np.full((height + 5, width + 4), -1, np.float32)
    padded[2 : 2 + height, 3 : 3 + width] = heatmap
    shifted = set(boxes_from_map(padded, connectivity=connectivity))
    assert shifted == {(x0 + 3, y0 + 2, x1 + 3, y1 + 2) for x0, y0, x1, y1 in plain}


@given(MAPS)
def test_boxes_do_not_depend_on_the_unit(heatmap):
    assert boxes_from_map(heatmap) == boxes_from_map(heatmap * np.float32(4))


@given(MAPS, st.sampled_from([4, 8]))
def test_largest_mask_is_the_first_component(heatmap, connectivity):
    mask = mask_from_map(heatmap, components="largest", connectivity=connectivity)
    found = components_from_map(heatmap, connectivity=connectivity)
    if not found:
        assert not mask.any()
        return
    rows, columns = np.nonzero(mask)
    assert len(rows) == found[0].area
    box = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
    assert box == found[0].box
    assert not (mask & ~mask_from_map(heatmap, connectivity=connectivity)).any()


MASKS = hnp.arrays(
    np.bool_, hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=24), fill=st.just(True)
)


@given(MASKS, st.booleans(), st.sampled_from([4, 8]))
def test_outlines_tell_what_labelling_does(mask, negate, connectivity):
    mask = mask ^ negate
    expected = boxes._label(mask, connectivity)[1]
    found = boxes._regions(mask, connectivity)
    assert np.array_equal(found[boxes._order(found)], expected[boxes._order(expected)])


def test_a_region_in_the_hole_of_another_is_one_of_its_own():
    heatmap = np.ones((7, 7), np.float32)
    heatmap[1:6, 1:6] = 0
    heatmap[3, 3] = 1
    assert boxes_from_map(heatmap) == [(0, 0, 7, 7), (3, 3, 4, 4)]
    assert [c.area for c in components_from_map(heatmap)] == [24, 1]


@given(MAPS)
def test_whole_map_has_all_the_evidence(heatmap):
    whole = np.array([[0, 0, heatmap.shape[1], heatmap.shape[0]]])
    expected = 1.0 if (heatmap > 0).any() else 0.0
    assert positive_shares(heatmap, whole)[0] == pytest.approx(expected)


def test_shares_do_not_depend_on_where_the_map_lies_in_memory():
    heatmap = np.random.default_rng(0).random((61, 83), dtype=np.float32)
    inside = np.array([[3, 5, 80, 59]])
    room = np.zeros(heatmap.nbytes + 64, np.uint8)
    shares = set()
    for start in range(0, 64, 4):
        moved = room[start : start + heatmap.nbytes].view(np.float32).reshape(heatmap.shape)
        moved[...] = heatmap
        shares.add(positive_shares(moved, inside)[0])
    assert len(shares) == 1
