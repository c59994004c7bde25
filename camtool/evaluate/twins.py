"""The methods of a network once more, on weights that are drawn anew."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import replace
from threading import Lock
from typing import TypeAlias

from torch import nn

from camtool.evaluate.sanity import randomise
from camtool.evaluate.ways import Seen, Way, explaining
from camtool.model import CamModel
from camtool.networks import Network
from camtool.regions.boxes import FloatMap

Rebuild: TypeAlias = Callable[[Network], Sequence[CamModel]]
"""Makes the models that are compared of the same network with other weights."""


class Twins:
    """Ways to make maps, whose network is randomised stage by stage.

    Args:
        module: The network that all of them use; changed in place.
        ways: What is compared.
    """

    def __init__(self, module: nn.Module, ways: Sequence[Way]) -> None:
        self._module, self._ways = module, ways
        self._stages = enumerate(randomise(module))
        self._stage = -1
        self._lock = Lock()

    @classmethod
    def of(cls, network: Network, ways: Sequence[Way], rebuild: Rebuild) -> Twins:
        """Of a copy of a network."""
        module = deepcopy(network.module)
        # "As given": its weights are read anew for every picture.
        others = iter(explaining(rebuild(replace(network, module=module, weights="as given"))))
        return cls(module, [w if w.baseline else replace(w, explain=next(others)) for w in ways])

    def __reduce__(self) -> tuple[object, ...]:
        """Pickled as it is before the first stage; every process draws the same weights."""
        return Twins, (self._module, self._ways)

    def maps(self, stage: int, seen: Seen, answer: int) -> list[FloatMap]:
        """For each way its map of a class, with the weights of a stage.

        Stages come one after the other: nothing of an earlier one may still run.
        """
        with self._lock:
            while self._stage < stage:
                self._stage, _ = next(self._stages)
        return [way.explain(seen, [answer])[0][0] for way in self._ways]
