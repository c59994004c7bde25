"""Networks that give their class maps themselves: a graph that was exported with them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Protocol, cast

import torch
from torch import Tensor, nn

from camtool.errors import HeadError
from camtool.heads.head import Forward, Head, Seen, network_of
from camtool.heads.path import Held


class GivesMaps(Protocol):
    """What a module has that gives its class maps.

    Attributes:
        max_error: What they missed of the logits' spread when they were proved.
    """

    max_error: float

    def class_maps(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Maps float32 [N,classes,h,w] and logits float32 [N,classes] of inputs [N,C,H,W]."""


@dataclass(frozen=True)
class GivenHead(Head):
    """The class maps are the network's own; what they lack of a logit is its bias."""

    kind: str = "given"
    parameters: ClassVar[int] = 0
    layer_name: ClassVar[str] = "none: the maps are given"

    @classmethod
    def match(cls, seen: Seen) -> GivenHead:
        """The head, where the module gives maps.

        Raises:
            HeadError: It does not.
        """
        if not hasattr(seen.module, "class_maps"):
            raise HeadError("the network gives no class maps itself")
        given = cast(GivesMaps, seen.module)
        maps, logits = given.class_maps(seen.inputs)
        return cls(
            features="maps",
            pool="",
            channels=maps.shape[1],
            classes=logits.shape[1],
            shape=(maps.shape[2], maps.shape[3]),
            input=seen.input,
            max_error=given.max_error,
        )

    def forward(self, body: nn.Module, module: nn.Module, inputs: Tensor) -> Forward:
        """Run the network once; the features are the maps."""
        maps, logits = cast(GivesMaps, body).class_maps(inputs)
        offset = logits - maps.mean((2, 3))

        def linear(classes: Tensor) -> tuple[Tensor, Tensor]:
            rows = torch.nn.functional.one_hot(classes, maps.shape[1]).float()
            # Of one class's bias there may be as many as pictures.
            return rows.expand(len(maps), -1, -1), offset.gather(1, classes.expand(len(maps), -1))

        def tail(maps: Tensor, held: Held | None = None, secant: bool = False) -> Tensor:
            return maps.mean((2, 3)) + offset.repeat(len(maps) // len(offset), 1)

        return Forward(maps, logits, tail, network_of(body), inputs, linear=linear)
