from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis.extra import numpy as hnp

from camtool.localize.rle import rle_decode, rle_encode


def test_known_encodings():
    # Made with the COCO API.
    mask = np.zeros((6, 8), bool)
    mask[1:3, 1:4] = True
    assert rle_encode(mask) == {"size": [6, 8], "counts": "724000g0"}
    assert rle_encode(np.zeros((3, 4), bool))["counts"] == "<"
    assert rle_encode(np.ones((3, 4), bool))["counts"] == "0<"


@given(hnp.arrays(bool, hnp.array_shapes(min_dims=2, max_dims=2, max_side=40)))
def test_round_trip(mask):
    assert np.array_equal(rle_decode(rle_encode(mask)), mask)


def test_long_runs_round_trip():
    mask = np.zeros((3000, 2000), bool)
    mask[100:2900, 50:1900] = True
    mask[1500, 1000] = False
    assert np.array_equal(rle_decode(rle_encode(mask)), mask)


@pytest.mark.parametrize("counts", ["5", "0<<", "P", "~", "O5"])
def test_wrong_counts_are_refused(counts):
    with pytest.raises(ValueError, match=r"run|count"):
        rle_decode({"size": [3, 4], "counts": counts})


def test_mask_must_have_two_dimensions():
    with pytest.raises(ValueError, match="two dimensions"):
        rle_encode(np.zeros(4, bool))
