from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from camtool.evaluate.imputation import NOISE, impute, noises
from camtool.opencv import cv2


def smooth(seed, height=24, width=31, channels=3):
    values = np.random.default_rng(seed).normal(size=(height, width, channels))
    return cv2.GaussianBlur(values.astype(np.float32), (0, 0), 2).reshape(values.shape) * 4


def test_one_pixel_is_the_weighted_mean_of_its_neighbours():
    values = np.arange(9, dtype=np.float32).reshape(3, 3, 1) ** 2
    removed = np.zeros((3, 3), bool)
    removed[1, 1] = True
    edges, corners = 1 + 9 + 25 + 49, 0 + 4 + 36 + 64
    found = impute(values, removed)
    assert found[1, 1, 0] == pytest.approx(edges / 6 + corners / 12, rel=1e-6)
    assert np.array_equal(found[~removed], values[~removed])


def test_neighbours_outside_the_picture_are_left_out():
    values = np.array([[[9.0], [3.0]], [[6.0], [12.0]]], np.float32)
    removed = np.array([[True, False], [False, False]])
    expected = (3 / 6 + 6 / 6 + 12 / 12) / (1 / 6 + 1 / 6 + 1 / 12)
    assert impute(values, removed)[0, 0, 0] == pytest.approx(expected, rel=1e-6)


@given(seed=st.integers(0, 999), share=st.floats(0.05, 0.95), channels=st.sampled_from([1, 3, 5]))
def test_every_removed_pixel_obeys_the_system(seed, share, channels):
    values = smooth(seed, channels=channels)
    removed = np.random.default_rng(seed).random(values.shape[:2]) < share
    filled = impute(values, removed, rounds=25)
    padded = np.pad(filled, ((1, 1), (1, 1), (0, 0)), constant_values=np.nan)
    height, width = removed.shape
    sums, weights = np.zeros_like(filled), np.zeros((*removed.shape, 1))
    for down in (-1, 0, 1):
        for right in (-1, 0, 1):
            weight = {0: 0.0, 1: 1 / 6, 2: 1 / 12}[abs(down) + abs(right)]
            moved = padded[1 + down : 1 + down + height, 1 + right : 1 + right + width]
            sums += np.nan_to_num(weight * moved)
            weights += weight * ~np.isnan(moved[..., :1])
    assert np.allclose(filled[removed], (sums / weights)[removed], atol=1e-4)
    assert np.array_equal(filled[~removed], values[~removed])


@given(seed=st.integers(0, 99), scale=st.floats(0.1, 10), shift=st.floats(-3, 3))
def test_imputation_goes_with_a_change_of_units(seed, scale, shift):
    values, removed = smooth(seed), smooth(seed + 1)[..., 0] > 0
    plain = impute(values, removed, rounds=25)
    other = impute(values * np.float32(scale) + np.float32(shift), removed, rounds=25)
    assert np.allclose(other, plain * scale + shift, atol=1e-3 * max(1, scale))


def test_the_usual_rounds_miss_less_than_the_noise():
    values = smooth(0, 120, 160)
    removed = cv2.resize(np.random.default_rng(1).random((5, 7)), (160, 120)) > 0.3
    error = np.abs(impute(values, removed) - impute(values, removed, rounds=40))
    assert error.mean() < NOISE / 5
    assert error.max() < 2 * NOISE


def test_noise_falls_on_removed_pixels_alone_and_is_seeded():
    values = np.zeros((40, 40, 3), np.float32)
    removed = np.arange(40)[None] % 2 == np.arange(40)[:, None] % 2
    one, other = (impute(values, removed, noises(values.shape, 1, 3)[0]) for _ in range(2))
    assert np.array_equal(one, other)
    assert not one[~removed].any()
    assert one[removed].std() == pytest.approx(NOISE, rel=0.1)


def test_nothing_removed_and_everything_removed():
    values = smooth(0)
    nothing = np.zeros(values.shape[:2], bool)
    assert np.array_equal(impute(values, nothing), values)
    assert not impute(values, ~nothing).any()


@pytest.mark.slow
@pytest.mark.parametrize("share", [0.2, 0.8])
def test_pixels_are_those_of_pytorch_grad_cam(share):
    road = pytest.importorskip("pytorch_grad_cam.metrics.road", reason="needs grad-cam")
    import torch

    values, removed = smooth(0, 60, 70), smooth(1, 60, 70)[..., 0]
    removed = removed >= np.quantile(removed, 1 - share)
    kept = torch.from_numpy((~removed).astype(np.float32))
    theirs = road.NoisyLinearImputer(noise=0)(torch.from_numpy(values).permute(2, 0, 1), kept)
    ours = impute(values, removed, rounds=25)
    assert np.abs(ours - theirs.permute(1, 2, 0).numpy()).max() < 1e-4
