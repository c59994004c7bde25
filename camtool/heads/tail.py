"""What comes after a cut, run by itself on other feature maps than the network's own.

The network's code runs from the start, but what it does to the input before the cut is done to
shapes alone (torch's `meta` device), which costs next to nothing. At the cut the given tensor
takes the place of the network's, and from there on everything is computed. No surgery on the
network is needed: modules, plain functions and a user's own code are all alike.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils._pytree import tree_map

from camtool.errors import HeadError
from camtool.heads.cut import Counting, Cut, Place, call, tensors_of
from camtool.heads.path import Held
from camtool.heads.watch import logits_of

Shapes: TypeAlias = "dict[torch.Size, dict[tuple[str, int], Any]]"
"""Results of calls on torch's `meta` device, by the input's shape, function and number of the call.

They are the same in every run and hold no data, but take as long as a small network's forward pass:
most of torch's meta functions are written in Python."""

MOST_SHAPES = 16
"""Of inputs, whose results on shapes are kept."""


@dataclass
class Tail:
    """The rest of a network behind a cut, for one batch that went through it.

    Attributes:
        module: The network.
        cut: Where it is cut.
        tensor: What the forward pass had there, as from `Recording`.
        others: What it had at the cut's other places.
        inputs: Shape of its input.
        whole: Its input itself where the part before the cut can't be run on shapes alone.
        shapes: What earlier runs found on shapes alone, by the input's shape; may be shared by
            tails of one network and cut.
        bent: Whether the last run came by an elementwise function that is not linear.
    """

    module: nn.Module
    cut: Cut
    tensor: Tensor
    others: dict[Place, Tensor]
    inputs: torch.Size
    whole: Tensor | None = None
    shapes: Shapes = field(default_factory=dict)
    bent: bool = field(default=False, init=False)

    @property
    def features(self) -> Tensor:
        """The feature maps [N,C,h,w] at the cut."""
        return self.cut.maps(self.tensor, self.inputs[2:])

    def __call__(self, maps: Tensor, held: Held | None = None, secant: bool = False) -> Tensor:
        """The logits of feature maps.

        Args:
            maps: [M*N,C,h,w], M versions of the N pictures' feature maps, version by version.
            held: Hold the statistics of normalizations at those of the real maps: where it is
                empty at those of the last version, which it then keeps for later calls.
            secant: The gradient of an elementwise function, in each version but the first, is
                the slope of its secant from the version before.

        Returns:
            float32 [M*N,classes], with a graph where `maps` wants gradients.
        """
        times = len(maps) // len(self.tensor)
        given = {self.cut.place: self.cut.tensor(maps.to(self.tensor.dtype), self.tensor)}
        for place, tensor in self.others.items():
            given[place] = tensor.repeat(times, *[1] * (tensor.ndim - 1))
        inputs = self._inputs(times)
        mode = _Grafting(
            given, len(self.tensor), len(maps), held, secant, self._known(inputs.shape)
        )
        with mode:
            output = self.module(inputs)
        self.bent = mode.bent
        if mode.missing:
            raise HeadError(f"the network did not come by its cut again ({self.cut.place})")
        logits = logits_of(output)
        if logits.device.type == "meta" or len(logits) != len(maps):
            raise HeadError("what follows the cut does not keep the pictures of a batch apart")
        return logits.float().flatten(1)

    def _known(self, shape: torch.Size) -> dict[tuple[str, int], Any]:
        if len(self.shapes) >= MOST_SHAPES and shape not in self.shapes:
            self.shapes.clear()
        return self.shapes.setdefault(shape, {})

    def _inputs(self, times: int) -> Tensor:
        if self.whole is not None:
            return self.whole.repeat(times, 1, 1, 1)
        shape = (self.inputs[0] * times, *self.inputs[1:])
        return torch.empty(shape, dtype=self.tensor.dtype, device="meta")


