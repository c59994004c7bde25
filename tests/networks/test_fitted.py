"""The file of a fit: what it says, and what is refused where it says it wrongly."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from camtool.errors import ModelError
from camtool.loading import load
from camtool.networks import fitted, load_network
from camtool.networks import torchvision as zoo
from camtool.networks.preprocessing import Preprocessing

LABELS = ("cat", "dog", "elk")
NAME = "shufflenet_v2_x0_5"


def written(path: Path, name: str = NAME, **changes) -> Path:
    """A file as a fit writes it, with a random network of three classes in it."""
    module = zoo.random_module(name, len(LABELS))
    network = replace(load_network(name, "random"), module=module, labels=LABELS, synsets=())
    network = replace(network, activation="sigmoid")
    facts = fitted.facts_of(network, "fc.bias", Preprocessing(64), {"strength": 0.1})
    path.write_bytes(fitted.to_bytes(module, replace(facts, **changes)))
    return path


@pytest.fixture
def file(tmp_path) -> Path:
    return written(tmp_path / "mine.safetensors")


def test_it_loads_as_what_it_was_written_as(file) -> None:
    network = load_network(file)
    assert (network.name, network.labels, network.activation) == (NAME, LABELS, "sigmoid")
    assert network.preprocessing == Preprocessing(64)
    first, second = network.module.state_dict(), zoo.random_module(NAME, 3).state_dict()
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert load(file, device="cpu").activation == "sigmoid"
    assert load(file, device="cpu", activation="softmax").activation == "softmax"
    assert fitted.metadata(file).made == {"strength": 0.1}


def test_the_same_network_gives_the_same_bytes(file, tmp_path) -> None:
    assert written(tmp_path / "again.safetensors").read_bytes() == file.read_bytes()


def test_other_files_are_none_of_it(file, tmp_path, tiny) -> None:
    save_file(load_file(file), tmp_path / "plain.safetensors")
    for path in (tiny, tmp_path / "plain.safetensors", tmp_path / "gone", Path(__file__)):
        assert fitted.metadata(path) is None
    with pytest.raises(ModelError, match="was not written by camtool fit"):
        fitted.load(tiny)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"base": "nonsense"}, "which is none of"),
        ({"base": "hf/microsoft/resnet-50"}, "which is none of"),
        ({"base": "/etc/passwd"}, "which is none of"),
        ({"base": 7}, "damaged file of camtool fit"),
        ({"base": "shufflenet_v2_x1_0"}, "does not fit shufflenet_v2_x1_0"),
        ({"base": "gapnet"}, "damaged file of camtool fit"),
        (
            {"base": "gapnet", "architecture": {"widths": [10**9] * 4, "blocks": [1, 1]}},
            "larger than it is",
        ),
        ({"bias": "fc.nothing"}, "damaged file of camtool fit"),
        ({"bias": "conv1.1.bias"}, "labels or synsets are not 24"),
        ({"labels": ("cat", "dog")}, "labels or synsets are not 3"),
        ({"labels": 5}, "damaged file of camtool fit"),
        ({"synsets": ("n1",)}, "labels or synsets are not 3"),
        ({"activation": "none"}, "no such activation"),
        ({"preprocessing": {"size": 10**6}}, "size must be 1 to"),
        ({"preprocessing": {"shape": 3}}, "damaged file of camtool fit"),
        ({"preprocessing": [1]}, "damaged file of camtool fit"),
    ],
)
def test_a_file_that_says_what_is_not_so_is_refused_in_a_line(tmp_path, changes, reason) -> None:
    path = written(tmp_path / "bad.safetensors", **changes)
    with pytest.raises(ModelError, match=reason) as refused:
        load_network(path)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("text", ["{", "[]", "7", '{"base": "shufflenet_v2_x0_5"}', "[" * 100_000])
def test_a_record_that_is_none_is_refused(file, text) -> None:
    save_file(load_file(file), file, {fitted.KEY: text})
    with pytest.raises(ModelError, match="is a damaged file of camtool fit"):
        load_network(file)


def test_a_truncated_file_is_refused(file) -> None:
    content = file.read_bytes()
    for length in (len(content) // 2, 200, 20):
        file.write_bytes(content[:length])
        with pytest.raises(ModelError):
            load_network(file)


def test_the_record_is_one_text(file) -> None:
    with safe_open(file, framework="pt") as opened:
        metadata = opened.metadata()
    assert metadata.keys() == {fitted.KEY}
    assert json.loads(metadata[fitted.KEY])["labels"] == [*LABELS]
