"""What the texts put between the last feature maps and the classes, to be compared.

Every head maps features, float [N,C,h,w] and not negative, to logits [N,K]. Its `formula` is the
number of its parameters, a sum of products, written with C, h, w and K.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

WIDTH = 100
"""Units of each dense layer of the tutorial's classifier."""

DECAY = 0.9
"""Of the moving average: what is left of a position at the next one."""

DROPPED = 0.5
"""Share of the units that dropout drops."""


class Head(nn.Module):
    """A head.

    Args:
        channels: C.
        shape: (h, w), of the features that it is trained on.
        classes: K.

    Attributes:
        title: For people.
        formula: How many parameters it has.
        any_size: Whether it takes features of other sizes than `shape`.
    """

    title: ClassVar[str]
    formula: ClassVar[str] = "C·K + K"
    any_size: ClassVar[bool] = True

    def __init__(self, channels: int, shape: tuple[int, int], classes: int) -> None:
        super().__init__()
        self.fc = nn.Linear(self.inputs(channels, shape), classes)

    @staticmethod
    def inputs(channels: int, shape: tuple[int, int]) -> int:
        """Numbers that are left for the linear layer."""
        return channels

    def reduced(self, features: Tensor) -> Tensor:
        """What is left of the features, [N,inputs]: the mean of each, unless a head does else."""
        return features.mean((2, 3))

    def forward(self, features: Tensor) -> Tensor:
        """The logits [N,K] of features [N,C,h,w]."""
        logits: Tensor = self.fc(self.reduced(features))
        return logits

    def mapped(self) -> Head | None:
        """The head whose class maps stand for this one's; None where it has none.

        Its own, where the maps follow from its weights alone and add up to its logits.
        """
        return None


class Average(Head):
    """Global average pooling, then one linear layer: C·K weights and K biases.

    Zhou et al. 2016, equation 1; the layer's weights make the class map exact.
    """

    title = "global average pooling"

    def mapped(self) -> Head:
        """Its own maps are exact."""
        return self


class ClassMaps(Head):
    """One map a class, its average straight to softmax: a 1x1 convolution, C·K weights, K biases.

    Network in Network (Lin et al. 2014, 3.2). As in their equation 2 the maps are rectified;
    without that, this would be `Average` in another order, for both are linear.
    """

    title = "one map a class (Network in Network)"

    def __init__(self, channels: int, shape: tuple[int, int], classes: int) -> None:
        nn.Module.__init__(self)
        self.maps = nn.Conv2d(channels, classes, 1)

    def forward(self, features: Tensor) -> Tensor:
        """The averages of the class maps, [N,K]."""
        return functional.relu(self.maps(features)).mean((2, 3))

    def mapped(self) -> Head:
        """The maps that it averages."""
        return self


class Dense(Head):
    """All positions side by side, then dense layers of 100, 100 and K units, with batch norm.

    As the cats-and-dogs tutorial has it. The first layer alone has C·h·w·100 weights: h·w times
    as many as if the maps were pooled. A batch norm has two parameters a unit.
    """

    title = "flatten, dense 100-100"
    formula = "C·h·w·100 + 100 + 2·100 + 100·100 + 100 + 2·100 + 100·K + K"
    any_size = False
    dropout: ClassVar[float] = 0.0

    def __init__(self, channels: int, shape: tuple[int, int], classes: int) -> None:
        nn.Module.__init__(self)
        sizes = (channels * math.prod(shape), WIDTH, WIDTH)
        layers: list[nn.Module] = []
        for inputs, outputs in pairwise(sizes):
            layers += [nn.Linear(inputs, outputs), nn.BatchNorm1d(outputs), nn.ReLU()]
            layers += [nn.Dropout(self.dropout)] if self.dropout else []
        self.layers = nn.Sequential(nn.Flatten(), *layers, nn.Linear(WIDTH, classes))

    def forward(self, features: Tensor) -> Tensor:
        """The logits [N,K] of features [N,C,h,w] of the one size."""
        logits: Tensor = self.layers(features)
        return logits


