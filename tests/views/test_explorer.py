"""The explorer's file: what it holds, how exactly, how large it is, and that nothing breaks it."""

from __future__ import annotations

import base64
import html
import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from camtool.views.explorer import MAP_BYTES, MOST_CLASSES, explorer_of, quantised

ESPRESSO = Path(__file__).parents[2] / "examples" / "espresso.jpg"


def record_in(page: str):
    """The data of a page, its arrays decoded."""
    record = json.loads(re.search(r'id="data">(.*?)</script>', page, re.DOTALL)[1])
    kinds = {"fine": "<i2", "coarse": "i1", "picture": "u1"}
    for name in ("logits", "bias", "residual", "steps", *kinds):
        record[name] = np.frombuffer(base64.b64decode(record[name]), kinds.get(name, "<f4"))
    return record


def maps_in(record) -> np.ndarray:
    levels = np.concatenate([record["fine"].astype(float), record["coarse"].astype(float)])
    shape = (-1, record["rows"], record["columns"])
    return levels.reshape(shape) * record["steps"][:, None, None]


@pytest.mark.parametrize(("held", "classes"), [(1, 1), (2, 2), (5, 5), (3, 1000), (1000, 1000)])
def test_everything_that_is_held_is_in_the_file(explained, held, classes) -> None:
    e = explained(held, classes)
    record = record_in(explorer_of(e))
    assert (len(record["titles"]), record["classes"]) == (held, classes)
    assert record["ranks"] == list(range(1, held + 1))
    assert record["indices"] == e.indices.tolist()
    for name in ("logits", "bias", "residual"):
        np.testing.assert_array_equal(record[name], getattr(e, name))
    within = np.abs(e.maps).max((1, 2)) / 65534 * 1.001
    assert (np.abs(maps_in(record) - e.maps).max((1, 2)) <= within).all()


def test_the_first_and_the_best_thousand_of_many(explained) -> None:
    worst_first = explained(1500, 21_000, (2, 3)).part(slice(None, None, -1))
    record = record_in(explorer_of(worst_first, first=2))
    assert record["classes"] == 21_000
    assert record["indices"] == [1499, 1498, *range(MOST_CLASSES - 2)]


@pytest.mark.parametrize(
    ("shape", "held", "bits"), [((13, 18), 1000, 8), ((56, 75), 100, 8), ((700, 700), 1, 8)]
)
def test_finer_maps_have_fewer_bits_and_classes(explained, shape, held, bits) -> None:
    e = explained(max(held, 120), 1000, shape)
    record = record_in(explorer_of(e))
    assert len(record["titles"]) == held
    assert record["coarse"].size > 0
    cells = shape[0] * shape[1]
    fine = record["fine"].size // cells
    assert record["fine"].nbytes + record["coarse"].nbytes <= max(MAP_BYTES, cells)
    most = np.where(np.arange(held) < fine, 65534, 254)
    within = np.abs(e.maps[:held]).max((1, 2)) / most * 1.001
    assert (np.abs(maps_in(record) - e.maps[:held]).max((1, 2)) <= within).all()


@given(
    hnp.arrays(
        np.float32,
        hnp.array_shapes(min_dims=3, max_dims=3, max_side=6),
        elements=st.floats(-(2.0**100), 2.0**100, width=32),
    ),
    st.integers(0, 500),
)
def test_levels_are_within_half_a_step_and_the_budget(maps, budget) -> None:
    fine, coarse, steps = quantised(maps, budget)
    assert len(fine) + len(coarse) == len(maps) == len(steps)
    assert len(fine) == 0 or fine.nbytes + coarse.nbytes <= budget
    levels = np.concatenate([fine.astype(float), coarse.astype(float)])
    missing = np.abs(levels * steps.astype(float)[:, None, None] - maps)
    assert (missing <= 0.501 * steps[:, None, None] + 1e-37).all()


def test_a_photograph_with_a_thousand_finer_maps_is_below_a_megabyte(explained) -> None:
    with Image.open(ESPRESSO) as picture:
        large = np.asarray(picture.convert("RGB").resize((3000, 2000)))
    labels = tuple(f"a label as long as they are, {k}" for k in range(1000))
    page = explorer_of(explained(1000, 1000, (13, 19), (3000, 2000), picture=large, labels=labels))
    assert 500_000 < len(page) < 1_000_000
    record = record_in(page)
    assert (record["width"], record["height"]) == (3000, 2000)


def test_nothing_that_a_name_holds_gets_out_of_its_place(explained) -> None:
    hostile = "</script><script>alert(1)</script>\u202e&lt;'\""
    e = replace(explained(2, labels=(hostile, "b")), name=f"x/{hostile}", model=hostile)
    page = explorer_of(e)
    assert page.count("</script>") == 2
    assert "http:" not in page
    assert "https:" not in page
    record = record_in(page)
    assert record["titles"][0] == hostile.replace("\u202e", "\\u202e")
    frame = e._repr_html_()
    assert html.unescape(re.search(r'srcdoc="([^"]*)"', frame)[1]) == page


def test_a_class_explained_twice_is_there_once_and_a_contrast_beside_it(explained) -> None:
    e = explained(4)
    twice = replace(
        e,
        indices=np.array([2, 2, 0, 2]),
        labels=("c", "c", "a", "c"),
        versus=("a", "", "", ""),
    )
    record = record_in(explorer_of(twice))
    assert record["titles"] == ["c rather than a", "c", "a"]
    assert record["contrasts"] == [True, False, False]
    assert record["probabilities"][0] is None


def test_a_map_without_evidence_and_odds_that_are_none(explained) -> None:
    e = explained(2)
    e = replace(e, maps=np.zeros_like(e.maps), probabilities=np.full(2, np.nan, np.float32))
    record = record_in(explorer_of(e))
    assert record["probabilities"] == [None, None]
    assert not maps_in(record).any()


@pytest.mark.parametrize(
    ("method", "exact", "adds", "linear"),
    [
        ("cam", True, True, True),
        ("integrated", False, True, False),
        ("gradcam", False, False, False),
    ],
)
def test_the_file_knows_whether_the_maps_add_up(explained, method, exact, adds, linear) -> None:
    record = record_in(explorer_of(replace(explained(2, method=method), exact=exact)))
    assert (record["adds"], record["linear"]) == (adds, linear)


def test_save_by_its_ending(explained, tmp_path: Path) -> None:
    e = explained(3)
    assert e.save(tmp_path / "x.html").read_text("utf-8") == explorer_of(e)


def test_a_notebook_is_spared_what_is_large(explained, monkeypatch) -> None:
    monkeypatch.setattr("camtool.views.explorer._NOTEBOOK_BYTES", 10)
    assert explained(1)._repr_html_() is None


def test_a_part_holds_the_same_of_some(explained) -> None:
    assert explained(5).part(slice(None, None, -1)).heatmaps().shape == (5, 200, 300)
    e = explained(5).part(slice(1, 3))
    np.testing.assert_array_equal(e.maps, explained(5).maps[1:3])
    assert e.titles == ("class 1", "class 2")
    assert e.rank(0) == 2
