"""timm's architectures ("timm/NAME"), with published weights or a checkpoint's."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import nn

from camtool.errors import ModelError
from camtool.networks import hub, torchvision
from camtool.networks.fitting import fit
from camtool.networks.preprocessing import INTERPOLATIONS, Preprocessing
from camtool.networks.source import RANDOM, Network, Published, synsets_of, woken
from camtool.networks.state import line_of, read_state

PREFIX = "timm/"

_FILES = ("model.safetensors", "pytorch_model.bin")


def takes(name: str) -> bool:
    """Whether a name is "timm/NAME"."""
    return name.startswith(PREFIX)


def names() -> tuple[str, ...]:
    """None: over a thousand are too many to list, and timm takes seconds to import."""
    return ()


def published(name: str) -> Sequence[Published]:
    """The published weights of an architecture by their tags, its default first."""
    return [
        Published(tag or name, config.num_classes, _cached(config))
        for tag, config in _configs(name).items()
    ]


def fetch(name: str, weights: str | None, offline: bool) -> Path:
    """The file of published weights, from the cache of its hub or downloaded into it."""
    return _fetch(name, _config(name, weights), offline)


def load(name: str, weights: str | Path | None, offline: bool = False) -> Network:
    """An architecture with published weights, or with those of a file."""
    if isinstance(weights, Path):

        def build(classes: int | None = None, channels: int | None = None) -> nn.Module:
            return _create(_place(name, offline), num_classes=classes, in_chans=channels)

        state = read_state(weights)
        module, notes = fit(build, state, str(weights), name, torchvision.identify)
        return _network(module, name, str(weights), hub.sha256(weights), notes)
    config = _config(name, weights)
    path = _fetch(name, config, offline)
    full = f"{PREFIX}{config.architecture}.{config.tag}" if config.tag else name
    place = _place(name, offline)
    # A folder brings its own record, with the weights in it.
    overlay = {"file": str(path)} if place == name else None
    module = _create(full if overlay else place, pretrained=True, pretrained_cfg_overlay=overlay)
    return _network(module, name, full, hub.sha256(path))


def random(name: str, offline: bool = False) -> Network:
    """An architecture with its own random initialisation."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return _network(woken(_create(_place(name, offline))), name, RANDOM, None)


def _network(
    module: nn.Module, name: str, weights: str, digest: str | None, notes: tuple[str, ...] = ()
) -> Network:
    spec, labels = facts(module) or (Preprocessing(), ())
    synsets = synsets_of(labels)
    module = module.eval().requires_grad_(False)
    return Network(module, name, weights, digest, labels, spec, synsets, notes=notes)


def _timm() -> Any:
    try:
        import timm
    except ImportError:
        raise ModelError("timm/… needs timm: pip install 'camtool[timm]'") from None
    return timm


def _repository(name: str) -> str:
    """The repository that "timm/hf-hub:OWNER/NAME" names; empty for timm's own architectures."""
    source, _, repository = name.removeprefix(PREFIX).partition(":")
    return repository if source in ("hf-hub", "hf_hub") else ""


def _place(name: str, offline: bool) -> str:
    """What timm is to create: its own architecture, or the one that a repository describes."""
    if not (repository := _repository(name)):
        return name
    config = hub.fetch_from_hugging_face(repository, "config.json", name=name, offline=offline)
    if config is None:
        raise ModelError(f"{name}: holds no config.json, so it is no model of timm")
    return f"local-dir:{config.parent}"


def _create(name: str, **options: Any) -> nn.Module:
    create, name = _timm().create_model, name.removeprefix(PREFIX)
    try:
        with suppress(TypeError):
            # Transformers that resize their positions take pictures of any aspect.
            return create(name, dynamic_img_size=True, **options)  # type: ignore[no-any-return]
        return create(name, **options)  # type: ignore[no-any-return]
    except ModelError:
        raise
    except Exception as error:
        # Whatever an architecture trips over: a size, an option that it lacks, a name.
        raise ModelError(f"{name}: timm can't build it ({line_of(error)})") from None


