"""The network that comes along: the one that `auto` takes where ResNet-50 is not at hand."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import camtool
from camtool.errors import ModelError
from camtool.networks import embedded
from camtool.networks.load import RESNET50_FILES, load_network

ROOT = Path(camtool.__file__).parents[1]
EXAMPLES = ROOT / "examples"


@pytest.fixture
def nothing_else(monkeypatch, tmp_path):
    """A machine without ResNet-50's weights."""
    monkeypatch.delenv(RESNET50_FILES, raising=False)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))


@pytest.fixture(scope="module")
def model():
    return camtool.load("efficientnet_lite0", device="cpu")


def test_auto_is_the_embedded_network_and_says_so(nothing_else, caplog):
    network = camtool.load("auto").network
    assert network.name == embedded.NAME
    assert embedded.NAME in caplog.text
    assert "camtool weights get resnet50" in caplog.text


def test_it_knows_its_labels_and_synsets(model):
    assert len(model.labels) == len(set(model.labels)) == len(model.network.synsets) == 1000
    assert model.labels[model.resolve("espresso")[0]] == "espresso"


def test_the_head_is_gap_and_one_linear_layer(model):
    assert (model.head.kind, model.head.layer, model.head.stride) == ("linear", "fc.weight", 32)
    assert model.head.exact


@pytest.mark.slow
def test_loading_it_imports_no_torchvision():
    """Start-up: torchvision alone takes a second or more."""
    code = (
        "import sys, camtool; camtool.load('efficientnet_lite0'); "
        "print([name for name in sys.modules if name.startswith('torchvision')][:3])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("photograph", "label"), [("espresso.jpg", "espresso"), ("uniform.jpg", "military uniform")]
)
def test_it_knows_what_the_examples_show(model, photograph, label):
    explanation = model.explain(EXAMPLES / photograph)
    assert explanation.labels == (label,)
    assert explanation.probabilities[0] > 0.5


def test_weights_of_ones_own_for_it(model, tmp_path):
    state = {k: v.contiguous() for k, v in model.network.module.state_dict().items()}
    path = tmp_path / "mine.safetensors"
    save_file(state, path)
    same = load_network(embedded.NAME, path)
    assert same.labels == model.labels
    state |= {"fc.weight": torch.randn(7, 1280), "fc.bias": torch.zeros(7)}
    save_file(state, path)
    fewer = load_network(embedded.NAME, path)
    assert fewer.labels == ()
    assert fewer.module(torch.zeros(1, 3, 64, 64)).shape == (1, 7)
    with pytest.raises(ModelError, match="no weights called"):
        load_network(embedded.NAME, "V9")
