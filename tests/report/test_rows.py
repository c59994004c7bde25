from __future__ import annotations

import json
import os
from urllib.parse import unquote_to_bytes

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from camtool.report.rows import (
    MAP_SIDE,
    file_url,
    pack_map,
    shrink,
)
from camtool.views.html import json_text

names = st.binary(min_size=1, max_size=30).map(os.fsdecode)


@given(names)
def test_url_holds_the_bytes_of_the_name(name):
    url = file_url(name)
    assert url.startswith("./")
    assert url.isascii()
    assert not set(url) & set("?#<>\"' \\")
    assert unquote_to_bytes(url[2:]) == os.fsencode(name)


def test_no_file_has_no_url():
    assert file_url("") == ""


@given(st.recursive(st.text() | st.integers(), st.lists, max_leaves=5))
def test_json_is_safe_in_a_script_element(value):
    text = json_text(value)
    assert text.isascii()
    assert not set(text) & set("<>&")
    assert json.loads(text) == value


@pytest.mark.parametrize("value", [float("nan"), float("inf"), np.float32("nan")])
def test_numbers_that_are_none(value):
    assert json_text([value]) == "[null]"


def test_json_of_numbers_and_arrays():
    values = (1 / 3, np.float32(0.1), 12345678, None, np.array([[1, -1]], np.int8))
    assert json_text(values) == '[0.333333,0.1,12345678,null,"Af8="]'


finite = st.floats(width=32, allow_nan=False, allow_infinity=False)


def maps(elements, max_side=MAP_SIDE):
    shapes = hnp.array_shapes(min_dims=2, max_dims=2, max_side=max_side)
    return hnp.arrays(np.float32, shapes, elements=elements)


def only(value):
    return np.array([[value]], np.float32)


@given(maps(st.floats(-1e4, 1e4, width=32) | st.floats(width=32, allow_nan=False)))
@example(only(1e-45))
@example(only(2.4e-44))
@example(only(3.758e-42))
@example(only(-3.4028235e38))
@example(only(np.inf))
@example(np.array([[1e-45, 3.4028235e38, -np.inf]], np.float32))
def test_packed_maps_are_close(heatmap):
    exact = np.nan_to_num(heatmap).astype(np.float64)
    top = np.abs(exact).max()
    levels = pack_map(heatmap).astype(np.float64)
    assert levels.shape == heatmap.shape
    assert np.abs(levels / 127 * top - exact).max() <= top * (1 / 254 + 1e-9)
    assert np.abs(levels).max() == (127 if top else 0)


def test_where_the_network_saw_nothing_is_no_evidence():
    assert pack_map([[np.nan, -2.0, 1.0]]).tolist() == [[0, -127, 64]]


@given(maps(st.floats(-100, 100, width=32) | finite, 3 * MAP_SIDE))
@example(np.full((MAP_SIDE + 1, 2), 3.4028235e38, np.float32))
@example(np.full((2, MAP_SIDE + 1), 1e-45, np.float32))
def test_shrinking_keeps_the_mean(heatmap):
    small, exact = shrink(heatmap), heatmap.astype(np.float64)
    assert max(small.shape) <= MAP_SIDE
    assert abs(small.mean() - exact.mean()) <= 1e-9 * np.abs(exact).max()


@pytest.mark.parametrize("shape", [(0, 3), (4,), (1, 2, 3)])
def test_what_is_not_a_map_is_refused(shape):
    with pytest.raises(ValueError, match="two dimensions"):
        shrink(np.zeros(shape))
