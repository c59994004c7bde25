"""People's own checkpoints, a row each: what loads, with which notes, and what is refused how."""

from __future__ import annotations

import pickle
import warnings
import zipfile
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from safetensors.torch import save_file
from torch import Tensor, nn

from camtool.errors import ModelError
from camtool.networks import load_network
from camtool.networks.fitting import empty, first_convolution
from camtool.networks.torchvision import build, random_module

NAME = "shufflenet_v2_x0_5"
State = dict[str, Tensor]


@lru_cache
def _kept(name: str = NAME, classes: int | None = None, channels: int | None = None) -> State:
    return random_module(name, classes, channels).state_dict()


def _state(*arguments: object) -> State:
    return dict(_kept(*arguments))


def _renamed(state: State, old: str, new: str) -> State:
    return {key.replace(old, new): value for key, value in state.items()}


def _wrapped() -> State:
    """A wrapper's checkpoint: the network in `backbone`, another head, and what training used."""
    state = _renamed(_state(NAME, 5), "fc.", "fc.1.")
    state = {f"model.backbone.{key}": value for key, value in state.items()}
    return state | {"model.criterion.weight": torch.ones(5), "model.centers": torch.zeros(5, 9)}


LOADS: dict[str, tuple[str, Callable[[], State], str]] = {
    "as it is": (NAME, _state, ""),
    "dropout before the head": (
        NAME,
        lambda: _renamed(_state(NAME, 7), "fc.", "fc.1."),
        "its fc.1 is taken for the architecture's fc",
    ),
    "a linear layer instead of a Sequential": (
        "mobilenet_v2",
        lambda: _renamed(_state("mobilenet_v2", 7), "classifier.1.", "classifier."),
        "its classifier is taken for the architecture's classifier.1",
    ),
    "a Sequential in a Sequential": (
        "mobilenet_v2",
        lambda: _renamed(_state("mobilenet_v2", 7), "classifier.1.", "classifier.1.1."),
        "its classifier.1.1 is taken for the architecture's classifier.1",
    ),
    "what a loss keeps": (
        NAME,
        lambda: _state() | {"criterion.weight": torch.ones(3)},
        "left out, as the architecture has no place for it: criterion.weight",
    ),
    "a wrapper with all of it": (
        NAME,
        _wrapped,
        "left out, as the architecture has no place for it: model.centers, model.criterion.weight",
    ),
    "a counter of operations everywhere": (
        NAME,
        lambda: (
            _state()
            | {"stage2.0.total_ops": torch.zeros(1), "total_params": torch.zeros(1)}
            | {"conv1.0.total_ops": torch.zeros(1)}
        ),
        "",
    ),
    "float64": (NAME, lambda: {k: v.double() for k, v in _state().items()}, ""),
    "bfloat16": (NAME, lambda: {k: v.bfloat16() for k, v in _state().items()}, ""),
    "grey": (NAME, lambda: _state(NAME, 4, 1), "it takes 1 channels"),
    "four channels": (NAME, lambda: _state(NAME, 4, 4), "it takes 4 channels"),
    "eleven channels, squeezenet": (
        "squeezenet1_1",
        lambda: _state("squeezenet1_1", 4, 11),
        "it takes 11 channels; mean 0.449 and deviation 0.226 are taken for each",
    ),
    "googlenet of two channels": ("googlenet", lambda: _state("googlenet", 4, 2), "2 channels"),
    "parameters": (NAME, lambda: {k: nn.Parameter(v, False) for k, v in _state().items()}, ""),
    "timm": ("timm/test_resnet", lambda: _timm(3), ""),
    "timm of four channels": ("timm/test_resnet", lambda: _timm(4), "it takes 4 channels"),
    "timm with dropout before the head": (
        "timm/test_resnet",
        lambda: _renamed(_timm(3), "fc.", "fc.1."),
        "its fc.1 is taken for the architecture's fc",
    ),
}


def _timm(channels: int) -> State:
    timm = pytest.importorskip("timm", reason="timm is not installed")
    return timm.create_model("test_resnet", num_classes=6, in_chans=channels).state_dict()


