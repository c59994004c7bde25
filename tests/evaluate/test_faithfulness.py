from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torch import Tensor, nn

from camtool.evaluate import faithfulness as module
from camtool.evaluate.faithfulness import (
    STEPS,
    Subject,
    adcc,
    area_under,
    average_drop,
    blur,
    coherency,
    complexity,
    faithfulness,
    removed_first,
    scaled,
)

MAPS = arrays(np.float32, (4, 5), elements=st.floats(-3, 3, width=32))


def corner(inputs: Tensor) -> Tensor:
    """A network whose confidence is the mean of the left upper quarter of the input."""
    height, width = (side // 2 for side in inputs.shape[2:])
    return inputs[:, :, :height, :width].mean((1, 2, 3))


def quarter(side: int = 16) -> np.ndarray:
    heat = np.zeros((side, side), np.float32)
    heat[: side // 2, : side // 2] = 1
    return heat


def test_deletion_and_insertion_of_a_network_that_can_be_computed_by_hand():
    subject = Subject.of(torch.ones(1, 3, 16, 16), corner)
    found = faithfulness(subject, quarter())
    # The first of 5 parts is 51 of the quarter's 64 pixels, the second takes the rest.
    assert found["deletion"] == pytest.approx((0.5 + 13 / 64) / 5)
    edge = corner(subject.blurred).item()
    back = [edge, (51 + last_of_quarter(subject)) / 64, 1, 1, 1, 1]
    assert found["insertion"] == pytest.approx(area_under(back), abs=1e-6)
    assert found["drop"] == 0
    assert found["increase"] == 0


def last_of_quarter(subject: Subject) -> float:
    """Sum of the last 13 pixels of the blurred quarter, row by row."""
    return subject.blurred[0, 0, :8, :8].flatten()[51:].sum().item()


def test_a_map_of_the_wrong_place_does_worse_in_everything():
    inputs = torch.rand(1, 3, 16, 16)
    inputs[:, :, :8, :8] += 2
    subject = Subject.of(inputs, corner)
    # Equal values would be removed together.
    slope = np.add.outer(np.arange(16), np.arange(16) / 16).astype(np.float32)
    right_map = np.asarray(quarter() - slope / 100, dtype=np.float32)
    heats = scaled(right_map + np.float32(1)), scaled(np.float32(1) - right_map)
    right, wrong = (faithfulness(subject, heat) for heat in heats)
    assert right["deletion"] < wrong["deletion"]
    assert right["insertion"] > wrong["insertion"]
    assert right["drop"] < wrong["drop"]
    assert right["road"] > 0 > wrong["road"]


def test_an_increase_is_counted_and_is_no_drop():
    def darker(inputs: Tensor) -> Tensor:
        return 1 - inputs.mean((1, 2, 3)) / 2

    found = faithfulness(Subject.of(torch.ones(1, 3, 16, 16), darker), quarter())
    assert (found["increase"], found["drop"]) == (1, 0)


@given(heat=MAPS, count=st.integers(1, 9))
def test_pixels_go_in_the_order_of_the_map(heat, count):
    shares = [n / count for n in range(count + 1)]
    removed = removed_first(torch.from_numpy(heat), shares).numpy()
    assert [mask.sum() for mask in removed] == [round(share * 20) for share in shares]
    for before, after in pairwise(removed):
        assert (after | ~before).all(), "what is gone stays gone"
    for mask in removed[1:-1]:
        assert heat[mask].min(initial=9) >= heat[~mask].max(initial=-9)


def test_equal_pixels_go_row_by_row():
    removed = removed_first(torch.zeros(2, 3), [0.5])[0]
    assert removed.tolist() == [[True] * 3, [False] * 3]


@given(curve=st.lists(st.floats(0, 1), min_size=2, max_size=12))
def test_areas_are_those_of_trapezoids(curve):
    parts = [(a + b) / 2 for a, b in pairwise(curve)]
    assert area_under(curve) == pytest.approx(np.mean(parts))


@given(heat=MAPS, factor=st.floats(0.1, 10))
def test_scaling_forgets_units_and_what_speaks_against(heat, factor):
    found = scaled(heat)
    assert found.dtype == np.float32
    assert found.min() == 0
    assert found.max() in (0, 1)
    assert np.allclose(scaled(heat * np.float32(factor)), found, atol=1e-4)
    assert np.array_equal(scaled(np.maximum(heat, 0)), found)


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [(0.8, 0.6, 0.25), (0.8, 0.9, 0), (0.5, 0, 1), (0, 0.3, 0)],
)
def test_drops_are_shares_of_what_was_there(before, after, expected):
    assert average_drop(before, after) == pytest.approx(expected)


def test_adcc_is_a_harmonic_mean():
    assert adcc(0.5, 0.5, 0.5) == pytest.approx(0.5)
    assert adcc(0.0, 1.0, 0.0) == pytest.approx(1)
    assert adcc(0.2, 0.6, 0.3) == pytest.approx(3 / (1 / 0.6 + 1 / 0.7 + 1 / 0.8))
    assert adcc(1.0, 0.9, 0.1) == adcc(0.1, 0.0, 0.1) == adcc(0.1, 0.9, 1.0) == 0


@given(one=MAPS, other=MAPS)
def test_coherency_lies_between_a_map_and_its_negative(one, other):
    assert 0 <= coherency(one, other) <= 1
    assert coherency(one, other) == pytest.approx(1 - coherency(one, -other), abs=1e-6)
    if np.ptp(one) > 1e-3:
        assert coherency(one, 2 * one + 1) == pytest.approx(1, abs=1e-4)


def test_a_constant_map_is_coherent_with_nothing():
    assert coherency(np.ones((2, 2), np.float32), np.eye(2, dtype=np.float32)) == 0.5


def test_the_blur_keeps_the_middle_of_even_pictures_and_loses_at_the_edges():
    found = blur(torch.ones(1, 3, 32, 32))
    assert torch.allclose(found[:, :, 8:24, 8:24], torch.ones(()), atol=1e-6)
    assert found[0, 0, 0, 0] < 0.4
    dot = torch.zeros(1, 1, 21, 21)
    dot[0, 0, 10, 10] = 1
    spread = blur(dot)[0, 0]
    assert (spread > 0).sum() == 121
    assert torch.allclose(spread, spread.T)
    assert spread.sum() == pytest.approx(1, abs=1e-6)


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(
            nn.Conv2d(3, 8, 5, 2), nn.ReLU(), nn.Conv2d(8, 8, 5, 2), nn.ReLU()
        )
        self.fc = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(40 * self.layers(x).mean((2, 3)))


def case() -> tuple[Small, Tensor, np.ndarray, Callable[[Tensor], Tensor]]:
    net = Small().eval()
    generator = torch.Generator().manual_seed(1)
    inputs = nn.functional.interpolate(
        torch.randn(1, 3, 8, 8, generator=generator), (40, 40), mode="bicubic"
    )
    heat = nn.functional.interpolate(
        torch.rand(1, 1, 5, 5, generator=generator), (40, 40), mode="bilinear"
    )

    def confidences(some: Tensor) -> Tensor:
        with torch.no_grad():
            return net(some).softmax(1)[:, 2]

    # No two values alike: which of them goes first is nobody's definition.
    noise = torch.rand(40, 40, generator=generator) / 50
    return net, inputs, scaled((heat[0, 0] + noise).numpy()), confidences


@pytest.mark.slow
def test_drop_increase_and_parts_of_adcc_are_those_of_pytorch_grad_cam():
    peer = pytest.importorskip("pytorch_grad_cam.metrics.cam_mult_image", reason="needs grad-cam")
    from pytorch_grad_cam.metrics.arcc import Complexity, batch_pearson_coherency
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputSoftmaxTarget

    net, inputs, heat, confidences = case()
    subject = Subject.of(inputs, confidences)
    found = faithfulness(subject, heat)
    arguments = inputs, heat[None], [ClassifierOutputSoftmaxTarget(2)], net
    # Theirs is the difference itself; Chattopadhay et al. divide it by the confidence before.
    theirs = float(peer.DropInConfidence()(*arguments)[0])
    assert found["drop"] * subject.ends[0] == pytest.approx(theirs, abs=1e-4)
    assert found["increase"] == peer.IncreaseInConfidence()(*arguments)[0]
    other = np.random.default_rng(0).random(heat.shape, dtype=np.float32)
    pearson = float(batch_pearson_coherency(heat[None], other[None])[0])
    assert coherency(heat, other) == pytest.approx((pearson + 1) / 2, abs=1e-4)
    assert complexity(heat) == pytest.approx(float(Complexity()(heat[None])[0]), abs=1e-4)


@pytest.mark.slow
def test_road_is_that_of_pytorch_grad_cam(monkeypatch):
    road = pytest.importorskip("pytorch_grad_cam.metrics.road", reason="needs grad-cam")
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputSoftmaxTarget

    # Noise is another in every run; the solver stops where noise begins.
    monkeypatch.setattr(module, "impute", lambda values, removed, _: module_impute(values, removed))
    quiet = road.NoisyLinearImputer.__init__.__defaults__
    monkeypatch.setattr(road.NoisyLinearImputer.__init__, "__defaults__", (0, quiet[1]))
    net, inputs, heat, confidences = case()
    found = faithfulness(Subject.of(inputs, confidences), heat)["road"]
    percentiles = [100 * (1 - share) for share in module.ROAD_SHARES]
    combined = road.ROADCombined(percentiles=percentiles)
    theirs = combined(inputs, heat[None], [ClassifierOutputSoftmaxTarget(2)], net)
    assert found == pytest.approx(float(theirs[0]), abs=1e-4)
    assert abs(found) > 1e-3, "an answer that hangs on nothing compares nothing"


def module_impute(values, removed):
    from camtool.evaluate.imputation import impute

    return impute(values, removed, rounds=25)


@pytest.mark.slow
def test_deletion_is_the_pixel_flipping_of_quantus():
    quantus = pytest.importorskip("quantus", reason="needs quantus")
    net, inputs, heat, confidences = case()
    # Pixels of one channel: theirs flips channels one by one.
    wrapped = nn.Sequential(Spread(), net).eval()
    grey = inputs.mean(1, keepdim=True)
    subject = Subject.of(grey, lambda some: confidences(some.expand(-1, 3, -1, -1)))
    flipping = quantus.PixelFlipping(
        features_in_step=grey.numel() // STEPS,
        perturb_baseline=0.0,
        normalise=False,
        disable_warnings=True,
    )
    curve = flipping(
        model=wrapped,
        x_batch=grey.numpy(),
        y_batch=np.array([2]),
        a_batch=heat[None, None],
        softmax=True,
        device="cpu",
    )[0]
    # Theirs begins after the first step.
    expected = area_under([subject.ends[0], *(float(value) for value in curve)])
    assert faithfulness(subject, heat)["deletion"] == pytest.approx(expected, abs=1e-4)


class Spread(nn.Module):
    """One channel as three."""

    def forward(self, x: Tensor) -> Tensor:
        return x.expand(-1, 3, -1, -1)
