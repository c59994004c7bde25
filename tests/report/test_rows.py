from __future__ import annotations

import json
import os
from urllib.parse import unquote_to_bytes

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from camtool.report.rows import (
    MAP_SIDE,
    display_text,
    file_url,
    json_text,
    number,
    pack_map,
    shrink,
    unpack_map,
)

names = st.binary(min_size=1, max_size=30).map(os.fsdecode)


@given(names | st.text(st.characters(categories=["Cs", "Cc", "Cf", "L"])))
def test_displayed_text_is_printable(name):
    assert display_text(name).isprintable()


@given(st.text(st.characters(categories=["L", "N", "P"])))
def test_printable_text_is_displayed_as_it_is(text):
    assert display_text(text) == text


def test_line_breaks_bytes_and_direction_marks_are_shown():
    assert display_text("a\nb\udcff\u202egpj.exe") == "a\\nb\\xff\\u202egpj.exe"


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


def test_json_refuses_what_json_does_not_know():
    with pytest.raises(ValueError, match="JSON"):
        json_text(float("nan"))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_numbers_that_are_none(value):
    assert number(value) is None


shapes = hnp.array_shapes(min_dims=2, max_dims=2, max_side=MAP_SIDE)


@given(hnp.arrays(np.float32, shapes, elements=st.floats(-1e4, 1e4, width=32)))
def test_packed_maps_are_close(heatmap):
    error = np.abs(unpack_map(pack_map(heatmap)) - heatmap).max()
    assert error <= np.abs(heatmap).max() * (1 / 254 + 1e-5)


@given(
    hnp.arrays(
        np.float32,
        hnp.array_shapes(min_dims=2, max_dims=2, max_side=3 * MAP_SIDE),
        elements=st.floats(-100, 100, width=32),
    )
)
def test_shrinking_keeps_the_mean(heatmap):
    small = shrink(heatmap)
    assert max(small.shape) <= MAP_SIDE
    assert small.mean() == pytest.approx(heatmap.astype(np.float64).mean(), abs=1e-3)


@pytest.mark.parametrize("shape", [(0, 3), (4,), (1, 2, 3)])
def test_what_is_not_a_map_is_refused(shape):
    with pytest.raises(ValueError, match="two dimensions"):
        shrink(np.zeros(shape))
