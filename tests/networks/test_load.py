"""What a user may name, and what comes of a wrong name."""

from __future__ import annotations

from collections import namedtuple
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import camtool
from camtool.errors import ModelError
from camtool.networks import labels_for, load_network
from camtool.networks import torchvision as zoo
from camtool.networks.preprocessing import Preprocessing


def _tiny(classes: int = 3) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, 2), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, classes)
    )


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("resnet5", "resnet50"),
        ("effnet_b0", "efficientnet_b0"),
        ("efficientnet_lite", "efficientnet_lite0"),
    ],
)
def test_a_wrong_name_gives_the_nearest(name: str, hint: str) -> None:
    with pytest.raises(ModelError, match="did you mean") as caught:
        load_network(name)
    assert hint in str(caught.value)


@pytest.mark.parametrize(
    ("weights", "reason"),
    [
        ("IMAGENET1K_V9", "IMAGENET1K_V2, IMAGENET1K_V1"),
        ("mine.pth", "no such weights file"),
        ("somewhere/else", "no such weights file"),
    ],
)
def test_wrong_weights(weights: str, reason: str) -> None:
    with pytest.raises(ModelError, match=reason):
        load_network("resnet50", weights)


@pytest.mark.parametrize("weights", ["random", "DEFAULT"])
def test_weights_by_name_are_of_a_network_that_is_named(weights: str) -> None:
    with pytest.raises(ModelError, match="take the name of their network too"):
        load_network("auto", weights)


@pytest.mark.parametrize("form", ["IMAGENET1K_V2", "ResNet50_Weights.IMAGENET1K_V2", "DEFAULT"])
def test_entries_by_name(form: str) -> None:
    assert zoo.find_entry("resnet50", form).name == "IMAGENET1K_V2"


@pytest.mark.parametrize("name", ["googlenet", "inception_v3"])
def test_published_inceptions_transform_their_input(name: str) -> None:
    options = zoo.entries(name)[0].options
    assert options == {"transform_input": True}
    assert zoo.build(name, {}, **options).transform_input


def test_random_weights_are_seeded_and_leave_the_generator_alone() -> None:
    before = torch.random.get_rng_state()
    first, again = (load_network("squeezenet1_1", "random").module for _ in range(2))
    assert torch.equal(torch.random.get_rng_state(), before)
    for a, b in zip(first.parameters(), again.parameters(), strict=True):
        assert torch.equal(a, b)


def test_a_module_is_used_as_it_is() -> None:
    module = _tiny()
    network = load_network(module)
    assert network.module is module
    assert (network.name, network.weights, network.labels) == ("Sequential", "as given", ())
    with pytest.raises(ModelError, match="brings its own weights"):
        load_network(module, "mine.pth")


def test_labels_default_to_indices_and_must_fit(tmp_path: Path) -> None:
    network = load_network(_tiny())
    assert labels_for(network, None, 3) == ("0", "1", "2")
    assert labels_for(network, ["a", "b", "c"], 3) == ("a", "b", "c")
    with pytest.raises(ModelError, match="2 labels were given, the network has 3 classes"):
        labels_for(network, ["a", "b"], 3)
    path = tmp_path / "labels.txt"
    path.write_text("a\nb\nc\n")
    assert camtool.load(_tiny(), labels=path, device="cpu").labels == ("a", "b", "c")


def test_a_single_logit_is_that_of_the_second_of_two_labels(tmp_path: Path) -> None:
    path = tmp_path / "labels.json"
    path.write_text('{"ham": 0, "spam": 1}')
    module = nn.Sequential(
        nn.Conv2d(3, 4, 4), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 1)
    )
    for labels in (path, ["ham", "spam"], ["spam"]):
        found = camtool.load(module, labels=labels, device="cpu", size=32)
        assert found.labels == ("spam",)
    with pytest.raises(ModelError, match="3 labels were given, the network has 1 classes"):
        camtool.load(module, labels=["a", "b", "c"], device="cpu", size=32)


def test_published_labels_do_not_name_other_classes(tmp_path: Path) -> None:
    path = tmp_path / "mine.pth"
    torch.save(zoo.random_module("squeezenet1_1", 3).state_dict(), path)
    model = camtool.load("squeezenet1_1", weights=path, device="cpu", size=64)
    assert model.labels == ("0", "1", "2")


def test_timm_without_hub() -> None:
    pytest.importorskip("timm", reason="timm is not installed")
    network = load_network("timm/resnet18", "random")
    assert network.preprocessing.size == 224
    assert len(network.labels) == 1000


def test_input_sizes_come_from_the_entry() -> None:
    assert zoo.find_entry("inception_v3", "DEFAULT").preprocessing == Preprocessing(299, 342)
    newer = zoo.find_entry("resnet50", "IMAGENET1K_V2").preprocessing
    assert (newer.size, newer.resize) == (224, 232)
    assert zoo.find_entry("swin_t", "DEFAULT").preprocessing.interpolation == "bicubic"


class Several(nn.Module):
    """Two heads on the same features."""

    def __init__(self, how: Any) -> None:
        super().__init__()
        self.body = nn.Conv2d(3, 4, 3, 2, 1)
        self.kind, self.age = nn.Linear(4, 3), nn.Linear(4, 5)
        self.how = how

    def forward(self, x: Tensor) -> Any:
        pooled = self.body(x).relu().mean((2, 3))
        return self.how(self.kind(pooled), self.age(pooled))


Pair = namedtuple("Pair", ["kind", "age"])


@pytest.mark.parametrize(
    ("how", "output"),
    [
        (lambda kind, age: (kind, age), 1),
        (lambda kind, age: {"kind": kind, "age": age}, "age"),
        (Pair, "age"),
        (lambda kind, age: SimpleNamespace(kind=kind, age=age), "age"),
    ],
)
def test_one_of_several_outputs_is_explained(how, output) -> None:
    module = Several(how).eval()
    model = camtool.load(module, output=output, device="cpu", size=32)
    assert (model.head.classes, model.head.exact) == (5, True)
    inputs = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        features = module.body(inputs).relu()[0]
        found = model.explain_tensor(inputs, targets=2)[0]
        maps = torch.einsum("k,khw->hw", module.age.weight[2], features)
        assert found.all_logits == pytest.approx(module.age(features.mean((1, 2))), abs=1e-6)
        assert found.maps[0] == pytest.approx(maps, abs=1e-5)
    assert not module._forward_hooks
    with pytest.raises(ModelError, match="has no output 'size', but"):
        camtool.load(module, output="size", device="cpu", size=32)
    with pytest.raises(ModelError, match="has no output 7, but one alone"):
        camtool.load(module.body, output=7, device="cpu", size=32)
