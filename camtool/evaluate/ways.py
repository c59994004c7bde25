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

from camtool.evaluate.evaluator import centre_map
from camtool.heads import probe_input
from camtool.images.resample import upsample
from camtool.model import CamModel
from camtool.opencv import cv2
from camtool.regions.boxes import FloatMap

Maps: TypeAlias = tuple[FloatMap, "NDArray[np.float32] | None"]
"""Maps [K,h,w] of K classes; what mean(map) + bias lacks of each logit, as a share of their spread,
[K], None for maps that never were to add up."""


@dataclass(frozen=True)
class Way:
    """One way to make maps.

    Attributes:
        name: Of the method, or of the baseline.
        baseline: Whether it needs no network.
        passes: What it costs, in forward passes.
        explain: Maps of one input [1,C,H,W], normalised, for some classes.
    """

    name: str
    baseline: bool
    passes: float
    explain: Callable[[Tensor, Sequence[int]], Maps]

    def heat(self, inputs: Tensor, index: int) -> FloatMap:
        """The map of one class at the size of the input, float32 [H,W]."""
        return at_size(self.explain(inputs, [index])[0][0], inputs)


def at_size(heat: FloatMap, inputs: Tensor) -> FloatMap:
    """A map [h,w] at the size of an input, float32 [H,W], bilinear between cell centres."""
    height, width = inputs.shape[2:]
    values = torch.from_numpy(np.ascontiguousarray(heat))
    return upsample(values, (0, 0, width, height), (width, height)).numpy()


def ways_of(models: Sequence[CamModel]) -> list[Way]:
    """The methods of models that are not fused yet, then the baselines."""
    methods = [
        Way(model.method, False, cost_of(model), partial(_explained, model)) for model in models
    ]
    stride = models[0].head.stride
    return [
        *methods,
        Way("random map", True, 0, partial(_repeated, partial(random_map, stride))),
        Way("centre blob", True, 0, partial(_repeated, lambda x: centre_map(tuple(x.shape[2:])))),
        Way("edges", True, 0, partial(_repeated, edges)),
    ]


def explaining(model: CamModel) -> Callable[[Tensor, Sequence[int]], Maps]:
    """What a model's method does, for `Way.explain`."""
    return partial(_explained, model)


def _explained(model: CamModel, inputs: Tensor, classes: Sequence[int]) -> Maps:
    found = model.explain_tensor(inputs, [list(classes)])[0]
    spread = float(np.ptp(found.all_logits)) or 1.0
    missing = np.abs(found.residual) / np.float32(spread)
    return found.maps, np.asarray(missing, dtype=np.float32)


def _repeated(make: Callable[[Tensor], FloatMap], inputs: Tensor, classes: Sequence[int]) -> Maps:
    return np.repeat(make(inputs)[None], len(classes), axis=0), None


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


def cost_of(model: CamModel) -> float:
    """What an explanation of one class costs, in forward passes: a quotient of multiply-adds.

    Of convolutions and matrix products, forward and backward, as torch counts them. No clock runs,
    so that it is the same on every machine; a fused network can't be counted.
    """
    inputs = probe_input(model.network.module, model.preprocessing.size, model.network.channels)
    inputs = inputs.to(model.device)
    with model.running(), torch.no_grad(), _Counter() as plain:
        model.network.module(inputs)
    with _Counter() as whole:
        model.explain_tensor(inputs, [0])
    return float(whole.total / max(1, plain.total))


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
