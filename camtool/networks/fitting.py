"""A checkpoint's tensors in an architecture: names, head and first convolution made to fit."""

from __future__ import annotations

import re
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from camtool.errors import ModelError
from camtool.networks.state import State, shown

MAX_PREFIXES = 8
"""Leading parts of a name that may be dropped; wrappers put two or three in front."""

FLOATS = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
"""Number formats of weights that mean what they say; others come with a scale kept elsewhere."""

_RENAMED = (
    (re.compile(r"\b(norm|conv)\.([12])\."), r"\1\2."),
    (re.compile(r"\bmlp\.linear_1\."), "mlp.0."),
    (re.compile(r"\bmlp\.linear_2\."), "mlp.3."),
)
"""Parts that torchvision renamed after it published weights: of DenseNet, and of ViT."""


class Factory(Protocol):
    """Builds an architecture for a number of classes and of channels (None: its own)."""

    def __call__(self, classes: int | None = None, channels: int | None = None) -> nn.Module:
        """The architecture; its weights are replaced."""


@dataclass(frozen=True)
class Match:
    """How the tensors of a checkpoint lie in an architecture.

    Attributes:
        state: Those that have a place, by the architecture's names.
        classes: Number of classes where it is another than the architecture was built for.
        channels: Number of input channels where it is not 3.
        notes: What had to be assumed, a line each.
        problems: Why they do not fit; empty if they do.
    """

    state: State
    classes: int | None
    channels: int | None
    notes: tuple[str, ...]
    problems: tuple[str, ...]


class _ParametersOnMeta(TorchFunctionMode):
    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        # Layers allocate parameters by `empty` and by nothing else. All the rest stays real, as
        # architectures compute with tensors while they are built (RegNet), and keep buffers that
        # no checkpoint holds.
        if func is torch.empty:
            return func(*args, **{**(kwargs or {}), "device": "meta"})
        return func(*args, **(kwargs or {}))


def empty(build: Callable[[], nn.Module]) -> nn.Module:
    """What a function builds, without memory for its weights where that can be done.

    The random number generator is left as it was.
    """
    with torch.random.fork_rng(devices=[]):
        try:
            with _ParametersOnMeta():
                module = build()
            if not any(buffer.is_meta for buffer in module.buffers()):
                return module
        except RuntimeError:
            # A few of timm's compute with their parameters while they are built, and a few make
            # buffers as if they were parameters: those are built as they are.
            pass
        return build()


def fit(
    factory: Factory,
    state: State,
    origin: str,
    name: str,
    others: Callable[[State], str | None] = lambda state: None,
) -> tuple[nn.Module, tuple[str, ...]]:
    """An architecture with the tensors of a checkpoint, its two ends as they are there.

    Prefixes such as `module.`, `model.` or `backbone.` are dropped where the rest is a name of
    the architecture. Tensors take the architecture's number format (float32).

    Args:
        factory: Builds the architecture.
        state: Tensors by name.
        origin: What to call the file in errors.
        name: What to call the architecture.
        others: Finds an architecture that does fit, for the message.

    Returns:
        The network, frozen, in evaluation mode; what had to be assumed, a line each.

    Raises:
        ModelError: The tensors do not fit, or are of a number format that is no network's.
    """
    module = empty(factory)
    found = match(module, state)
    if found.problems:
        other = others(state)
        hint = f"; its tensors fit {other}" if other else ""
        raise ModelError(f"{origin}: does not fit {name}: {'; '.join(found.problems)}{hint}")
    if found.classes == 0:
        raise ModelError(f"{origin}: has 0 classes; a network that names none can't be explained")
    if found.classes or found.channels:
        module = empty(partial(factory, found.classes, found.channels))
    _assign(module, found.state, origin)
    return module.requires_grad_(False).eval(), found.notes


def match(module: nn.Module, state: State) -> Match:
    """Find the place of each tensor of a checkpoint in an architecture."""
    wanted: State = module.state_dict()
    state, notes = _renumbered(strip_prefixes(state, wanted), wanted)
    extra = state.keys() - wanted.keys()
    # What lies inside a part of the architecture belongs to another architecture.
    parts = {child for child, _ in module.named_children()}
    alien = {key for key in extra if parts.isdisjoint(key.split("."))}
    if alien:
        notes.append(f"left out, as the architecture has no place for it: {shown(sorted(alien))}")
    kept = {key: value for key, value in state.items() if key in wanted}
    missing = {key for key in wanted.keys() - kept.keys() if not _is_counter(key)}
    differing = {key for key in kept if kept[key].shape != wanted[key].shape}
    channels = _other_channels(module, kept, differing)
    classes = _other_classes(kept, wanted, differing)
    shapes = {f"{key} {[*kept[key].shape]} for {[*wanted[key].shape]}" for key in differing}
    problems = {"missing": missing, "left over": extra - alien, "of another shape": shapes}
    told = (f"{len(keys)} {what} ({shown(keys)})" for what, keys in problems.items() if keys)
    return Match(kept, classes, channels, tuple(notes), tuple(told))


