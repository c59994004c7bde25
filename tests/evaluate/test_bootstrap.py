from __future__ import annotations

import numpy as np
import pytest

from camtool.evaluate.bootstrap import BootstrapSums, estimate


def test_row_zero_is_the_plain_sum():
    sums = BootstrapSums(3, replicates=20)
    scores = np.random.default_rng(0).random((300, 3))
    for row in scores:
        sums.add(row)
    totals, counts = sums.totals()
    assert np.allclose(totals[0], scores.sum(axis=0), rtol=1e-12)
    assert counts[0] == 300
    assert totals.shape == (21, 3)


def test_totals_may_be_asked_for_on_the_way():
    once, twice = BootstrapSums(1, replicates=5), BootstrapSums(1, replicates=5)
    for index in range(200):
        once.add([index % 2])
        twice.add([index % 2])
        if index == 70:
            twice.totals()
    for one, other in zip(once.totals(), twice.totals(), strict=True):
        assert np.array_equal(one, other)


def test_interval_is_that_of_a_proportion():
    sums = BootstrapSums(1, replicates=2000)
    for index in range(1000):
        sums.add([index % 4 == 0])
    totals, counts = sums.totals()
    value, low, high = estimate(totals[:, 0] / counts)
    spread = 1.96 * np.sqrt(0.25 * 0.75 / 1000)
    assert value == 0.25
    assert low == pytest.approx(0.25 - spread, abs=0.004)
    assert high == pytest.approx(0.25 + spread, abs=0.004)


def test_nothing_added_is_an_error():
    with pytest.raises(ValueError, match="no image"):
        BootstrapSums(1).totals()


def test_without_replicates_the_interval_is_the_value():
    assert estimate(np.array([3.0])) == (3.0, 3.0, 3.0)
