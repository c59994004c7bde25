"""Finding the head of a network by watching it run, and proving it by numbers."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from camtool.errors import HeadError
from camtool.heads.general import TailHead
from camtool.heads.given import GivenHead
from camtool.heads.head import Head, PooledHead, Read, Seen
from camtool.heads.linear import LinearHead
from camtool.heads.maps import MapsHead
from camtool.heads.watch import Names, PoolWatch, logits_of, run

KINDS: list[type[Head]] = [GivenHead, MapsHead, LinearHead, TailHead]
"""The kinds of heads, in the order in which they are tried; the last one's refusal is told."""

_HALF = {torch.float16, torch.bfloat16}


def find_head(module: nn.Module, size: int = 224, channels: int = 3) -> Head:
    """Find the head of a network by running it once on a random input, and measure its error.

    The module is not changed: mode, hooks, gradients and device are as before. One in half
    precision is proved on a copy in float32: rounding to 8 or 11 bits would hide any error.

    Args:
        module: The network, on any device.
        size: Side of the square random input, in pixels.
        channels: Of that input.

    Returns:
        The head with its measured error.

    Raises:
        HeadError: No feature map says where the logits come from, or the network can't run on
            such an input; says what was found.
    """
    with watched(module, size, channels) as seen:
        return _found(seen)


def heads_at(
    module: nn.Module, layers: Sequence[str], size: int = 224, channels: int = 3, stages: int = 3
) -> list[TailHead]:
    """The heads behind the outputs of modules by name; of the last stages where none is named.

    Args:
        module: The network.
        layers: Names of modules.
        size: Side of the square random input, in pixels.
        channels: Of that input.
        stages: How many, where no layer is named.

    Raises:
        HeadError: There is no such module, its output has no places, or the logits do not come
            from it.
    """
    with watched(module, size, channels) as seen:
        if hasattr(seen.module, "class_maps"):
            raise HeadError("the network gives its maps itself, and nothing of what is before them")
        if layers:
            return [TailHead.at_layer(seen, layer) for layer in layers]
        return TailHead.at_stages(seen, stages)


@contextmanager
def watched(module: nn.Module, size: int, channels: int = 3) -> Iterator[Seen]:
    """A network that ran once on a random input, in evaluation mode while the context lasts."""
    if any(parameter.dtype in _HALF for parameter in module.parameters()):
        module = copy.deepcopy(module).float()
    with evaluating(module):
        yield _watched(module, probe_input(module, size, channels))


def _found(seen: Seen) -> Head:
    # Its text alone: a kept error holds the frame that holds it, and with it the network.
    refusal = "no kind of head is known"
    inexact: Head | None = None
    for kind in KINDS:
        try:
            head = kind.match(seen)
        except HeadError as error:
            refusal = str(error)
            continue
        if isinstance(head, PooledHead):
            head = replace(head, max_error=_error(head, seen))
            # One place says nothing; what is pooled before it may have more.
            if not head.exact or head.shape == (1, 1):
                inexact = inexact or head
                continue
        return head
    if inexact is not None:
        return inexact
    raise HeadError(refusal)


def _watched(module: nn.Module, inputs: Tensor) -> Seen:
    names, watch = Names(), PoolWatch(keep_calls=True)
    with torch.no_grad(), names.listening(module), watch:
        try:
            output = module(inputs)
        except HeadError:
            raise
        except Exception as error:
            # The network's own code may raise anything on an input that it was not made for.
            height, width = inputs.shape[2:]
            raise HeadError(
                f"the network can't run on an input of {width}×{height} ({_first_line(error)}); "
                "try the size it was made for"
            ) from error
    if reason := _other_task(output):
        raise HeadError(f"the network {reason}")
    logits = logits_of(output)
    one_each = len(logits) == len(inputs) and logits[0].numel() == logits.shape[1]
    if not one_each or not logits.is_floating_point():
        kind = str(logits.dtype).removeprefix("torch.")
        raise HeadError(
            f"the network's output is {kind} {list(logits.shape)} for one picture, not logits "
            "[N,classes]: it does not classify pictures"
        )
    if not logits.isfinite().all():
        raise HeadError("the network's logits are not finite numbers (NaN or infinity)")
    size = (inputs.shape[2], inputs.shape[3])
    pool = None if watch.other is not None else watch.pool
    return Seen(module, inputs, pool, watch.refusal, watch.after, logits, names, size)


def _other_task(output: Any) -> str:
    """What a network does that gives such an output, and what would work; "" if it may classify."""
    first = output[0] if isinstance(output, (list, tuple)) and output else output
    named = first if isinstance(first, Mapping) else {}
    if named.keys() & {"boxes", "pred_boxes"}:
        return f"detects objects: {_WOULD_WORK}"
    maps = next((named[name] for name in ("out", "logits") if name in named), first)
    if not isinstance(maps, Tensor) or maps.ndim != 4 or maps[0].numel() == maps.shape[1]:
        return ""
    if maps is output or named:
        return (
            f"gives a map {tuple(maps.shape)}, not [N,classes], as segmentation does: {_WOULD_WORK}"
        )
    return f"gives feature maps {tuple(maps.shape)} alone, not [N,classes]: {_WOULD_WORK}"


_WOULD_WORK = "no logits were found; a classifier on its backbone would work"


def features_of(module: nn.Module, inputs: Tensor) -> Tensor:
    """The pooled feature maps [N,C,h,w] alone, as from `run`."""
    return run(module, inputs)[0]


def probe_input(module: nn.Module, size: int, channels: int = 3) -> Tensor:
    """A seeded random input [1,channels,size,size] of the module's own dtype, on its device."""
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(1, channels, size, size, generator=generator)
    like = next((p for p in module.parameters() if p.is_floating_point()), inputs)
    return inputs.to(like.device, like.dtype)


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Evaluation mode inside, and afterwards every part's own mode as before."""
    before = [(part, part.training) for part in module.modules() if part.training]
    try:
        if before:
            module.eval()
        yield
    finally:
        for part, mode in before:
            part.training = mode


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


@torch.no_grad()
def _error(head: PooledHead, seen: Seen) -> float:
    """How far the maps of all classes are from adding up, relative to the logits' spread."""
    assert seen.pool is not None
    features = seen.pool.features.float()
    own = seen.logits.float().flatten(1)
    if not torch.isfinite(own).all() or features.std().item() == 0:
        raise HeadError("the features are constant or not finite on a random input")
    totals, highest, lowest = _totals(features, head.read(seen.module, features, own))
    ends = own if head.classes > 1 else torch.tensor([highest, lowest, 0.0])
    spread = (ends.max() - ends.min()).item()
    return (totals - own).abs().max().item() / max(spread, torch.finfo().tiny)


def _totals(features: Tensor, read: Read, at_once: int = 1024) -> tuple[Tensor, float, float]:
    """mean(M) + b of every class [1,classes], and the ends of all maps."""
    assert read.linear is not None
    everything = torch.arange(read.logits.shape[1])
    totals, highest, lowest = [], -float("inf"), float("inf")
    for some in torch.split(everything.to(features.device), at_once):
        weight, bias = read.linear(some[None])
        maps = weight.reshape(-1, features.shape[1]) @ features[0].flatten(1)
        totals.append(maps.mean(1) + bias[0])
        highest, lowest = max(highest, maps.max().item()), min(lowest, maps.min().item())
    return torch.cat(totals)[None], highest, lowest
