"""What a head is: what is pooled, what makes logits of it, and how well that was proved."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor, nn

from camtool.errors import HeadError
from camtool.heads.path import ONE_STEP, Continuation, Steps
from camtool.heads.watch import Call, Names, Pool, logits_of, run

TOLERANCE = 1e-5
"""Largest |mean(M) + b - logit|, relative to the spread of the logits, that is called exact.

float32 carries 1.2e-7 relative; a sum over 2,048 channels and 49 positions in another order was
seen to move the result by up to some 1e-6 of the spread. Ten times that leaves room for other
processors; a head that is not linear misses it by orders of magnitude."""

LinearLayer: TypeAlias = "Callable[[Tensor], tuple[Tensor, Tensor]]"
"""From classes [N,K] to float32 weight ([K,C], or [N,K,C]) and bias [N,K], such that a class's
logit is the weight times the pooled features, plus the bias."""


@dataclass(frozen=True)
class Forward:
    """What one forward pass leaves for a method to make maps of.

    Attributes:
        features: [N,C,h,w], the feature maps at the cut: those that are pooled, in most networks.
        logits: float32 [N,classes].
        tail: What follows the cut, to be run on other maps than the network's own.
        network: The whole network, from inputs to logits.
        inputs: [N,C,H,W], its input.
        linear: The one linear layer that follows the pooling; None where something else does.
        steps: Those that an integration begins with.
    """

    features: Tensor
    logits: Tensor
    tail: Continuation
    network: Callable[[Tensor], Tensor]
    inputs: Tensor
    linear: LinearLayer | None = None
    steps: Steps = ONE_STEP


@dataclass(frozen=True)
class Seen:
    """A network that was watched while it ran on a random input.

    Attributes:
        module: The network.
        inputs: The input.
        pool: Its last pooling, where that is a global average.
        refusal: What was seen in place of one.
        after: The calls since then.
        logits: What the network returned.
        names: Which module a tensor came from.
        input: (height, width) of the input.
    """

    module: nn.Module
    inputs: Tensor
    pool: Pool | None
    refusal: str
    after: list[Call]
    logits: Tensor
    names: Names
    input: tuple[int, int]


@dataclass(frozen=True)
class Head(ABC):
    """How a network's logits come from its last feature maps; one class a kind.

    Attributes:
        features: The module (or call on a module's output) that gives the pooled feature maps.
        pool: The function that pools.
        channels: Number of feature maps, C.
        classes: Number of classes.
        shape: (h, w) of the feature maps on the input that the head was found with.
        input: (height, width) of that input.
        max_error: max |mean(M) + b - logit| over a random input, relative to the logits' spread
            (to the map's largest value where there is one class only).
        layer: Name of the weight parameter that follows the pooling; "" where there is none.
        bias: Name of its bias parameter; "" where there is none.
        kind: What follows the cut, in a word.
        steps: Those that an integration took on the random input.
    """

    features: str
    pool: str
    channels: int
    classes: int
    shape: tuple[int, int]
    input: tuple[int, int]
    max_error: float = float("inf")
    layer: str = ""
    bias: str = ""
    kind: str = ""
    steps: Steps = ONE_STEP

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
    def dense_parameters(self) -> int:
        """What flatten-and-dense on the same features would cost: C·h·w·classes + classes."""
        return self.channels * self.shape[0] * self.shape[1] * self.classes + self.classes

    @classmethod
    @abstractmethod
    def match(cls, seen: Seen) -> Head:
        """The head of a network that was watched, not yet proved.

        Raises:
            HeadError: It is of another kind; says what was found.
        """

    @abstractmethod
    def forward(self, body: nn.Module, module: nn.Module, inputs: Tensor) -> Forward:
        """Run the network once, and keep what methods need.

        Args:
            body: The network in evaluation mode, in the number format of `inputs`.
            module: The network whose parameters are read, as they are now.
            inputs: [N,C,H,W].

        Raises:
            HeadError: The network does not come by its cut for this input size.
        """

    @property
    @abstractmethod
    def parameters(self) -> int:
        """Parameters of what follows the pooling."""

    @property
    @abstractmethod
    def layer_name(self) -> str:
        """What follows the pooling, for people."""

    def describe(self) -> dict[str, Any]:
        """The JSON record of the head."""
        return {
            "kind": self.kind,
            "features": self.features,
            "channels": self.channels,
            "exact": self.exact,
            "max_error": self.max_error,
        }


@dataclass(frozen=True)
class PooledHead(Head):
    """A head whose cut is the input of the last global average pooling."""

    @abstractmethod
    def read(self, module: nn.Module, features: Tensor, own: Tensor) -> Read:
        """What methods need, from the pooled features and the network's own logits.

        Args:
            module: The network whose parameters are read, as they are now.
            features: [N,C,h,w].
            own: float32 [N,classes], what the forward pass itself returned; they stand where the
                head was not proved, else logits in float32 are made from the features.
        """

    def forward(self, body: nn.Module, module: nn.Module, inputs: Tensor) -> Forward:
        """Run the network once, and keep what it pools."""
        features, own = run(body, inputs)
        read = self.read(module, features, own.float())
        return Forward(
            features, read.logits, read.tail, network_of(body), inputs, linear=read.linear
        )


class Read(NamedTuple):
    """What a pooled head makes of features: logits, tail and linear layer; see `Forward`."""

    logits: Tensor
    tail: Continuation
    linear: LinearLayer | None


def network_of(body: nn.Module) -> Callable[[Tensor], Tensor]:
    """The whole network as a function from inputs to float32 logits [N,classes]."""

    def network(inputs: Tensor) -> Tensor:
        return logits_of(body(inputs)).float().flatten(1)

    return network


def pooled_facts(seen: Seen) -> dict[str, Any]:
    """The fields of `Head` that a network with a global average pool shows, but for the error.

    Raises:
        HeadError: It has none.
    """
    if seen.pool is None:
        raise HeadError(
            f"{seen.refusal}; an exact class map needs the last feature maps to be averaged over "
            "all positions, then one linear layer"
        )
    features = seen.pool.features
    return {
        "features": seen.names.of(features) or f"the input of {seen.pool.function}",
        "pool": seen.pool.function,
        "channels": features.shape[1],
        "classes": seen.logits.shape[1],
        "shape": (features.shape[2], features.shape[3]),
        "input": seen.input,
    }
