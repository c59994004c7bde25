"""From what a user names to a network with its weights, labels and preprocessing."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from typing import Any, TypeAlias

from torch import nn

from camtool.errors import ModelError
from camtool.networks import embedded, hub, zoo
from camtool.networks.checkpoint import State, build_from_state, read_state
from camtool.networks.labels import read_labels
from camtool.networks.preprocessing import Preprocessing

Labels: TypeAlias = "Sequence[str] | str | os.PathLike[str] | None"
AUTO = "auto"
GAPNET = "gapnet"
RESNET50_FILES = "CAMTOOL_WEIGHTS"
"""Environment variable: a file with ResNet-50's weights, or a folder that holds one."""


@dataclass(frozen=True)
class Network:
    """A network and what is known of it.

    Attributes:
        module: The network, giving logits [N,classes] for [N,3,H,W].
        name: The architecture, as users name it.
        weights: Where its weights come from, for people.
        sha256: Of the weights' file; None if there is none.
        labels: One for each class; empty if unknown.
        preprocessing: What it expects of its input.
        synsets: WordNet ids of the classes, as data sets name them; empty if unknown.
    """

    module: nn.Module
    name: str
    weights: str
    sha256: str | None
    labels: tuple[str, ...]
    preprocessing: Preprocessing
    synsets: tuple[str, ...] = ()


def load_network(
    model: str | os.PathLike[str] | nn.Module = AUTO,
    weights: str | os.PathLike[str] | None = None,
    *,
    random_if_absent: bool = False,
) -> Network:
    """The network that a user names.

    Args:
        model: "auto", "gapnet", an architecture of torchvision, "timm/NAME", the path of a
            checkpoint, or a module, which is used as it is.
        weights: None for the architecture's published default, the name of a published entry
            ("IMAGENET1K_V1"), "random" (seeded), or a checkpoint file.
        random_if_absent: With `weights` left out, take random weights rather than download.

    Raises:
        ModelError: It can't be had, or is not what was asked.
    """
    if isinstance(model, nn.Module):
        if weights is not None:
            raise ModelError("a module brings its own weights; leave `weights` out")
        name = type(getattr(model, "_orig_mod", model)).__name__
        return Network(model, name, "as given", None, (), Preprocessing())
    if str(model) == AUTO:
        return _automatic(weights)
    if str(model) == GAPNET:
        path = embedded.verified_path() if weights is None else Path(weights)
        return _gapnet(path)
    name = os.fspath(model)
    if not zoo.is_known(name):
        return _from_path(Path(name), weights)
    if weights is None:
        return _published(name, random_if_absent)
    if str(weights) == "random":
        return random_network(name)
    if Path(weights).is_file():
        return _from_file(name, Path(weights))
    return _named_entry(name, os.fspath(weights))


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
    if len(labels) != classes:
        raise ModelError(f"{len(labels)} labels were given, the network has {classes} classes")
    return tuple(labels)


def random_network(name: str) -> Network:
    """An architecture with seeded random weights: for its structure, not for its answers."""
    module = zoo.random_module(name)
    if name.startswith(zoo.TIMM):
        preprocessing, labels = zoo.timm_facts(name, module)
    else:
        entry = zoo.classic_entry(name)
        preprocessing = entry.preprocessing if entry else Preprocessing()
        labels = entry.labels if entry else ()
    synsets = synsets_of(labels)
    return Network(module, name, "random (seed 0)", None, labels, preprocessing, synsets)


def _automatic(weights: str | os.PathLike[str] | None) -> Network:
    """ResNet-50 where its weights are on this machine, else the embedded network."""
    if weights is not None:
        return _from_path(Path(weights), None)
    found = resnet50_on_this_machine()
    if found is not None:
        _say(f"using resnet50 with {found}; --model gapnet is the embedded network")
        return _from_file("resnet50", found)
    network = _gapnet(embedded.verified_path())
    _say(
        "using the embedded network gapnet (200 classes); for ResNet-50 (1,000 classes) run "
        "`camtool weights get resnet50`"
    )
    return network


