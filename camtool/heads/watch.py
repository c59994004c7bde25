"""Watching a forward pass at the level of function calls, to see what is pooled.

Modules are the wrong level: DenseNet's last ReLU, MNASNet's and ShuffleNet's pooling are plain
calls in `forward`, and a network written by a user may be anything.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from camtool.errors import HeadError


@dataclass
class Pool:
    """One call that pools over all positions of a feature map.

    Attributes:
        function: Name of the function that was called.
        features: What it pooled, [N,C,h,w] (a channels-last map is permuted to that).
        output: What it gave; None for maximum pooling, which no class map adds up to.
    """

    function: str
    features: Tensor
    output: Tensor


@dataclass
class Call:
    """One function call after the last pool, with what it took and gave."""

    function: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    output: Any

    def argument(self, position: int, name: str) -> Any:
        """The argument at a position or of a name; None if it was left out."""
        return self.args[position] if len(self.args) > position else self.kwargs.get(name)


@dataclass
class PoolWatch(TorchFunctionMode):
    """Sees every torch function called inside `with watch:` and keeps the last global pool.

    Attributes:
        pool: The last global average pool seen.
        other: Name of the last pooling that is no global average, e.g. a maximum.
        after: With `keep_calls`, the calls since `pool`.
    """

    keep_calls: bool = False
    pool: Pool | None = None
    other: str | None = None
    after: list[Call] = field(default_factory=list)
    _flat: dict[int, tuple[Tensor, Tensor]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__init__()

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Call `func` and look at it."""
        kwargs = kwargs or {}
        look = _LOOKS.get(getattr(func, "__name__", ""))
        output = func(*args, **kwargs)
        if look is not None:
            look(self, Call(func.__name__, args, kwargs, output))
        if self.keep_calls and self.pool is not None and isinstance(output, Tensor):
            self.after.append(Call(getattr(func, "__name__", str(func)), args, kwargs, output))
        return output

    @property
    def refusal(self) -> str:
        """What was seen in place of a global average pool."""
        found = f"its last pooling is {self.other}" if self.other else "nothing is pooled"
        return f"no global average pooling was seen: {found}"

    def _found(self, call: Call, features: Tensor) -> None:
        self.pool = Pool(call.function, features, call.output)
        self.other = None
        self.after.clear()
        self._flat.clear()

    def _see_pool2d(self, call: Call) -> None:
        features = call.argument(0, "input")
        if not isinstance(call.output, Tensor) or features.ndim != 4:
            return
        if call.output.shape[2:] == (1, 1) and ("adaptive" in call.function or _covers(call)):
            self._found(call, features)
        elif features.shape[2:] != call.output.shape[2:] or "adaptive" in call.function:
            h, w = call.output.shape[2:]
            self.other = f"{call.function} to {h}×{w}"

    def _see_max(self, call: Call) -> None:
        output = call.output[0] if isinstance(call.output, tuple) else call.output
        features = call.argument(0, "input")
        if isinstance(output, Tensor) and getattr(features, "ndim", 0) == 4:
            spatial = output.shape[2:] if output.ndim == 4 else (1, 1)
            if tuple(spatial) == (1, 1) and output.numel() == features.shape[0] * features.shape[1]:
                self.other = f"{call.function} over all positions"

    def _see_flat(self, call: Call) -> None:
        """Remember [N,C,h,w] -> [N,C,h*w], so that a mean over the last axis is understood."""
        source, output = call.argument(0, "input"), call.output
        if (
            isinstance(source, Tensor)
            and isinstance(output, Tensor)
            and source.ndim == 4
            and output.shape == (*source.shape[:2], source.shape[2] * source.shape[3])
        ):
            self._flat[id(output)] = (output, source)

    def _see_mean(self, call: Call) -> None:
        source = call.argument(0, "input")
        named = _mean_dims(call)
        if not isinstance(source, Tensor) or named is None:
            return
        dims = {dim % source.ndim for dim in named}
        flat = self._flat.get(id(source))
        if source.ndim == 4 and dims == {2, 3}:
            self._found(call, source)
        elif source.ndim == 4 and dims == {1, 2}:
            self._found(call, source.permute(0, 3, 1, 2))
        elif source.ndim == 4 and dims in ({2}, {3}) and call.output.ndim == 3:
            self._flat[id(call.output)] = (call.output, source)
        elif source.ndim == 3 and dims == {2} and flat is not None:
            self._found(call, flat[1])


def _covers(call: Call) -> bool:
    """Whether the window of an `avg_pool2d` is the feature map, no less and no padding."""
    window, padding = call.argument(1, "kernel_size"), call.argument(3, "padding") or 0
    height, width = (window, window) if isinstance(window, int) else (*window, *window)[:2]
    unpadded = padding == 0 or not any(padding if isinstance(padding, (tuple, list)) else [1])
    return unpadded and tuple(call.argument(0, "input").shape[2:]) == (height, width)


