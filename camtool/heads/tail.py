"""What comes after a cut, run by itself on other feature maps than the network's own.

The network's code runs from the start, but what it does to the input before the cut is done to
shapes alone (torch's `meta` device), which costs next to nothing. At the cut the given tensor
takes the place of the network's, and from there on everything is computed. No surgery on the
network is needed: modules, plain functions and a user's own code are all alike.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from camtool.errors import HeadError
from camtool.heads.cut import Counting, Cut, Place, call, tensors_of
from camtool.heads.path import Held
from camtool.heads.secants import ELEMENTWISE, MAXIMA, secant
from camtool.heads.statistics import STATISTICS, arguments, is_statistic
from camtool.heads.tokens import ATTENTION, TokensLinear, attention
from camtool.heads.watch import logits_of

Shapes: TypeAlias = "dict[torch.Size, dict[tuple[str, int], Any]]"
"""Results of calls on torch's `meta` device, by the input's shape, function and number of the call.

They are the same in every run and hold no data, but take as long as a small network's forward pass:
most of torch's meta functions are written in Python."""

MOST_SHAPES = 16
"""Of inputs, whose results on shapes are kept."""


@dataclass
class Tail:
    """The rest of a network behind a cut, for one batch that went through it.

    Attributes:
        module: The network.
        cut: Where it is cut.
        tensor: What the forward pass had there, as from `Recording`.
        others: What it had at the cut's other places.
        inputs: Shape of its input.
        whole: Its input itself where the part before the cut can't be run on shapes alone.
        shapes: What earlier runs found on shapes alone, by the input's shape; may be shared by
            tails of one network and cut.
        bent: Whether the last run came by an elementwise function that is not linear.
    """

    module: nn.Module
    cut: Cut
    tensor: Tensor
    others: dict[Place, Tensor]
    inputs: torch.Size
    whole: Tensor | None = None
    shapes: Shapes = field(default_factory=dict)
    bent: bool = field(default=False, init=False)

    @property
    def features(self) -> Tensor:
        """The feature maps [N,C,h,w] at the cut."""
        return self.cut.maps(self.tensor, self.inputs[2:])

    def __call__(self, maps: Tensor, held: Held | None = None, secant: bool = False) -> Tensor:
        """The logits of feature maps.

        Args:
            maps: [M*N,C,h,w], M versions of the N pictures' feature maps, version by version.
            held: Hold the statistics of normalizations at those of the real maps: where it is
                empty at those of the last version, which it then keeps for later calls.
            secant: The gradient of an elementwise function, in each version but the first, is
                the slope of its secant from the version before.

        Returns:
            float32 [M*N,classes], with a graph where `maps` wants gradients.
        """
        times = len(maps) // len(self.tensor)
        given = {self.cut.place: self.cut.tensor(maps.to(self.tensor.dtype), self.tensor)}
        for place, tensor in self.others.items():
            given[place] = tensor.repeat(times, *[1] * (tensor.ndim - 1))
        inputs = self._inputs(times)
        mode = _Grafting(
            given, len(self.tensor), len(maps), held, secant, self._known(inputs.shape)
        )
        with mode:
            output = self.module(inputs)
        self.bent = mode.bent
        if mode.missing:
            raise HeadError(f"the network did not come by its cut again ({self.cut.place})")
        logits = logits_of(output)
        if logits.device.type == "meta" or len(logits) != len(maps):
            raise HeadError("what follows the cut does not keep the pictures of a batch apart")
        return logits.float().flatten(1)

    def _known(self, shape: torch.Size) -> dict[tuple[str, int], Any]:
        if len(self.shapes) >= MOST_SHAPES and shape not in self.shapes:
            self.shapes.clear()
        return self.shapes.setdefault(shape, {})

    def _inputs(self, times: int) -> Tensor:
        if self.whole is not None:
            return self.whole.repeat(times, 1, 1, 1)
        shape = (self.inputs[0] * times, *self.inputs[1:])
        return torch.empty(shape, dtype=self.tensor.dtype, device="meta")


