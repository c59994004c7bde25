from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import camtool
from camtool.errors import ModelError
from camtool.networks import embedded
from camtool.networks.load import RESNET50_FILES

EXAMPLES = Path(camtool.__file__).parents[1] / "examples"


@pytest.fixture
def nothing_else(monkeypatch, tmp_path):
    """A machine without ResNet-50's weights."""
    monkeypatch.delenv(RESNET50_FILES, raising=False)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))


@pytest.fixture(scope="module")
def model():
    return camtool.load("gapnet")


def test_auto_is_the_embedded_network_and_says_so(nothing_else, capsys):
    network = camtool.load("auto").network
    assert network.name == "gapnet"
    said = capsys.readouterr().err
    assert "gapnet" in said
    assert "camtool weights get resnet50" in said


def test_the_file_is_the_released_one_and_small():
    path = embedded.fetch("gapnet", None, False)
    assert path.stat().st_size <= 12_000_000


def test_another_file_is_refused(monkeypatch, tmp_path):
    changed = tmp_path / embedded.FILE
    changed.write_bytes(embedded.embedded_path().read_bytes() + b"x")
    monkeypatch.setattr(embedded, "embedded_path", lambda: changed)
    with pytest.raises(ModelError, match="not the file of this release"):
        camtool.load("gapnet")


def test_it_knows_its_labels_and_synsets(model):
    assert len(model.labels) == len(model.network.synsets) == 200
    assert model.labels[model.resolve("espresso")[0]] == "espresso"
    cats = [label for label in model.labels if "cat" in label.split(", ")[0].split()]
    assert "Egyptian cat" in cats


@pytest.mark.parametrize(("width", "height"), [(64, 64), (96, 64), (333, 500), (1000, 70)])
def test_maps_are_exact_and_fine(model, width, height):
    rng = np.random.default_rng(0)
    picture = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    explanation = model.explain(picture, topk=200)
    error = explanation.maps.mean((1, 2)) + explanation.bias - explanation.logits
    assert np.abs(error).max() <= 1e-5 * np.ptp(explanation.logits)
    rows, columns = explanation.geometry.input
    assert explanation.maps.shape[1:] == (rows // 8, columns // 8)


def test_the_head_is_gap_and_one_linear_layer(model):
    assert (model.head.kind, model.head.features, model.head.layer) == (
        "linear",
        "features",
        "fc.weight",
    )
    assert model.head.stride == 8


def test_loading_it_imports_no_torchvision():
    """Start-up: torchvision alone takes a second or more."""
    code = (
        "import sys, camtool; camtool.load('gapnet'); "
        "print([name for name in sys.modules if name.startswith('torchvision')][:3])"
    )
    root = Path(camtool.__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "[]"


def test_the_first_command_of_the_readme_names_the_espresso(model):
    assert model.explain(EXAMPLES / "espresso.jpg").labels == ("espresso",)


def test_the_other_example_is_a_cat(model):
    labels = model.explain(EXAMPLES / "cat.jpg", topk=5).labels
    assert "cat" in labels[0].split()
    assert any("tabby" in label for label in labels)
