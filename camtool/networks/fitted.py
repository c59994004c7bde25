"""The file that `camtool fit` writes: a network with a last layer for one's own classes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn

from camtool.choices import Activation
from camtool.errors import ModelError
from camtool.networks import embedded, gapnet, timm, torchvision
from camtool.networks.hub import sha256
from camtool.networks.preprocessing import Preprocessing
from camtool.networks.source import Network
from camtool.networks.state import line_of, read_state, safetensors_metadata

KEY = "camtool-fitted"
"""Under which the file keeps one JSON object: of several texts safetensors mixes the order."""

_SOURCES: tuple[ModuleType, ...] = (embedded, timm, torchvision)
"""Whose architectures are built from nothing but their name and the tensors."""


@dataclass(frozen=True)
class Facts:
    """What the file says of itself.

    Attributes:
        base: Name of the architecture.
        architecture: What a gapnet is built with; empty for all others.
        bias: Name of the last layer's bias, which has a number for each class.
        labels: One a class.
        synsets: WordNet ids of the classes; empty if they have none.
        activation: "softmax" or "sigmoid".
        preprocessing: As `Preprocessing` has it.
        made: How it was fitted, for people.
    """

    base: str
    architecture: dict[str, Any]
    bias: str
    labels: tuple[str, ...]
    synsets: tuple[str, ...]
    activation: Activation
    preprocessing: dict[str, Any]
    made: dict[str, Any]


def facts_of(
    network: Network, bias: str, preprocessing: Preprocessing, made: Mapping[str, Any]
) -> Facts:
    """What is written beside the tensors of a network.

    Args:
        network: With the labels and the activation that it was fitted with.
        bias: Name of its last layer's bias.
        preprocessing: At the input size in use.
        made: How it was fitted; texts and numbers alone, so that the same fit gives the same bytes.
    """
    architecture = getattr(network.module, "architecture", {}) if network.name == "gapnet" else {}
    return Facts(
        network.name,
        architecture,
        bias,
        network.labels,
        network.synsets,
        network.activation,
        asdict(preprocessing),
        dict(made),
    )


def to_bytes(module: nn.Module, facts: Facts) -> bytes:
    """The file: every tensor of a network, and what it says of itself."""
    from safetensors.torch import save

    state = {name: value.cpu().contiguous() for name, value in module.state_dict().items()}
    metadata = {KEY: json.dumps(asdict(facts), sort_keys=True)}
    return bytes(save({name: value.clone() for name, value in state.items()}, metadata))


def metadata(path: Path) -> Facts | None:
    """What a fitted file says of itself; None for any other file.

    Raises:
        ModelError: It says that it is one, and the rest is damaged.
    """
    text = safetensors_metadata(path).get(KEY)
    if text is None:
        return None
    try:
        facts = Facts(**json.loads(text))
        labels, synsets = (tuple(map(str, names)) for names in (facts.labels, facts.synsets))
        if facts.activation not in ("softmax", "sigmoid") or not isinstance(facts.base, str):
            raise ValueError("no such activation or base")
        return replace(facts, labels=labels, synsets=synsets)
    except (TypeError, ValueError, AttributeError, RecursionError) as error:
        raise _damaged(path, error) from None


def load(path: Path) -> Network:
    """A fitted network from its file.

    Raises:
        ModelError: The file is none, or damaged.
    """
    facts = metadata(path)
    if facts is None:
        raise ModelError(f"{path}: was not written by camtool fit")
    try:
        network = _base(path, facts)
        spec = Preprocessing(**facts.preprocessing)
        classes = network.module.get_parameter(facts.bias).numel()
        if len(facts.labels) != classes or len(facts.synsets) not in (0, classes):
            raise ValueError(f"labels or synsets are not {classes}, as the classes are")
    except ModelError:
        raise
    except (LookupError, TypeError, ValueError, RuntimeError, AttributeError) as error:
        raise _damaged(path, error) from None
    return replace(
        network,
        weights=path.name,
        labels=facts.labels,
        synsets=facts.synsets,
        preprocessing=spec,
        activation=facts.activation,
        notes=(),
    )


def _base(path: Path, facts: Facts) -> Network:
    """The architecture with the file's tensors."""
    if facts.base == "gapnet":
        architecture = {**facts.architecture, "classes": len(facts.labels)}
        module = gapnet.built(read_state(path), architecture, path)
        return Network(module, facts.base, path.name, sha256(path), (), Preprocessing())
    for source in _SOURCES:
        if source.takes(facts.base):
            network: Network = source.load(facts.base, path, offline=True)
            return network
    raise ModelError(
        f"{path}: its base is {facts.base}, which is none of camtool's own, torchvision's or timm's"
    )


def _damaged(path: Path, error: Exception) -> ModelError:
    return ModelError(f"{path}: is a damaged file of camtool fit ({line_of(error)})")