def _configs(name: str) -> dict[str, Any]:
    """The records of published weights by tag, the default first."""
    timm, (base, _, tag) = _timm(), name.removeprefix(PREFIX).partition(".")
    if repository := _repository(name):
        return {"main": timm.models.PretrainedCfg(hf_hub_id=repository, num_classes=None)}
    if base not in timm.list_models():
        near = difflib.get_close_matches(base, timm.list_models(), n=5, cutoff=0.4)
        hint = f"; did you mean {', '.join(PREFIX + one for one in near)}?" if near else ""
        raise ModelError(f"{name!r}: timm has no such architecture{hint}")
    default = timm.models.get_pretrained_cfg(base)
    tagged = {one: timm.models.get_pretrained_cfg(one) for one in timm.list_pretrained(f"{base}.*")}
    found = {config.tag: config for config in (default, *tagged.values()) if config is not None}
    known = {one: config for one, config in found.items() if config.has_weights}
    if tag and tag not in known:
        raise _no_tag(name, tag, known)
    return {tag: known[tag]} if tag else known


def _config(name: str, weights: str | None) -> Any:
    known = _configs(name)
    if weights is None and known:
        return next(iter(known.values()))
    if weights not in known:
        raise _no_tag(name, weights or "default", known)
    return known[weights]


def _no_tag(name: str, tag: str, known: Mapping[str, Any]) -> ModelError:
    have = ", ".join(known) or "none"
    return ModelError(f"{name} has no weights called {tag!r}, and there is no such file; {have}")


def _cached(config: Any) -> Path | None:
    if config.hf_hub_id:
        return hub.cached_on_hugging_face(config.hf_hub_id, *_files(config))
    return hub.cached(config.url)


def _files(config: Any) -> tuple[str, ...]:
    return (config.hf_hub_filename,) if config.hf_hub_filename else _FILES


def _fetch(name: str, config: Any, offline: bool) -> Path:
    if not config.hf_hub_id:
        return hub.fetch(config.url, name, offline)
    files, place = _files(config), config.hf_hub_id
    path = hub.fetch_from_hugging_face(place, *files, name=name, offline=offline)
    if path is None:
        raise ModelError(f"{name}: {place} on the hub holds none of {', '.join(files)}")
    return path


def facts(module: nn.Module) -> tuple[Preprocessing, tuple[str, ...]] | None:
    """What a module's own `pretrained_cfg` or `default_cfg` says; None if it has none.

    timm itself is asked for nothing but ImageNet's labels, and only where it is loaded already,
    as it is where a module of its own exists.
    """
    config = getattr(module, "pretrained_cfg", None) or getattr(module, "default_cfg", None)
    if not isinstance(config, Mapping) or not {"input_size", "mean", "std"} <= config.keys():
        return None
    size = int(config["input_size"][-1])
    interpolation = str(config.get("interpolation") or "bicubic")
    spec = Preprocessing(
        size=size,
        resize=max(size, int(size / (config.get("crop_pct") or 0.875))),
        mean=tuple(config["mean"]),
        std=tuple(config["std"]),
        # "random" in training; timm's own evaluation falls back to bilinear.
        interpolation=interpolation if interpolation in INTERPOLATIONS else "bilinear",
    )
    return spec, _labels(config, getattr(module, "num_classes", None))


def _labels(config: Mapping[str, Any], classes: int | None) -> tuple[str, ...]:
    """The weights' own labels, or ImageNet's where the module has as many classes."""
    own = config.get("label_names")
    if own and len(own) == classes:
        described = config.get("label_descriptions") or {}
        return tuple(str(described.get(label, label)) for label in own)
    data = sys.modules.get("timm.data")
    subset = data.infer_imagenet_subset({"num_classes": classes}) if data else None
    return tuple(data.ImageNetInfo(subset).label_descriptions()) if data and subset else ()