@dataclass
class _Grafting(Counting):
    """Puts given tensors in their places; computes only what they and parameters lead to.

    Attributes:
        given: Tensors by place.
        real: Number of pictures, whose real maps come last.
        versions: Number of all their versions.
        held: What the real maps became where statistics are held; None where they are not.
        secant: Whether gradients of elementwise functions are slopes of secants.
        known: Results on shapes from earlier runs on an input of this shape; added to.
    """

    given: dict[Place, Tensor]
    real: int
    versions: int
    held: Held | None
    secant: bool
    known: dict[tuple[str, int], Any]
    missing: int = 0
    bent: bool = False
    _by_call: dict[tuple[str, int], Place] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__init__()
        self.missing = len(self.given)
        self._by_call = {(place.function, place.number): place for place in self.given}

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Call `func`, on shapes where the input alone leads to it."""
        kwargs = kwargs or {}
        here = self.place(func)
        key = here.function, here.number
        if key in self.known:
            output = self.known[key]
        elif any(tensor.device.type == "meta" for tensor in tensors_of((args, kwargs))):
            args, kwargs = tree_map(_to_meta, args), tree_map(_to_meta, kwargs)
            output = self.known[key] = func(*args, **kwargs)
        elif self.held is not None and self._follows(args) and _is_statistic(here.function, args):
            output = self._normalized(key, self.held, func, args, kwargs)
        elif self._bends(here.function, args):
            self.bent = True
            output = (
                _secant(self.real, func, args, kwargs) if self.secant else func(*args, **kwargs)
            )
        elif here.function in _MAXIMA and self._follows(args) and not kwargs.get("return_indices"):
            self.bent = True
            found = _MAXIMA[here.function](self.real, args, kwargs) if self.secant else None
            output = func(*args, **kwargs) if found is None else found
        elif here.function == "linear" and self._follows(args) and args[0].ndim == 3:
            x, weight, bias = _arguments(args, kwargs, ("input", "weight", "bias"), None)
            output = _TokensLinear.apply(x, weight, bias)
        else:
            output = call(func, args, kwargs)
        place = self._by_call.get(key)
        return output if place is None else self._graft(place, output)

    def _follows(self, args: tuple[Any, ...]) -> bool:
        """Whether a call's first argument comes from the cut: it wants gradients, all versions."""
        if self.missing or not args or not isinstance(args[0], Tensor):
            return False
        x = args[0]
        return x.requires_grad and not x.is_leaf and x.ndim > 0 and len(x) == self.versions

    def _bends(self, name: str, args: tuple[Any, ...]) -> bool:
        """Whether a call is an elementwise function of what comes from the cut."""
        bends = name.strip("_") in _ELEMENTWISE and self._follows(args)
        return bends and not _is_statistic(name, args)

    def _normalized(
        self, key: tuple[str, int], held: Held, func: Any, args: tuple[Any, ...], kwargs: Any
    ) -> Any:
        """What takes statistics, with the real maps of an earlier call, or the last of this one."""
        function, x = _STATISTICS[key[0]], args[0]
        if key not in held:
            held[key] = x[-self.real :].detach()
            return function(self.real, func, args, kwargs)
        return function(self.real, func, (torch.cat([x, held[key]]), *args[1:]), kwargs)[: len(x)]

    def _graft(self, place: Place, output: Any) -> Any:
        self.missing -= 1
        if isinstance(output, Tensor):
            return self.given[place]
        parts = list(output)
        parts[place.output] = self.given[place]
        return type(output)(parts) if isinstance(output, list) else tuple(parts)


def _to_meta(value: Any) -> Any:
    if isinstance(value, torch.device):
        return torch.device("meta")
    if isinstance(value, Tensor) and value.device.type != "meta":
        return torch.empty_strided(value.shape, value.stride(), dtype=value.dtype, device="meta")
    return value


# Statistics of normalizations, held at those of the real maps, which come last in the batch. With
# them held a normalization is affine, and the maps behind it keep their scale.


def _held(real: int, statistic: Tensor, times: int) -> Tensor:
    return statistic[-real:].detach().repeat(times, *[1] * (statistic.ndim - 1))


