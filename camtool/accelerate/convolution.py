"""A convolution by oneDNN's own operators, with what stands around it made part of it.

Batch norm is folded into the weights (Jacob et al., "Quantization and Training of Neural Networks
for Efficient Integer-Arithmetic-Only Inference", 2018, section 3.2), zero padding before it into
its own, weights are laid out as oneDNN wants them, and the activation after it, or an addition
and its ReLU, are applied while the result is in cache.

torch has these operators for its own compiler only. They may change with any version, so
`available` compares them with the public ones.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval

LAYOUTS = 4
"""For how many input shapes a weight is laid out; each costs the network's weights in memory."""

Pads: TypeAlias = "Sequence[int]"
"""Zeros to the left, right, top and bottom, as `torch.nn.functional.pad` takes them."""

NO_PADS = (0, 0, 0, 0)


class PostOp(NamedTuple):
    """What oneDNN does to each value of a convolution's result: a name and its numbers."""

    name: str
    numbers: tuple[float, ...] = ()


NOTHING = PostOp("none")
RELU = PostOp("relu")
ACTIVATIONS: dict[type[nn.Module], PostOp] = {
    nn.ReLU: RELU,
    nn.ReLU6: PostOp("hardtanh", (0.0, 6.0)),
    nn.SiLU: PostOp("swish"),
    nn.Hardswish: PostOp("hardswish"),
    nn.Sigmoid: PostOp("sigmoid"),
    nn.Hardsigmoid: PostOp("hardsigmoid"),
}


class FusedConvolution(nn.Module):
    """A convolution with its batch norm folded in and what follows it fused.

    oneDNN wants the weight in a layout that depends on the input's shape and on the number of
    threads. Laying it out takes as long as convolving a few pictures, and convolving with a
    layout made for another shape was seen to take four times as long as with none: so a weight is
    laid out for a shape when the shape comes a second time, for the first `LAYOUTS` such shapes.

    The operator pads both ends of an axis alike. Where they should differ by one, as TensorFlow's
    SAME padding of stride 2 does, a depthwise kernel gets a row of zeros on the side that should
    have less. That comes to the same without copying the input, and is free, because depthwise
    convolutions wait for memory.

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
        self.stride, self.dilation = (
            [int(n) for n in size] for size in (conv.stride, conv.dilation)
        )
        self.pads = _pads_of(conv)
        self.groups = conv.groups
        self.post = post
        weight = conv.weight.detach().contiguous(memory_format=torch.channels_last)
        self.register_buffer("weight", weight)
        self.register_buffer("bias", None if conv.bias is None else conv.bias.detach())
        self._layouts: dict[tuple[int, ...], tuple[Tensor, list[int]]] = {}
        self._seen: set[tuple[int, ...]] = set()

    def __getstate__(self) -> dict[str, Any]:
        """What a copy starts from: oneDNN's own layouts can't be copied, but made again."""
        return {**self.__dict__, "_layouts": {}, "_seen": set()}

    def forward(self, x: Tensor, other: Tensor | None = None, pads: Pads = NO_PADS) -> Tensor:
        """Map [N,C,H,W] to post(convolution(x) + other), channels-last.

        Args:
            x: The input, in the weight's number format.
            other: What is added; only with ReLU or nothing after it.
            pads: Zeros around the input, besides the convolution's own padding.
        """
        x = x.contiguous(memory_format=torch.channels_last)
        if min(pads) < 0:
            # What is cut off is lost, also where the convolution pads again.
            x, pads = F.pad(x, pads), NO_PADS
        pads = tuple(own + more for own, more in zip(self.pads, pads, strict=True))
        if not self._folds(pads):
            x, pads = F.pad(x, pads), NO_PADS
        if other is None:
            return self._convolve(x, pads, self.post)
        if other.shape != self._shape(x, pads) or other.dtype != x.dtype:
            total = self._convolve(x, pads, NOTHING) + other
            return total.relu() if self.post == RELU else total
        return self._add(x, pads, other.contiguous(memory_format=torch.channels_last))

    def _convolve(self, x: Tensor, pads: Pads, post: PostOp) -> Tensor:
        weight, padding = self._weight_for(x, pads)
        result: Tensor = torch.ops.mkldnn._convolution_pointwise.default(
            x, weight, self.bias, *self._geometry(padding), post.name, list(post.numbers), ""
        )
        return result

    def _add(self, x: Tensor, pads: Pads, other: Tensor) -> Tensor:
        relu = "relu" if self.post == RELU else None
        weight, padding = self._weight_for(x, pads)
        result: Tensor = torch.ops.mkldnn._convolution_pointwise.binary(
            x, other, weight, self.bias, *self._geometry(padding), "add", 1.0, relu, [], None
        )
        return result

    def _weight_for(self, x: Tensor, pads: Pads) -> tuple[Tensor, list[int]]:
        """The weight as it is best for an input: laid out, or plain; and padding of both axes."""
        key = (*x.shape, *pads, torch.get_num_threads())
        if key not in self._layouts:
            weight, padding = self._evened(pads)
            if key not in self._seen or len(self._layouts) >= LAYOUTS:
                self._seen.add(key)
                return weight, padding
            weight = torch.ops.mkldnn._reorder_convolution_weight(
                weight, *self._geometry(padding), list(x.shape)
            )
            self._layouts[key] = weight, padding
        return self._layouts[key]

    def _folds(self, pads: Pads) -> bool:
        """Whether the operator pads so faster than the input is copied: see the class."""
        left, right, top, bottom = pads
        uneven = max(abs(left - right), abs(top - bottom))
        depthwise = self.weight.shape[1] == 1 and max(self.dilation) == 1
        return uneven == 0 or (uneven == 1 and depthwise)

    def _evened(self, pads: Pads) -> tuple[Tensor, list[int]]:
        """Weight and padding, alike on both sides, that come to the same as uneven `pads`."""
        left, right, top, bottom = pads
        rows, columns = max(top, bottom), max(left, right)
        lacking = (columns - left, columns - right, rows - top, rows - bottom)
        weight = F.pad(self.weight, lacking) if any(lacking) else self.weight
        return weight.contiguous(memory_format=torch.channels_last), [rows, columns]

    def _geometry(self, padding: list[int]) -> tuple[list[int], list[int], list[int], int]:
        return padding, self.stride, self.dilation, self.groups

    def _shape(self, x: Tensor, pads: Pads) -> tuple[int, ...]:
        """Shape of the result: floor((n + padding - dilation (kernel - 1) - 1) / stride) + 1."""
        padding = (pads[2] + pads[3], pads[0] + pads[1])
        rows = zip(
            x.shape[2:], padding, self.dilation, self.weight.shape[2:], self.stride, strict=True
        )
        sides = ((n + p - d * (k - 1) - 1) // s + 1 for n, p, d, k, s in rows)
        return (x.shape[0], self.weight.shape[0], *sides)


def _pads_of(conv: nn.Conv2d) -> Pads:
    """A convolution's own padding; of "same", the odd zero goes behind."""
    if conv.padding == "same":
        height, width = (d * (k - 1) for d, k in zip(conv.dilation, conv.kernel_size, strict=True))
        return width // 2, -(-width // 2), height // 2, -(-height // 2)
    rows, columns = (0, 0) if isinstance(conv.padding, str) else conv.padding
    return columns, columns, rows, rows


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
    for kind, post in ACTIVATIONS.items():
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
