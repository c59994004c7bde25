"""Networks that do not classify are refused in a line that says what would work."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torchvision.models import detection, segmentation
from typer.testing import CliRunner

import camtool
from camtool.cli import app
from camtool.errors import HeadError


class Gives(nn.Module):
    """What a network of another task returns, made of a real map."""

    def __init__(self, how) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, 2, 1)
        self.how = how

    def forward(self, x: Tensor):
        return self.how(self.conv(x))


OUTPUTS = {
    "a map": (lambda f: f, "as segmentation does"),
    "a map by name": (lambda f: {"out": f, "aux": f}, "as segmentation does"),
    "a map as logits": (lambda f: {"logits": f}, "as segmentation does"),
    "boxes of each picture": (lambda f: [{"boxes": f[0, 0], "labels": f[0, 0]}], "detects objects"),
    "boxes of queries": (
        lambda f: {"logits": f[:, 0], "pred_boxes": f[:, 0]},
        "detects objects",
    ),
    "features of stages": (lambda f: [f, f[..., ::2, ::2]], "feature maps"),
}


@pytest.mark.parametrize("what", OUTPUTS)
def test_what_is_no_classifier_is_refused(what: str) -> None:
    how, words = OUTPUTS[what]
    with pytest.raises(HeadError, match=words) as caught:
        camtool.load(Gives(how), size=32)
    assert "would work" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_one_place_a_class_is_a_classifier() -> None:
    cam = camtool.load(Gives(lambda f: f.mean((2, 3), keepdim=True)), size=32)
    assert cam.head.classes == 4


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (segmentation.lraspp_mobilenet_v3_large, "as segmentation does"),
        (detection.ssdlite320_mobilenet_v3_large, "detects objects"),
    ],
)
def test_torchvisions_modules_of_other_tasks_are_refused(build, words: str) -> None:
    with pytest.raises(HeadError, match=words):
        camtool.load(build(weights=None, weights_backbone=None))


@pytest.mark.parametrize(
    ("name", "works"),
    [("fcn_resnet50", "resnet50"), ("ssd300_vgg16", "vgg16"), ("r3d_18", "resnet50")],
)
@pytest.mark.parametrize("command", ["inspect", "explain"])
def test_names_of_other_tasks_are_wrong_models(command: str, name: str, works: str) -> None:
    words = ["inspect", name] if command == "inspect" else ["explain", "a.jpg", "-m", name]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 3
    (line,) = result.stderr.splitlines()
    assert f"; {works} would work" in line


@pytest.mark.parametrize("kind", ["YolosForObjectDetection", "SegformerForSemanticSegmentation"])
def test_a_folder_of_another_task_is_a_wrong_model(kind: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"architectures": [kind]}))
    result = CliRunner().invoke(app, ["inspect", str(tmp_path), "-w", "random"])
    assert result.exit_code == 3
    (line,) = result.stderr.splitlines()
    assert kind in line
    assert "ForImageClassification would work" in line


@pytest.mark.slow
def test_timms_transformers_see_pictures_whole() -> None:
    timm = pytest.importorskip("timm", reason="timm is not installed")
    name = "vit_tiny_patch16_224"
    cam = camtool.load(f"timm/{name}", weights="random", device="cpu")
    noise = np.random.default_rng(0).integers(0, 256, (60, 90, 3), dtype=np.uint8)
    e = cam.explain(noise)
    assert e.geometry.fit == "whole"
    assert e.geometry.input == (224, 336)
    assert e.maps.shape == (1, 14, 21)
    assert abs(float(e.residual[0])) <= 1e-3 * np.ptp(e.all_logits)
    plain = timm.create_model(name).eval()
    plain.load_state_dict(cam.network.module.state_dict())
    inputs = torch.randn(1, 3, 224, 224)
    with torch.no_grad():
        assert torch.equal(plain(inputs), cam.network.module(inputs.contiguous()))