def resnet50_on_this_machine() -> Path | None:
    """ResNet-50's weights as `CAMTOOL_WEIGHTS` names them or as torch's hub cache holds them.

    Raises:
        ModelError: `CAMTOOL_WEIGHTS` names nothing that exists.
    """
    named = os.environ.get(RESNET50_FILES)
    if named:
        path = Path(named)
        if path.is_file():
            return path
        for found in sorted(path.glob("resnet50*")):
            return found
        raise ModelError(f"{RESNET50_FILES}={named}: is no file, and no folder with resnet50*")
    paths = (hub.cached_path(url) for url in RESNET50_URLS)
    return next((path for path in paths if path.is_file()), None)


RESNET50_URLS = (
    "https://download.pytorch.org/models/resnet50-11ad3fa6.pth",
    "https://download.pytorch.org/models/resnet50-0676ba61.pth",
)
"""torchvision's, the default first; kept here so that looking need not import torchvision."""


def _say(line: str) -> None:
    print(f"camtool: {line}", file=sys.stderr)


def _gapnet(path: Path) -> Network:
    module, labels, synsets, preprocessing = embedded.load_gapnet(path)
    digest = hub.sha256(path)
    return Network(module, GAPNET, path.name, digest, labels, preprocessing, synsets)


def _from_path(path: Path, weights: str | os.PathLike[str] | None) -> Network:
    """A checkpoint that must say itself, or tell by its tensors, what it is."""
    if not path.is_file():
        raise zoo.unknown(str(path))
    if weights is not None:
        raise ModelError(f"{path} is a checkpoint already; with --weights, --model names a network")
    if embedded.metadata(path) is not None:
        return _gapnet(path)
    state = read_state(path)
    name = zoo.identify(state)
    if name is None:
        raise ModelError(
            f"{path}: fits no torchvision architecture; name the one it was trained with: "
            f"--model NAME --weights {path.name}"
        )
    return _from_file(name, path, state)


def _published(name: str, random_if_absent: bool) -> Network:
    if name.startswith(zoo.TIMM):
        if random_if_absent:
            return random_network(name)
        module = zoo.timm_module(name)
        preprocessing, labels = zoo.timm_facts(name, module)
        return Network(module, name, "timm's default", None, labels, preprocessing)
    known = zoo.entries(name)
    if not known:
        raise ModelError(f"torchvision has no weights for {name}; give --weights FILE")
    if random_if_absent and not hub.cached_path(known[0].url).exists():
        return random_network(name)
    return _from_entry(name, known[0])


def _named_entry(name: str, weights: str) -> Network:
    looks_like_path = any(sign in weights for sign in ("/", "\\")) or weights.endswith(
        (".pth", ".pt", ".safetensors", ".tar", ".ckpt", ".bin")
    )
    if looks_like_path or name.startswith(zoo.TIMM):
        raise ModelError(f"{weights}: no such weights file")
    return _from_entry(name, zoo.find_entry(name, weights))


def _from_entry(name: str, entry: zoo.Entry) -> Network:
    path = hub.fetch(entry.url, f"{name} ({entry.name})")
    network = _from_file(name, path, options=entry.options)
    return replace(
        network, weights=entry.name, labels=entry.labels, preprocessing=entry.preprocessing
    )


def _from_file(
    name: str, path: Path, state: State | None = None, options: dict[str, Any] | None = None
) -> Network:
    """An architecture with the weights of a file; a published file is known by its name."""
    state = read_state(path) if state is None else state
    timm = name.startswith(zoo.TIMM)
    published = [] if timm else [e for e in zoo.entries(name) if e.url.endswith("/" + path.name)]
    entry = published[0] if published else None
    if options is None:
        options = entry.options if entry else {}
    digest = hub.verify(path) if entry else hub.sha256(path)

    def factory(classes: int | None, tensors: State) -> nn.Module:
        return zoo.build(name, classes, tensors, **options)

    module = build_from_state(factory, state, str(path))
    if timm:
        preprocessing, labels = zoo.timm_facts(name, module)
    else:
        entry = entry or zoo.classic_entry(name)
        preprocessing = entry.preprocessing if entry else Preprocessing()
        labels = entry.labels if entry else ()
    return Network(module, name, str(path), digest, labels, preprocessing, synsets_of(labels))


def synsets_of(labels: Sequence[str]) -> tuple[str, ...]:
    """ImageNet's 1,000 WordNet ids where the labels are ImageNet's; their order is by id."""
    if len(labels) != 1000:
        return ()
    text = resources.files("camtool.networks").joinpath("imagenet_synsets.txt").read_text()
    return tuple(text.split())
