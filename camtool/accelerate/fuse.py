"""A copy of a network for inference on the CPU, its convolutions fused by oneDNN.

Batch norm is folded into the convolution before it (Jacob et al., "Quantization and Training of
Neural Networks for Efficient Integer-Arithmetic-Only Inference", 2018, section 3.2), weights are
laid out as oneDNN wants them, and a convolution's activation, or the addition and ReLU that
end a residual block, are applied while its result is in cache. No compiler is needed.

torch has these operators for its own compiler only. They may change with any version, so they are
compared with the public ones before use, and `fuse` gives None where they can't be trusted.
"""

from __future__ import annotations

import copy
import operator
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval

from camtool.errors import HeadError
from camtool.heads import evaluating, features_of

TOLERANCE = 1e-4
"""Largest difference of fused from plain float32 features, relative to their largest.

Folding rounds each weight once more and so moves the features by some 1e-6; a graph that is not
the network misses this by orders of magnitude."""

LAYOUTS = 4
"""For how many input shapes a weight is laid out; each costs the network's weights in memory."""


class PostOp(NamedTuple):
    """What oneDNN does to each value of a convolution's result: a name and its numbers."""

    name: str
    numbers: tuple[float, ...] = ()


NOTHING = PostOp("none")
RELU = PostOp("relu")

_MODULES: dict[type[nn.Module], PostOp] = {
    nn.ReLU: RELU,
    nn.ReLU6: PostOp("hardtanh", (0.0, 6.0)),
    nn.SiLU: PostOp("swish"),
    nn.Hardswish: PostOp("hardswish"),
    nn.Sigmoid: PostOp("sigmoid"),
    nn.Hardsigmoid: PostOp("hardsigmoid"),
}
_CALLS: dict[Callable[..., Any] | str, PostOp] = {
    F.relu: RELU,
    torch.relu: RELU,
    torch.relu_: RELU,
    "relu": RELU,
    "relu_": RELU,
    F.relu6: _MODULES[nn.ReLU6],
    F.silu: _MODULES[nn.SiLU],
    F.hardswish: _MODULES[nn.Hardswish],
    torch.sigmoid: _MODULES[nn.Sigmoid],
    "sigmoid": _MODULES[nn.Sigmoid],
    F.hardsigmoid: _MODULES[nn.Hardsigmoid],
}
_ADDS: tuple[Any, ...] = (operator.add, torch.add, "add", "add_")
_POOLS = ("adaptive_avg_pool2d", "avg_pool2d", "mean")


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


@lru_cache(maxsize=4)
def available(dtype: torch.dtype) -> bool:
    """Whether oneDNN's operators are there for a number format and agree with the public ones."""
    if dtype not in (torch.float32, torch.bfloat16):
        return False
    try:
        with torch.inference_mode():
            return all(_agrees(*case, dtype) for case in _probes())
    except (AttributeError, RuntimeError, TypeError):
        return False


def _probes() -> Iterator[tuple[PostOp, nn.Module, bool]]:
    """Every use that is made of the operators: its name here, its module, whether it adds."""
    yield NOTHING, nn.Identity(), False
    yield NOTHING, nn.Identity(), True
    yield RELU, nn.ReLU(), True
    for kind, post in _MODULES.items():
        yield post, kind(), False


def _agrees(post: PostOp, plain: nn.Module, adds: bool, dtype: torch.dtype) -> bool:
    generator = torch.Generator().manual_seed(0)
    conv = nn.Conv2d(4, 16, 3, stride=2, padding=1, device="meta").to_empty(device="cpu")
    for parameter in conv.parameters():
        parameter.normal_(generator=generator)
    x = torch.randn(2, 4, 9, 7, generator=generator).to(dtype)
    other = torch.randn(2, 16, 5, 4, generator=generator).to(dtype)
    fused = FusedConvolution(conv, None, post).to(dtype)
    # The first call takes the plain weight, the second one the weight laid out for x.
    first, second = (fused(x, other) if adds else fused(x) for _ in range(2))
    conv = conv.to(dtype).float()
    wanted = plain(conv(x.float()) + other.float() if adds else conv(x.float()))
    slack = 1e-5 if dtype == torch.float32 else 0.02
    close = (
        torch.allclose(got.float(), wanted, rtol=slack, atol=10 * slack) for got in (first, second)
    )
    return first.dtype == dtype and all(close)