def strip_prefixes(state: State, wanted: Iterable[str]) -> State:
    """Names with leading parts dropped until the rest is a name that is wanted."""
    wanted = set(wanted)
    renamed: State = {}
    for key, value in state.items():
        name = next((name for name in _names_for(key) if name in wanted), key)
        renamed[key if name in renamed else name] = value
    return renamed


def _names_for(key: str) -> Iterator[str]:
    """The name, then it without its leading parts; each as it is, and as parts were renamed."""
    spellings = [key, *(pattern.sub(new, key) for pattern, new in _RENAMED if pattern.search(key))]
    for dropped in range(min(key.count(".") + 1, MAX_PREFIXES)):
        for spelling in spellings:
            yield spelling.split(".", dropped)[-1]


def _renumbered(state: State, wanted: State) -> tuple[State, list[str]]:
    """Names that differ in numbers alone: a head put into a Sequential, or taken out of one.

    `fc.1.weight` is `fc.weight` with a dropout before it. Where several names would do, the head
    has other layers, and none is renamed.
    """
    places = _by_words(wanted.keys() - state.keys())
    found: dict[str, list[str]] = defaultdict(list)
    for key in state.keys() - wanted.keys():
        words = next((name for name in _names_for(_words(key)) if name in places), "")
        found[words].append(key)
    renamed = {
        keys[0]: places[words][0]
        for words, keys in found.items()
        if words and len(keys) == len(places[words]) == 1
    }
    pairs = {tuple(name.rpartition(".")[0] for name in pair) for pair in renamed.items()}
    notes = [f"its {old} is taken for the architecture's {new}" for old, new in sorted(pairs)]
    return {renamed.get(key, key): value for key, value in state.items()}, notes


def _by_words(keys: Iterable[str]) -> dict[str, list[str]]:
    grouped: dict[str, list[str]] = defaultdict(list)
    for key in keys:
        grouped[_words(key)].append(key)
    return grouped


def _words(key: str) -> str:
    return ".".join(part for part in key.split(".") if not part.isdigit())


def first_convolution(module: nn.Module) -> tuple[str, nn.Conv2d] | None:
    """Name and layer of the first convolution; None if there is none."""
    named = module.named_modules()
    return next(((name, part) for name, part in named if isinstance(part, nn.Conv2d)), None)


def _other_channels(module: nn.Module, state: State, differing: set[str]) -> int | None:
    """The input channels in the file where the first convolution takes other than 3."""
    first = first_convolution(module)
    key = f"{first[0]}.weight" if first else ""
    if first is None or key not in differing:
        return None
    have, want = state[key].shape, first[1].weight.shape
    channels, rest = divmod(3 * have[1], want[1]) if len(have) == 4 else (0, 0)
    if rest or not channels or (have[0], *have[2:]) != (want[0], *want[2:]):
        return None
    differing.discard(key)
    return channels


def _other_classes(state: State, wanted: State, differing: set[str]) -> int | None:
    """The number of classes in the file where nothing but it differs."""
    shapes = [(state[key].shape, wanted[key].shape) for key in differing]
    sizes = {(have[:1], want[:1]) for have, want in shapes}
    if len(sizes) != 1 or any(have[1:] != want[1:] for have, want in shapes):
        return None
    differing.clear()
    return int(shapes[0][0][0])


def _is_counter(key: str) -> bool:
    return key.endswith("num_batches_tracked")


def _assign(module: nn.Module, state: State, origin: str) -> None:
    wanted = module.state_dict()
    _check_kinds(state, wanted, origin)
    for key in wanted.keys() - state.keys():
        state[key] = torch.zeros(wanted[key].shape, dtype=wanted[key].dtype)
    # The names fit by now, so the tensors are in the layout of the architecture as it is today;
    # MNASNet refuses a state dict that does not say so.
    fitting = OrderedDict((key, value.to(wanted[key].dtype)) for key, value in state.items())
    fitting._metadata = getattr(wanted, "_metadata", {})  # type: ignore[attr-defined]
    module.load_state_dict(fitting, assign=True)


def _check_kinds(state: State, wanted: State, origin: str) -> None:
    odd = {
        key: value.dtype
        for key, value in state.items()
        if value.dtype not in FLOATS and (wanted[key].is_floating_point() or value.is_complex())
    }
    if odd:
        kinds = ", ".join(sorted({str(kind).removeprefix("torch.") for kind in odd.values()}))
        raise ModelError(
            f"{origin}: holds {kinds} where the network computes with real numbers "
            f"({shown(odd)}); save the float32 weights that they were made from"
        )


def not_finite(module: nn.Module) -> list[str]:
    """Names of the parameters and statistics that hold NaN or infinity; none of those on `meta`.

    A single number may be infinite: it is a bound that nothing reaches.
    """
    named: Iterator[tuple[str, Tensor]] = iter(module.state_dict().items())
    return [
        name
        for name, tensor in named
        if tensor.is_floating_point() and not tensor.is_meta
        if not bool(tensor.isfinite().all() if tensor.ndim else not tensor.isnan())
    ]
