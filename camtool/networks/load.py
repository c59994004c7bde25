"""From what a user names to a network with its weights, labels and preprocessing."""

from __future__ import annotations

import difflib
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeAlias

from torch import nn

from camtool.errors import ModelError
from camtool.networks import (
    checkpoint,
    embedded,
    graph,
    hub,
    huggingface,
    modules,
    timm,
    torchvision,
)
from camtool.networks.fitting import first_convolution, not_finite
from camtool.networks.labels import one_each, read_labels
from camtool.networks.source import Network, Source
from camtool.networks.state import is_there, shown

__all__ = ["SOURCES", "Labels", "Network", "labels_for", "load_network"]

Labels: TypeAlias = "Sequence[str] | str | os.PathLike[str] | None"
AUTO = "auto"
RESNET50_FILES = "CAMTOOL_WEIGHTS"
"""Environment variable: a file with ResNet-50's weights, or a folder that holds one."""

SOURCES: list[Source] = [embedded, timm, huggingface, torchvision, graph, checkpoint]
"""Where networks come from, in the order in which they are asked whether a name is theirs."""


def load_network(
    model: str | os.PathLike[str] | nn.Module = AUTO,
    weights: str | os.PathLike[str] | None = None,
    *,
    random_if_absent: bool = False,
    offline: bool = False,
) -> Network:
    """The network that a user names.

    Args:
        model: "auto", a name that one of `SOURCES` takes ("efficientnet_lite0", an architecture of
            torchvision, "timm/NAME", "hf/NAME", a folder of Hugging Face's, the path of a
            checkpoint), or a module, which is used as it is.
        weights: None for the architecture's published default, the name of a published entry
            ("IMAGENET1K_V1"), "random" (seeded), or a checkpoint file.
        random_if_absent: Take random weights rather than download published ones.
        offline: Download nothing.

    Raises:
        ModelError: It can't be had, or is not what was asked.
    """
    if isinstance(model, nn.Module):
        if weights is not None:
            raise ModelError("a module brings its own weights; leave `weights` out")
        return _checked(modules.given(model))
    name = os.fspath(model)
    if name == AUTO:
        return _checked(_automatic(weights))
    source, wanted = find_source(name), _wanted(weights)
    if wanted == "random" or (random_if_absent and _is_absent(source, name, wanted)):
        return _checked(source.random(name, offline))
    return _checked(source.load(name, wanted, offline))


def before_download(
    model: str | os.PathLike[str] | nn.Module = AUTO,
    weights: str | os.PathLike[str] | None = None,
    *,
    offline: bool = False,
) -> Network | None:
    """The architecture with random weights where `load_network` would download its own.

    Its head is the same, so what refuses it can be said before anything large is fetched. None
    where nothing has to be fetched, or may be (`offline`).

    Raises:
        ModelError: There is no such name, or there are no such weights.
    """
    if isinstance(model, nn.Module) or os.fspath(model) == AUTO or hub.is_offline(offline):
        return None
    name = os.fspath(model)
    source, wanted = find_source(name), _wanted(weights)
    return _checked(source.random(name, offline)) if _is_absent(source, name, wanted) else None


def labels_for(network: Network, labels: Labels, classes: int) -> tuple[str, ...]:
    """One label for each class: the user's, else the network's own, else the index.

    Raises:
        ModelError: The user's are of another number, or can't be read.
    """
    if labels is None:
        own = network.labels
        return own if len(own) == classes else tuple(str(index) for index in range(classes))
    if isinstance(labels, (str, os.PathLike)):
        return read_labels(Path(labels), classes)
    return one_each(tuple(labels), classes, f"{len(labels)} labels were given")


def find_source(name: str) -> Source:
    """The source of a name.

    Raises:
        ModelError: No source takes it; lists the nearest names.
    """
    for source in SOURCES:
        if source.takes(name):
            return source
    if reason := torchvision.other_task(name):
        raise ModelError(f"{name} {reason}")
    known = [one for source in SOURCES for one in source.names()]
    near = difflib.get_close_matches(name[:100], known, n=5, cutoff=0.4)
    hint = f"; did you mean {', '.join(near)}?" if near else ""
    raise ModelError(
        f"{shown([name])} is no architecture of torchvision, no timm/NAME, no hf/NAME and no "
        f"file{hint}"
    )


