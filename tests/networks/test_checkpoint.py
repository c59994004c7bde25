"""Checkpoints: every nesting and prefix people save, and none that would run code."""

from __future__ import annotations

import pickle
import re
import warnings
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from camtool.errors import ModelError
from camtool.heads import find_head
from camtool.networks import load_network
from camtool.networks.fitting import fit, strip_prefixes
from camtool.networks.state import read_state
from camtool.networks.torchvision import build, identify, random_module

NAME = "squeezenet1_1"


def _state(name: str = NAME, classes: int | None = None) -> dict[str, Tensor]:
    return {key: value.clone() for key, value in random_module(name, classes).state_dict().items()}


@pytest.fixture(scope="module")
def state() -> dict[str, Tensor]:
    return _state()


def _same(module: nn.Module, state: dict[str, Tensor]) -> None:
    own = module.state_dict()
    for key, value in state.items():
        assert torch.equal(own[key], value.to(own[key].dtype)), key


@pytest.mark.parametrize(
    "nest", [None, "state_dict", "model_state_dict", "model", "ema", "model_ema", "state_dict_ema"]
)
@pytest.mark.parametrize("ending", [".pth", ".pt", ".tar", ".bin"])
def test_nested_state_dicts(tmp_path: Path, state, nest: str | None, ending: str) -> None:
    path = tmp_path / f"mine{ending}"
    content = state if nest is None else {nest: state, "epoch": 3, "optimizer": {"lr": 0.1}}
    torch.save(content, path)
    assert read_state(path).keys() == state.keys()


def test_nested_twice_with_prefix_and_bookkeeping(tmp_path: Path, state) -> None:
    averaged = {f"module.{key}": value for key, value in state.items()}
    path = tmp_path / "swa.pth"
    torch.save({"model": {"state_dict": averaged | {"n_averaged": torch.tensor(7)}}}, path)
    _same(load_network(NAME, path).module, state)


@pytest.mark.parametrize("ending", [".safetensors", ".pth", ""])
def test_safetensors_by_content(tmp_path: Path, state, ending: str) -> None:
    path = tmp_path / f"mine{ending}"
    save_file(state, path)
    network = load_network(NAME, path)
    _same(network.module, state)
    assert network.sha256 is not None
    assert len(network.sha256) == 64


@pytest.mark.parametrize(
    "prefix", ["module.", "model.", "backbone.", "_orig_mod.", "module.model.", "net.encoder."]
)
def test_prefixes(tmp_path: Path, state, prefix: str) -> None:
    path = tmp_path / "mine.safetensors"
    save_file({prefix + key: value for key, value in state.items()}, path)
    _same(load_network(NAME, path).module, state)


def test_legacy_format_and_half_precision(tmp_path: Path, state) -> None:
    path = tmp_path / "old.pth"
    half = {key: value.half() for key, value in state.items()}
    torch.save(half, path, _use_new_zipfile_serialization=False)
    module = load_network(NAME, path).module
    _same(module, half)
    assert {p.dtype for p in module.parameters()} == {torch.float32}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["squeezenet1_1", "resnet18", "mobilenet_v2", "mnasnet0_5"])
def test_another_number_of_classes(tmp_path: Path, name: str) -> None:
    state, path = _state(name, 7), tmp_path / "mine.pth"
    torch.save(state, path)
    network = load_network(name, path)
    _same(network.module, state)
    assert find_head(network.module, 64).classes == 7


@pytest.mark.parametrize(
    "name",
    [
        "resnet18",
        "shufflenet_v2_x0_5",
        "regnet_y_400mf",
        pytest.param("swin_t", marks=pytest.mark.slow),
    ],
)
def test_the_architecture_is_known_by_its_tensors(name: str) -> None:
    assert identify(_state(name, 5)) == name


def test_a_file_alone_is_enough(tmp_path: Path) -> None:
    state, path = _state("mnasnet0_5", 4), tmp_path / "mine.pth"
    torch.save({"state_dict": {f"module.{k}": v for k, v in state.items()}}, path)
    network = load_network(path)
    assert network.name == "mnasnet0_5"
    _same(network.module, state)


@pytest.mark.slow
def test_a_file_of_no_known_architecture_says_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "mine.pth"
    torch.save(nn.Linear(3, 4).state_dict(), path)
    with pytest.raises(ModelError, match=r"--model NAME --weights mine\.pth"):
        load_network(path)


def _on_meta(name: str) -> dict[str, Tensor]:
    return build(name, {}, 3).state_dict()


def test_densenet_files_have_the_names_that_were_published() -> None:
    wanted = _on_meta("densenet121")
    old = {
        re.sub(r"(denselayer\d+\.(?:norm|conv))(\d)", r"\1.\2", f"module.{key}"): value
        for key, value in wanted.items()
    }
    assert "module.features.denseblock1.denselayer1.norm.1.weight" in old
    assert strip_prefixes(old, wanted).keys() == wanted.keys()


