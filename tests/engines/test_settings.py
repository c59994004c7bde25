from __future__ import annotations

import pytest

import camtool
from camtool.engines.settings import differences, model_settings


def test_differences_are_named_inside_others_too():
    before = {"topk": 1, "views": {"kinds": ["npz"], "look": {"opacity": 0.5}}, "old": 1}
    now = {"topk": 3, "views": {"kinds": ["npz"], "look": {"opacity": 0.6}}, "new": None}
    assert differences(before, now) == [
        "topk: 1, now 3",
        "views.look.opacity: 0.5, now 0.6",
        "old: 1, now None",
    ]
    assert differences(before, before) == []


def test_a_model_is_told_by_its_weights_and_by_how_pictures_meet_it(tiny, tmp_path):
    one = model_settings(camtool.load(tiny, device="cpu"))
    moved = tmp_path / "moved.safetensors"
    moved.write_bytes(tiny.read_bytes())
    assert model_settings(camtool.load(moved, device="cpu")) == one


@pytest.mark.parametrize("options", [{"fit": "squash"}, {"size": 32}, {"dtype": "bfloat16"}])
def test_another_model_differs_in_what_was_asked(tiny, options):
    one = model_settings(camtool.load(tiny, device="cpu"))
    other = model_settings(camtool.load(tiny, device="cpu", **options))
    (name,) = options
    assert name in {line.split(":")[0] for line in differences(one, other)}
    assert other[name] == options[name]
