"""Global average pooling, then one linear layer: the head of Zhou et al. 2016."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from camtool.errors import HeadError
from camtool.heads.head import PooledHead, Read, Seen, pooled_facts
from camtool.heads.path import Held
from camtool.heads.watch import Call, Pool, same_values

MANY = 16
"""Classes of a picture, from which on it is asked whether all pictures have the same."""


@dataclass(frozen=True)
class LinearHead(PooledHead):
    """One linear layer takes the pooled vector as it is and gives the logits.

    Attributes:
        transposed: The weight parameter is [C,classes], as in `pooled @ weight`.
    """

    kind: str = "linear"
    transposed: bool = False

    @classmethod
    def match(cls, seen: Seen) -> LinearHead:
        """The head, found by following the pooled vector.

        Raises:
            HeadError: Something else follows the pooling; says what.
        """
        facts = pooled_facts(seen)
        call = _linear_call(seen.after, seen.pool, seen.logits)
        used, used_bias = _weights(call)
        layer = _parameter_name(seen.module, used)
        if not layer:
            raise HeadError(
                f"after {facts['pool']} of {facts['features']} comes {call.function} with a "
                "weight that is no parameter of the network; a class map needs the layer's own "
                "weights"
            )
        bias = _parameter_name(seen.module, used_bias)
        transposed = _is_transposed(seen.module.get_parameter(layer), used)
        return cls(**facts, layer=layer, bias=bias, transposed=transposed)

    @property
    def parameters(self) -> int:
        """Parameters of the linear layer."""
        return self.classes * self.channels + (self.classes if self.bias else 0)

    @property
    def layer_name(self) -> str:
        """The parameters' names."""
        return f"{self.layer}, {self.bias}" if self.bias else f"{self.layer}, no bias"

    def parameters_of(self, module: nn.Module) -> tuple[Tensor, Tensor | None]:
        """The layer's weight [classes,C] and bias [classes], as they are in `module` now."""
        weight = module.get_parameter(self.layer).flatten(1)
        weight = weight.T if self.transposed else weight
        return weight, module.get_parameter(self.bias) if self.bias else None

    def read(self, module: nn.Module, features: Tensor, own: Tensor) -> Read:
        """The layer's own parameters, in float32."""
        weight, bias = self.parameters_of(module)
        logits = pooled_logits(features, weight, bias) if self.exact else own

        def linear(classes: Tensor) -> tuple[Tensor, Tensor]:
            # Rows for each picture are cheap as long as they are few; to look would be to wait for
            # the device.
            same = classes.shape[1] > MANY and bool((classes == classes[:1]).all())
            rows = weight[classes[0] if same else classes].float()
            if bias is None:
                return rows, torch.zeros_like(classes, dtype=torch.float32)
            return rows, bias.float()[classes]

        def tail(maps: Tensor, held: Held | None = None, secant: bool = False) -> Tensor:
            return pooled_logits(maps, weight, bias)

        return Read(logits, tail, linear)


def pooled_logits(features: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """The logits of every class: global average pooling, then the linear layer, in float32.

    Args:
        features: [N,C,h,w], any float dtype.
        weight: [classes,C].
        bias: [classes] or None.

    Returns:
        float32 [N,classes]; equation 1 of Zhou et al. 2016.
    """
    with torch.autocast(features.device.type, enabled=False):
        pooled = features.float().mean((2, 3))
        return torch.nn.functional.linear(
            pooled, weight.float(), None if bias is None else bias.float()
        )


def _linear_call(after: list[Call], pool: Pool | None, logits: Tensor) -> Call:
    """The one linear layer that takes the pooled vector as it is and gives the logits."""
    assert pool is not None
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
