"""A network and its class activation maps as one module, all of whose outputs are tensors."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from camtool.errors import ModelError
from camtool.heads import Forward, probe_input
from camtool.heads.path import jacobian
from camtool.methods import class_activation_map
from camtool.model import CamModel

LINEAR = ("linear", "maps")
"""Kinds of heads whose maps are one matrix times the features."""
ONE_MATRIX = (*LINEAR, "affine", "norm")
"""Those of which that is so for one picture, up to a factor that its logits tell."""


class ExportError(ModelError):
    """A model that can't be exported."""


class MapGraph(nn.Module):
    """From an input to the logits, and to maps that add up to them.

    The maps of a class are ``s W F``: features F at the cut, a matrix W, and a factor s for each
    picture. Behind one linear layer W is its weight and s = 1 (Zhou et al. 2016, eq. 2). Behind
    several linear layers W is their product. Behind a normalization that takes its statistics of
    the picture W holds what is the same for every picture, and s, the inverse of the deviation up
    to a constant, follows from the logits t themselves: without evidence they are b, and
    ``t - b = s W mean(F)``, so s is the quotient of the two, by least squares over the classes.

    Args:
        model: Of a head of one of the kinds `ONE_MATRIX`, in float32.
        classes: Whose maps are given; None for all.
        pixels: Take uint8 [N,H,W,C] and normalise it inside, in place of normalised float32
            [N,C,H,W].

    Raises:
        ExportError: The head is of another kind, or not in float32.
    """

    def __init__(
        self, model: CamModel, classes: Sequence[int] | None = None, pixels: bool = False
    ) -> None:
        super().__init__()
        _check(model)
        self._head, self.pixels, self.name = model.head, pixels, model.network.name
        self.network = _module(model)
        self._scaled = model.head.kind not in LINEAR
        weight, bias = _matrix(model)
        self.classes = [*(range(model.head.classes) if classes is None else classes)]
        self.rows = nn.Buffer(weight[self.classes].clone())
        if self._scaled:
            self.weight, self.bias = nn.Buffer(weight), nn.Buffer(bias)
        mean, std = (torch.tensor(values) for values in _statistics(model))
        self.mean, self.std = nn.Buffer(mean), nn.Buffer(std)

    def forward(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Logits [N,classes] and maps [N,K,h,w], float32; mean(map) + bias is the logit."""
        inputs = self.normalized(inputs)
        found = self._head.forward(self.network, self.network, inputs)
        maps = class_activation_map(found.features, self.rows)
        if self._scaled:
            maps = self._factor(found)[:, None, None, None] * maps
        return found.logits, maps

    def normalized(self, inputs: Tensor) -> Tensor:
        """What the network takes, float32 [N,C,H,W]."""
        if not self.pixels:
            return inputs
        return ((inputs.float() / 255 - self.mean) / self.std).permute(0, 3, 1, 2)

    def _factor(self, found: Forward) -> Tensor:
        """The factor of each picture, [N]."""
        sums = found.features.float().mean((2, 3)) @ self.weight.T
        evidence = found.logits - self.bias
        return (evidence * sums).sum(1) / sums.square().sum(1)


def _check(model: CamModel) -> None:
    kind = model.head.kind
    if kind == "given":
        raise ExportError(f"{model.network.name} is a graph already")
    if len(model.heads) > 1 or model.method not in ("cam", "integrated"):
        raise ExportError(f"the maps of method {model.method} can't be exported; take auto")
    if kind not in ONE_MATRIX:
        raise ExportError(
            f"{model.network.name}: what follows {model.head.features} is {kind}, so that its maps "
            "are no matrix times the features; only those that are can be exported"
        )
    if model.dtype != torch.float32:
        raise ExportError("a graph is exported in float32, and runs in what its runtime chooses")


def _module(model: CamModel) -> nn.Module:
    module: nn.Module = getattr(model.network.module, "_orig_mod", model.network.module)
    return module.eval().requires_grad_(False)


def _statistics(model: CamModel) -> tuple[tuple[float, ...], tuple[float, ...]]:
    return model.preprocessing.mean, model.preprocessing.std


@torch.no_grad()
def _matrix(model: CamModel) -> tuple[Tensor, Tensor]:
    """W [classes,C] and b [classes], as they are on a random input."""
    network = model.network
    inputs = probe_input(_module(model), model.preprocessing.size, network.channels)
    found = model.forward(inputs)
    classes = torch.arange(model.head.classes, device=inputs.device)[None]
    if found.linear is not None:
        weight, bias = found.linear(classes)
        return weight.reshape(-1, weight.shape[-1]), bias[0]
    return jacobian(found.tail, found.features.float())