def _mean_dims(call: Call) -> tuple[int, ...] | None:
    dims = call.argument(1, "dim")
    if dims is None:
        dims = call.kwargs.get("axis")
    if len(call.args) > 2 and all(type(value) is int for value in call.args[1:]):
        dims = call.args[1:]
    if dims is None:
        return None
    return (dims,) if isinstance(dims, int) else tuple(dims)


_LOOKS: dict[str, Callable[[PoolWatch, Call], None]] = {
    "adaptive_avg_pool2d": PoolWatch._see_pool2d,
    "avg_pool2d": PoolWatch._see_pool2d,
    "mean": PoolWatch._see_mean,
    "flatten": PoolWatch._see_flat,
    "view": PoolWatch._see_flat,
    "reshape": PoolWatch._see_flat,
    "adaptive_max_pool2d": PoolWatch._see_max,
    "max_pool2d": PoolWatch._see_max,
    "boolean_dispatch": PoolWatch._see_max,
    "amax": PoolWatch._see_max,
}


@contextmanager
def outputs_noted(module: nn.Module, note: Callable[[str, Any], None]) -> Iterator[None]:
    """Tell the name and the output of every module that runs; the hooks are gone afterwards."""

    def hook(name: str) -> Callable[[nn.Module, Any, Any], None]:
        return lambda _module, _inputs, output: note(name, output)

    handles = [
        part.register_forward_hook(hook(name)) for name, part in module.named_modules() if name
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


class Names:
    """Which module, or which call inside one, a tensor came from."""

    def __init__(self) -> None:
        self._names: dict[int, tuple[Tensor, str]] = {}

    def of(self, tensor: Tensor) -> str:
        """The module whose output the tensor is; "" if none is known."""
        return self._names.get(id(tensor), (tensor, ""))[1]

    @contextmanager
    def listening(self, module: nn.Module) -> Iterator[None]:
        """Note the outputs of all modules."""
        with outputs_noted(module, self._note), _InPlace(self):
            yield

    def _note(self, name: str, output: Any) -> None:
        if isinstance(output, Tensor):
            self._names[id(output)] = (output, name)

    def wrap(self, source: Tensor, output: Tensor, function: str) -> None:
        """Note that `output` is a function of a tensor with a name."""
        name = self.of(source)
        if name:
            self._names[id(output)] = (output, f"{function.rstrip('_')}({name})")


class _InPlace(TorchFunctionMode):
    """Names what a plain call makes of a module's output, in place or not."""

    def __init__(self, names: Names) -> None:
        super().__init__()
        self._names = names

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        output = func(*args, **(kwargs or {}))
        if isinstance(output, Tensor) and args and isinstance(args[0], Tensor):
            self._names.wrap(args[0], output, getattr(func, "__name__", "call"))
        return output


def same_values(a: Tensor, b: Tensor) -> bool:
    """Whether two tensors hold the same numbers in the same order, whatever their shape."""
    return a.numel() == b.numel() and torch.equal(a.detach().reshape(-1), b.detach().reshape(-1))


def run(body: nn.Module, inputs: Tensor) -> tuple[Tensor, Tensor]:
    """Run a network, and take what its last global average pool sees as well as its answer.

    Args:
        body: The network, in evaluation mode.
        inputs: [N,C,H,W], in the network's dtype, on its device.

    Returns:
        Feature maps [N,C,h,w] and logits [N,classes], in the forward's dtype.

    Raises:
        HeadError: Nothing was pooled over all positions for this input size.
    """
    with torch.no_grad(), PoolWatch() as watch:
        output = body(inputs)
    if watch.pool is None or watch.other is not None:
        raise HeadError(watch.refusal)
    return watch.pool.features, logits_of(output).flatten(1)


def logits_of(output: Any) -> Tensor:
    """The logits in whatever a network returns: a tensor, a tuple, a dict or a record.

    A single logit whose axis was squeezed away, [N] or one number, is given as [N,1].
    """
    logits = _logits_in(output)
    return logits if logits.ndim > 1 else logits.reshape(-1, 1)


def _logits_in(output: Any) -> Tensor:
    if isinstance(output, Tensor):
        return output
    if isinstance(output, (tuple, list)) and output and isinstance(output[0], Tensor):
        return output[0]
    if isinstance(output, dict) and isinstance(output.get("logits"), Tensor):
        return output["logits"]  # type: ignore[no-any-return]
    logits = getattr(output, "logits", None)
    if isinstance(logits, Tensor):
        return logits
    keys = f" of {', '.join(map(repr, output))}" if isinstance(output, dict) else ""
    raise HeadError(
        f"the network returns {type(output).__name__}{keys}, where no logits were found; name "
        "them: --logits, or output="
    )
