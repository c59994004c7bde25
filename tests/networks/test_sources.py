"""The registry of sources: what each gives, and that one more is a file and a line."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from typer.testing import CliRunner

import camtool
from camtool.cli import app
from camtool.errors import HeadError, ModelError
from camtool.networks import (
    SOURCES,
    Network,
    Preprocessing,
    Published,
    Source,
    before_download,
    load_network,
    torchvision,
)
from camtool.networks.embedded import NAME as EMBEDDED


def _tiny(classes: int = 3, channels: int = 3) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(channels, 4, 3, 2), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, classes)
    )


class Mine:
    """A source outside of the package: "mine/NAME", its weights in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def takes(self, name: str) -> bool:
        return name.startswith("mine/")

    def names(self) -> list[str]:
        return ["mine/wonderful"]

    def published(self, name: str) -> list[Published]:
        path = self.folder / "wonderful.pth"
        return [Published("best", 3, path if path.exists() else None)]

    def fetch(self, name: str, weights: str | None, offline: bool) -> Path:
        path = self.folder / "wonderful.pth"
        torch.save(_tiny().state_dict(), path)
        return path

    def load(self, name: str, weights: str | Path | None, offline: bool) -> Network:
        path = weights if isinstance(weights, Path) else self.fetch(name, weights, offline)
        module = _tiny()
        module.load_state_dict(torch.load(path))
        return self._network(module, name, str(weights or "best"))

    def random(self, name: str, offline: bool) -> Network:
        return self._network(_tiny(), name, "random (seed 0)")

    def _network(self, module: nn.Module, name: str, weights: str) -> Network:
        labels = ("ape", "bee", "cat")
        return Network(module.eval(), name, weights, None, labels, Preprocessing(64))


@pytest.fixture
def mine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Source:
    source = Mine(tmp_path)
    monkeypatch.setattr("camtool.networks.load.SOURCES", [*SOURCES, source])
    monkeypatch.setattr("camtool.networks.SOURCES", [*SOURCES, source])
    return source


def test_a_source_from_outside_loads_by_its_names(mine, tmp_path: Path) -> None:
    assert before_download("mine/wonderful").weights == "random (seed 0)"
    network = load_network("mine/wonderful")
    assert (network.name, network.weights, network.labels[1]) == ("mine/wonderful", "best", "bee")
    assert before_download("mine/wonderful") is None
    assert load_network("mine/wonderful", "random").weights == "random (seed 0)"
    assert load_network("mine/wonderful", tmp_path / "wonderful.pth").weights.endswith(".pth")
    with pytest.raises(ModelError, match="did you mean mine/wonderful"):
        load_network("mien/wonderful")