@dataclass
class _Grafting(Counting):
    """Puts given tensors in their places; computes only what they and parameters lead to.

    Attributes:
        given: Tensors by place.
        real: Number of pictures, whose real maps come last.
        versions: Number of all their versions.
        held: What the real maps became where statistics are held; None where they are not.
        secant: Whether gradients of elementwise functions are slopes of secants.
        known: Results on shapes from earlier runs on an input of this shape; added to.
    """

    given: dict[Place, Tensor]
    real: int
    versions: int
    held: Held | None
    secant: bool
    known: dict[tuple[str, int], Any]
    missing: int = 0
    bent: bool = False
    _by_call: dict[tuple[str, int], Place] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__init__()
        self.missing = len(self.given)
        self._by_call = {(place.function, place.number): place for place in self.given}

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Call `func`, on shapes where the input alone leads to it."""
        kwargs = kwargs or {}
        here = self.place(func)
        key = here.function, here.number
        if key in self.known:
            output = self.known[key]
        elif any(tensor.device.type == "meta" for tensor in tensors_of((args, kwargs))):
            args, kwargs = tree_map(_to_meta, args), tree_map(_to_meta, kwargs)
            output = self.known[key] = func(*args, **kwargs)
        elif self.held is not None and self._follows(args) and is_statistic(here.function, args):
            output = self._normalized(key, self.held, func, args, kwargs)
        elif self._bends(here.function, args):
            self.bent = True
            output = secant(self.real, func, args, kwargs) if self.secant else func(*args, **kwargs)
        elif here.function in MAXIMA and self._follows(args) and not kwargs.get("return_indices"):
            self.bent = True
            found = MAXIMA[here.function](self.real, args, kwargs) if self.secant else None
            output = func(*args, **kwargs) if found is None else found
        elif here.function == "linear" and self._follows(args) and args[0].ndim == 3:
            x, weight, bias = arguments(args, kwargs, ("input", "weight", "bias"), None)
            output = TokensLinear.apply(x, weight, bias)
        else:
            few = attention(func, args, kwargs) if self._attends(here.function, args) else None
            output = call(func, args, kwargs) if few is None else few
        place = self._by_call.get(key)
        return output if place is None else self._graft(place, output)

    def _follows(self, args: tuple[Any, ...]) -> bool:
        """Whether a call's first argument comes from the cut: it wants gradients, all versions."""
        if self.missing or not args or not isinstance(args[0], Tensor):
            return False
        x = args[0]
        return x.requires_grad and not x.is_leaf and x.ndim > 0 and len(x) == self.versions

    def _attends(self, name: str, args: tuple[Any, ...]) -> bool:
        """Whether a call is attention of what comes from the cut."""
        if self.missing or name not in ATTENTION or not isinstance(args[0], Tensor):
            return False
        x = args[0]
        return x.requires_grad and not x.is_leaf and x.ndim > 2 and self.versions in x.shape[:2]

    def _bends(self, name: str, args: tuple[Any, ...]) -> bool:
        """Whether a call is an elementwise function of what comes from the cut."""
        bends = name.strip("_") in ELEMENTWISE and self._follows(args)
        return bends and not is_statistic(name, args)

    def _normalized(
        self, key: tuple[str, int], held: Held, func: Any, args: tuple[Any, ...], kwargs: Any
    ) -> Any:
        """What takes statistics, with the real maps of an earlier call, or the last of this one."""
        function, x = STATISTICS[key[0]], args[0]
        if key not in held:
            held[key] = x[-self.real :].detach()
            return function(self.real, func, args, kwargs)
        return function(self.real, func, (torch.cat([x, held[key]]), *args[1:]), kwargs)[: len(x)]

    def _graft(self, place: Place, output: Any) -> Any:
        self.missing -= 1
        if isinstance(output, Tensor):
            return self.given[place]
        parts = list(output)
        parts[place.output] = self.given[place]
        return type(output)(parts) if isinstance(output, list) else tuple(parts)


def _to_meta(value: Any) -> Any:
    if isinstance(value, torch.device):
        return torch.device("meta")
    if isinstance(value, Tensor) and value.device.type != "meta":
        return torch.empty_strided(value.shape, value.stride(), dtype=value.dtype, device="meta")
    return value
