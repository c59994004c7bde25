from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from camtool.evaluate.iou import box_iou
from camtool.evaluate.metrics import (
    SIZES,
    BoxAccuracy,
    ClassMean,
    PixelPrecision,
    centre_ious,
    coverage,
    default_thresholds,
    energy_score,
    map_ious,
    mask_pointing_score,
    pointing_score,
    to_map,
)

THRESHOLDS = default_thresholds(20)
MAPS = hnp.arrays(
    np.float32,
    st.tuples(st.integers(3, 9), st.integers(3, 9)),
    elements=st.floats(-1, 4, width=32),
    unique=True,
)
# The corners of a box as fractions of a map's sides.
CORNERS = st.tuples(*[st.integers(0, 6)] * 2, *[st.integers(7, 12)] * 2)


def box_on(heatmap, corners):
    height, width = heatmap.shape
    return tuple(c / 12 * s for c, s in zip(corners, (width, height) * 2, strict=True))


def flip(box, width):
    return (width - box[2], box[1], width - box[0], box[3])


@given(MAPS, CORNERS)
def test_ious_are_equivariant_under_flips(heatmap, corners):
    box = box_on(heatmap, corners)
    mirrored = heatmap[:, ::-1].copy()
    plain = map_ious(heatmap, [box], THRESHOLDS)
    other = map_ious(mirrored, [flip(box, heatmap.shape[1])], THRESHOLDS)
    assert np.allclose(plain[1], other[1])
    best = np.abs(plain[0] - other[0]) < 1e-9
    # Between regions of equal area the topmost and leftmost is taken, which a flip changes.
    assert best.all() or has_tied_areas(heatmap)


def has_tied_areas(heatmap):
    from camtool.evaluate.levelset import relative_cuts, sweep

    regions = sweep(heatmap, relative_cuts(heatmap, THRESHOLDS))
    return any(
        np.count_nonzero(areas == areas.max()) > 1
        for index in range(len(THRESHOLDS))
        if len(areas := regions.areas[regions.indices == index])
    )


@given(MAPS, CORNERS, st.integers(1, 5), st.integers(1, 5))
def test_everything_shifts_with_map_and_truth(heatmap, corners, down, right):
    height, width = heatmap.shape
    box = box_on(heatmap, corners)
    padded = np.full((height + down, width + right), -1, np.float32)
    padded[down:, right:] = heatmap
    moved = (box[0] + right, box[1] + down, box[2] + right, box[3] + down)
    for one, other in zip(
        map_ious(heatmap, [box], THRESHOLDS),
        map_ious(padded, [moved], THRESHOLDS),
        strict=True,
    ):
        assert np.allclose(one, other)
    size, padded_size = (width, height), (width + right, height + down)
    if heatmap.max() > -1:
        assert pointing_score(heatmap, [box], size) == pointing_score(padded, [moved], padded_size)
    assert energy_score(heatmap, coverage([box], heatmap.shape)) == pytest.approx(
        energy_score(padded, coverage([moved], padded.shape))
    )


@given(MAPS, CORNERS, st.booleans())
def test_pointing_and_energy_flip_with_map_and_truth(heatmap, corners, upside_down):
    height, width = heatmap.shape
    x0, y0, x1, y1 = box = box_on(heatmap, corners)
    turned = heatmap[::-1].copy() if upside_down else heatmap[:, ::-1].copy()
    other = (x0, height - y1, x1, height - y0) if upside_down else flip(box, width)
    size = (width, height)
    # A peak whose centre lies on the box's very edge may round to either side of it.
    near = [pointing_score(heatmap, [box], size, reach) for reach in (0, 1e-9)]
    if near[0] == near[1]:
        assert pointing_score(turned, [other], size, 1e-9) == near[0]
    assert energy_score(heatmap, coverage([box], heatmap.shape)) == pytest.approx(
        energy_score(turned, coverage([other], heatmap.shape))
    )


