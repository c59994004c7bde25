"""The embedded network: gapnet, which comes with the package and needs no hub."""

from __future__ import annotations

from pathlib import Path

import torch

from camtool.errors import ModelError
from camtool.networks import gapnet, hub
from camtool.networks.preprocessing import Preprocessing
from camtool.networks.source import RANDOM, Network, Published

NAME = "gapnet"
FILE = "gapnet-1.safetensors"
SHA256 = "228cc2d3ca92802e6c1d92b256adf2cecb245ddef14d6227d68c0c4de5dd7491"
"""Of the file that this version of the package was released with."""


def takes(name: str) -> bool:
    """Whether it is the embedded network's name."""
    return name == NAME


def names() -> tuple[str, ...]:
    """The embedded network's."""
    return (NAME,)


def published(name: str) -> tuple[Published, ...]:
    """The one file."""
    path = embedded_path()
    return (Published("embedded", 200, path if path.exists() else None, SHA256),)


def fetch(name: str, weights: str | None, offline: bool) -> Path:
    """The embedded weights, checked against their SHA-256.

    Raises:
        ModelError: The file is missing or not the released one.
    """
    path = embedded_path()
    if weights not in (None, "DEFAULT", "embedded"):
        raise ModelError(f"{NAME} has no weights called {weights!r}, and there is no such file")
    if not path.exists():
        raise ModelError(f"{path}: the embedded network is missing; reinstall camtool")
    if hub.sha256(path) != SHA256:
        raise ModelError(f"{path}: is not the file of this release; reinstall camtool")
    return path


def load(name: str, weights: str | Path | None = None, offline: bool = False) -> Network:
    """The embedded network, or another gapnet from its file."""
    return gapnet.load(weights if isinstance(weights, Path) else fetch(name, weights, offline))


def random(name: str) -> Network:
    """A gapnet as torch initialises it."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = gapnet.gapnet().eval().requires_grad_(False)
    return Network(module, NAME, RANDOM, None, (), Preprocessing(size=64, resize=64))


def embedded_path() -> Path:
    """The weights in an installed package, or in the repository that it runs from."""
    package = Path(__file__).parents[1]
    installed = package / "weights" / FILE
    return installed if installed.exists() else package.parent / "weights" / FILE
