"""torchvision's classification architectures, with published weights or a checkpoint's."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from camtool.errors import ModelError
from camtool.networks import hub
from camtool.networks.fitting import empty, first_convolution, fit, match
from camtool.networks.preprocessing import MAX_SIZE, Preprocessing
from camtool.networks.source import RANDOM, Network, Published, synsets_of, woken
from camtool.networks.state import State, read_state

_INCEPTIONS = ("googlenet", "inception_v3")


@dataclass(frozen=True)
class Entry:
    """One set of published weights of an architecture.

    Attributes:
        name: Its name, as "IMAGENET1K_V1".
        url: Where it is published.
        labels: One for each class; empty if unknown.
        preprocessing: What it was evaluated with.
        options: What the architecture is built with for these weights.
    """

    name: str
    url: str
    labels: tuple[str, ...]
    preprocessing: Preprocessing
    options: dict[str, Any] = field(default_factory=dict, hash=False)


def takes(name: str) -> bool:
    """Whether a name is one of torchvision's, which is imported only for what looks like one."""
    return re.fullmatch(r"[a-z]\w*", name) is not None and name in names()


@lru_cache(maxsize=1)
def names() -> tuple[str, ...]:
    """Every classification architecture of torchvision."""
    from torchvision import models

    return tuple(models.list_models(module=models))


def other_task(name: str) -> str:
    """Why an architecture of torchvision that does not classify pictures is refused, or "".

    Names what stands inside it, if that classifies.
    """
    if re.fullmatch(r"[a-z]\w*", name) is None:
        return ""
    from torchvision import models

    for task in ("segmentation", "detection", "video"):
        if name in models.list_models(module=getattr(models, task)):
            inside = max((one for one in names() if one in name), key=len, default="resnet50")
            return f"is for {task}, not to classify pictures; {inside} would work"
    return ""


def published(name: str) -> Sequence[Published]:
    """The published weights of an architecture, its default first."""
    return [
        Published(entry.name, len(entry.labels), hub.cached(entry.url), hub.digits(entry.url))
        for entry in entries(name)
    ]


def fetch(name: str, weights: str | None, offline: bool) -> Path:
    """The file of published weights, from torch's hub cache or downloaded into it."""
    entry = find_entry(name, weights or "DEFAULT")
    return hub.fetch(entry.url, f"{name} ({entry.name})", offline)


def load(name: str, weights: str | Path | None, offline: bool = False) -> Network:
    """An architecture with published weights, or with those of a file."""
    if isinstance(weights, Path):
        return from_state(name, weights, read_state(weights))
    entry = find_entry(name, weights or "DEFAULT")
    path = hub.fetch(entry.url, f"{name} ({entry.name})", offline)
    return from_state(name, path, read_state(path), entry)


def random(name: str, offline: bool = False) -> Network:
    """An architecture with its own random initialisation."""
    entry = classic_entry(name)
    labels = entry.labels if entry else ()
    spec = entry.preprocessing if entry else Preprocessing()
    return Network(random_module(name), name, RANDOM, None, labels, spec, synsets_of(labels))


def from_state(name: str, path: Path, state: State, entry: Entry | None = None) -> Network:
    """An architecture with the tensors of a file.

    Args:
        name: The architecture.
        path: The file, for its hash and for errors.
        state: Its tensors.
        entry: As which it is published; None to look whether its name is a published one's.
    """
    weights = entry.name if entry else str(path)
    known = (known for known in entries(name) if known.url.endswith("/" + path.name))
    entry = entry or next(known, None)
    digest = hub.verify(path) if entry else hub.sha256(path)
    options = entry.options if entry else {}
    module, notes = fit(partial(build, name, state, **options), state, str(path), name, identify)
    entry = entry or classic_entry(name)
    spec = entry.preprocessing if entry else Preprocessing()
    if isinstance(size := getattr(module, "image_size", None), int):
        # A ViT takes the size that its positions were made for, and no other.
        spec = spec.at(size)
    labels = entry.labels if entry else ()
    return Network(module, name, weights, digest, labels, spec, synsets_of(labels), notes=notes)


@lru_cache
def entries(name: str) -> tuple[Entry, ...]:
    """The published weights of an architecture, its default first."""
    from torchvision import models

    enum = models.get_model_weights(name)
    default = getattr(enum, "DEFAULT", None)
    ordered = sorted(enum, key=lambda weights: weights is not default)
    return tuple(_entry(name, weights) for weights in ordered)


def _entry(name: str, weights: Any) -> Entry:
    transform = weights.transforms()
    interpolation = getattr(transform.interpolation, "value", "bilinear")
    preprocessing = Preprocessing(
        size=int(transform.crop_size[0]),
        resize=int(transform.resize_size[0]),
        mean=tuple(transform.mean),
        std=tuple(transform.std),
        interpolation=str(interpolation),
    )
    # torchvision sets this for every published GoogLeNet and Inception, whose weights come from
    # another framework with another normalisation.
    options = {"transform_input": True} if name in _INCEPTIONS else {}
    labels = tuple(weights.meta.get("categories") or ())
    return Entry(weights.name, weights.url, labels, preprocessing, options)


