"""What is compared: methods of a network, and maps that need none."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from camtool.errors import ModelError
from camtool.evaluate.evaluator import centre_map
from camtool.heads import Forward, probe_input
from camtool.images.resample import upsample
from camtool.model import CamModel
from camtool.opencv import cv2
from camtool.regions.boxes import FloatMap

Maps: TypeAlias = tuple[FloatMap, "NDArray[np.float32] | None"]
"""Maps [K,h,w] of K classes; what mean(map) + bias lacks of each logit, as a share of their spread,
[K], None for maps that never were to add up."""


class Seen:
    """One input [1,C,H,W], normalised, and the forward passes on it, which methods share."""

    def __init__(self, inputs: Tensor) -> None:
        self.inputs = inputs
        self._passes: dict[int, list[Forward]] = {}

    def forwards(self, model: CamModel) -> list[Forward]:
        """As `CamModel.forwards`; a model's second call gives what the first one gave."""
        if id(model) not in self._passes:
            self._passes[id(model)] = model.forwards(self.inputs)
        return self._passes[id(model)]


@dataclass(frozen=True)
class Way:
    """One way to make maps.

    Attributes:
        name: Of the method, or of the baseline.
        baseline: Whether it needs no network.
        passes: What it costs, in forward passes; None where that can't be counted.
        explain: Maps of one input for some classes.
    """

    name: str
    baseline: bool
    passes: float | None
    explain: Callable[[Seen, Sequence[int]], Maps]

    def heat(self, seen: Seen, index: int) -> FloatMap:
        """The map of one class at the size of the input, float32 [H,W]."""
        return at_size(self.explain(seen, [index])[0][0], seen.inputs)


def at_size(heat: FloatMap, inputs: Tensor) -> FloatMap:
    """A map [h,w] at the size of an input, float32 [H,W], bilinear between cell centres."""
    height, width = inputs.shape[2:]
    values = torch.from_numpy(np.ascontiguousarray(heat))
    return upsample(values, (0, 0, width, height), (width, height)).numpy()


def ways_of(models: Sequence[CamModel]) -> list[Way]:
    """The methods of models of one network that are not fused yet, then the baselines."""
    methods = [
        Way(model.method, False, cost_of(model), explain)
        for model, explain in zip(models, explaining(models), strict=True)
    ]
    coarse = partial(random_map, models[0].head.stride)
    return [
        *methods,
        Way("random map", True, 0, partial(_repeated, coarse)),
        Way("centre blob", True, 0, partial(_repeated, centre_blob)),
        Way("edges", True, 0, partial(_repeated, edges)),
    ]


def explaining(models: Sequence[CamModel]) -> list[Callable[[Seen, Sequence[int]], Maps]]:
    """What the methods of models of one network do, for `Way.explain`; some share a pass."""
    return [
        partial(_explained, model, lead)
        for model, lead in zip(models, leads_of(models), strict=True)
    ]


def leads_of(models: Sequence[CamModel]) -> list[CamModel]:
    """For each model of one network the first whose forward passes are its own: of the same cuts.

    Those that lead are the ones worth fusing.
    """
    leads: dict[Any, CamModel] = {}
    cuts = ([(type(head), head.features) for head in model.heads] for model in models)
    return [leads.setdefault(tuple(cut), model) for cut, model in zip(cuts, models, strict=True)]


@torch.no_grad()
def _explained(model: CamModel, lead: CamModel, seen: Seen, classes: Sequence[int]) -> Maps:
    forwards = seen.forwards(lead)
    chosen = torch.tensor([list(classes)], device=model.device)
    with model.running():
        found, _ = model.evidence(forwards, chosen)
    maps, bias, logits, every = (
        each[0].float().cpu().numpy() for each in (*found, forwards[0].logits)
    )
    if not np.isfinite(maps).all():
        raise ModelError(f"{model.network.name} gives numbers that are not finite")
    missing = np.abs(logits - maps.mean((1, 2), dtype=np.float64) - bias)
    return maps, np.asarray(missing / (np.ptp(every) or 1), dtype=np.float32)


def _repeated(make: Callable[[Tensor], FloatMap], seen: Seen, classes: Sequence[int]) -> Maps:
    return np.repeat(make(seen.inputs)[None], len(classes), axis=0), None


def centre_blob(inputs: Tensor) -> FloatMap:
    """`centre_map` of an input, [H,W]."""
    return centre_map(tuple(inputs.shape[2:]))


def random_map(stride: int, inputs: Tensor) -> FloatMap:
    """Uniform noise as coarse as the network's maps, [h,w]; the same for the same input."""
    height, width = (max(1, side // stride) for side in inputs.shape[2:])
    return np.random.default_rng(seed_of(inputs)).random((height, width), dtype=np.float32)


def seed_of(inputs: Tensor) -> int:
    """The same for the same input, so that what is random hangs on nothing else."""
    return zlib.crc32(inputs.float().cpu().numpy().tobytes())


def edges(inputs: Tensor) -> FloatMap:
    """Magnitude of Sobel's gradient of the mean of the channels, [H,W]."""
    grey = np.ascontiguousarray(inputs[0].float().mean(0).cpu().numpy())
    across, down = (cv2.Sobel(grey, cv2.CV_32F, *axis) for axis in ((1, 0), (0, 1)))
    return np.asarray(cv2.magnitude(across, down), dtype=np.float32)


def cost_of(model: CamModel) -> float | None:
    """What an explanation of one class costs, in forward passes: a quotient of multiply-adds.

    Of convolutions and matrix products, forward and backward, as torch counts them. No clock runs,
    so that it is the same on every machine; a fused network can't be counted.

    Returns:
        None where torch sees nothing of a forward pass: a graph runs outside of it.
    """
    inputs = probe_input(model.network.module, model.preprocessing.size, model.network.channels)
    inputs = inputs.to(model.device)
    with model.running(), torch.no_grad(), _Counter() as plain:
        model.network.module(inputs)
    if not plain.total:
        return None
    with _Counter() as whole:
        model.explain_tensor(inputs, [0])
    return float(whole.total / plain.total)


class _Counter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Adds up the floating-point operations of everything that runs in it.

    Torch's `FlopCounterMode` also hooks every module, which the tails of heads do not bear.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.total = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        count = flop_registry.get(func._overloadpacket)
        if count is not None:
            self.total += count(*args, **(kwargs or {}), out_val=result)
        return result
