"""The embedded network as a source: EfficientNet-Lite0, whose weights a package brings along."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from camtool.errors import ModelError
from camtool.networks.efficientnet_lite0 import (
    PREPROCESSING,
    SHA256,
    EfficientNetLite0,
    imagenet,
    load_efficientnet_lite0,
    rename,
    weights_path,
)
from camtool.networks.fitting import fit
from camtool.networks.hub import sha256
from camtool.networks.source import RANDOM, Network, Published
from camtool.networks.state import read_state

NAME = "efficientnet_lite0"


def takes(name: str) -> bool:
    """Whether it is the embedded network's name."""
    return name == NAME


def names() -> tuple[str, ...]:
    """The embedded network's."""
    return (NAME,)


def published(name: str) -> tuple[Published, ...]:
    """The one file."""
    try:
        path: Path | None = weights_path()
    except ModelError:
        path = None
    return (Published("embedded", 1000, path, SHA256),)


def fetch(name: str, weights: str | None, offline: bool) -> Path:
    """The embedded weights, checked against their SHA-256.

    Raises:
        ModelError: The file is missing or not the released one.
    """
    if weights not in (None, "DEFAULT", "embedded"):
        raise ModelError(f"{NAME} has no weights called {weights!r}, and there is no such file")
    return weights_path()


def load(name: str, weights: str | Path | None = None, offline: bool = False) -> Network:
    """The embedded network, or the same architecture with a user's weights."""
    if isinstance(weights, Path):
        return _from_file(weights)
    fetch(name, weights, offline)
    module, labels, synsets, preprocessing, path, digest = load_efficientnet_lite0()
    return Network(module, NAME, path.name, digest, labels, preprocessing, synsets)


def _from_file(path: Path) -> Network:
    def factory(classes: int | None = None, channels: int | None = None) -> nn.Module:
        if channels not in (None, 3):
            raise ModelError(f"{path}: {NAME} takes three channels, the file has {channels}")
        return EfficientNetLite0(classes or 1000)

    state = read_state(path)
    if any(key.startswith("_conv_stem") for key in state):
        state = rename(state)
    module, notes = fit(factory, state, str(path), NAME)
    labels, synsets = imagenet() if module.get_parameter("fc.bias").numel() == 1000 else ((), ())
    return Network(
        module, NAME, str(path), sha256(path), labels, PREPROCESSING, synsets, notes=notes
    )


def random(name: str, offline: bool = False) -> Network:
    """The architecture as torch initialises it."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = EfficientNetLite0().eval().requires_grad_(False)
    labels, synsets = imagenet()
    return Network(module, NAME, RANDOM, None, labels, PREPROCESSING, synsets)