def test_a_network_without_places_is_refused_before_its_weights_are_fetched(
    mine, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = nn.Sequential(nn.Flatten(), nn.Linear(3 * 64 * 64, 3))
    monkeypatch.setattr(mine, "random", lambda name, _: mine._network(module, name, "random"))
    monkeypatch.setattr(mine, "fetch", lambda *_: pytest.fail("weights were fetched"))
    with pytest.raises(HeadError, match="no place in the network"):
        camtool.load("mine/wonderful", device="cpu")
    result = CliRunner().invoke(app, ["explain", "a.jpg", "-m", "mine/wonderful"])
    assert result.exit_code == 3
    assert "no place in the network" in result.stderr


def test_a_source_from_outside_is_listed_fetched_and_verified(mine, tmp_path: Path) -> None:
    def run(*words: str) -> str:
        result = CliRunner().invoke(app, ["weights", *words])
        assert result.exit_code == 0, result.output
        return result.stdout

    assert "mine/wonderful" in run("list")
    got = run("get", "mine/wonderful").strip()
    assert got == str(tmp_path / "wonderful.pth")
    assert "best" in run("list", "mine/wonderful")
    assert got in run("verify", "mine/wonderful")


def test_and_it_explains(mine, make_picture, tmp_path: Path) -> None:
    picture = tmp_path / "a.jpg"
    picture.write_bytes(make_picture(1))
    words = ["explain", str(picture), "-m", "mine/wonderful", "--json", "--save", "none"]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["model"]["name"] == "mine/wonderful"


def test_every_source_has_the_five_functions() -> None:
    for source in SOURCES:
        for name in ("takes", "names", "published", "fetch", "load", "random"):
            assert callable(getattr(source, name)), (source, name)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "forbidden"),
    [
        (EMBEDDED, "torchvision timm transformers huggingface_hub"),
        ("weights/gapnet-1.safetensors", "torchvision timm transformers huggingface_hub"),
        ("squeezenet1_1", "timm transformers huggingface_hub"),
    ],
)
def test_a_source_imports_no_library_of_another(name: str, forbidden: str) -> None:
    root = Path(__file__).parents[2]
    code = (
        "import sys; from camtool.networks import load_network; "
        f"load_network({name!r}, random_if_absent=True); "
        f"print({{*{forbidden.split()}}} & {{*sys.modules}})"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "set()"


def test_unknown_weights_take_the_classic_recipe_not_the_first_name_in_the_alphabet() -> None:
    for name in ("regnet_y_16gf", "regnet_y_32gf", "vit_b_16", "vit_l_16"):
        spec = torchvision.classic_entry(name).preprocessing
        assert (spec.size, spec.interpolation) == (224, "bilinear"), name
    for name in torchvision.names():
        entry = torchvision.classic_entry(name)
        known = [one.name for one in torchvision.entries(name)]
        assert entry.name == "IMAGENET1K_V1" if entry else "IMAGENET1K_V1" not in known, name


@pytest.mark.parametrize("name", ["resnet18", "tf_efficientnet_lite0", "convnext_atto"])
def test_a_timm_network_is_the_same_by_name_and_as_a_module(name: str) -> None:
    timm = pytest.importorskip("timm", reason="timm is not installed")
    by_name = load_network(f"timm/{name}", "random")
    as_module = load_network(timm.create_model(name))
    assert as_module.preprocessing == by_name.preprocessing
    assert as_module.preprocessing.interpolation == "bicubic" or name == "resnet18"
    assert as_module.labels == by_name.labels
    assert as_module.labels[0].startswith("tench")
    assert as_module.synsets == by_name.synsets
    assert as_module.synsets[0] == "n01440764"


def test_timms_record_is_that_of_timms_own_resolution() -> None:
    timm = pytest.importorskip("timm", reason="timm is not installed")
    for name in ("resnet50.a1_in1k", "tf_efficientnet_b5.ns_jft_in1k", "vit_tiny_patch16_384"):
        config = timm.get_pretrained_cfg(name)
        resolved = timm.data.resolve_data_config(pretrained_cfg=config.to_dict())
        module = _tiny()
        module.pretrained_cfg = config.to_dict()
        spec = load_network(module).preprocessing
        assert (spec.size, spec.mean, spec.std) == (
            resolved["input_size"][-1],
            resolved["mean"],
            resolved["std"],
        )
        assert spec.interpolation == resolved["interpolation"]
        assert spec.resize == int(spec.size / resolved["crop_pct"])


@pytest.mark.slow
def test_a_record_counts_without_timm_and_its_own_labels_too() -> None:
    code = """
import sys
from torch import nn
from camtool.networks import load_network
module = nn.Sequential(nn.Conv2d(3, 2, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
module.num_classes = 2
module.default_cfg = {"input_size": (3, 96, 96), "mean": (0.5,) * 3, "std": (0.25,) * 3,
    "crop_pct": 1.0, "interpolation": "bicubic", "label_names": ("n1", "n2"),
    "label_descriptions": {"n1": "ape"}}
network = load_network(module)
print(network.preprocessing.size, network.preprocessing.resize, network.preprocessing.mean[0],
      network.preprocessing.interpolation, network.labels, "timm" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "96 96 0.5 bicubic ('ape', 'n2') False"


@pytest.mark.parametrize("record", [None, {}, {"mean": 3}, "text", {"a": 1}])
def test_what_is_no_record_is_ignored(record: object) -> None:
    module: Any = _tiny()
    module.pretrained_cfg = record
    assert load_network(module).preprocessing == Preprocessing()


@pytest.mark.parametrize(
    ("name", "weights", "reason"),
    [
        ("timm/resnet1", None, "timm has no such architecture; did you mean timm/resnet18"),
        ("timm/resnet18", "none_in1k", "no weights called 'none_in1k'.*a1_in1k"),
        ("timm/resnet18.none_in1k", None, "no weights called 'none_in1k'"),
        ("timm/a/b", "random", "timm can't build it"),
    ],
)
def test_wrong_timm_names(name: str, weights: str | None, reason: str) -> None:
    pytest.importorskip("timm", reason="timm is not installed")
    with pytest.raises(ModelError, match=reason) as caught:
        load_network(name, weights)
    assert "\n" not in str(caught.value)


def test_before_download_says_nothing_where_nothing_is_fetched(monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    path = tmp_path / "mine.pth"
    path.touch()
    for arguments in (
        ("auto",),
        (EMBEDDED,),
        (_tiny(),),
        ("squeezenet1_1", "random"),
        ("squeezenet1_1", path),
        (path,),
    ):
        assert before_download(*arguments) is None
    for weights in (None, "IMAGENET1K_V1", "SqueezeNet1_1_Weights.IMAGENET1K_V1"):
        shown = before_download("squeezenet1_1", weights)
        assert shown.weights == "random (seed 0)"
    with pytest.raises(ModelError, match="did you mean"):
        before_download("resnet5")
