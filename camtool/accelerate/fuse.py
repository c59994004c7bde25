"""A copy of a network for inference on the CPU, its convolutions fused by oneDNN.

What stands around a convolution becomes part of it, see `camtool.accelerate.convolution`: zero
padding before it, batch norm, activation, or the addition and ReLU that end a residual block. No
compiler is needed. `fuse` gives None where the copy can't be made or trusted.
"""

from __future__ import annotations

import copy
import operator
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from camtool.accelerate.convolution import (
    ACTIVATIONS,
    NO_PADS,
    NOTHING,
    RELU,
    FusedConvolution,
    Pads,
    PostOp,
    available,
)
from camtool.errors import HeadError
from camtool.heads import evaluating, features_of

TOLERANCE = 1e-4
"""Largest difference of fused from plain float32 features, relative to their largest.

Folding rounds each weight once more and so moves the features by some 1e-6; a graph that is not
the network misses this by orders of magnitude."""

_CALLS: dict[Callable[..., Any] | str, PostOp] = {
    F.relu: RELU,
    torch.relu: RELU,
    torch.relu_: RELU,
    "relu": RELU,
    "relu_": RELU,
    F.relu6: ACTIVATIONS[nn.ReLU6],
    F.silu: ACTIVATIONS[nn.SiLU],
    F.hardswish: ACTIVATIONS[nn.Hardswish],
    torch.sigmoid: ACTIVATIONS[nn.Sigmoid],
    "sigmoid": ACTIVATIONS[nn.Sigmoid],
    "sigmoid_": ACTIVATIONS[nn.Sigmoid],
    F.hardsigmoid: ACTIVATIONS[nn.Hardsigmoid],
}
_ADDS: tuple[Any, ...] = (operator.add, torch.add, "add", "add_")
_POOLS = ("adaptive_avg_pool2d", "avg_pool2d", "mean")
_NOTHING_IN_EVALUATION = (nn.Identity, nn.Dropout, nn.Dropout2d)


def bf16_pays() -> bool:
    """Whether this CPU multiplies bfloat16 faster than float32: AMX, found in newer Xeons."""
    ask = getattr(torch.cpu, "_is_amx_tile_supported", None)
    return ask is not None and bool(ask())


def fuse(
    module: nn.Module, dtype: torch.dtype = torch.float32, sample: Tensor | None = None
) -> nn.Module | None:
    """A fast copy of a network for inference on the CPU; the network itself is not changed.

    The last average pooling and all after it stay as they are, so `find_head` and `features_of`
    see in the copy what they see in the network. The copy takes inputs of any size, from any
    number of threads, but can't be trained or moved; later changes of the network do not reach it.

    Tracing can miss what a network does: it takes `x += y` for `x = x + y`, which differs where
    another name for x is read later, and the branch for something that is no tensor. `sample`
    finds that out.

    Args:
        module: The network, on the CPU; its copy is in evaluation mode.
        dtype: Number format of the copy and its inputs: float32 or bfloat16.
        sample: An input [N,3,H,W] in the network's number format, to prove on it that a fused
            float32 copy gives the network's features to within `TOLERANCE`.

    Returns:
        The copy; None where the network can't be traced or has nothing to fuse, where oneDNN
        can't be used in `dtype` on this machine, or where `sample` disproves it.
    """
    tensors = [*module.parameters(), *module.buffers()]
    if any(tensor.device.type != "cpu" for tensor in tensors) or not available(dtype):
        return None
    fused = _build(module, dtype)
    if fused is None or sample is None:
        return fused
    exact = fused if dtype == torch.float32 else _build(module, torch.float32)
    return fused if exact is not None and _same_features(module, exact, sample) else None


def _build(module: nn.Module, dtype: torch.dtype) -> nn.Module | None:
    traced = _trace(module)
    if traced is None:
        return None
    _Fusion(traced).run()
    if not any(isinstance(part, FusedConvolution) for part in traced.modules()):
        return None
    return traced.to(dtype).eval().requires_grad_(False)


def _trace(module: nn.Module) -> fx.GraphModule | None:
    try:
        module = copy.deepcopy(module).eval().float()
        _take_apart(module)
        return fx.symbolic_trace(module)
    except Exception:
        # The network's own code runs on stand-ins for tensors here and may raise anything.
        return None