def find_entry(name: str, weights: str) -> Entry:
    """A published entry by its name, with or without the enum's ("ResNet50_Weights.DEFAULT").

    Raises:
        ModelError: There is none; lists what there is.
    """
    known = entries(name)
    if not known:
        raise ModelError(f"torchvision has no weights for {name}; give --weights FILE")
    wanted = weights.rsplit(".", 1)[-1]
    if wanted == "DEFAULT":
        return known[0]
    for entry in known:
        if entry.name == wanted:
            return entry
    have = ", ".join(entry.name for entry in known)
    raise ModelError(f"{name} has no weights called {weights!r}, and there is no such file; {have}")


def classic_entry(name: str) -> Entry | None:
    """The entry whose preprocessing weights are given that say nothing of theirs.

    IMAGENET1K_V1, which torchvision's own training script made or was made to reproduce, at the
    size that the architecture is known for. The other entries are of other recipes: SWAG's take
    384 pixels and more.
    """
    return next((entry for entry in entries(name) if entry.name == "IMAGENET1K_V1"), None)


def build(
    name: str,
    state: State,
    classes: int | None = None,
    channels: int | None = None,
    **options: Any,
) -> nn.Module:
    """An architecture, for the weights of a checkpoint.

    Args:
        name: torchvision's name for it.
        state: The tensors that it will get: they tell whether auxiliary classifiers are wanted,
            and how many positions a ViT has.
        classes: Number of classes; None for its own.
        channels: Number of input channels; None for 3.
        **options: Passed on to the builder.
    """
    if name in _INCEPTIONS:
        options["aux_logits"] = any("aux" in key.lower() for key in state)
    if name.startswith("vit_"):
        options |= _image_size(name, state)
    return _construct(name, classes, channels, options)


def _construct(
    name: str, classes: int | None, channels: int | None, options: dict[str, Any]
) -> nn.Module:
    from torchvision import models

    if name in _INCEPTIONS:
        options |= {"init_weights": False}
    if classes is not None:
        options |= {"num_classes": classes}
    if channels not in (None, 3):
        # Recomputes three colours into another normalisation; there are no three.
        options.pop("transform_input", None)
    module: nn.Module = models.get_model(name, weights=None, **options)
    if channels not in (None, 3):
        _widen(module, channels)
    return module


def _widen(module: nn.Module, channels: int) -> None:
    """Replace the first convolution by one that takes another number of channels."""
    found = first_convolution(module)
    if found is not None:
        name, first = found
        part = nn.Conv2d(
            channels,
            first.out_channels,
            first.kernel_size,  # type: ignore[arg-type]
            first.stride,  # type: ignore[arg-type]
            first.padding,  # type: ignore[arg-type]
            bias=first.bias is not None,
        )
        module.set_submodule(name, part)


def _image_size(name: str, state: State) -> dict[str, int]:
    """The input size that a ViT's positions were made for: one a patch, and the class token's."""
    positions = next((v for k, v in state.items() if k.endswith("encoder.pos_embedding")), None)
    if positions is None or positions.ndim != 3:
        return {}
    side = math.isqrt(max(positions.shape[1] - 1, 1)) * int(name.split("_")[2])
    return {"image_size": side} if side <= MAX_SIZE else {}


def random_module(name: str, classes: int | None = None, channels: int | None = None) -> nn.Module:
    """An architecture with its own random initialisation, seeded with 0, in evaluation mode."""
    options: dict[str, Any] = {}
    if name in _INCEPTIONS:
        options = {"aux_logits": False, "transform_input": True}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return woken(_construct(name, classes, channels, options))


def identify(state: State) -> str | None:
    """The architecture whose tensors a checkpoint holds; None if there is none."""
    for name in _candidates(state):
        try:
            module = empty(partial(build, name, state))
        except (RuntimeError, ValueError):
            continue
        if not match(module, state).problems:
            return name
    return None


def _candidates(state: State) -> list[str]:
    """Every architecture that it may be, those of nearly as many parameters first."""
    regnet = any("trunk_output" in key for key in state)
    total = sum(value.numel() for value in state.values())
    sizes = {
        name: _published_size(name, total)
        for name in names()
        if name.startswith("regnet") == regnet
    }
    likely = [name for name, size in sizes.items() if size <= total + _LARGEST_HEADS]
    return sorted(likely, key=lambda name: abs(sizes[name] - total))


_LARGEST_HEADS = 2 * 1000 * (7392 + 1)
"""Parameters that a file of fewer classes may lack: two heads on RegNet's 7,392 channels."""


def _published_size(name: str, default: int) -> int:
    from torchvision import models

    published = [int(weights.meta["num_params"]) for weights in models.get_model_weights(name)]
    return min(published, default=default)
