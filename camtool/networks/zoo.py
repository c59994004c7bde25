"""Published architectures: torchvision's and, where it is installed, timm's."""

from __future__ import annotations

import difflib
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import torch
from torch import nn

from camtool.errors import ModelError
from camtool.networks.checkpoint import State, strip_prefixes
from camtool.networks.preprocessing import Preprocessing

TIMM = "timm/"


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


@lru_cache(maxsize=1)
def torchvision_names() -> tuple[str, ...]:
    """Every classification architecture of torchvision."""
    from torchvision import models

    return tuple(models.list_models(module=models))


def is_known(name: str) -> bool:
    """Whether a name is an architecture of torchvision, or has the form of one of timm."""
    return name.startswith(TIMM) or name in torchvision_names()


def unknown(name: str) -> ModelError:
    """The error for a name that is no architecture, with the nearest ones."""
    near = difflib.get_close_matches(name, [*torchvision_names(), "gapnet"], n=5, cutoff=0.4)
    hint = f"; did you mean {', '.join(near)}?" if near else ""
    return ModelError(f"{name!r} is no torchvision architecture, no timm/NAME and no file{hint}")


def entries(name: str) -> tuple[Entry, ...]:
    """The published weights of a torchvision architecture, its default first."""
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
    options = {"transform_input": True} if name in ("googlenet", "inception_v3") else {}
    labels = tuple(weights.meta.get("categories") or ())
    return Entry(weights.name, weights.url, labels, preprocessing, options)


def find_entry(name: str, weights: str) -> Entry:
    """A published entry by its name, with or without the enum's ("ResNet50_Weights.DEFAULT").

    Raises:
        ModelError: There is none; lists what there is.
    """
    known = entries(name)
    wanted = weights.rsplit(".", 1)[-1]
    if wanted == "DEFAULT" and known:
        return known[0]
    for entry in known:
        if entry.name == wanted:
            return entry
    have = ", ".join(entry.name for entry in known) or "none"
    raise ModelError(f"{name} has no weights called {weights!r}, and there is no such file; {have}")


def classic_entry(name: str) -> Entry | None:
    """The oldest published entry: the preprocessing of weights that say nothing of theirs."""
    known = entries(name)
    return min(known, key=lambda entry: (not entry.name.endswith("V1"), entry.name), default=None)


def build(name: str, classes: int | None, state: State, **options: Any) -> nn.Module:
    """An architecture without weights, on `meta` where it can be built there.

    Args:
        name: torchvision's name, or timm/NAME.
        classes: Number of classes; None for its own.
        state: The tensors that it will get; tells whether auxiliary classifiers are wanted.
        **options: Passed on to the builder.
    """
    if classes is not None:
        options["num_classes"] = classes
    if name in ("googlenet", "inception_v3"):
        options["aux_logits"] = any("aux" in key.lower() for key in state)
        options["init_weights"] = False
    if torch.get_default_device().type == "cpu":
        try:
            with torch.device("meta"):
                return _construct(name, options)
        except (NotImplementedError, RuntimeError):
            # Some architectures compute with tensors while they are built (RegNet).
            pass
    return _construct(name, options)


def _construct(name: str, options: dict[str, Any]) -> nn.Module:
    if name.startswith(TIMM):
        return _timm().create_model(name[len(TIMM) :], pretrained=False, **options)  # type: ignore[no-any-return]
    from torchvision import models

    return models.get_model(name, weights=None, **options)  # type: ignore[no-any-return]


def random_module(name: str, classes: int | None = None) -> nn.Module:
    """An architecture with its own random initialisation, seeded with 0, in evaluation mode."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        options: dict[str, Any] = {} if classes is None else {"num_classes": classes}
        if name in ("googlenet", "inception_v3"):
            options |= {"aux_logits": False, "init_weights": False, "transform_input": True}
        return _construct(name, options).eval().requires_grad_(False)


def _timm() -> Any:
    try:
        import timm
    except ImportError:
        raise ModelError("timm/… needs timm: pip install 'camtool[timm]'") from None
    return timm


def timm_module(name: str) -> nn.Module:
    """A timm architecture with its published weights.

    Raises:
        ModelError: timm lacks it, or its weights can't be had.
    """
    timm = _timm()
    try:
        return timm.create_model(name[len(TIMM) :], pretrained=True).eval()  # type: ignore[no-any-return]
    except Exception as error:
        # Hub clients raise their own kinds, of packages that need not be installed.
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise ModelError(f"{name}: the published weights can't be had ({first})") from None


def timm_facts(name: str, module: nn.Module) -> tuple[Preprocessing, tuple[str, ...]]:
    """What a timm architecture expects of its input, and its labels where they are ImageNet's."""
    from timm.data import ImageNetInfo, resolve_model_data_config

    config = resolve_model_data_config(module)
    size = int(config["input_size"][-1])
    preprocessing = Preprocessing(
        size=size,
        resize=max(size, int(size / config["crop_pct"])),
        mean=tuple(config["mean"]),
        std=tuple(config["std"]),
        interpolation=str(config["interpolation"]),
    )
    labels: tuple[str, ...] = ()
    if getattr(module, "num_classes", None) == 1000:
        labels = tuple(ImageNetInfo().label_descriptions())
    return preprocessing, labels


def identify(state: State) -> str | None:
    """The torchvision architecture whose tensors a checkpoint holds; None if there is none."""
    for name in _candidates(state):
        try:
            wanted = build(name, None, state).state_dict()
        except (RuntimeError, ValueError):
            continue
        have = strip_prefixes(state, wanted)
        needed = {key for key in wanted if not key.endswith("num_batches_tracked")}
        if needed <= have.keys() and have.keys() <= wanted.keys() and _alike(have, wanted):
            return name
    return None


def _candidates(state: State) -> list[str]:
    """Every architecture that it may be, those of nearly as many parameters first."""
    regnet = any("trunk_output" in key for key in state)
    total = sum(value.numel() for value in state.values())
    sizes = {
        name: _published_size(name, total)
        for name in torchvision_names()
        if name.startswith("regnet") == regnet
    }
    names = [name for name, size in sizes.items() if size <= total + _LARGEST_HEADS]
    return sorted(names, key=lambda name: abs(sizes[name] - total))


_LARGEST_HEADS = 2 * 1000 * (7392 + 1)
"""Parameters that a file of fewer classes may lack: two heads on RegNet's 7,392 channels."""


def _published_size(name: str, default: int) -> int:
    from torchvision import models

    published = [int(weights.meta["num_params"]) for weights in models.get_model_weights(name)]
    return min(published, default=default)


def _alike(have: State, wanted: State) -> bool:
    """Same shapes but for the number of classes, the first axis of at most four tensors."""
    other = [key for key in have if have[key].shape != wanted[key].shape]
    return len(other) <= 4 and all(
        have[key].shape[1:] == wanted[key].shape[1:] and wanted[key].shape[0] == 1000
        for key in other
    )
