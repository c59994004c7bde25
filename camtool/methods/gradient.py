"""The family that weighs feature maps by gradients, each as its paper has it.

F are the feature maps at the cut, G the gradient of a class's logit with respect to them. Maps are
signed and in the unit of the formula: cutting off below zero and scaling are matters of display.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from camtool.heads import Forward
from camtool.methods.method import Maps, Settings

_TINY = 1e-7


def gradients(forward: Forward, classes: Tensor) -> Tensor:
    """G of some classes, float32 [N,K,C,h,w], through the tail alone."""
    features = forward.features.float()
    if forward.linear is not None:
        weight, _ = forward.linear(classes)
        cells = features.shape[2] * features.shape[3]
        shape = (len(features), classes.shape[1], *features.shape[1:])
        return (weight / cells)[..., None, None].expand(shape)
    found: list[Tensor] = []
    with torch.enable_grad():
        maps = features.detach().requires_grad_()
        picked = forward.tail(maps).gather(1, classes)
        for k in range(classes.shape[1]):
            more = k + 1 < classes.shape[1]
            found += torch.autograd.grad(picked[:, k].sum(), maps, retain_graph=more)
    return torch.stack(found, 1)


def _by_gradient(formula: Callable[[Tensor, Tensor], Tensor]) -> Callable[..., Maps]:
    """A method from a formula of F [N,1,C,h,w] and G [N,K,C,h,w] that gives [N,K,h,w]."""

    def method(forward: Forward, classes: Tensor, settings: Settings) -> Maps:
        features = forward.features.float()[:, None]
        maps = formula(features, gradients(forward, classes))
        return Maps(maps, torch.zeros_like(classes, dtype=torch.float32))

    method.__doc__ = formula.__doc__
    return method


@_by_gradient
def gradcam(features: Tensor, gradient: Tensor) -> Tensor:
    """sum_k mean_xy(G_k) F_k (Selvaraju et al. 2017, eq. 1 and 2, without the ReLU)."""
    return (gradient.mean((3, 4), keepdim=True) * features).sum(2)


@_by_gradient
def gradcam_plus_plus(features: Tensor, gradient: Tensor) -> Tensor:
    """sum_k (sum_xy alpha_k relu(G_k)) F_k (Chattopadhay et al. 2018, eq. 5 and 19)."""
    square, total = gradient.square(), features.sum((3, 4), keepdim=True)
    below = 2 * square + total * square * gradient
    alpha = torch.where(below == 0, 0.0, square / torch.where(below == 0, 1.0, below))
    weight = (alpha * gradient.relu()).sum((3, 4), keepdim=True)
    return (weight * features).sum(2)


@_by_gradient
def xgradcam(features: Tensor, gradient: Tensor) -> Tensor:
    """sum_k (sum_xy G_k F_k / sum_xy F_k) F_k (Fu et al. 2020, eq. 8)."""
    total = features.sum((3, 4), keepdim=True)
    weight = (gradient * features / (total + _TINY)).sum((3, 4), keepdim=True)
    return (weight * features).sum(2)


@_by_gradient
def hirescam(features: Tensor, gradient: Tensor) -> Tensor:
    """sum_k G_k * F_k, element by element (Draelos and Carin 2020, eq. 4)."""
    return (gradient * features).sum(2)


@_by_gradient
def layercam(features: Tensor, gradient: Tensor) -> Tensor:
    """sum_k relu(G_k) * F_k, element by element (Jiang et al. 2021, eq. 5 and 6)."""
    return (gradient.relu() * features).sum(2)


@_by_gradient
def eigengradcam(features: Tensor, gradient: Tensor) -> Tensor:
    """The first principal component of G * F; as Eigen-CAM, but told apart by class."""
    return principal(gradient * features)


def eigencam(forward: Forward, classes: Tensor, settings: Settings) -> Maps:
    """The first principal component of F, the same for every class (Muhammad and Yeasin 2020)."""
    maps = principal(forward.features.float()[:, None]).expand(-1, classes.shape[1], -1, -1)
    return Maps(maps, torch.zeros_like(classes, dtype=torch.float32))


def principal(values: Tensor) -> Tensor:
    """Projection of each place on the first principal component, [N,K,C,h,w] to [N,K,h,w].

    Channels are centred over the places; the sign, which a principal component leaves open, is
    that in which the places' projections and their sums over channels go together.
    """
    flat = values.flatten(3).transpose(2, 3)
    centred = flat - flat.mean(2, keepdim=True)
    _, _, directions = torch.linalg.svd(centred, full_matrices=False)
    found = (centred * directions[:, :, :1]).sum(3)
    sign = (found * centred.sum(3)).sum(2, keepdim=True).sign()
    signed: Tensor = found * torch.where(sign == 0, 1.0, sign)
    return signed.reshape(*values.shape[:2], *values.shape[3:])


def finercam(forward: Forward, classes: Tensor, settings: Settings) -> Maps:
    """Grad-CAM of a class against the three nearest to it (Zhang et al. 2025, eq. 5 and 6).

    The target is the mean over the nearest classes d of y_c - 0.6 y_d.
    """
    strength, count = 0.6, min(3, forward.logits.shape[1] - 1)
    maps = gradcam(forward, classes, settings).maps
    if count == 0:
        return Maps(maps, torch.zeros_like(classes, dtype=torch.float32))
    own = forward.logits.gather(1, classes)
    distance = (forward.logits[:, None] - own[..., None]).abs()
    distance = distance.scatter(2, classes[..., None], float("inf"))
    nearest = distance.topk(count, largest=False).indices
    for n in range(count):
        maps = maps - strength / count * gradcam(forward, nearest[..., n], settings).maps
    return Maps(maps, torch.zeros_like(own))
