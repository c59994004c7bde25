"""The integral of a tail's gradient along the straight path from no evidence to the real maps.

Integrated gradients (Sundararajan et al. 2017, eq. 1), taken at the cut: for a class c

    M_c = h w sum_k F_k  integral_0^1  dt_c/dF_k (u F) du,    b_c = t_c(0)

and by the fundamental theorem of calculus mean(M_c) + b_c = t_c(F), the logit. Statistics of
normalizations are held at their real values along the path; behind them the gradient would
otherwise vanish in the maps' own direction.

Two rules. *Secants*: the mean derivative of an elementwise function is the slope of its secant
between the ends of the path, exactly where its input is linear along the path (one hidden layer),
and sums telescope however many layers there are (with several it is the rescale rule of DeepLIFT,
Shrikumar et al. 2017, section 3.5.1). *Gauss-Legendre* for what is smooth and not elementwise, such
as attention.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Literal, NamedTuple, Protocol, TypeAlias

import numpy as np
import torch
from torch import Tensor

QuadratureRule: TypeAlias = Literal["secant", "gauss"]

MOST_AT_ONCE = 64
"""Versions of pictures that go through a tail in one batch."""

MOST_VALUES = 1 << 21
"""Of their features; more take memory, for what follows keeps many times as much, and save none of
the time."""


Held: TypeAlias = "dict[tuple[str, int], Tensor]"
"""What the real maps became where a normalization takes its statistics, by function and call."""


class Continuation(Protocol):
    """From feature maps to logits, as `Tail` does it."""

    def __call__(self, maps: Tensor, held: Held | None = None, secant: bool = False) -> Tensor:
        """Logits float32 [M*N,classes] of M versions of N pictures' maps."""


class Steps(NamedTuple):
    """The rule and its number of points on the path; secants go from end to end."""

    rule: QuadratureRule = "secant"
    number: int = 1


SECANT = Steps("secant", 1)
ONE_STEP = Steps("gauss", 1)


class Integral(NamedTuple):
    """What came of an integration.

    Attributes:
        maps: float32 [N,K,h,w], in logits.
        bias: float32 [N,K], the logits without any evidence.
        missing: float32 [N,K], what the sum misses of the logits.
        steps: The rule, and at how many points.
    """

    maps: Tensor
    bias: Tensor
    missing: Tensor
    steps: Steps