def _same_features(module: nn.Module, fused: nn.Module, sample: Tensor) -> bool:
    with evaluating(module):
        wanted = features_of(module, sample).float()
    try:
        got = features_of(fused, sample.float())
    except (RuntimeError, HeadError):
        return False
    if got.shape != wanted.shape:
        return False
    return bool((got - wanted).abs().max() <= TOLERANCE * wanted.abs().max())


def _take_apart(module: nn.Module) -> None:
    """Replace timm's parts that are several steps in one, in place, by parts that tracing sees.

    timm need not be installed for that, so they are known by name.
    """
    for name, part in module.named_children():
        kind = type(part).__name__ if type(part).__module__.startswith("timm.layers") else ""
        if part._forward_hooks or part._forward_pre_hooks or kind not in _TIMM:
            _take_apart(part)
        else:
            setattr(module, name, _TIMM[kind](part).eval())


def _norm_and_activation(part: Any) -> nn.Module:
    norm = nn.BatchNorm2d(
        part.num_features,
        part.eps,
        affine=part.affine,
        track_running_stats=part.track_running_stats,
    )
    norm.load_state_dict(part.state_dict(), strict=False)
    return nn.Sequential(norm, part.drop, part.act)


def _padding_and_convolution(part: Any) -> nn.Module:
    sizes = part.kernel_size, part.stride, 0, part.dilation, part.groups
    conv = nn.Conv2d(part.in_channels, part.out_channels, *sizes, bias=part.bias is not None)
    conv.load_state_dict(part.state_dict())
    return nn.Sequential(_SamePadding(part), conv)


_TIMM = {"BatchNormAct2d": _norm_and_activation, "Conv2dSame": _padding_and_convolution}


