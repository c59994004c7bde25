"""The last stage of a base trained further: kept where it is better, and the same every time."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
import torch

import camtool
from camtool.fit import finetune
from camtool.fit.finetune import last_stage
from camtool.fit.solver import cross_validate
from camtool.networks import torchvision as zoo

pytestmark = pytest.mark.slow

WORDS = ("--finetune", "--no-report", "--strength", "0.0001")
"""With a penalty that leaves the layer alone far from the best, so that any training is better."""


@pytest.fixture(autouse=True)
def brisk(monkeypatch):
    """So fast that the tiny network, whose weights are random, learns in a few steps."""
    monkeypatch.setattr(finetune, "RATE", 1e-3)
    monkeypatch.setattr(finetune, "BATCH", 4)


def losses(told: str) -> tuple[float, float]:
    after, before = re.findall(r"fine-tuned: loss ([\d.]+) .*?, ([\d.]+) of the layer", told)[0]
    return float(after), float(before)


def test_it_is_taken_where_it_is_better_and_explains_exactly(coloured, fitting, tiny, tmp_path):
    data = coloured(10)
    done = fitting(data, "--json", *WORDS)
    assert done.exit_code == 0, done.output
    after, before = losses(done.stderr)
    assert after < before
    cam, base = (camtool.load(p, device="cpu") for p in (tmp_path / "mine.safetensors", tiny))
    changed = {
        name
        for name, value in cam.network.module.state_dict().items()
        if name not in ("fc.weight", "fc.bias")
        and not torch.equal(value, base.network.module.state_dict()[name])
    }
    assert changed == set(last_stage(base))
    for answer in json.loads(done.stdout)["held"]:
        e = cam.explain(answer["path"], topk=3)
        assert np.abs(e.residual).max() < 1e-5 * np.ptp(e.all_logits)
        told = dict(zip(e.indices.tolist(), e.probabilities.tolist(), strict=True))
        assert answer["probabilities"] == pytest.approx([told[k] for k in range(3)], abs=2e-5)


def test_the_strength_is_chosen_on_what_was_not_trained_on(coloured, fitting, monkeypatch):
    """Cross-validation over all would take features that know the answers."""
    asked = []

    def noted(examples, folds, count, workers):
        asked.append((len(examples.truth), sorted(folds), count))
        return cross_validate(examples, folds, count, workers)

    monkeypatch.setattr("camtool.fit.run.cross_validate", noted)
    # The layer alone is nearly as good, so that only many small steps make it better.
    monkeypatch.setattr(finetune, "RATE", 1e-4)
    done = fitting(coloured(26), "--json", "--finetune", "--no-report")
    assert losses(done.stderr)
    (_, every, folds), (count, some, one) = asked
    assert (len(every), folds, one) == (count, 5, 1)
    assert 0.15 * count < len(some) < 0.25 * count
    assert json.loads(done.stdout)["curve"] == []


def test_a_picture_that_is_gone_meanwhile_is_named(coloured, fitting, monkeypatch):
    data = coloured(6)

    def gone(cam):
        for path in (data / "red").iterdir():
            path.unlink()
        return last_stage(cam)

    monkeypatch.setattr(finetune, "last_stage", gone)
    done = fitting(data, *WORDS)
    assert done.exit_code == 2
    assert "red/" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


def test_it_is_left_where_it_is_worse(coloured, fitting, monkeypatch, tmp_path):
    monkeypatch.setattr(finetune, "RATE", 3.0)
    data = coloured(8)
    done = fitting(data, *WORDS)
    assert "is no better than the layer alone" in done.stderr
    plain = fitting(data, *WORDS[1:], output="plain.safetensors")
    assert plain.exit_code == 0
    files = [(tmp_path / f"{name}.safetensors").read_bytes() for name in ("mine", "plain")]
    assert files[0] == files[1]


def test_the_held_out_pictures_play_no_part(coloured, fitting, tmp_path):
    """Whatever lies apart, the same network comes out."""
    data = coloured(8)
    coloured(4, "apart", first=20)
    coloured(6, "other", first=40)
    for name in ("apart", "other"):
        words = (*WORDS, "--validation", str(tmp_path / name))
        assert losses(fitting(data, *words, output=f"{name}.safetensors").stderr)
    one, other = (
        camtool.load(tmp_path / f"{name}.safetensors").network.module.state_dict()
        for name in ("apart", "other")
    )
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_stopped_after_any_step_it_ends_the_same(coloured, fitting, monkeypatch, tmp_path):
    data = coloured(8)
    whole = fitting(data, *WORDS, output="whole.safetensors")
    assert whole.exit_code == 0
    stop, seen = finetune._Steps.__call__, []

    def some(self):
        seen.append(self.done)
        if len(seen) % 4 == 0:
            self.stopping = lambda: True
        stop(self)

    monkeypatch.setattr(finetune._Steps, "__call__", some)
    codes: list[int] = []
    while not codes or codes[-1] == 130:
        codes.append(fitting(data, *WORDS).exit_code)
    assert codes == [130, 130, 130, 130, 0]
    # No step was done twice.
    assert seen == list(range(len(seen)))
    files = [(tmp_path / f"{name}.safetensors").read_bytes() for name in ("mine", "whole")]
    assert files[0] == files[1]


@pytest.mark.parametrize(
    ("name", "first"),
    [("resnet18", "layer4.0.conv1"), ("mobilenet_v2", "features.14.conv.1.0")],
)
def test_the_last_stage_is_what_works_at_its_resolution(name, first):
    network = zoo.random_module(name, 3)
    found = last_stage(camtool.load(network, weights=None, device="cpu"))
    parameters = [n for n, _ in network.named_parameters()]
    begin = parameters.index(f"{first}.weight")
    assert set(found) == set(parameters[begin:-2])
