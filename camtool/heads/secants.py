"""Functions that bend, with the slopes of their secants between versions as gradients.

Between two versions of the feature maps such a slope, times what the input rose by, is what the
function rose by: maps made with it add up however strongly the function bends.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from camtool.heads.statistics import arguments

ELEMENTWISE = frozenset(
    {
        *("relu", "relu6", "hardtanh", "leaky_relu", "elu", "celu", "selu", "silu", "gelu"),
        *("hardswish", "hardsigmoid", "mish", "sigmoid", "tanh", "softplus", "logsigmoid"),
        *("softsign", "exp", "log", "log1p", "expm1", "clamp", "clamp_min", "clamp_max"),
        *("square", "abs", "pow", "sqrt", "rsqrt"),
    }
)


def secant(real: int, func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Tensor:
    """An elementwise function of [M*N,...], M versions of N = `real` pictures, as `_Secant`."""

    def function(x: Tensor) -> Tensor:
        # On a copy, for it may work in place.
        result: Tensor = func(x.clone(), *args[1:], **kwargs)
        return result

    result: Tensor = _Secant.apply(args[0], function, real)
    return result


_CLOSE = 1e-3
"""Values nearer to each other than this, relative to their size, have no secant in float32; the
derivative in the middle is as good there."""


class _Secant(torch.autograd.Function):
    """An elementwise function; its gradient is the slope of the secant from the version before."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, function: Callable[[Tensor], Tensor], real: int) -> Tensor:
        y = function(x)
        ctx.save_for_backward(x, y)
        ctx.function, ctx.real = function, real
        return y

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        x, y = ctx.saved_tensors
        before, after = x[: -ctx.real], x[ctx.real :]
        run, rise = after - before, y[ctx.real :] - y[: -ctx.real]
        with torch.enable_grad():
            middle = ((before + after) / 2).requires_grad_()
            (slope,) = torch.autograd.grad(ctx.function(middle).sum(), middle)
        far = run.abs() > _CLOSE * (before.abs() + after.abs())
        slope = torch.where(far, rise / torch.where(far, run, 1.0), slope)
        return (
            torch.cat([torch.zeros_like(x[: ctx.real]), slope * gradient[ctx.real :]]),
            None,
            None,
        )


class _MaximumSecant(torch.autograd.Function):
    """Maxima; the gradient shares the rise since the version before between two of the inputs.

    Let i be where a maximum lies now and j where it lay in the version before, d what either input
    rose by, and r what the maximum did. Then d_j <= r <= d_i, and r = s d_i + (1 - s) d_j with a
    share s from 0 to 1.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, places: Tensor, real: int) -> Tensor:
        """Maxima [N,...] of x [N,...], which lie at places [N,...] of the flattened x[n]."""
        y = x.flatten(1).gather(1, places.flatten(1))
        ctx.save_for_backward(x, y, places)
        ctx.real = real
        return y.view(places.shape)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        x, y, places = ctx.saved_tensors
        real, flat = ctx.real, places.flatten(1)
        run = (x[real:] - x[:-real]).flatten(1)
        now, before = flat[real:], flat[:-real]
        ahead, behind = run.gather(1, now), run.gather(1, before)
        rise, apart = y[real:] - y[:-real], ahead - behind
        share = torch.where(apart > 0, (rise - behind) / torch.where(apart > 0, apart, 1.0), 1.0)
        share = share.clamp(0, 1)
        down = gradient.flatten(1)[real:]
        found = x.new_zeros(x.shape).flatten(1)
        found[real:].scatter_add_(1, now, share * down)
        found[real:].scatter_add_(1, before, (1 - share) * down)
        return found.view(x.shape), None, None


def _pooled_maxima(real: int, args: Sequence[Any], kwargs: dict[str, Any]) -> Tensor | None:
    return _of_planes(real, args, kwargs, functional.max_pool2d_with_indices)


def _adaptive_maxima(real: int, args: Sequence[Any], kwargs: dict[str, Any]) -> Tensor | None:
    return _of_planes(real, args, kwargs, functional.adaptive_max_pool2d_with_indices)


def _of_planes(
    real: int, args: Sequence[Any], kwargs: dict[str, Any], pool: Callable[..., Any]
) -> Tensor | None:
    x = args[0]
    if x.ndim != 4:
        return None
    places = pool(x.detach(), *args[1:], **{**kwargs, "return_indices": True})[1]
    planes = torch.arange(x.shape[1], device=x.device).view(-1, 1, 1) * (x.shape[2] * x.shape[3])
    found: Tensor = _MaximumSecant.apply(x, places + planes, real)
    return found


def _maxima_along(real: int, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
    """`max` and `amax` over axes other than that of the batch, and `max` of two tensors."""
    x, axes, keep = arguments(args, kwargs, ("input", "dim", "keepdim"), False)
    if isinstance(axes, Tensor):
        return _larger(real, args, kwargs)
    sides = [axes] if isinstance(axes, int) else list(axes or ())
    sides = [side % x.ndim for side in sides]
    if not sides or 0 in sides:
        return None
    last = x.movedim(sides, list(range(-len(sides), 0))).flatten(-len(sides))
    cells = torch.arange(last[0].numel(), device=x.device).view(1, *last.shape[1:])
    index = last.detach().argmax(-1, keepdim=True)
    places = cells.expand(last.shape).gather(-1, index).squeeze(-1)
    found: Tensor = _MaximumSecant.apply(last, places, real)
    index = index.squeeze(-1)
    for side in sorted(sides) if keep else ():
        found, index = found.unsqueeze(side), index.unsqueeze(side)
    return found, index


def _greatest(real: int, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
    found = _maxima_along(real, args, kwargs)
    return torch.return_types.max(found) if isinstance(found, tuple) else found


def _greatest_alone(real: int, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
    found = _maxima_along(real, args, kwargs)
    return found and found[0]


def _larger(real: int, args: Sequence[Any], kwargs: dict[str, Any]) -> Tensor | None:
    if len(args) < 2:
        return None
    both = torch.stack(torch.broadcast_tensors(*args[:2]), 1)  # type: ignore[no-untyped-call]
    return _greatest_alone(real, (both, 1), {})  # type: ignore[no-any-return]


MAXIMA: dict[str, Callable[[int, Sequence[Any], dict[str, Any]], Any]] = {
    "max_pool2d": _pooled_maxima,
    "adaptive_max_pool2d": _adaptive_maxima,
    "amax": _greatest_alone,
    "max": _greatest,
    "maximum": _larger,
}
"""Functions that take the greatest of several, as `_MaximumSecant` wants them."""