@settings(max_examples=30)
@given(CORNERS)
def test_a_perfect_map_scores_everything(corners):
    x0, y0, x1, y1 = corners
    heatmap = np.full((14, 13), -1, np.float32)
    heatmap[y0:y1, x0:x1] = 5
    box = [corners]
    for ious in map_ious(heatmap, box, THRESHOLDS):
        assert np.allclose(ious, 1)
    accuracy = BoxAccuracy(THRESHOLDS, replicates=10)
    accuracy.update(np.ones(len(THRESHOLDS)), 0)
    assert accuracy.max_box_acc().value == 100
    assert accuracy.max_box_acc_v2().value == 100
    mask = (heatmap > 0).astype(np.uint8)
    pixels = PixelPrecision(THRESHOLDS, replicates=10)
    pixels.update(heatmap, mask)
    assert pixels.result().value == pytest.approx(100)
    assert pointing_score(heatmap, box, (13, 14)) == 1
    assert mask_pointing_score(heatmap, mask, (13, 14)) == 1
    assert energy_score(heatmap, coverage(box, heatmap.shape)) == pytest.approx(1)


@given(CORNERS)
def test_a_constant_map_scores_as_the_whole_image(corners):
    heatmap = np.full((24, 24), 3, np.float32)
    box = tuple(2 * corner for corner in corners)
    whole = box_iou([(0, 0, 24, 24)], [box])[0, 0]
    for ious in map_ious(heatmap, [box], THRESHOLDS):
        assert np.allclose(ious, whole)
    assert centre_ious([box], (24, 24))[-1] == pytest.approx(whole)
    mask = np.zeros((24, 24), np.uint8)
    mask[box[1] : box[3], box[0] : box[2]] = 1
    pixels = PixelPrecision(THRESHOLDS, replicates=10)
    pixels.update(heatmap, mask)
    assert pixels.result().value == pytest.approx(100 * mask.mean())
    assert pointing_score(heatmap, [box], (24, 24)) == pytest.approx(mask.mean())
    assert energy_score(heatmap, mask) == pytest.approx(mask.mean())


def test_boxes_are_sub_pixel():
    # A map of 4 x 4 on an image of 6 x 6: the found box is 1.5 to 4.5, as is the true one.
    heatmap = np.zeros((4, 4), np.float32)
    heatmap[1:3, 1:3] = 1
    true = to_map([(1.5, 1.5, 4.5, 4.5)], (6, 6), heatmap.shape)
    assert map_ious(heatmap, true, THRESHOLDS)[0][0] == pytest.approx(1)


def test_width_and_height_are_not_swapped():
    heatmap = np.zeros((10, 20), np.float32)
    heatmap[2:4, 12:18] = 1
    true = to_map([(120, 40, 180, 80)], (200, 200), heatmap.shape)
    assert true.tolist() == [[12, 2, 18, 4]]
    assert pointing_score(heatmap, [(120, 40, 180, 80)], (200, 200)) == 1


def test_box_accuracy_chooses_one_threshold_for_all_images():
    accuracy = BoxAccuracy(np.array([0.1, 0.2, 0.3]), replicates=50)
    accuracy.update(np.array([0.9, 0.6, 0.1]), 0)
    accuracy.update(np.array([0.1, 0.6, 0.9]), 3)
    accuracy.update(np.array([0.1, 0.1, 0.4]), None)
    acc = accuracy.max_box_acc()
    assert acc.value == pytest.approx(200 / 3)
    assert acc.threshold == 0.2
    assert np.allclose(acc.curve, [100 / 3, 200 / 3, 100 / 3])
    assert acc.low <= acc.value <= acc.high
    # At 0.3: the best threshold is 0.2 or 0.3 with two; at 0.7 any with one.
    assert accuracy.max_box_acc_v2().value == pytest.approx((200 / 3 + 200 / 3 + 100 / 3) / 3)


def test_top_k_needs_the_label_and_the_box():
    accuracy = BoxAccuracy(np.array([0.0]), replicates=10)
    for iou, rank in ((0.8, 0), (0.8, 4), (0.8, 5), (0.4, 0), (0.8, None)):
        accuracy.update(np.array([iou]), rank)
    assert accuracy.gt_known(0.2).value == 80
    assert accuracy.top_loc(1).value == 20
    assert accuracy.top_loc(5, 0.2).value == 40


