"""What a method is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

from torch import Tensor

from camtool.heads import Forward
from camtool.heads.general import STEPS, SUFFICIENT


class Maps(NamedTuple):
    """Maps of some classes.

    Attributes:
        maps: float32 [N,K,h,w], signed, in logits or in the method's own unit, at the resolution
            of the features.
        bias: float32 [N,K], the part of each logit that belongs to no place.
        steps: Points or intervals of an integration; 1 for methods that do not integrate.
    """

    maps: Tensor
    bias: Tensor
    steps: int = 1


@dataclass(frozen=True)
class Settings:
    """What can be asked of methods.

    Attributes:
        tolerance: Part of the logits' spread that an integration may miss.
        steps: Points on its path at the most.
    """

    tolerance: float = SUFFICIENT
    steps: int = STEPS


Method: TypeAlias = Callable[[Forward, Tensor, Settings], Maps]
"""Makes maps and biases of classes int64 [N,K] from what a forward pass left.

A method is complete where mean(map) + bias is the logit; whether it is, is measured for every
explanation."""