def _layer_norm(real: int, func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Tensor:
    x, shape, weight, bias, eps = _arguments(
        args, kwargs, ("input", "normalized_shape", "weight", "bias", "eps"), 1e-5
    )
    dims = tuple(range(-len(shape), 0))
    centred = x - x.mean(dims, keepdim=True)
    variance = x[-real:].detach().var(dims, correction=0, keepdim=True)
    return _scaled(centred * _held(real, (variance + eps).rsqrt(), len(x) // real), weight, bias)


def _rms_norm(real: int, func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Tensor:
    x, shape, weight, eps = _arguments(
        args, kwargs, ("input", "normalized_shape", "weight", "eps"), None
    )
    eps = torch.finfo(x.dtype).eps if eps is None else eps
    square = x[-real:].detach().square().mean(tuple(range(-len(shape), 0)), keepdim=True)
    return _scaled(x * _held(real, (square + eps).rsqrt(), len(x) // real), weight, None)


def _group_norm(real: int, func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Tensor:
    x, groups, weight, bias, eps = _arguments(
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
    x, p, dim, eps = _arguments(args, kwargs, ("input", "p", "dim", "eps"), 1e-12)
    p, dim = 2.0 if p is None else p, 1 if dim is None else dim
    length: Tensor = x[-real:].detach().norm(p, dim, keepdim=True).clamp_min(eps)
    normal: Tensor = x / _held(real, length, len(x) // real)
    return normal


def _cosine(real: int, func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Tensor:
    x, other, dim, eps = _arguments(args, kwargs, ("x1", "x2", "dim", "eps"), 1e-8)
    dim = 1 if dim is None else dim
    length = x[-real:].detach().norm(dim=dim, keepdim=True).clamp_min(eps)
    normal = x / _held(real, length, len(x) // real)
    cosine: Tensor = (normal * functional.normalize(other, dim=dim, eps=eps)).sum(dim)
    return cosine


def _is_statistic(name: str, args: Sequence[Any]) -> bool:
    """Whether a call gives a statistic; a root does only of what was summed up over channels."""
    if name == "cosine_similarity":
        return len(args) > 1 and len(args[1]) == 1
    if name not in _ROOTS:
        return name in _STATISTICS
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


def _arguments(
    args: Sequence[Any], kwargs: dict[str, Any], names: Sequence[str], last: Any
) -> list[Any]:
    """Arguments by position or by name; None where left out, `last` for the last of them."""
    found = [args[n] if n < len(args) else kwargs.get(name) for n, name in enumerate(names)]
    found[-1] = last if found[-1] is None else found[-1]
    return found


_ROOTS = ("sqrt", "rsqrt", "pow", "__pow__")

_STATISTICS: dict[str, Callable[..., Any]] = {
    "layer_norm": _layer_norm,
    "rms_norm": _rms_norm,
    "group_norm": _group_norm,
    "normalize": _normalize,
    "cosine_similarity": _cosine,
    **dict.fromkeys(("norm", "linalg_norm", "linalg_vector_norm", "var", "std"), _statistic),
    **dict.fromkeys(_ROOTS, _statistic),
}


_ELEMENTWISE = frozenset(
    {
        *("relu", "relu6", "hardtanh", "leaky_relu", "elu", "celu", "selu", "silu", "gelu"),
        *("hardswish", "hardsigmoid", "mish", "sigmoid", "tanh", "softplus", "logsigmoid"),
        *("softsign", "exp", "log", "log1p", "expm1", "clamp", "clamp_min", "clamp_max"),
        *("square", "abs", "pow", "sqrt", "rsqrt"),
    }
)


class _TokensLinear(torch.autograd.Function):
    """A linear layer on [N,T,C] that takes gradients back for those tokens alone that have some.

    Behind the last attention of a transformer the class token alone leads to the logits.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.weight = weight
        return torch.nn.functional.linear(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        tokens = gradient.flatten(0, 1)
        found = tokens.new_zeros(len(tokens), ctx.weight.shape[1])
        some = tokens.any(1)
        found[some] = tokens[some] @ ctx.weight
        return found.view(*gradient.shape[:2], -1), None, None


def _secant(real: int, func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Tensor:
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
    x, axes, keep = _arguments(args, kwargs, ("input", "dim", "keepdim"), False)
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


_MAXIMA: dict[str, Callable[[int, Sequence[Any], dict[str, Any]], Any]] = {
    "max_pool2d": _pooled_maxima,
    "adaptive_max_pool2d": _adaptive_maxima,
    "amax": _greatest_alone,
    "max": _greatest,
    "maximum": _larger,
}
"""Functions that take the greatest of several, as `_MaximumSecant` wants them."""