def test_pixel_precision_by_hand():
    pixels = PixelPrecision(np.array([0.0, 0.5]), replicates=10)
    heatmap = np.array([[4.0, 3.0, 1.0, -1.0, np.nan, 9.0]], np.float32)[:, :5]
    pixels.update(heatmap, np.array([[1, 0, 1, 1, 255]], np.uint8))
    expected = 1 / 3 * 1 / 2 + 1 / 3 * 2 / 3 + 1 / 3 * 3 / 4
    result = pixels.result()
    assert result.value == pytest.approx(100 * expected)
    assert np.allclose(result.recall, [1 / 3, 2 / 3, 1])


def test_pixel_precision_pools_images_on_the_scale_of_their_maximum():
    one, other = PixelPrecision(THRESHOLDS, replicates=5), PixelPrecision(THRESHOLDS, replicates=5)
    random = np.random.default_rng(0)
    for scale in (1.0, 64.0):
        heatmap = random.standard_normal((9, 9)).astype(np.float32)
        mask = (random.random((9, 9)) < 0.4).astype(np.uint8)
        one.update(heatmap, mask)
        other.update(heatmap * np.float32(scale), mask)
    assert one.result().value == other.result().value


def test_pointing_tolerance_is_in_pixels_of_the_image():
    heatmap = np.zeros((10, 10), np.float32)
    heatmap[5, 5] = 1  # at (110, 55) of an image of 200 x 100
    box = [(125, 50, 150, 60)]
    assert pointing_score(heatmap, box, (200, 100)) == 0
    assert pointing_score(heatmap, box, (200, 100), 14.9) == 0
    assert pointing_score(heatmap, box, (200, 100), 15) == 1
    assert pointing_score(np.full((3, 3), np.nan, np.float32), box, (200, 100)) == 0


def test_mask_pointing():
    heatmap = np.zeros((20, 20), np.float32)
    heatmap[10, 10] = 1
    mask = np.zeros((20, 20), np.uint8)
    mask[10, 13] = 1
    mask[10, 11] = 255
    assert mask_pointing_score(heatmap, mask, (20, 20)) == 0
    assert mask_pointing_score(heatmap, mask, (20, 20), 2.9) == 0
    assert mask_pointing_score(heatmap, mask, (20, 20), 3.1) == 1
    assert mask_pointing_score(heatmap, np.zeros_like(mask), (20, 20), 99) == 0


def test_class_mean_weighs_classes_alike():
    mean = ClassMean(3, replicates=10)
    for score, label in ((1, 0), (1, 0), (1, 0), (0, 1)):
        mean.update(score, label)
    assert mean.result().value == 50


def test_mean_and_energy_of_no_evidence():
    mean = ClassMean(1, replicates=10)
    mean.update(energy_score(np.full((3, 3), -1, np.float32), np.ones((3, 3))))
    mean.update(1.0)
    assert mean.result().value == 50


def test_coverage_shares_pixels():
    inside = coverage([(0.5, 1, 2.25, 2)], (3, 3))
    assert inside.tolist() == [[0, 0, 0], [0.5, 1, 0.25], [0, 0, 0]]


def test_centre_boxes_reach_from_the_middle_to_the_whole():
    ious = centre_ious([(25, 10, 75, 30)], (100, 40))
    assert SIZES[int(ious.argmax())] == 0.5
    assert ious.max() == pytest.approx(1)
    assert ious[-1] == pytest.approx(0.25)


def test_nothing_measured_is_an_error():
    with pytest.raises(ValueError, match="no image"):
        BoxAccuracy(THRESHOLDS).max_box_acc()
    pixels = PixelPrecision(THRESHOLDS)
    with pytest.raises(ValueError, match="object"):
        pixels.result()
    pixels.update(np.ones((2, 2), np.float32), np.zeros((2, 2), np.uint8))
    with pytest.raises(ValueError, match="object"):
        pixels.result()