@pytest.mark.parametrize("case", LOADS)
def test_loads_by_its_architecture(case: str, tmp_path: Path) -> None:
    name, make, note = LOADS[case]
    state = make()
    path = tmp_path / "mine.pth"
    torch.save(state, path)
    network = load_network(name, path)
    assert note in "; ".join(network.notes)
    assert bool(network.notes) == bool(note)
    # Every tensor of the network is one of the file's, all of which but leftovers are there.
    mine = network.module.state_dict()
    numbers = {round(float(value.double().sum()), 2) for value in state.values()}
    assert {round(float(value.double().sum()), 2) for value in mine.values()} <= numbers
    first = first_convolution(network.module)
    assert first is not None
    assert network.channels == first[1].in_channels == len(network.preprocessing.mean)
    inputs = torch.rand(1, network.channels, 64, 64)
    with torch.inference_mode():
        assert network.module(inputs).isfinite().all()


@pytest.mark.parametrize(
    "case", ["dropout before the head", "a wrapper with all of it", "four channels"]
)
def test_loads_alone_too(case: str, tmp_path: Path) -> None:
    name, make, note = LOADS[case]
    path = tmp_path / "mine.pth"
    torch.save(make(), path)
    network = load_network(path)
    assert network.name == name
    assert note in "; ".join(network.notes)


@pytest.mark.slow
def test_a_vit_takes_the_size_that_its_positions_were_made_for(tmp_path: Path) -> None:
    module = torchvision.models.VisionTransformer(48, 16, 12, 12, 768, 3072, num_classes=3)
    path = tmp_path / "mine.safetensors"
    save_file(module.state_dict(), path)
    network = load_network("vit_b_16", path)
    assert network.module.image_size == network.preprocessing.size == 48
    assert network.preprocessing.resize == 55
    mine = network.module.get_parameter("conv_proj.weight")
    assert torch.equal(mine, module.conv_proj.weight)


@pytest.mark.parametrize(("cells", "side"), [(3, 48), (24, 384), (10**5, 224)])
def test_a_vit_is_built_for_its_positions(cells: int, side: int) -> None:
    positions = torch.zeros(1, 1, 1).expand(1, cells**2 + 1, 768)
    state = {"module.encoder.pos_embedding": positions}
    assert empty(lambda: build("vit_b_16", state)).image_size == side


def _saved(content: object, name: str = "mine.pth", **options: Any) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        torch.save(content() if callable(content) else content, folder / name, **options)
        return folder / name

    return write


def _safetensors(make: Callable[[], State]) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        save_file(make(), folder / "mine.safetensors")
        return folder / "mine.safetensors"

    return write


def _scripted(folder: Path) -> Path:
    traced = torch.jit.trace(nn.Sequential(nn.Conv2d(3, 2, 3)), torch.zeros(1, 3, 8, 8))
    traced.save(folder / "mine.pt")
    return folder / "mine.pt"


def _bytes(content: bytes) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        (folder / "mine.pth").write_bytes(content)
        return folder / "mine.pth"

    return write


def _plain_pickle(protocol: int) -> Callable[[Path], Path]:
    return lambda folder: _bytes(pickle.dumps({"a": 1.5, "b": (1, True)}, protocol))(folder)


def _with(**changes: Tensor) -> Callable[[], State]:
    return lambda: _state() | {key.replace("__", "."): value for key, value in changes.items()}


def _spoiled(value: float) -> State:
    state = _state()
    state["conv1.0.weight"] = state["conv1.0.weight"].clone()
    state["conv1.0.weight"][3, 1, 0, 2] = value
    return state


def _nothing_but_other_layers() -> State:
    return {"layers.0.weight": torch.zeros(9, 9), "layers.0.bias": torch.zeros(9)}


