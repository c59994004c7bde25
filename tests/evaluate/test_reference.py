from __future__ import annotations

import cv2
import numpy as np
import pytest

from camtool.evaluate.iou import box_iou
from camtool.evaluate.metrics import BoxAccuracy
from camtool.evaluate.reference import (
    ReferencePxAP,
    reference_ious,
    reference_map,
    reference_thresholds,
    reference_true_boxes,
)


def boxes_one_threshold_at_a_time(scoremap, threshold, all_contours):
    """The published procedure, step by step."""
    image = np.array([[int(value * 255) for value in row] for row in scoremap], np.uint8)
    binary = np.where(image > int(threshold * image.max()), 255, 0).astype(np.uint8)
    contours, _ = cv2.findContours(binary, cv2.RETR_TREE, cv2.CHAIN_APPROX_SIMPLE)
    if not contours:
        return [[0, 0, 0, 0]]
    if not all_contours:
        contours = [max(contours, key=cv2.contourArea)]
    height, width = scoremap.shape
    found = []
    for contour in contours:
        x, y, w, h = cv2.boundingRect(contour)
        found.append([x, y, min(x + w, width - 1), min(y + h, height - 1)])
    return found


def ious_one_threshold_at_a_time(scoremap, threshold, box, all_contours):
    found = boxes_one_threshold_at_a_time(scoremap, threshold, all_contours)
    return box_iou(found, [box], closed=True).max()


@pytest.mark.parametrize(
    "kind", [pytest.param("smooth", marks=pytest.mark.slow), "noise", "flat steps"]
)
def test_equals_one_contour_search_a_threshold(kind):
    random = np.random.default_rng(3)
    cam = random.standard_normal((7, 7) if kind == "smooth" else (40, 30))
    if kind == "flat steps":
        cam = np.round(cam)
    scoremap = reference_map(cam) if kind == "smooth" else (cam - cam.min()) / np.ptp(cam)
    thresholds = reference_thresholds(0.01)
    for box in ((3, 5, 17, 11), (0, 0, 29, 39), (20, 100, 120, 170), (90, 20, 91, 200)):
        found = reference_ious(scoremap, [box], (224, 224), thresholds)
        for largest, every, threshold in zip(*found, thresholds, strict=True):
            assert largest == ious_one_threshold_at_a_time(scoremap, threshold, box, False)
            assert every == ious_one_threshold_at_a_time(scoremap, threshold, box, True)


def found_exactly(scoremap, box):
    """Whether the largest contour has this box, and whether any has, at a threshold of one half."""
    ious = reference_ious(scoremap, [box], (224, 224), np.array([0.5]))
    return tuple(iou.item() == 1 for iou in ious)


def test_a_hole_is_a_contour_too():
    ring = np.zeros((9, 9))
    ring[1:8, 1:8] = 1
    ring[3:6, 3:6] = 0
    assert found_exactly(ring, (1, 1, 8, 8)) == (True, True)
    assert found_exactly(ring, (2, 2, 7, 7)) == (False, True)


def test_boxes_end_beyond_their_last_pixel_but_not_on_the_border():
    scoremap = np.zeros((4, 5))
    scoremap[1:, 1:] = 1
    assert found_exactly(scoremap, (1, 1, 4, 3)) == (True, True)
    assert found_exactly(np.zeros((4, 5)), (0, 0, 0, 0)) == (True, True)


def test_maps_are_stretched_to_zero_and_one():
    scoremap = reference_map(np.random.default_rng(0).standard_normal((7, 7)).astype(np.float32))
    assert scoremap.shape == (224, 224)
    assert scoremap.dtype == np.float64
    assert (scoremap.min(), scoremap.max()) == (0.0, 1.0)
    assert not reference_map(np.full((7, 7), 3.0)).any()
    assert not reference_map(np.full((7, 7), np.nan)).any()


def test_true_boxes_are_truncated():
    assert reference_true_boxes([(1, 2, 4, 3)], (10, 20), side=35).tolist() == [[3, 3, 14, 5]]
    with pytest.raises(ValueError, match="not boxes"):
        reference_true_boxes([(5, 0, 4, 3)], (10, 20))
    with pytest.raises(ValueError, match="not boxes"):
        reference_true_boxes([(-1, 0, 4, 3)], (10, 20))


def test_maps_outside_zero_and_one_are_refused():
    for bad in (np.full((3, 3), 1.5), np.full((3, 3), np.nan), np.zeros(4)):
        with pytest.raises(ValueError, match=r"\[0, 1\]"):
            reference_ious(bad, [(0, 0, 1, 1)], (5, 5), np.zeros(1))


def test_ious_without_a_true_box_are_an_error():
    with pytest.raises(ValueError, match="true boxes"):
        reference_ious(np.zeros((224, 224)), [], (5, 5), np.zeros(1))


def test_accuracy_over_images_of_one_box():
    thresholds = reference_thresholds(0.1)
    largest = BoxAccuracy(thresholds)
    for right in (True, False):
        scoremap = np.zeros((224, 224))
        scoremap[56:112, 56:112] = 1
        box = (100, 100, 200, 200) if right else (300, 300, 400, 400)
        ious, _ = reference_ious(scoremap, [box], (400, 400), thresholds)
        assert (ious[0] == 1.0) == right
        largest.update(ious, None)
    assert largest.max_box_acc().value == 50.0


def test_pixel_precision_of_a_perfect_and_a_constant_map():
    mask = np.zeros((10, 10), np.uint8)
    mask[:3] = 1
    mask[9] = 255
    perfect, constant = ReferencePxAP(), ReferencePxAP()
    perfect.update((mask == 1).astype(float), mask)
    constant.update(np.full((10, 10), 0.5), mask)
    assert perfect.result() == 100.0
    assert constant.result() == pytest.approx(100 * 30 / 90)


def test_pixel_precision_by_hand():
    score = ReferencePxAP(np.array([0.0, 0.5]))
    score.update(np.array([[1.0, 0.7, 0.6, 0.2]]), np.array([[1, 0, 1, 1]], np.uint8))
    # At least 1: 1 of 1; at least 0.5: 2 of 3; all: 3 of 4.
    expected = 100 * (1 / 3 * 1 + 1 / 3 * 2 / 3 + 1 / 3 * 3 / 4)
    assert score.result() == pytest.approx(expected)


def test_pixel_precision_needs_an_object():
    score = ReferencePxAP()
    score.update(np.zeros((2, 2)), np.zeros((2, 2), np.uint8))
    with pytest.raises(ValueError, match="object"):
        score.result()
    with pytest.raises(ValueError, match="shape"):
        score.update(np.zeros((2, 2)), np.zeros((3, 2), np.uint8))