def test_vit_files_have_the_names_that_were_published() -> None:
    wanted = _on_meta("vit_b_32")
    old = {
        key.replace(".mlp.0.", ".mlp.linear_1.").replace(".mlp.3.", ".mlp.linear_2."): value
        for key, value in wanted.items()
    }
    assert old.keys() != wanted.keys()
    assert strip_prefixes(old, wanted).keys() == wanted.keys()


@pytest.mark.slow
def test_missing_left_over_and_misshapen_names_are_listed(tmp_path: Path, state) -> None:
    wrong = dict(state)
    wrong["features.extra.weight"] = wrong.pop("features.0.bias")
    wrong["features.0.weight"] = torch.zeros(64, 3, 5, 5)
    path = tmp_path / "wrong.pth"
    torch.save(wrong, path)
    with pytest.raises(ModelError) as caught:
        load_network(NAME, path)
    line = str(caught.value)
    assert "1 missing (features.0.bias)" in line
    assert "1 left over (features.extra.weight)" in line
    assert "features.0.weight [64, 3, 5, 5] for [64, 3, 3, 3]" in line
    assert "\n" not in line


def test_batch_norms_counter_may_be_missing() -> None:
    state = {k: v for k, v in _state("resnet18").items() if not k.endswith("num_batches_tracked")}
    module, _ = fit(partial(build, "resnet18", state), state, "mine", "resnet18")
    assert not any(tensor.is_meta for tensor in module.state_dict().values())


def test_the_result_is_ready_and_frozen(tmp_path: Path, state) -> None:
    path = tmp_path / "mine.pth"
    torch.save(state, path)
    module = load_network(NAME, path).module
    assert not module.training
    assert not any(p.requires_grad or p.is_meta for p in module.parameters())


class Evil:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.mark.parametrize("new_format", [True, False])
def test_code_in_a_pickle_is_refused_and_not_run(tmp_path: Path, state, new_format: bool) -> None:
    trap, path = tmp_path / "trap", tmp_path / "evil.pth"
    torch.save(
        {"state_dict": state, "x": Evil(trap)}, path, _use_new_zipfile_serialization=new_format
    )
    with pytest.raises(ModelError) as caught:
        load_network(NAME, path)
    assert "would run code" in str(caught.value)
    assert "torch.save(model.state_dict()" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not trap.exists()


def test_a_plain_pickle_and_a_whole_module_are_refused(tmp_path: Path) -> None:
    trap, path = tmp_path / "trap", tmp_path / "evil.pth"
    path.write_bytes(pickle.dumps(Evil(trap)))
    with pytest.raises(ModelError):
        read_state(path)
    torch.save(nn.Sequential(nn.Linear(2, 2)), path)
    with pytest.raises(ModelError, match="would run code"):
        read_state(path)
    assert not trap.exists()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ({}, "holds no state dict"),
        ({"epoch": 3}, "the keys epoch"),
        ([torch.zeros(2)], "but a list"),
        (torch.zeros(2), "but a Tensor"),
    ],
)
def test_files_without_a_state_dict(tmp_path: Path, content, reason: str) -> None:
    path = tmp_path / "mine.pth"
    torch.save(content, path)
    with pytest.raises(ModelError, match=reason):
        read_state(path)


def _refusal(path: Path) -> str:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            assert read_state(path)
        except ModelError as error:
            return str(error)
    return ""


def test_damaged_files_are_one_line(tmp_path: Path) -> None:
    small = {"weight": torch.randn(300), "bias": torch.randn(3)}
    path = tmp_path / "mine"
    writers = (
        lambda: torch.save(small, path),
        lambda: torch.save(small, path, _use_new_zipfile_serialization=False),
        lambda: save_file(small, path),
    )
    rng = np.random.default_rng(0)
    for write in writers:
        write()
        content = path.read_bytes()
        damaged = [content[:end] for end in range(0, len(content), len(content) // 12)]
        for _ in range(40):
            spoiled = bytearray(content)
            for place in rng.integers(0, min(len(content), 400), 3):
                spoiled[place] = rng.integers(256)
            damaged.append(bytes(spoiled))
        for wrong in [*damaged, b"some text", rng.bytes(100), b"\x80\x02" + rng.bytes(60)]:
            path.write_bytes(wrong)
            line = _refusal(path)
            assert not line or line.startswith(f"{path}: "), line
            assert "\n" not in line


def test_a_missing_file_and_a_folder(tmp_path: Path) -> None:
    for path, reason in ((tmp_path / "none.pth", "no such weights"), (tmp_path, "no regular file")):
        with pytest.raises(ModelError, match=reason):
            read_state(path)


def test_a_prefix_is_dropped_only_where_the_rest_is_wanted() -> None:
    tensor = torch.zeros(1)
    found = strip_prefixes({"a.fc.weight": tensor, "a.other": tensor}, ["fc.weight", "fc.bias"])
    assert set(found) == {"fc.weight", "a.other"}
