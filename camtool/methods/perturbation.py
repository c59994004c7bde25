"""The family that changes something and looks at what becomes of the logit."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor
from torch.nn import functional

from camtool.heads import Forward
from camtool.methods.method import Maps, Settings

AT_ONCE = 64
"""Changed versions that run in one batch."""


def _chunks(count: int, number: int) -> Iterator[slice]:
    step = max(1, AT_ONCE // number)
    yield from (slice(start, min(start + step, count)) for start in range(0, count, step))


def _scores(
    forward: Forward, count: int, change: Callable[[slice], Tensor], run: Callable[[Tensor], Tensor]
) -> Tensor:
    """Logits [count,N,classes] of changed versions; `change` gives them as [V,N,...]."""
    number, found = len(forward.features), []
    for some in _chunks(count, number):
        versions = change(some)
        found.append(run(versions.flatten(0, 1)).view(len(versions), number, -1))
    return torch.cat(found)


def ablationcam(forward: Forward, classes: Tensor, settings: Settings) -> Maps:
    """sum_k ((y - y without k) / y) F_k (Ramaswamy and Desai 2020, eq. 3 and 4).

    Each feature map in turn is set to zero, through the tail alone; for a linear head what that
    does to the logit is w_k mean(F_k).
    """
    features = forward.features.float()
    own = forward.logits.gather(1, classes)
    if forward.linear is not None:
        weight, _ = forward.linear(classes)
        drop = weight * features.mean((2, 3))[:, None]
    else:

        def change(some: slice) -> Tensor:
            kept = torch.ones(some.stop - some.start, features.shape[1], device=features.device)
            kept[torch.arange(len(kept)), torch.arange(some.start, some.stop)] = 0
            return kept[:, None, :, None, None] * features

        scores = _scores(forward, features.shape[1], change, forward.tail)
        picked = scores.gather(2, classes.expand(len(scores), -1, -1))
        drop = own[..., None] - picked.permute(1, 2, 0)
    maps = torch.einsum("nkc,nchw->nkhw", drop / own[..., None], features)
    return Maps(maps, torch.zeros_like(own))


def scorecam(forward: Forward, classes: Tensor, settings: Settings) -> Maps:
    """sum_k softmax(y of the picture seen through F_k) F_k (Wang et al. 2020, eq. 3 to 5).

    Each feature map, scaled to 0..1 and brought to the input's size, is a mask on the input; all
    of them go through the whole network, in batches.
    """
    features, inputs = forward.features.float(), forward.inputs
    masks = functional.interpolate(
        features, size=inputs.shape[2:], mode="bilinear", align_corners=False
    )
    low, high = masks.amin((2, 3), keepdim=True), masks.amax((2, 3), keepdim=True)
    masks = ((masks - low) / (high - low).clamp_min(1e-8)).transpose(0, 1)

    def change(some: slice) -> Tensor:
        return masks[some, :, None].to(inputs.dtype) * inputs

    scores = _scores(forward, features.shape[1], change, forward.network)
    picked = scores.gather(2, classes.expand(len(scores), -1, -1)).softmax(0)
    maps = torch.einsum("cnk,nchw->nkhw", picked, features)
    return Maps(maps, torch.zeros_like(classes, dtype=torch.float32))


def reciprocam(forward: Forward, classes: Tensor, settings: Settings) -> Maps:
    """The logit of the features of one place alone, place by place (Byun and Lee 2022, eq. 3)."""
    features = forward.features.float()
    rows, columns = features.shape[2:]
    places = torch.eye(rows * columns, device=features.device).view(-1, 1, 1, rows, columns)

    def change(some: slice) -> Tensor:
        return places[some] * features

    scores = _scores(forward, rows * columns, change, forward.tail)
    picked = scores.gather(2, classes.expand(len(scores), -1, -1)).permute(1, 2, 0)
    maps = picked.reshape(*classes.shape, rows, columns)
    return Maps(maps, torch.zeros_like(classes, dtype=torch.float32))