class _SamePadding(nn.Module):
    """TensorFlow's SAME padding, by arithmetic that can be traced.

    Of an axis of n, ceil(n / stride) positions result, and the odd zero goes behind.
    """

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self.stride = conv.stride
        self.spans = [d * (k - 1) + 1 for d, k in zip(conv.dilation, conv.kernel_size, strict=True)]
        if any(span < step for span, step in zip(self.spans, self.stride, strict=True)):
            raise ValueError("a kernel smaller than its stride may not need any zeros")

    def forward(self, x: Tensor) -> Tensor:
        rows, columns = (self._zeros(x.shape[axis + 2], axis) for axis in (0, 1))
        return F.pad(x, (columns // 2, columns - columns // 2, rows // 2, rows - rows // 2))

    def _zeros(self, n: int, axis: int) -> int:
        span, step = self.spans[axis], self.stride[axis]
        return (n + step - 1) // step * step - step + span - n


@dataclass
class _Fusion:
    """Rewrites the graph of a traced network in place."""

    traced: fx.GraphModule
    fused: dict[fx.Node, FusedConvolution] = field(default_factory=dict)

    def run(self) -> None:
        for node in self._before_last_pool():
            if type(self._part(node)) in _NOTHING_IN_EVALUATION:
                node.replace_all_uses_with(node.all_input_nodes[0])
                self.traced.graph.erase_node(node)
        body = self._before_last_pool()
        for node in body:
            if isinstance(conv := self._part(node), nn.Conv2d) and _can_fuse(conv):
                self._fuse(node, conv)
        for node in body:
            if _is_call(node) and node.target in _ADDS:
                self._fuse_add(node)
        self.traced.graph.lint()
        self.traced.delete_all_unused_submodules()
        self.traced.recompile()

    def _part(self, node: fx.Node) -> nn.Module | None:
        """The module that a node calls on one tensor, if it can be replaced."""
        if node.op != "call_module" or len(node.args) != 1 or node.kwargs:
            return None
        part = self.traced.get_submodule(str(node.target))
        return None if part._forward_hooks or part._forward_pre_hooks else part

    def _before_last_pool(self) -> list[fx.Node]:
        nodes = list(self.traced.graph.nodes)
        pools = [number for number, node in enumerate(nodes) if self._pools(node)]
        return nodes[: pools[-1]] if pools else nodes

    def _pools(self, node: fx.Node) -> bool:
        if node.op == "call_module":
            part = self.traced.get_submodule(str(node.target))
            return isinstance(part, (nn.AdaptiveAvgPool2d, nn.AvgPool2d))
        return _is_call(node) and getattr(node.target, "__name__", node.target) in _POOLS

    def _fuse(self, node: fx.Node, conv: nn.Conv2d) -> None:
        """Replace padding, a convolution, its batch norm and its activation by one node."""
        chain = [node]
        norm = self._part(user) if (user := _only_user(node)) else None
        if user and isinstance(norm, nn.BatchNorm2d) and _can_fold(norm):
            chain.append(user)
            user = _only_user(user)
        else:
            norm = None
        post = self._post(user)
        if user and post != NOTHING:
            chain.append(user)
        args, kwargs = node.args, {}
        if (padded := self._padded(node)) is not None:
            chain.insert(0, node.prev)
            args, kwargs = (padded[0],), {"pads": padded[1]}
        self._replace(chain, FusedConvolution(conv, norm, post), args, kwargs)

    def _padded(self, node: fx.Node) -> tuple[fx.Node, Pads] | None:
        """What the step before a node surrounds with zeros for it alone, and with how many.

        Right before it, so that no step in between can change what is padded in place.
        """
        pad = node.prev
        if node.args[0] is not pad or _only_user(pad) is not node or not pad.args:
            return None
        part = self._part(pad)
        if isinstance(part, nn.ConstantPad2d) and type(part) in (nn.ConstantPad2d, nn.ZeroPad2d):
            given: dict[str, Any] = {"pad": part.padding, "value": part.value}
        elif pad.op == "call_function" and pad.target is F.pad:
            names = ("input", "pad", "mode", "value")
            given = {**dict(zip(names, pad.args, strict=False)), **pad.kwargs}
        else:
            return None
        zeros = given.get("mode", "constant") == "constant" and given.get("value") in (None, 0)
        source, pads = pad.args[0], given["pad"]
        if not zeros or not isinstance(pads, (tuple, list)) or len(pads) != len(NO_PADS):
            return None
        return (source, tuple(pads)) if isinstance(source, fx.Node) else None

    def _fuse_add(self, node: fx.Node) -> None:
        """Let the convolution just before an addition do it, and the ReLU after it.

        Right before it, so that no step in between can change the convolution's input in place.
        """
        last = node.prev
        conv = self.fused.get(last)
        operands = list(node.args)
        if len(operands) != 2 or node.kwargs or operands.count(last) != 1:
            return
        if conv is None or len(last.args) > 1 or conv.post != NOTHING or conv.groups != 1:
            return
        first = operands.pop(operands.index(last)) is node.args[0]
        if _only_user(last) is not node or not isinstance(operands[0], fx.Node):
            return
        # x.add_(convolution(x)) changes x for whoever else reads it.
        if node.target == "add_" and not first:
            return
        chain = [last, node]
        if (user := _only_user(node)) and self._post(user) == RELU:
            chain.append(user)
            conv.post = RELU
        self._replace(chain, conv, (*last.args, operands[0]), last.kwargs)

    def _post(self, node: fx.Node | None) -> PostOp:
        """What oneDNN calls the activation that a node is; `NOTHING` if it is none."""
        if node is None:
            return NOTHING
        if part := self._part(node):
            return ACTIVATIONS.get(type(part), NOTHING)
        known = _is_call(node) and set(node.kwargs) <= {"inplace"}
        return _CALLS.get(node.target, NOTHING) if known else NOTHING

    def _replace(
        self,
        chain: list[fx.Node],
        part: FusedConvolution,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> None:
        name = f"fused_{chain[-1].name}"
        self.traced.add_submodule(name, part)
        with self.traced.graph.inserting_after(chain[0]):
            fused = self.traced.graph.call_module(name, args, kwargs)
        self.fused[fused] = part
        chain[-1].replace_all_uses_with(fused)
        for node in reversed(chain):
            self.traced.graph.erase_node(node)


def _is_call(node: fx.Node) -> bool:
    """Whether it calls a function or a method; other nodes may have a module's or any name."""
    return node.op in ("call_function", "call_method")


def _only_user(node: fx.Node) -> fx.Node | None:
    return next(iter(node.users)) if len(node.users) == 1 else None


def _can_fuse(conv: nn.Conv2d) -> bool:
    """Whether it is torch's own zero-padded convolution; a parametrised one has another type."""
    return type(conv) is nn.Conv2d and conv.padding_mode == "zeros"


def _can_fold(norm: nn.BatchNorm2d) -> bool:
    return type(norm) is nn.BatchNorm2d and norm.running_mean is not None
