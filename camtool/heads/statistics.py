"""Statistics of normalizations, held at those of the real maps, which come last in the batch.

With them held a normalization is affine, and the maps behind it keep their scale.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional


def _held(real: int, statistic: Tensor, times: int) -> Tensor:
    return statistic[-real:].detach().repeat(times, *[1] * (statistic.ndim - 1))


def _layer_norm(real: int, func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Tensor:
    x, shape, weight, bias, eps = arguments(
        args, kwargs, ("input", "normalized_shape", "weight", "bias", "eps"), 1e-5
    )
    dims = tuple(range(-len(shape), 0))
    centred = x - x.mean(dims, keepdim=True)
    variance = x[-real:].detach().var(dims, correction=0, keepdim=True)
    return _scaled(centred * _held(real, (variance + eps).rsqrt(), len(x) // real), weight, bias)


def _rms_norm(real: int, func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Tensor:
    x, shape, weight, eps = arguments(
        args, kwargs, ("input", "normalized_shape", "weight", "eps"), None
    )
    eps = torch.finfo(x.dtype).eps if eps is None else eps
    square = x[-real:].detach().square().mean(tuple(range(-len(shape), 0)), keepdim=True)
    return _scaled(x * _held(real, (square + eps).rsqrt(), len(x) // real), weight, None)


def _group_norm(real: int, func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Tensor:
    x, groups, weight, bias, eps = arguments(
        args, kwargs, ("input", "num_groups", "weight", "bias", "eps"), 1e-5
    )
    grouped = x.reshape(len(x), groups, -1)
    centred = grouped - grouped.mean(-1, keepdim=True)
    variance = grouped[-real:].detach().var(-1, correction=0, keepdim=True)
    normal = centred * _held(real, (variance + eps).rsqrt(), len(x) // real)
    sides = [1] * (x.ndim - 2)
    weight, bias = (None if p is None else p.reshape(-1, *sides) for p in (weight, bias))
    return _scaled(normal.reshape(x.shape), weight, bias)


def _normalize(real: int, func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Tensor:
    x, p, dim, eps = arguments(args, kwargs, ("input", "p", "dim", "eps"), 1e-12)
    p, dim = 2.0 if p is None else p, 1 if dim is None else dim
    length: Tensor = x[-real:].detach().norm(p, dim, keepdim=True).clamp_min(eps)
    normal: Tensor = x / _held(real, length, len(x) // real)
    return normal


def _cosine(real: int, func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Tensor:
    x, other, dim, eps = arguments(args, kwargs, ("x1", "x2", "dim", "eps"), 1e-8)
    dim = 1 if dim is None else dim
    length = x[-real:].detach().norm(dim=dim, keepdim=True).clamp_min(eps)
    normal = x / _held(real, length, len(x) // real)
    cosine: Tensor = (normal * functional.normalize(other, dim=dim, eps=eps)).sum(dim)
    return cosine


def is_statistic(name: str, args: Sequence[Any]) -> bool:
    """Whether a call gives a statistic; a root does only of what was summed up over channels."""
    if name == "cosine_similarity":
        return len(args) > 1 and len(args[1]) == 1
    if name not in _ROOTS:
        return name in STATISTICS
    if "pow" in name and (len(args) < 2 or args[1] not in (0.5, -0.5)):
        return False
    shape = args[0].shape
    pooled = len(shape) == 4 and shape[1] > 1 and tuple(shape[2:]) == (1, 1)
    return (len(shape) == 1 or 1 in shape[1:]) and not pooled


def _statistic(real: int, func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
    """A statistic that a network computes itself: a norm, a variance, 1 / sqrt."""
    output = func(*args, **kwargs)
    first = args[0] if args else kwargs.get("input")
    if not isinstance(output, Tensor) or output.ndim == 0 or len(output) % real:
        return output
    if not isinstance(first, Tensor) or len(output) != len(first):
        return output
    return _held(real, output, len(output) // real)


def _scaled(x: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    x = x if weight is None else x * weight
    return x if bias is None else x + bias


def arguments(
    args: Sequence[Any], kwargs: dict[str, Any], names: Sequence[str], last: Any
) -> list[Any]:
    """Arguments by position or by name; None where left out, `last` for the last of them."""
    found = [args[n] if n < len(args) else kwargs.get(name) for n, name in enumerate(names)]
    found[-1] = last if found[-1] is None else found[-1]
    return found


_ROOTS = ("sqrt", "rsqrt", "pow", "__pow__")

STATISTICS: dict[str, Callable[..., Any]] = {
    "layer_norm": _layer_norm,
    "rms_norm": _rms_norm,
    "group_norm": _group_norm,
    "normalize": _normalize,
    "cosine_similarity": _cosine,
    **dict.fromkeys(("norm", "linalg_norm", "linalg_vector_norm", "var", "std"), _statistic),
    **dict.fromkeys(_ROOTS, _statistic),
}
