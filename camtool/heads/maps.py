"""Networks that make one map for each class and pool it: Network in Network, SqueezeNet."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from camtool.errors import HeadError
from camtool.heads.head import PooledHead, Read, Seen, pooled_facts
from camtool.heads.path import Held
from camtool.heads.watch import same_values


@dataclass(frozen=True)
class MapsHead(PooledHead):
    """Nothing follows the pooling: a class's feature map is its class map, its bias inside."""

    kind: str = "maps"
    parameters: ClassVar[int] = 0
    layer_name: ClassVar[str] = "none: one map a class, its bias inside"

    @classmethod
    def match(cls, seen: Seen) -> MapsHead:
        """The head, where the pooled vector is the logits.

        Raises:
            HeadError: It is not.
        """
        facts = pooled_facts(seen)
        if seen.pool is None or not same_values(seen.pool.output, seen.logits):
            raise HeadError(f"the output of {facts['pool']} is not the logits")
        return cls(**facts)

    def read(self, module: nn.Module, features: Tensor, own: Tensor) -> Read:
        """The linear layer is the identity."""
        logits = features.float().mean((2, 3)) if self.exact else own

        def linear(classes: Tensor) -> tuple[Tensor, Tensor]:
            weight = torch.nn.functional.one_hot(classes, features.shape[1]).float()
            return weight, torch.zeros_like(classes, dtype=torch.float32)

        def tail(maps: Tensor, held: Held | None = None, secant: bool = False) -> Tensor:
            return maps.float().mean((2, 3))

        return Read(logits, tail, linear)
