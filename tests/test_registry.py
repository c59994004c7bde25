"""A method and a kind of head from outside: one file and one line in a registry each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from typer.testing import CliRunner

import camtool
from camtool.cli import app
from camtool.errors import HeadError
from camtool.heads import KINDS, Forward, PooledHead, Seen, pooled_facts
from camtool.heads.head import Read
from camtool.heads.linear import pooled_logits
from camtool.methods import METHODS, Maps, Settings, class_activation_map

PICTURE = np.random.default_rng(0).integers(0, 256, (64, 96, 3), np.uint8)


class Scaled(nn.Module):
    """Global average pooling, a linear layer, and a temperature: none of the known heads."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, 6, 8, 8)
        self.fc = nn.Linear(6, 4)
        self.temperature = nn.Parameter(torch.tensor(0.5))

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.conv(x).relu().mean((2, 3))) / self.temperature


@dataclass(frozen=True)
class ScaledHead(PooledHead):
    """Knows `Scaled`."""

    kind: str = "scaled"
    parameters: ClassVar[int] = 29
    layer_name: ClassVar[str] = "fc over temperature"

    @classmethod
    def match(cls, seen: Seen) -> ScaledHead:
        if not isinstance(seen.module, Scaled):
            raise HeadError("is no Scaled")
        return cls(**pooled_facts(seen))

    def read(self, module: nn.Module, features: Tensor, own: Tensor) -> Read:
        assert isinstance(module, Scaled)
        weight = module.fc.weight / module.temperature
        bias = module.fc.bias / module.temperature

        def tail(maps: Tensor, *_how: Any, **_else: Any) -> Tensor:
            return pooled_logits(maps, weight, bias)

        return Read(own, tail, lambda classes: (weight[classes], bias[classes]))


def halves(forward: Forward, classes: Tensor, settings: Settings) -> Maps:
    """A method that leaves half of every logit out."""
    assert forward.linear is not None
    weight, bias = forward.linear(classes)
    return Maps(class_activation_map(forward.features, weight / 2), bias / 2)


def test_a_kind_of_head_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    assert camtool.load(Scaled(), size=64).head.kind == "affine"
    monkeypatch.setattr("camtool.heads.find.KINDS", [ScaledHead, *KINDS])
    model = camtool.load(Scaled(), size=64, method="cam", exact="require")
    assert model.head.kind == "scaled"
    explanation = model.explain(PICTURE, topk=2)
    assert explanation.exact
    assert explanation.layer == model.head.features
    np.testing.assert_allclose(
        explanation.maps.mean((1, 2)) + explanation.bias, explanation.logits, atol=1e-5
    )


def test_a_method_from_outside_says_what_it_misses(monkeypatch, tmp_path) -> None:
    monkeypatch.setitem(METHODS, "halves", halves)
    plain = camtool.load("squeezenet1_1", weights="random", device="cpu", size=64)
    model = camtool.load("resnet18", weights="random", device="cpu", size=64, method="halves")
    explanation = model.explain(PICTURE, topk=2)
    assert (explanation.method, explanation.exact) == ("halves", False)
    np.testing.assert_allclose(explanation.residual, explanation.logits / 2, rtol=1e-4)
    assert plain.explain(PICTURE).exact
    camtool.Explanation.save(explanation, tmp_path / "panel.png")
    words = ["inspect", "squeezenet1_1", "-w", "random"]
    assert CliRunner().invoke(app, words).exit_code == 0
    path = tmp_path / "one.png"
    from PIL import Image

    Image.fromarray(PICTURE).save(path)
    words = ["explain", str(path), "-m", "squeezenet1_1", "-w", "random", "--method", "halves"]
    assert CliRunner().invoke(app, [*words, "--save", "none"]).exit_code == 0
