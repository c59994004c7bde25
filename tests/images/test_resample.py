"""Resampling: torch's interpolation on equal rectangles, and right on all others."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from camtool.images.resample import interpolation_matrix, resample, upsample

cells = st.integers(1, 12)
samples = st.integers(1, 40)
UNIT = (0.0, 0.0, 1.0, 1.0)


def _maps(*shape: int, seed: int = 0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@given(cells, cells, samples, samples, st.integers(0, 1000))
def test_equal_rectangles_give_torchs_interpolation(h, w, rows, columns, seed) -> None:
    maps = _maps(2, 3, h, w, seed=seed)
    found = resample(maps, (5, -3, 17, 40), (5, -3, 17, 40), (rows, columns))
    expected = torch.nn.functional.interpolate(
        maps, (rows, columns), mode="bilinear", align_corners=False
    )
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@given(cells, samples, st.floats(-5, 5), st.floats(0.1, 9), st.floats(-5, 5), st.floats(0.1, 9))
def test_rows_of_the_matrix_are_averages_or_nan(count, number, start, length, onto, size) -> None:
    matrix = interpolation_matrix(count, (start, start + length), number, (onto, onto + size))
    centres = onto + (np.arange(number) + 0.5) * size / number
    seen = ~np.isnan(matrix).any(1)
    np.testing.assert_allclose(matrix[seen].sum(1), 1, rtol=1e-6)
    assert (matrix[seen] >= 0).all()
    assert ((matrix[seen] > 0).sum(1) <= 2).all()
    # The centres' own rounding decides on the very edge.
    clear = (abs(centres - start) > 1e-9) & (abs(centres - start - length) > 1e-9)
    inside = (centres >= start) & (centres <= start + length)
    assert np.array_equal(seen[clear], inside[clear])


@given(cells, cells, st.integers(0, 1000))
def test_a_constant_stays_and_the_range_is_kept(h, w, seed) -> None:
    constant = resample(torch.full((1, h, w), 7.5), UNIT, UNIT, (13, 9))
    torch.testing.assert_close(constant, torch.full((1, 13, 9), 7.5))
    maps = _maps(1, h, w, seed=seed)
    found = resample(maps, UNIT, (0.1, 0.2, 0.7, 0.9), (13, 9))
    assert maps.min() - 1e-5 <= found.min()
    assert found.max() <= maps.max() + 1e-5


@given(cells, cells, st.integers(1, 9), st.integers(0, 1000))
def test_values_sit_at_the_centres_of_cells(h, w, odd, seed) -> None:
    maps = _maps(1, h, w, seed=seed)
    factor = 2 * odd - 1
    found = resample(maps, UNIT, UNIT, (h * factor, w * factor))
    middle = factor // 2
    torch.testing.assert_close(found[:, middle::factor, middle::factor], maps, rtol=1e-4, atol=1e-5)


@given(cells, cells, st.integers(0, 1000))
def test_it_mirrors_with_the_map(h, w, seed) -> None:
    maps = _maps(1, h, w, seed=seed)
    found = resample(maps, (2, 3, 8, 9), (0, 0, 10, 12), (24, 20))
    mirrored = resample(maps.flip(-1), (2, 3, 8, 9), (0, 0, 10, 12), (24, 20))
    torch.testing.assert_close(mirrored, found.flip(-1), rtol=1e-4, atol=1e-5, equal_nan=True)


def test_outside_is_nan_and_inside_is_what_the_rectangle_alone_would_be() -> None:
    maps = _maps(2, 4, 5)
    found = upsample(maps, (10, 20, 60, 60), (100, 80))
    assert found.shape == (2, 80, 100)
    seen = torch.zeros(80, 100, dtype=torch.bool)
    seen[20:60, 10:60] = True
    assert torch.equal(~found[0].isnan(), seen)
    alone = resample(maps, (10, 20, 60, 60), (10, 20, 60, 60), (40, 50))
    torch.testing.assert_close(found[:, 20:60, 10:60], alone, rtol=1e-4, atol=1e-5)


def test_the_other_direction_cuts_a_window_out() -> None:
    fine = upsample(_maps(1, 6, 6), (0, 0, 60, 60), (60, 60))
    window = resample(fine, (0, 0, 60, 60), (12, 6, 42, 36), (30, 30))
    torch.testing.assert_close(window, fine[:, 6:36, 12:42], rtol=1e-4, atol=1e-5)


def test_a_spot_stays_where_it_is() -> None:
    maps = torch.zeros(1, 5, 8)
    maps[0, 3, 6] = 1
    peak = upsample(maps, (100, 50, 260, 150), (300, 200))[0].nan_to_num(-1).flatten().argmax()
    row, column = divmod(int(peak), 300)
    assert abs(row + 0.5 - 120) <= 10
    assert abs(column + 0.5 - 230) <= 10


def test_half_precision_comes_out_as_float32() -> None:
    assert upsample(_maps(1, 3, 3).half(), (0, 0, 9, 9), (9, 9)).dtype == torch.float32


@given(st.integers(1, 9), st.integers(1, 40), st.floats(0.1, 50), st.integers(0, 9))
def test_cubic_weights_sum_to_one_and_keep_the_cells(cells, samples, length, seed):
    onto = (0.0, length)
    matrix = interpolation_matrix(cells, onto, samples, onto, smooth=True)
    assert matrix.sum(1) == pytest.approx(1, abs=1e-5)
    values = np.random.default_rng(seed).random(cells, dtype=np.float32)
    at_centres = interpolation_matrix(cells, onto, cells, onto, smooth=True)
    assert at_centres @ values == pytest.approx(values, abs=1e-5)


def test_a_smooth_map_is_torchs_bicubic_away_from_the_border():
    maps = _maps(1, 8, 8)
    ours = resample(maps, UNIT, UNIT, (64, 64), smooth=True)
    theirs = torch.nn.functional.interpolate(
        maps[None], (64, 64), mode="bicubic", align_corners=False
    )[0]
    # torch takes -3/4 where Keys, section IV, shows -1/2 to be best; both meet in the cells.
    inner = (..., slice(16, 48), slice(16, 48))
    assert (ours - theirs)[inner].abs().max() < 0.2 * maps.abs().max()
    linear = resample(maps, UNIT, UNIT, (64, 64))
    assert (ours - theirs)[inner].abs().mean() < (linear - theirs)[inner].abs().mean()
