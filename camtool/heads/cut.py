"""Where a network is cut: the last spatial tensor from which all of its logits come.

A network is watched while it runs once. Every torch function that is called on something derived
from the input is a node; the *frontier* after a call are the tensors that later calls still need.
Where the frontier is one spatial tensor alone, the logits come from it and nothing else.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_flatten

Layout: TypeAlias = Literal["maps", "last", "flat", "tokens"]
"""How a tensor holds feature maps: [N,C,h,w], [N,h,w,C], [N,C,h*w] or [N,T,C]."""

MOST_PREFIX = 16
"""Tokens that belong to no place: a class token, a distillation token, registers."""


@dataclass(frozen=True)
class Place:
    """Which result of which call: the n-th of its name in a forward pass."""

    function: str
    number: int
    output: int = 0


@dataclass(frozen=True)
class Cut:
    """A tensor inside a forward pass that holds feature maps.

    Attributes:
        place: Where it appears.
        layout: How it holds the maps.
        prefix: Tokens before the first that belongs to a place.
        grid: (h, w) on the input that it was found with.
        size: (height, width) of that input.
        channels: Number of maps.
        name: The module that it comes from, for people.
        others: Places of what else later calls need.
        names: Every module whose output it is.
    """

    place: Place
    layout: Layout
    prefix: int
    grid: tuple[int, int]
    size: tuple[int, int]
    channels: int = 0
    name: str = ""
    others: tuple[Place, ...] = ()
    names: tuple[str, ...] = ()

    def maps(self, tensor: Tensor, size: Sequence[int]) -> Tensor:
        """The tensor's feature maps, [N,C,h,w], without the prefix.

        Args:
            tensor: As it appears in a forward pass.
            size: (height, width) of the input of that pass.
        """
        if self.layout == "maps":
            return tensor
        if self.layout == "last":
            return tensor.permute(0, 3, 1, 2)
        places = tensor if self.layout == "flat" else tensor[:, self.prefix :].transpose(1, 2)
        return places.reshape(*places.shape[:2], *self._grid(places.shape[2], size))

    def tensor(self, maps: Tensor, before: Tensor) -> Tensor:
        """The opposite of `maps`; the prefix is that of the tensor before, as often as needed."""
        if self.layout == "maps":
            return maps
        if self.layout == "last":
            return maps.permute(0, 2, 3, 1).contiguous()
        places = maps.flatten(2)
        if self.layout == "flat":
            return places
        places = places.transpose(1, 2)
        if not self.prefix:
            return places.contiguous()
        prefix = before[:, : self.prefix].repeat(len(maps) // len(before), 1, 1)
        return torch.cat([prefix.to(places.dtype), places], 1)

    def _grid(self, cells: int, size: Sequence[int]) -> tuple[int, int]:
        rows = max(1, round(size[0] * self.grid[0] / self.size[0]))
        if cells % rows or not rows:
            near = [n for n in range(1, cells + 1) if cells % n == 0]
            rows = min(near, key=lambda n: abs(n - rows))
        return rows, cells // rows


class Counting(TorchFunctionMode):
    """Calls torch functions and knows how often each has been called."""

    def __init__(self) -> None:
        super().__init__()
        self._calls: Counter[str] = Counter()

    def place(self, function: Any) -> Place:
        """The place of a call that is about to be made."""
        name = getattr(function, "__name__", str(function))
        self._calls[name] += 1
        return Place(name, self._calls[name])


class Recording(Counting):
    """Keeps the tensors that appear at some places."""

    def __init__(self, places: Sequence[Place]) -> None:
        super().__init__()
        self._wanted = {(place.function, place.number): place for place in places}
        self.found: dict[Place, Tensor] = {}

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Call `func`, and keep what is wanted of it."""
        output = call(func, args, kwargs or {})
        here = self.place(func)
        wanted = self._wanted.get((here.function, here.number))
        if wanted is not None:
            # A copy, because later calls may change it in place.
            self.found[wanted] = tensors_of(output)[wanted.output].detach().clone()
        return output


