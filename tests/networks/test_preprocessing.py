"""What a network expects of its input: checked where it is made, and carried to other sizes."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from camtool.networks import Preprocessing
from camtool.networks.preprocessing import MAX_SIZE


@pytest.mark.parametrize(("size", "resize"), [(224, 256), (299, 342), (64, 73), (1, 1)])
def test_the_size_alone_brings_the_usual_resize(size: int, resize: int) -> None:
    assert Preprocessing(size).resize == resize


def test_what_is_given_is_kept_as_plain_tuples() -> None:
    given: dict[str, Any] = {"mean": [0.5, 0.4, 0.3], "std": np.array([0.2, 0.2, 0.1])}
    spec = Preprocessing(size=np.int64(32), resize=40, **given)  # type: ignore[arg-type]
    assert spec == Preprocessing(32, 40, (0.5, 0.4, 0.3), (0.2, 0.2, 0.1))
    assert hash(spec)
    assert type(spec.size) is int
    assert type(spec.std[0]) is float


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"size": 0}, "size must be 1 to"),
        ({"size": -224}, "size must be 1 to"),
        ({"size": 1_000_000}, "size must be 1 to"),
        ({"size": 224.0}, "size must be a whole number"),
        ({"size": "224"}, "size must be a whole number"),
        ({"resize": -1}, "resize must be 0 to"),
        ({"resize": 10**9}, "resize must be 0 to"),
        ({"mean": (0.5,)}, "mean has 1 channels, std 3"),
        ({"std": (0.5, 0.5, 0.5, 0.5)}, "mean has 3 channels, std 4"),
        ({"mean": (), "std": ()}, "mean must be finite numbers"),
        ({"mean": 0.5}, "mean must be one number a channel"),
        ({"mean": ("a", "b", "c")}, "mean must be one number a channel"),
        ({"mean": (0.5, math.nan, 0.5)}, "mean must be finite"),
        ({"std": (0.5, math.inf, 0.5)}, "std must be finite"),
        ({"std": (0.5, 0.0, 0.5)}, "std must be above 0"),
        ({"std": (0.5, -0.1, 0.5)}, "std must be above 0"),
        ({"interpolation": "cubic"}, "nearest, bilinear, bicubic, lanczos, not 'cubic'"),
    ],
)
def test_what_makes_no_sense_is_refused(options: dict, reason: str) -> None:
    with pytest.raises(ValueError, match=reason) as caught:
        Preprocessing(**options)
    assert "\n" not in str(caught.value)


@given(st.integers(16, MAX_SIZE), st.integers(16, MAX_SIZE))
def test_another_size_cuts_the_same_share(size: int, other: int) -> None:
    spec = Preprocessing(size).at(other)
    assert spec.size == other
    assert abs(spec.resize - other * 256 / 224) <= 0.5 + other / size


def test_other_channels_get_the_average_each() -> None:
    spec = Preprocessing()
    assert spec.for_channels(3) is spec
    for channels in (1, 4, 11):
        other = spec.for_channels(channels)
        assert other.mean == pytest.approx((0.449,) * channels)
        assert other.std == pytest.approx((0.226,) * channels)
        assert (other.size, other.interpolation) == (spec.size, spec.interpolation)