@lru_cache(maxsize=16)
def gauss(number: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Points and weights of the Gauss-Legendre rule on 0..1, exact up to degree 2 number - 1."""
    points, weights = np.polynomial.legendre.leggauss(number)
    return tuple((points + 1) / 2), tuple(weights / 2)


def integrate(
    tail: Continuation,
    features: Tensor,
    classes: Tensor,
    tolerance: float,
    most: int,
    first: Steps = ONE_STEP,
    go_on: bool = True,
) -> Integral:
    """Integrate with as few steps as reach a tolerance.

    Args:
        tail: What follows the cut.
        features: float32 [N,C,h,w], at the cut.
        classes: int64 [N,K].
        tolerance: Largest part of the logits' spread that may be missed.
        most: Steps at the most.
        first: Steps to begin with, by default one; where they do not suffice, Gauss-Legendre
            steps are doubled.
        go_on: Whether they are, or the first are taken whatever they miss.
    """
    steps = first._replace(number=min(first.number, most))
    while True:
        found, spread = _integrate(tail, features, classes, steps)
        if not go_on or bool((found.missing.abs().amax(1) <= tolerance * spread).all()):
            return found
        following = steps.number * 2 if steps.rule == "gauss" else 1
        if steps == Steps("gauss", most):
            return found
        steps = Steps("gauss", min(following, most))


def _integrate(
    tail: Continuation, features: Tensor, classes: Tensor, steps: Steps
) -> tuple[Integral, Tensor]:
    if steps.rule == "secant":
        gradients, none, full = _secant_gradients(tail, features, classes)
    else:
        gradients, none, full = _gauss_gradients(tail, features, classes, steps.number)
    maps = (gradients * features[:, None]).sum(2) * (features.shape[2] * features.shape[3])
    bias = none.gather(1, classes)
    missing = full.gather(1, classes) - bias - maps.mean((2, 3))
    return Integral(maps, bias, missing, steps), _spread(full, maps)


def _gauss_gradients(
    tail: Continuation, features: Tensor, classes: Tensor, number: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Mean gradient along the path, [N,K,C,h,w], and the logits at its two ends.

    The ends come first and by themselves: nothing has to be kept of them for gradients.
    """
    points, weights = gauss(number)
    held: Held = {}
    at_once = max(1, min(MOST_AT_ONCE // len(features), MOST_VALUES // features.numel()))
    none, full = _ends(tail, features, held, at_once)
    total = features.new_zeros(())
    for start in range(0, number, at_once):
        some = slice(start, start + at_once)
        versions, logits = _along(tail, features, points[some], held)
        total = total + _gradients(versions, logits, classes, weights[some])
    return total, none, full


def _ends(tail: Continuation, features: Tensor, held: Held, at_once: int) -> tuple[Tensor, Tensor]:
    """Logits [N,classes] of the path's begin and of its end."""
    if at_once > 1:
        none, full = _along(tail, features, (0.0, 1.0), held)[1].detach()
        return none, full
    # The real maps first: statistics are held at theirs.
    full = _along(tail, features, (1.0,), held)[1].detach()[0]
    return _along(tail, features, (0.0,), held)[1].detach()[0], full


def jacobian(tail: Continuation, features: Tensor, at_once: int = 64) -> tuple[Tensor, Tensor]:
    """The matrix and the bias of a tail that is affine in the mean of the feature maps.

    Args:
        tail: What follows the cut; statistics of normalizations are held at those of the maps.
        features: float32 [1,C,h,w].
        at_once: Classes whose gradients are in memory at once.

    Returns:
        float32 [classes,C] and [classes]: logits = matrix @ features.mean((2, 3)) + bias.
    """
    none = _along(tail, features, (0.0, 1.0), {})[1].detach()[0]
    parts = [
        _gauss_gradients(tail, features, some[None], 1)[0][0].sum((2, 3))
        for some in torch.split(torch.arange(none.shape[1], device=features.device), at_once)
    ]
    return torch.cat(parts), none[0]


def _secant_gradients(
    tail: Continuation, features: Tensor, classes: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """As `_gauss_gradients`, by the slopes from one end of the path to the other."""
    versions, logits = _along(tail, features, (0.0, 1.0), {}, secant=True)
    gradients = _gradients(versions, logits, classes, (0.0, 1.0))
    return gradients, *logits.detach()


def _spread(logits: Tensor, maps: Tensor) -> Tensor:
    """Of each picture's logits [N,classes]; of a single one the largest evidence."""
    if logits.shape[1] > 1:
        return logits.amax(1) - logits.amin(1)
    return maps.abs().amax((1, 2, 3))


@torch.enable_grad()
def _along(
    tail: Continuation,
    features: Tensor,
    points: tuple[float, ...],
    held: Held,
    secant: bool = False,
) -> tuple[Tensor, Tensor]:
    """Versions [P,N,C,h,w] of the features at points of the path, and their logits [P,N,classes].

    Args:
        tail: What follows the cut.
        features: [N,C,h,w].
        points: Of the path; the last is 1 where `held` is empty.
        held: For statistics; filled by the first call.
        secant: As for `Tail`.
    """
    scale = features.new_tensor(points).view(-1, 1, 1, 1, 1)
    versions = (scale * features).detach().requires_grad_()
    logits = tail(versions.flatten(0, 1), held=held, secant=secant)
    return versions, logits.view(len(points), len(features), -1)


@torch.enable_grad()
def _gradients(
    versions: Tensor, logits: Tensor, classes: Tensor, shares: Sequence[float]
) -> Tensor:
    """The gradients [N,K,C,h,w] of classes [N,K], summed over versions with shares [P]."""
    means = []
    used = [place for place, share in enumerate(shares) if share]
    for k in range(classes.shape[1]):
        picked = logits.gather(2, classes[None, :, k : k + 1].expand(len(logits), -1, -1))
        picked = picked[used]
        (gradient,) = torch.autograd.grad(
            picked.sum(), versions, retain_graph=k + 1 < classes.shape[1], allow_unused=True
        )
        gradient = torch.zeros_like(versions) if gradient is None else gradient
        means.append(_mean(gradient, shares))
    return torch.stack(means, 1) if len(means) > 1 else means[0][:, None]


def _mean(gradient: Tensor, shares: Sequence[float]) -> Tensor:
    if shares[-1] == 1 and not any(shares[:-1]):
        return gradient[-1]
    return (gradient.new_tensor(shares).view(-1, 1, 1, 1, 1) * gradient).sum(0)
