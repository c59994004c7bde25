"""What a source of networks is, and what it gives: one file a source, registered in `load.py`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Protocol

from torch import nn

from camtool.choices import Activation
from camtool.networks.preprocessing import Preprocessing

RANDOM = "random (seed 0)"
"""What `Network.weights` says of an architecture whose weights were not asked for."""


@dataclass(frozen=True)
class Network:
    """A network and what is known of it.

    Attributes:
        module: The network, giving logits [N,classes] for [N,channels,H,W].
        name: The architecture, as users name it.
        weights: Where its weights come from, for people.
        sha256: Of the weights' file; None if there is none.
        labels: One for each class; empty if unknown.
        preprocessing: What it expects of its input.
        synsets: WordNet ids of the classes, as data sets name them; empty if unknown.
        channels: Of its input.
        notes: What had to be assumed of it, a line each.
        activation: What makes probabilities of its logits.
    """

    module: nn.Module
    name: str
    weights: str
    sha256: str | None
    labels: tuple[str, ...]
    preprocessing: Preprocessing
    synsets: tuple[str, ...] = ()
    channels: int = 3
    notes: tuple[str, ...] = ()
    activation: Activation = "auto"


@dataclass(frozen=True)
class Published:
    """Weights that are published for a name.

    Attributes:
        name: Theirs, as "IMAGENET1K_V1".
        classes: How many; None if that is known only when they are here.
        path: The file on this machine; None where it would have to be fetched.
        sha256: Its first digits, or all of them; empty if none were published.
    """

    name: str
    classes: int | None
    path: Path | None
    sha256: str = ""


class Source(Protocol):
    """Where networks come from. A module with these five functions is one."""

    def takes(self, name: str) -> bool:
        """Whether a name is one of this source's; asked of every source, so nothing is imported."""

    def names(self) -> Sequence[str]:
        """Names to list and to suggest; empty where they are too many, or known to a hub alone."""

    def published(self, name: str) -> Sequence[Published]:
        """The weights that are published for a name, the default first.

        Raises:
            ModelError: There is no such name.
        """

    def fetch(self, name: str, weights: str | None, offline: bool) -> Path:
        """The verified file of published weights (None: the default), downloaded if it must be.

        Raises:
            ModelError: There are none, or they can't be had; or they aren't here, and `offline`.
        """

    def load(self, name: str, weights: str | Path | None, offline: bool) -> Network:
        """A network with published weights (by their name, None: the default) or with a file's.

        Raises:
            ModelError: It can't be had, or does not fit.
        """

    def random(self, name: str, offline: bool) -> Network:
        """The architecture with seeded random weights; nothing large is downloaded for it.

        Raises:
            ModelError: There is no such name; or what describes it isn't here, and `offline`.
        """


def woken(module: nn.Module) -> nn.Module:
    """A random network whose answer depends on its input, in evaluation mode, without gradients.

    Some architectures begin training with a last layer of zeros, whose logits are all alike.
    """
    for part in module.modules():
        if isinstance(part, nn.Linear) and not part.weight.any():
            nn.init.trunc_normal_(part.weight, std=0.02)
    return module.eval().requires_grad_(False)


def synsets_of(labels: Sequence[str]) -> tuple[str, ...]:
    """ImageNet's 1,000 WordNet ids where the labels are ImageNet's; their order is by id."""
    if len(labels) != 1000 or not labels[0].startswith("tench"):
        return ()
    text = resources.files("camtool.networks").joinpath("imagenet_synsets.txt").read_text()
    return tuple(text.split())
