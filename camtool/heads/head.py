"""Finding the head of a network by watching it run, and proving it by numbers."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from camtool.errors import HeadError
from camtool.heads.watch import Call, Names, Pool, PoolWatch, same_values

TOLERANCE = 1e-5
"""Largest |mean(M) + b - logit|, relative to the spread of the logits, that is called exact.

float32 carries 1.2e-7 relative; a sum over 2,048 channels and 49 positions in another order was
seen to move the result by up to some 1e-6 of the spread. Ten times that leaves room for other
processors; a head that is not linear misses it by orders of magnitude."""

_HALF = {torch.float16, torch.bfloat16}


@dataclass(frozen=True)
class Head:
    """The head of a network: what is pooled, and what makes logits of it.

    Attributes:
        kind: "linear": global average pooling, then one linear layer. "maps": the network makes
            one map for each class and pools them; the map is the class map, its bias inside.
        features: The module (or call on a module's output) that gives the pooled feature maps.
        pool: The function that pools.
        layer: Name of the linear layer's weight parameter; "" for one map a class.
        bias: Name of its bias parameter; "" where there is none.
        channels: Number of feature maps, C.
        classes: Number of classes.
        shape: (h, w) of the feature maps on the input that the head was found with.
        input: (height, width) of that input.
        max_error: max |mean(M) + b - logit| over a random input, relative to the logits' spread
            (to the map's largest value where there is one class only).
        transposed: The weight parameter is [C,classes], as in `pooled @ weight`.
        exact: `max_error` is within `TOLERANCE`.
    """

    kind: Literal["linear", "maps"]
    features: str
    pool: str
    layer: str
    bias: str
    channels: int
    classes: int
    shape: tuple[int, int]
    input: tuple[int, int]
    max_error: float = float("inf")
    transposed: bool = False

    @property
    def exact(self) -> bool:
        """Whether the class maps add up to the logits within `TOLERANCE`."""
        return self.max_error <= TOLERANCE

    @property
    def stride(self) -> int:
        """Input pixels to one cell: the nearest power of two to the measured ratio."""
        ratio = max(self.input) / max(self.shape)
        return int(2 ** round(torch.tensor(ratio).log2().item()))

    @property
    def parameters(self) -> int:
        """Parameters of the linear layer (0 for one map a class)."""
        if self.kind == "maps":
            return 0
        return self.classes * self.channels + (self.classes if self.bias else 0)

    @property
    def dense_parameters(self) -> int:
        """What flatten-and-dense on the same features would cost: C·h·w·classes + classes."""
        return self.channels * self.shape[0] * self.shape[1] * self.classes + self.classes

    def parameters_of(self, module: nn.Module) -> tuple[Tensor | None, Tensor | None]:
        """The linear layer's weight [classes,C] and bias [classes], as they are in `module` now."""
        if self.kind == "maps":
            return None, None
        weight = module.get_parameter(self.layer).flatten(1)
        weight = weight.T if self.transposed else weight
        return weight, module.get_parameter(self.bias) if self.bias else None

    def describe(self) -> dict[str, Any]:
        """The JSON record of the head."""
        return {
            "kind": self.kind,
            "features": self.features,
            "channels": self.channels,
            "exact": self.exact,
            "max_error": self.max_error,
        }


def features_of(module: nn.Module, inputs: Tensor) -> Tensor:
    """Run a network and take what its last global average pool sees: the body of the network.

    Args:
        module: The network, in evaluation mode.
        inputs: [N,3,H,W], in the network's dtype, on its device.

    Returns:
        [N,C,h,w] in the forward's dtype.

    Raises:
        HeadError: Nothing was pooled over all positions for this input size.
    """
    with torch.no_grad(), PoolWatch() as watch:
        module(inputs)
    if watch.pool is None or watch.other is not None:
        raise HeadError(_no_pool(watch))
    features: Tensor = watch.pool.features
    return features


def find_head(module: nn.Module, size: int = 224) -> Head:
    """Find the head of a network by running it once on a random input, and prove it.

    The module is not changed: mode, hooks, gradients and device are as before. One in half
    precision is proved on a copy in float32: rounding to 8 or 11 bits would hide any error.

    Args:
        module: The network, on any device.
        size: Side of the square random input, in pixels.

    Returns:
        The head with its measured error.

    Raises:
        HeadError: There is no head from which exact class maps follow; says what was found.
    """
    if any(parameter.dtype in _HALF for parameter in module.parameters()):
        module = copy.deepcopy(module).float()
    inputs = probe_input(module, size)
    names = Names()
    watch = PoolWatch(keep_calls=True)
    with evaluating(module), torch.no_grad(), names.listening(module), watch:
        logits = logits_of(module(inputs))
    if watch.pool is None or watch.other is not None:
        raise HeadError(_no_pool(watch))
    head = _head(module, watch.pool, watch.after, logits, names)
    head = replace(head, input=(size, size), max_error=_error(module, head, watch.pool, logits))
    if not head.exact:
        raise HeadError(
            f"the class maps of {head.features} do not add up to the logits: the error is "
            f"{head.max_error:.1e} of their spread, the tolerance {TOLERANCE:.0e}"
        )
    return head


def probe_input(module: nn.Module, size: int) -> Tensor:
    """A seeded random input [1,3,size,size] of the module's own dtype, on its device."""
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(1, 3, size, size, generator=generator)
    like = next((p for p in module.parameters() if p.is_floating_point()), inputs)
    return inputs.to(like.device, like.dtype)


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Evaluation mode inside, and afterwards every part's own mode as before."""
    before = [(part, part.training) for part in module.modules() if part.training]
    try:
        if before:
            module.eval()
        yield
    finally:
        for part, mode in before:
            part.training = mode


def logits_of(output: Any) -> Tensor:
    """The logits in whatever a network returns: a tensor, a tuple, a dict or a record."""
    if isinstance(output, Tensor):
        return output
    if isinstance(output, (tuple, list)) and output and isinstance(output[0], Tensor):
        return output[0]
    if isinstance(output, dict) and isinstance(output.get("logits"), Tensor):
        return output["logits"]  # type: ignore[no-any-return]
    logits = getattr(output, "logits", None)
    if isinstance(logits, Tensor):
        return logits
    raise HeadError(f"the network returns {type(output).__name__}, where no logits were found")


def _head(module: nn.Module, pool: Pool, after: list[Call], logits: Tensor, names: Names) -> Head:
    features = pool.features
    if logits.ndim < 2 or logits[0].numel() != logits.shape[1]:
        raise HeadError(f"the network's output has shape {tuple(logits.shape)}, not [N,classes]")
    shape = (features.shape[2], features.shape[3])
    found = Head(
        kind="maps",
        features=names.of(features) or f"the input of {pool.function}",
        pool=pool.function,
        layer="",
        bias="",
        channels=features.shape[1],
        classes=logits.shape[1],
        shape=shape,
        input=(0, 0),
    )
    if same_values(pool.output, logits):
        return found
    call = _linear_call(after, pool, logits)
    used, used_bias = _weights(call)
    weight, bias = _parameter_name(module, used), _parameter_name(module, used_bias)
    if not weight:
        raise HeadError(
            f"after {pool.function} of {found.features} comes {call.function} with a weight that "
            "is no parameter of the network; a class map needs the layer's own weights"
        )
    transposed = _is_transposed(module.get_parameter(weight), used)
    return replace(found, kind="linear", layer=weight, bias=bias, transposed=transposed)


def _linear_call(after: list[Call], pool: Pool, logits: Tensor) -> Call:
    """The one linear layer that takes the pooled vector as it is and gives the logits."""
    for call in after:
        if _is_linear(call) and same_values(_linear_input(call), pool.output):
            if same_values(call.output, logits):
                return call
            raise HeadError(
                f"after {pool.function} and the linear layer come further steps "
                f"({_between(after, call.output)}); an exact class map needs the linear layer's "
                "output to be the logits"
            )
    raise HeadError(
        f"between {pool.function} and the logits lie {_between(after, pool.output)}; an exact "
        "class map needs global average pooling followed by one linear layer alone"
    )


def _is_linear(call: Call) -> bool:
    if call.function in ("linear", "addmm"):
        return True
    if call.function == "conv2d":
        weight = call.argument(1, "weight")
        groups = call.argument(6, "groups") or 1
        return tuple(weight.shape[2:]) == (1, 1) and groups == 1
    return call.function in ("matmul", "mm", "__matmul__") and _is_matrix(call.argument(1, "other"))


def _is_matrix(value: Any) -> bool:
    return isinstance(value, Tensor) and value.ndim == 2


def _linear_input(call: Call) -> Tensor:
    vector: Tensor = call.argument(*((1, "mat1") if call.function == "addmm" else (0, "input")))
    return vector


def _weights(call: Call) -> tuple[Tensor, Tensor | None]:
    """The weight [classes,C] (or [classes,C,1,1]) and the bias of a linear call."""
    if call.function == "addmm":
        return call.argument(2, "mat2").T, call.argument(0, "input")
    if call.function in ("linear", "conv2d"):
        return call.argument(1, "weight"), call.argument(2, "bias")
    return call.argument(1, "mat2" if call.function == "mm" else "other").T, None


def _parameter_name(module: nn.Module, tensor: Tensor | None) -> str:
    """The parameter that a tensor is, or of which it is a transposed view."""
    if tensor is None:
        return ""
    for name, parameter in module.named_parameters():
        if parameter.data_ptr() == tensor.data_ptr() and parameter.numel() == tensor.numel():
            return name
    return ""


def _is_transposed(parameter: Tensor, used: Tensor) -> bool:
    """Whether the weight in use, [classes,C,...], is the parameter's transpose."""
    flat = parameter.flatten(1)
    return flat.shape != used.flatten(1).shape or flat.stride() != used.flatten(1).stride()


def _between(after: list[Call], start: Tensor) -> str:
    """The names of the computing steps after `start`, as a sentence's part."""
    shapes_only = {"flatten", "view", "reshape", "squeeze", "permute", "contiguous", "dim", "size"}
    seen: list[str] = []
    begun = all(call.output is not start for call in after)
    for call in after:
        if begun and call.function not in shapes_only and not call.function.startswith("__get"):
            seen.append(call.function)
        begun = begun or call.output is start
    return ", ".join(dict.fromkeys(seen)) or "no linear layer"


def _no_pool(watch: PoolWatch) -> str:
    found = f"its last pooling is {watch.other}" if watch.other else "nothing is pooled"
    return (
        f"no global average pooling was seen: {found}; an exact class map needs the last feature "
        "maps to be averaged over all positions, then one linear layer"
    )


def _error(module: nn.Module, head: Head, pool: Pool, logits: Tensor) -> float:
    weight, bias = head.parameters_of(module)
    with torch.no_grad():
        maps = pool.features.float()
        if weight is not None:
            maps = torch.einsum("kc,nchw->nkhw", weight.float(), maps)
        total = maps.mean((2, 3)) + (0 if bias is None else bias.float())
        logits = logits.float().reshape(total.shape)
        ends = logits if head.classes > 1 else torch.cat([maps.flatten(), maps.new_zeros(1)])
        spread = (ends.max() - ends.min()).item()
        if not torch.isfinite(logits).all() or pool.features.float().std().item() == 0:
            raise HeadError("the features are constant or not finite on a random input")
        return (total - logits).abs().max().item() / max(spread, torch.finfo().tiny)