def call(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Call a torch function; attention gets its tokens laid out one after another.

    While functions are watched nn.MultiheadAttention takes its slow path, which projects a
    transposed view: as many small products as there are tokens, five times as slow as one.
    """
    if getattr(func, "__name__", "") == "multi_head_attention_forward":
        # It tells self-attention by its three arguments being one object.
        laid = {id(tensor): tensor.contiguous() for tensor in args[:3]}
        args = (*(laid[id(tensor)] for tensor in args[:3]), *args[3:])
    return func(*args, **kwargs)


def tensors_of(value: Any) -> list[Tensor]:
    """The tensors in arguments or results of a call."""
    return [leaf for leaf in tree_flatten(value)[0] if isinstance(leaf, Tensor)]


@dataclass
class Node:
    """A tensor derived from the input.

    Attributes:
        place: Where it appears.
        time: Number of the call that made it.
        sources: Nodes that it was made of.
        shape: Its own.
        last: Number of the last call that needs it, among those that lead to the logits.
        names: The modules that gave it, the outermost last.
    """

    place: Place
    time: int
    sources: tuple[int, ...]
    shape: tuple[int, ...]
    last: int = -1
    names: list[str] = field(default_factory=list)


@dataclass
class Tape(Counting):
    """What is called on tensors derived from the input, in order."""

    nodes: list[Node] = field(default_factory=list)
    _time: int = 0

    def __post_init__(self) -> None:
        super().__init__()

    def start(self, inputs: Tensor) -> None:
        """Mark the input."""
        self.mark(inputs, Place("input", 0), ())

    def mark(self, tensor: Tensor, place: Place, sources: tuple[int, ...]) -> None:
        """Note a tensor; the mark goes with the Python object, so nothing has to be kept alive."""
        tensor._camtool_node = len(self.nodes)  # type: ignore[attr-defined]
        self.nodes.append(Node(place, self._time, sources, tuple(tensor.shape)))

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Call `func`, and note what it makes of marked tensors."""
        kwargs = kwargs or {}
        marks = [node_of(tensor) for tensor in tensors_of((args, kwargs))]
        sources = tuple(dict.fromkeys(mark for mark in marks if mark is not None))
        output = func(*args, **kwargs)
        here = self.place(func)
        if sources:
            self._time += 1
            for number, tensor in enumerate(tensors_of(output)):
                self.mark(tensor, replace(here, output=number), sources)
        return output

    def finish(self, logits: Tensor) -> list[Node]:
        """The nodes that lead to the logits, each with its last use, in order."""
        end = node_of(logits)
        if end is None:
            return []
        wanted, pending = set(), [end]
        while pending:
            number = pending.pop()
            if number in wanted:
                continue
            wanted.add(number)
            for source in self.nodes[number].sources:
                self.nodes[source].last = max(self.nodes[source].last, self.nodes[number].time)
                pending.append(source)
        return [self.nodes[number] for number in sorted(wanted)]


def node_of(tensor: Tensor) -> int | None:
    """The mark that a tensor carries."""
    return getattr(tensor, "_camtool_node", None)


def candidates(nodes: list[Node], size: tuple[int, int]) -> Iterator[Cut]:
    """Every cut from which all logits come, the last first; then those that others stand beside.

    Args:
        nodes: That lead to the logits.
        size: (height, width) of the input.
    """
    spatial = [(node, cut) for node, cut in _spatial(nodes, size) if node.last > node.time]
    spatial = [(node, cut) for node, cut in spatial if node.place.function not in _POOLS]
    alone: list[Cut] = []
    beside: list[Cut] = []
    for node, cut in reversed(spatial):
        living = [each for each in nodes if 0 < each.time <= node.time < each.last]
        others = tuple(each.place for each in living if each is not node)
        (beside if others else alone).append(replace(cut, others=others))
    yield from alone
    yield from beside


_POOLS = {"adaptive_avg_pool2d"}
"""Of what is pooled to a few cells the cut is what goes in: it lies on the picture."""


def _spatial(nodes: list[Node], size: tuple[int, int]) -> Iterator[tuple[Node, Cut]]:
    grids: list[tuple[int, int]] = []
    for node in nodes:
        found = _layout(node.shape, size, grids)
        if found is None:
            continue
        layout, prefix, grid = found
        if grid in grids:
            grids.remove(grid)
        grids.append(grid)
        name = node.names[-1] if node.names else ""
        axis = {"maps": 1, "last": 3, "flat": 1, "tokens": 2}[layout]
        cut = Cut(node.place, layout, prefix, grid, size, node.shape[axis], name)
        yield node, replace(cut, names=tuple(node.names))


def _layout(
    shape: tuple[int, ...], size: tuple[int, int], grids: list[tuple[int, int]]
) -> tuple[Layout, int, tuple[int, int]] | None:
    """How a tensor of a shape holds maps, if it does; grids that were seen tell tokens apart."""
    if len(shape) == 4:
        if _is_grid(shape[2:], size):
            return "maps", 0, (shape[2], shape[3])
        if _is_grid(shape[1:3], size):
            return "last", 0, (shape[1], shape[2])
    if len(shape) == 3:
        for grid in reversed(grids or _patches(shape[1], size)):
            cells = grid[0] * grid[1]
            if 0 <= shape[1] - cells <= MOST_PREFIX:
                return "tokens", shape[1] - cells, grid
            if shape[2] == cells:
                return "flat", 0, grid
    return None


def _patches(tokens: int, size: tuple[int, int]) -> list[tuple[int, int]]:
    """The grid of a square input's patches that were cut out and put in a row, if they may be."""
    side = math.isqrt(tokens)
    fits = size[0] == size[1] and side > 1 and side * side == tokens and size[0] % side == 0
    return [(side, side)] if fits and size[0] > side else []


def _is_grid(sides: Sequence[int], size: tuple[int, int]) -> bool:
    """Whether two sides may be those of feature maps: several cells, of the input's proportions."""
    rows, columns = sides
    return (
        rows * columns > 1
        and size[0] / rows > 1
        and abs(rows / size[0] - columns / size[1]) < (1.01 / max(size))
    )