class DenseDropout(Dense):
    """`Dense` with half of the units of both layers dropped in training; no parameter more."""

    title = "flatten, dense 100-100, dropout"
    dropout = DROPPED


class Maximum(Head):
    """Global max pooling, then one linear layer: C·K weights and K biases.

    Oquab et al. 2015. Its class map is that of the same weights with the average in place of the
    maximum, as Zhou et al. 2016 (section 2) compare the two; it does not add up to the logits.
    """

    title = "global max pooling"

    def reduced(self, features: Tensor) -> Tensor:
        """The largest value of each feature map."""
        return features.amax((2, 3))

    def mapped(self) -> Head:
        """Average pooling with the same linear layer."""
        average = Average(self.fc.in_features, (1, 1), self.fc.out_features)
        average.load_state_dict(self.state_dict())
        return average.to(self.fc.weight.device)


class FourParts(Head):
    """The average of each quarter of the picture, then one linear layer: 4·C·K weights, K biases.

    Of an odd number of rows or columns the middle one belongs to both sides.
    """

    title = "average of four parts"
    formula = "4·C·K + K"

    @staticmethod
    def inputs(channels: int, shape: tuple[int, int]) -> int:
        """Four numbers a channel."""
        return 4 * channels

    def reduced(self, features: Tensor) -> Tensor:
        """The means of the four quarters of each feature map."""
        return functional.adaptive_avg_pool2d(features, 2).flatten(1)

    def mapped(self) -> Head:
        """Its own maps are exact: each quarter has its own weights."""
        return self


class MovingAverage(Head):
    """Exponential moving average over the positions, then one linear layer: C·K + K parameters.

    Positions come row by row; each is weighed 0.9 of the next one, so the average is one of the
    last row or two. The weights sum up to one.
    """

    title = "moving average over positions"

    def reduced(self, features: Tensor) -> Tensor:
        """The moving average at the last position."""
        places = features.flatten(2)
        ages = torch.arange(places.shape[2] - 1, -1, -1, device=places.device)
        weights = DECAY**ages
        return places @ (weights / weights.sum())


class ChannelMean(Head):
    """The mean over channels at each position, then one linear layer: h·w·K weights, K biases."""

    title = "mean over channels"
    formula = "h·w·K + K"
    any_size = False

    @staticmethod
    def inputs(channels: int, shape: tuple[int, int]) -> int:
        """One number a position."""
        return math.prod(shape)

    def reduced(self, features: Tensor) -> Tensor:
        """The mean of the channels."""
        return features.mean(1).flatten(1)


class OneKernel(ChannelMean):
    """A 1x1 convolution to one channel, then one linear layer over its positions.

    The kernel has C weights and a bias, the layer h·w·K weights and K biases.
    """

    title = "one-kernel convolution"
    formula = "C + 1 + h·w·K + K"

    def __init__(self, channels: int, shape: tuple[int, int], classes: int) -> None:
        super().__init__(channels, shape, classes)
        self.kernel = nn.Conv2d(channels, 1, 1)

    def reduced(self, features: Tensor) -> Tensor:
        """The one map."""
        found: Tensor = self.kernel(features)
        return found.flatten(1)


HEADS: dict[str, type[Head]] = {
    "gap": Average,
    "nin": ClassMaps,
    "dense": Dense,
    "dropout": DenseDropout,
    "max": Maximum,
    "four": FourParts,
    "ema": MovingAverage,
    "channels": ChannelMean,
    "kernel": OneKernel,
}
"""Every head by the name that users give."""


def written_out(
    kind: type[Head], channels: int, shape: tuple[int, int], classes: int
) -> tuple[str, int]:
    """The formula of a head's parameters with the numbers in it, and what it comes to."""
    values = {"C": channels, "h": shape[0], "w": shape[1], "K": classes}
    terms = [
        [values[factor] if factor in values else int(factor) for factor in term.split("·")]
        for term in kind.formula.split(" + ")
    ]
    text = " + ".join("·".join(map(str, term)) for term in terms)
    return text, sum(map(math.prod, terms))