class FusedConvolution(nn.Module):
    """A convolution with its batch norm folded in and what follows it fused.

    oneDNN wants the weight in a layout that depends on the input's shape and on the number of
    threads. Laying it out takes as long as convolving a few pictures, and convolving with a
    layout made for another shape was seen to take four times as long as with none: so a weight is
    laid out for a shape when the shape comes a second time, for the first `LAYOUTS` such shapes.

    Args:
        conv: The convolution, zero-padded.
        norm: The batch norm after it, if any.
        post: What is done to the result.
    """

    weight: Tensor
    bias: Tensor | None

    def __init__(self, conv: nn.Conv2d, norm: nn.BatchNorm2d | None, post: PostOp) -> None:
        super().__init__()
        if norm is not None:
            conv = fuse_conv_bn_eval(conv, norm)
        sizes = (conv.padding, conv.stride, conv.dilation)
        self.padding, self.stride, self.dilation = ([int(n) for n in size] for size in sizes)
        self.groups = conv.groups
        self.post = post
        weight = conv.weight.detach().contiguous(memory_format=torch.channels_last)
        self.register_buffer("weight", weight)
        self.register_buffer("bias", None if conv.bias is None else conv.bias.detach())
        self._layouts: dict[tuple[int, ...], Tensor] = {}
        self._seen: set[tuple[int, ...]] = set()

    def __getstate__(self) -> dict[str, Any]:
        """What a copy starts from: oneDNN's own layouts can't be copied, but made again."""
        return {**self.__dict__, "_layouts": {}, "_seen": set()}

    def forward(self, x: Tensor, other: Tensor | None = None) -> Tensor:
        """Map [N,C,H,W] to post(convolution(x) + other), channels-last.

        Args:
            x: The input, in the weight's number format.
            other: What is added; only with ReLU or nothing after it.
        """
        x = x.contiguous(memory_format=torch.channels_last)
        if other is None:
            return self._convolve(x, self.post)
        if other.shape != self._shape(x) or other.dtype != x.dtype:
            total = self._convolve(x, NOTHING) + other
            return total.relu() if self.post == RELU else total
        return self._add(x, other.contiguous(memory_format=torch.channels_last))

    def _convolve(self, x: Tensor, post: PostOp) -> Tensor:
        weight = self._weight_for(x)
        result: Tensor = torch.ops.mkldnn._convolution_pointwise.default(
            x, weight, self.bias, *self._geometry(), post.name, list(post.numbers), ""
        )
        return result

    def _add(self, x: Tensor, other: Tensor) -> Tensor:
        relu = "relu" if self.post == RELU else None
        weight = self._weight_for(x)
        result: Tensor = torch.ops.mkldnn._convolution_pointwise.binary(
            x, other, weight, self.bias, *self._geometry(), "add", 1.0, relu, [], None
        )
        return result

    def _weight_for(self, x: Tensor) -> Tensor:
        """The weight as it is best for an input: laid out, or plain, which is right for any."""
        key = (*x.shape, torch.get_num_threads())
        if key not in self._layouts:
            if key not in self._seen or len(self._layouts) >= LAYOUTS:
                self._seen.add(key)
                return self.weight
            self._layouts[key] = torch.ops.mkldnn._reorder_convolution_weight(
                self.weight, *self._geometry(), list(x.shape)
            )
        return self._layouts[key]

    def _geometry(self) -> tuple[list[int], list[int], list[int], int]:
        return self.padding, self.stride, self.dilation, self.groups

    def _shape(self, x: Tensor) -> tuple[int, ...]:
        """Shape of the result: floor((n + 2 padding - dilation (kernel - 1) - 1) / stride) + 1."""
        rows = zip(
            x.shape[2:],
            self.padding,
            self.dilation,
            self.weight.shape[2:],
            self.stride,
            strict=True,
        )
        sides = ((n + 2 * p - d * (k - 1) - 1) // s + 1 for n, p, d, k, s in rows)
        return (x.shape[0], self.weight.shape[0], *sides)


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
        return fx.symbolic_trace(copy.deepcopy(module).eval().float())
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


@dataclass
class _Fusion:
    """Rewrites the graph of a traced network in place."""

    traced: fx.GraphModule

    def run(self) -> None:
        self._drop_identities()
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

    def _drop_identities(self) -> None:
        for node in list(self.traced.graph.nodes):
            if type(self._part(node)) is nn.Identity:
                node.replace_all_uses_with(node.args[0])
                self.traced.graph.erase_node(node)

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
        """Replace a convolution, its batch norm and its activation by one node in its place."""
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
        self._replace(chain, FusedConvolution(conv, norm, post), node.args)

    def _fuse_add(self, node: fx.Node) -> None:
        """Let the convolution just before an addition do it, and the ReLU after it.

        Right before it, so that no step in between can change the convolution's input in place.
        """
        last = node.prev
        conv = self._part(last)
        operands = list(node.args)
        if len(operands) != 2 or node.kwargs or operands.count(last) != 1:
            return
        if not isinstance(conv, FusedConvolution) or conv.post != NOTHING or conv.groups != 1:
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
        self._replace(chain, conv, (*last.args, operands[0]))

    def _post(self, node: fx.Node | None) -> PostOp:
        """What oneDNN calls the activation that a node is; `NOTHING` if it is none."""
        if node is None:
            return NOTHING
        if part := self._part(node):
            return _MODULES.get(type(part), NOTHING)
        known = _is_call(node) and set(node.kwargs) <= {"inplace"}
        return _CALLS.get(node.target, NOTHING) if known else NOTHING

    def _replace(self, chain: list[fx.Node], part: FusedConvolution, args: tuple[Any, ...]) -> None:
        name = f"fused_{chain[0].name}"
        self.traced.add_submodule(name, part)
        with self.traced.graph.inserting_after(chain[0]):
            fused = self.traced.graph.call_module(name, args)
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
    return (
        type(conv) is nn.Conv2d
        and conv.padding_mode == "zeros"
        and not isinstance(conv.padding, str)
    )


def _can_fold(norm: nn.BatchNorm2d) -> bool:
    return type(norm) is nn.BatchNorm2d and norm.running_mean is not None