def _wanted(weights: str | os.PathLike[str] | None) -> str | Path | None:
    """A file as its path, the name of an entry as text."""
    if weights is None or is_there(Path(weights)):
        return None if weights is None else Path(weights)
    name = os.fspath(weights)
    endings = (".pth", ".pt", ".safetensors", ".tar", ".ckpt", ".bin")
    if name.endswith(endings) or "/" in name or "\\" in name or Path(name).exists():
        raise ModelError(f"{name}: no such weights file")
    return name


def _is_absent(source: Source, name: str, weights: str | Path | None) -> bool:
    """Whether published weights are asked for and are not on this machine."""
    if isinstance(weights, Path) or weights == "random":
        return False
    known = source.published(name)
    wanted = "DEFAULT" if weights is None else weights.rsplit(".", 1)[-1]
    named = known[:1] if wanted == "DEFAULT" else [one for one in known if one.name == wanted]
    return any(one.path is None for one in named)


def _checked(network: Network) -> Network:
    """A network whose weights are numbers, prepared for as many channels as it takes.

    Raises:
        ModelError: Weights are NaN or infinite.
    """
    if odd := not_finite(network.module):
        raise ModelError(
            f"{network.name}: its weights are not finite numbers (NaN or infinity in "
            f"{shown(odd)}); the training diverged, or they were saved damaged"
        )
    channels = channels_of(network.module, network.channels)
    spec = network.preprocessing.for_channels(channels)
    notes = network.notes
    if spec is not network.preprocessing:
        mean, std = spec.mean[0], spec.std[0]
        notes += (
            f"it takes {channels} channels; mean {mean:g} and deviation {std:g} are taken for each",
        )
    return replace(network, preprocessing=spec, channels=channels, notes=notes)


def channels_of(module: nn.Module, unknown: int = 3) -> int:
    """Input channels: what the first convolution takes; `unknown` where there is none.

    Parts may be listed in another order than they run in. So where a later one takes 3, and not
    from the first one listed, it is 3.
    """
    first = first_convolution(module)
    if first is None:
        return unknown
    convolutions = (part for part in module.modules() if isinstance(part, nn.Conv2d))
    colours = first[1].out_channels != 3 and any(part.in_channels == 3 for part in convolutions)
    return 3 if colours else first[1].in_channels


def _automatic(weights: str | os.PathLike[str] | None) -> Network:
    """ResNet-50 where its weights are on this machine, else the embedded network."""
    if weights is not None:
        if not is_there(Path(weights)):
            raise ModelError(
                f"{weights}: no such weights file; 'random' and published entries take the name "
                "of their network too: --model NAME"
            )
        return checkpoint.load(os.fspath(weights), None)
    found = resnet50_on_this_machine()
    if found is not None:
        note = f"using resnet50 with {found}; --model {embedded.NAME} is the embedded network"
        network = torchvision.load("resnet50", found)
    else:
        note = (
            f"using the embedded network {embedded.NAME}; for ResNet-50 run "
            "`camtool weights get resnet50`"
        )
        network = embedded.load(embedded.NAME)
    return replace(network, notes=(note, *network.notes))


def resnet50_on_this_machine() -> Path | None:
    """ResNet-50's weights as `CAMTOOL_WEIGHTS` names them or as torch's hub cache holds them.

    Raises:
        ModelError: `CAMTOOL_WEIGHTS` names nothing that exists.
    """
    named = os.environ.get(RESNET50_FILES)
    if named:
        path = Path(named)
        for found in [path, *sorted(path.glob("resnet50*"))]:
            if found.is_file():
                return found
        raise ModelError(f"{RESNET50_FILES}={named}: is no file, and no folder with resnet50*")
    return next((file for file in map(hub.cached, RESNET50_URLS) if file), None)


RESNET50_URLS = (
    "https://download.pytorch.org/models/resnet50-11ad3fa6.pth",
    "https://download.pytorch.org/models/resnet50-0676ba61.pth",
)
"""torchvision's, the default first; kept here so that looking need not import torchvision."""
