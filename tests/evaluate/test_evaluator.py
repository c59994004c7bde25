from __future__ import annotations

from typing import get_args

import cv2
import numpy as np
import pytest

from camtool.evaluate import DataFormat, reference
from camtool.evaluate.datasets import READERS
from camtool.evaluate.evaluator import Evaluator, centre_map
from camtool.evaluate.figures import TITLES, Metric, PrecisionRecall
from camtool.evaluate.levelset import relative_cuts, sweep


def scene(random, size=(120, 80)):
    width, height = size
    x0, y0 = random.integers(0, width // 2), random.integers(0, height // 2)
    x1, y1 = x0 + random.integers(8, width // 2), y0 + random.integers(8, height // 2)
    mask = np.zeros((height, width), np.uint8)
    mask[y0:y1, x0:x1] = 1
    return (int(x0), int(y0), int(x1), int(y1)), mask


def evaluate(mode, boxes=True, masks=True, images=12):
    random = np.random.default_rng(5)
    evaluator = Evaluator(4, mode=mode, replicates=30)
    for index in range(images):
        box, mask = scene(random)
        heatmap = cv2.resize(mask.astype(np.float32), (8, 6), interpolation=cv2.INTER_AREA)
        heatmap += random.standard_normal(heatmap.shape).astype(np.float32) / 5
        evaluator.update(
            heatmap,
            [box] if boxes else [],
            (120, 80),
            label=index % 4,
            rank=index % 7 if boxes else None,
            mask=mask if masks else None,
        )
    return evaluator.result()


@pytest.mark.parametrize("mode", ["plain", "reference"])
def test_all_metrics_for_all_contestants(mode):
    result = evaluate(mode)
    assert (result.mode, result.images) == (mode, 12)
    assert list(result.metrics) == list(TITLES)
    for name, metric in result.metrics.items():
        for figure in metric:
            assert 0 <= figure.low <= figure.high <= 100.001
            assert 0 <= figure.value <= 100
            assert len(figure.curve) == len(figure.thresholds)
            assert isinstance(figure, PrecisionRecall) == (name == "pxap")


def test_the_named_formats_are_those_that_are_read():
    assert list(get_args(DataFormat)) == list(READERS)


def test_good_maps_beat_the_baselines():
    metrics = evaluate("plain", images=40).metrics
    for name in ("max_box_acc_v2", "pxap", "energy", "pointing"):
        network, centre, whole = (figure.value for figure in metrics[name])
        assert network > max(centre, whole)


def test_without_masks_there_is_no_pxap_and_without_boxes_no_accuracy():
    assert "pxap" not in evaluate("plain", masks=False).metrics
    only_masks = evaluate("plain", boxes=False).metrics
    assert set(only_masks) == {"pxap", "pointing", "pointing_15", "energy"}


@pytest.mark.parametrize("mode", ["plain", "reference"])
def test_masks_without_an_object_cost_pxap_and_nothing_else(mode):
    evaluator = Evaluator(1, mode=mode, replicates=5)
    empty = np.zeros((4, 4), np.uint8)
    evaluator.update(np.eye(4, dtype=np.float32), [(0, 0, 4, 4)], (4, 4), label=0, mask=empty)
    metrics = evaluator.result().metrics
    assert "pxap" not in metrics
    assert metrics["max_box_acc"].network.value == 100


def test_top_k_appears_only_with_ranks():
    evaluator = Evaluator(1, replicates=5)
    evaluator.update(np.ones((4, 4), np.float32), [(0, 0, 4, 4)], (4, 4), label=0)
    metrics = evaluator.result().metrics
    assert "top1_loc" not in metrics
    assert metrics["gt_known"].network.value == 100


def test_reference_figures_are_those_of_the_reference_functions():
    random = np.random.default_rng(1)
    thresholds = reference.reference_thresholds()
    evaluator = Evaluator(1, mode="reference", replicates=5)
    best: dict[bool, list[np.ndarray]] = {True: [], False: []}
    pixels = reference.ReferencePxAP()
    for _ in range(6):
        box, mask = scene(random)
        cam = random.standard_normal((7, 7)).astype(np.float32)
        evaluator.update(cam, [box], (120, 80), label=0, mask=mask)
        scoremap = reference.reference_map(cam)
        ious = reference.reference_ious(scoremap, [box], (120, 80), thresholds)
        for every, found in enumerate(ious):
            best[every].append(found)
        pixels.update(scoremap, cv2.resize(mask, (224, 224), interpolation=cv2.INTER_NEAREST))
    metrics = evaluator.result().metrics
    single = [(np.array(best[False]) >= iou).sum(axis=0) * 100.0 / 6 for iou in (0.3, 0.5, 0.7)]
    multi = [(np.array(best[True]) >= iou).sum(axis=0) * 100.0 / 6 for iou in (0.3, 0.5, 0.7)]
    assert metrics["max_box_acc"].network.value == single[1].max()
    assert metrics["max_box_acc"].network.curve.tolist() == single[1].tolist()
    assert metrics["max_box_acc_v2"].network.value == np.average([c.max() for c in multi])
    assert metrics["pxap"].network.value == pixels.result()


def test_baselines_stand_at_their_best_beside_the_network_at_a_threshold():
    metrics = evaluate("plain").metrics
    for who in Metric._fields[1:]:
        at, best = (getattr(metrics[name], who) for name in ("gt_known", "max_box_acc"))
        assert (at.value, at.threshold) == (best.value, best.threshold)
    network = metrics["gt_known"].network
    assert network.threshold == 0.2
    assert network.value == network.curve[200]


def test_update_returns_the_iou_at_the_threshold():
    evaluator = Evaluator(1, threshold=0.5, replicates=5)
    heatmap = np.zeros((10, 10), np.float32)
    heatmap[2:8, 2:8] = 1
    heatmap[4:6, 4:6] = 4
    found = evaluator.update(heatmap, [(40, 40, 60, 60)], (100, 100), label=0)
    assert found == pytest.approx(1)


def test_a_true_box_of_no_width_is_the_pixel_that_it_names():
    heatmap = np.zeros((10, 10), np.float32)
    heatmap[2:8, 3] = 1
    plain, published = Evaluator(1, replicates=5), Evaluator(1, mode="reference", replicates=5)
    line = [(3, 2, 3, 8)]
    assert plain.update(heatmap, line, (10, 10), label=0) == pytest.approx(1)
    assert plain.update(heatmap, [(4, 2, 4, 8)], (10, 10), label=0) == 0
    assert plain.result().metrics["energy"].network.value == pytest.approx(50)
    # There both ends count, and the box is not widened before it is scaled.
    scoremap, thresholds = reference.reference_map(heatmap), reference.reference_thresholds()
    expected = reference.reference_ious(scoremap, line, (10, 10), thresholds)[0][200]
    assert published.update(heatmap, line, (10, 10), label=0) == expected > 0


def test_centre_map_has_centred_boxes_as_level_sets():
    heatmap = centre_map((40, 60))
    regions = sweep(heatmap, relative_cuts(heatmap, np.arange(10) / 10))
    boxes, exists = regions.largest()
    assert exists.all()
    assert np.array_equal(boxes[:, 0] + boxes[:, 2], np.full(10, 60))
    assert np.array_equal(boxes[:, 1] + boxes[:, 3], np.full(10, 40))


def test_wrong_use_is_refused():
    with pytest.raises(ValueError, match="mode"):
        Evaluator(1, mode="exact")  # type: ignore[arg-type]
    evaluator = Evaluator(1)
    with pytest.raises(ValueError, match="no image"):
        evaluator.result()
    with pytest.raises(ValueError, match="box or a mask"):
        evaluator.update(np.ones((2, 2), np.float32), [], (2, 2), label=0)
