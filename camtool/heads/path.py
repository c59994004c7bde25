"""The integral of a tail's gradient along the straight path from no evidence to the real maps.

Integrated gradients (Sundararajan et al. 2017, eq. 1), taken at the cut: for a class c

    M_c = h w sum_k F_k  integral_0^1  dt_c/dF_k (u F) du,    b_c = t_c(0)

and by the fundamental theorem of calculus mean(M_c) + b_c = t_c(F), the logit. Statistics of
normalizations are held at their real values along the path; behind them the gradient would
otherwise vanish in the maps' own direction.

Two rules. *Secants*: between two points of the path the mean derivative of an elementwise function
is the slope of its secant, exactly where its input is linear along the path (one hidden layer), and
sums telescope however many layers there are. *Gauss-Legendre* for what is smooth and not
elementwise, such as attention.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Literal, NamedTuple, Protocol, TypeAlias

import numpy as np
import torch
from torch import Tensor

QuadratureRule: TypeAlias = Literal["secant", "gauss"]

MOST_AT_ONCE = 64
"""Versions of pictures that go through a tail in one batch."""


class Continuation(Protocol):
    """From feature maps to logits, as `Tail` does it."""

    def __call__(self, maps: Tensor, frozen: bool = False, secant: bool = False) -> Tensor:
        """Logits float32 [M*N,classes] of M versions of N pictures' maps."""


class Steps(NamedTuple):
    """How a path is divided: the rule and the number of points or intervals."""

    rule: QuadratureRule = "secant"
    number: int = 1


ONE_STEP = Steps("gauss", 1)


class Integral(NamedTuple):
    """What came of an integration.

    Attributes:
        maps: float32 [N,K,h,w], in logits.
        bias: float32 [N,K], the logits without any evidence.
        missing: float32 [N,K], what the sum misses of the logits.
        steps: How the path was divided.
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
        points = tuple(n / steps.number for n in range(steps.number + 1))
        gradients, none, full = _gradients(tail, features, classes, points, None)
    else:
        gradients, none, full = _gauss_gradients(tail, features, classes, steps.number)
    maps = (gradients * features[:, None]).sum(2) * (features.shape[2] * features.shape[3])
    bias = none.gather(1, classes)
    missing = full.gather(1, classes) - bias - maps.mean((2, 3))
    return Integral(maps, bias, missing, steps), _spread(full, maps)


def _gauss_gradients(
    tail: Continuation, features: Tensor, classes: Tensor, number: int
) -> tuple[Tensor, Tensor, Tensor]:
    points, weights = gauss(number)
    at_once = max(1, MOST_AT_ONCE // len(features) - 2)
    total = features.new_zeros(())
    for start in range(0, number, at_once):
        some = slice(start, start + at_once)
        part, none, full = _gradients(
            tail, features, classes, (*points[some], 0.0, 1.0), weights[some]
        )
        total = total + part
    return total, none, full


def _spread(logits: Tensor, maps: Tensor) -> Tensor:
    """Of each picture's logits [N,classes]; of a single one the largest evidence."""
    if logits.shape[1] > 1:
        return logits.amax(1) - logits.amin(1)
    return maps.abs().amax((1, 2, 3))


@torch.enable_grad()
def _gradients(
    tail: Continuation,
    features: Tensor,
    classes: Tensor,
    points: tuple[float, ...],
    weights: tuple[float, ...] | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Mean gradient along the path, [N,K,C,h,w], and the logits at its two ends.

    Args:
        tail: What follows the cut.
        features: [N,C,h,w].
        classes: [N,K].
        points: Of the path; the last is 1. For secants the ends of the intervals from 0 on, else
            the points of the rule, then 0.
        weights: Of the rule's points; None for secants, whose slopes stand at the intervals' ends.
    """
    count, number = len(points), len(features)
    scale = features.new_tensor(points).view(-1, 1, 1, 1, 1)
    versions = (scale * features).detach().flatten(0, 1).requires_grad_()
    logits = tail(versions, frozen=True, secant=weights is None)
    used = slice(1, count) if weights is None else slice(0, count - 2)
    shares = features.new_tensor(weights or [1 / (count - 1)] * (count - 1)).view(-1, 1, 1, 1, 1)
    along = logits.view(count, number, -1)[used]
    means = []
    for k in range(classes.shape[1]):
        picked = along.gather(2, classes[None, :, k : k + 1].expand(len(along), -1, -1))
        (gradient,) = torch.autograd.grad(
            picked.sum(), versions, retain_graph=k + 1 < classes.shape[1], allow_unused=True
        )
        gradient = torch.zeros_like(versions) if gradient is None else gradient
        means.append((shares * gradient.view(count, *features.shape)[used]).sum(0))
    ends = logits.detach().view(count, number, -1)
    return torch.stack(means, 1), ends[0 if weights is None else -2], ends[-1]