REFUSED: dict[str, tuple[Callable[[Path], Path], str]] = {
    "another architecture": (
        _saved(lambda: _state("squeezenet1_1", 7)),
        "does not fit shufflenet_v2_x0_5: .*; its tensors fit squeezenet1_1$",
    ),
    "no architecture": (_saved(_nothing_but_other_layers), r"282 missing \(.* and 279 more\)"),
    "a head of two layers": (
        _saved(
            lambda: (
                {k: v for k, v in _state().items() if not k.startswith("fc.")}
                | {"fc.0.weight": torch.zeros(9, 1024), "fc.0.bias": torch.zeros(9)}
                | {"fc.2.weight": torch.zeros(5, 9), "fc.2.bias": torch.zeros(5)}
            )
        ),
        r"2 missing \(fc\.bias, fc\.weight\); 4 left over \(fc\.0\.bias, fc\.0\.weight",
    ),
    "parts inside the body": (
        _saved(_with(stage2__0__se__weight=torch.zeros(3))),
        r"1 left over \(stage2\.0\.se\.weight\)",
    ),
    "TorchScript": (_scripted, r"is a TorchScript archive, a program; save its weights alone"),
    "a module called safetensors": (
        _saved(lambda: nn.Linear(2, 2), "mine.safetensors"),
        r"would run code that comes with it \(torch\.nn\.modules\.linear\.Linear\)",
    ),
    "no classes": (
        _saved(_with(fc__weight=torch.zeros(0, 1024), fc__bias=torch.zeros(0))),
        "has 0 classes",
    ),
    "NaN": (
        _saved(lambda: _spoiled(float("nan"))),
        r"shufflenet_v2_x0_5: its weights are not finite numbers \(NaN or infinity in conv1\.0\.w",
    ),
    "infinity": (_saved(lambda: _spoiled(float("inf"))), "its weights are not finite numbers"),
    "too large for float32": (
        _saved(lambda: {k: v.double() * 1e300 for k, v in _state().items()}),
        "its weights are not finite numbers",
    ),
    "int8": (
        _saved(lambda: {k: (v * 9).to(torch.int8) for k, v in _state().items()}),
        r"holds int8 where the network computes with real numbers \(conv1\.0\.weight, .*more\)",
    ),
    "complex": (
        _saved(_with(fc__bias=torch.zeros(1000, dtype=torch.complex64))),
        r"holds complex64 where .*\(fc\.bias\)",
    ),
    "float8": (
        _saved(_with(fc__bias=torch.zeros(1000).to(torch.float8_e4m3fn))),
        "holds float8_e4m3fn where",
    ),
    "quantized": (
        _saved(lambda: {"fc.bias": torch.quantize_per_tensor(torch.zeros(9), 1, 0, torch.qint8)}),
        r"fc\.bias is a quantized tensor",
    ),
    "sparse": (_saved(_with(fc__bias=torch.zeros(1000).to_sparse())), "is a torch.sparse_coo"),
    "on meta": (_saved(_with(fc__bias=torch.zeros(1000, device="meta"))), "meta tensor"),
    "pickle protocol 0": (_plain_pickle(0), "is pickled by another protocol than torch's own"),
    "pickle protocol 5": (_plain_pickle(5), "is pickled by another protocol than torch's own"),
    "torch.save with protocol 4": (
        _saved(_state, pickle_protocol=4),
        "is pickled by another protocol than torch's own",
    ),
    "torch.save of old with protocol 4": (
        _saved(_state, pickle_protocol=4, _use_new_zipfile_serialization=False),
        "is pickled by another protocol than torch's own",
    ),
    "a pointer of Git LFS": (
        _bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"),
        "is a pointer to Git LFS, not the file",
    ),
    "a web page": (_bytes(b"<!DOCTYPE html><title>404</title>"), "is a web page"),
    "Keras": (_bytes(b"\x89HDF\r\n\x1a\n" + bytes(99)), "is an HDF5 file"),
    "an array": (_bytes(b"\x93NUMPY\x01\x00" + bytes(99)), "is a NumPy array"),
    "a strange number format": (
        _bytes(
            (72).to_bytes(8, "little")
            + b'{"a":{"dtype":"F8_E8M0","shape":[2],"data_offsets":[0,2]}}'.ljust(72)
            + bytes(2)
        ),
        "mine.pth: ",
    ),
    "names with control characters": (
        _saved({"\x1b[2Jstage2.a\nb": torch.zeros(2), "conv1.0.weight": torch.zeros(2)}),
        "does not fit",
    ),
}


FITS_NOTHING = (
    "parts inside the body",
    "names with control characters",
    "no architecture",
    "a head of two layers",
)
"""Every architecture is built before these are given up."""


@pytest.mark.parametrize(
    "case",
    [pytest.param(case, marks=[pytest.mark.slow] * (case in FITS_NOTHING)) for case in REFUSED],
)
@pytest.mark.filterwarnings("error")
def test_is_refused_in_one_line(case: str, tmp_path: Path) -> None:
    write, reason = REFUSED[case]
    with warnings.catch_warnings():
        # torch warns of what it is about to give up (TorchScript, quantization).
        warnings.simplefilter("ignore")
        path = write(tmp_path)
    with pytest.raises(ModelError, match=reason) as caught:
        load_network(NAME, path)
    line = str(caught.value)
    assert line.isprintable()
    assert len(line) < 600
    assert path.name in line or NAME in line


def test_a_recompressed_archive_is_no_bomb(tmp_path: Path) -> None:
    path = tmp_path / "mine.pth"
    torch.save(_state(), path)
    packed = tmp_path / "packed.pth"
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as new:
        for entry in old.infolist():
            new.writestr(entry.filename, old.read(entry))
    assert load_network(NAME, packed).weights == str(packed)
