"""Which classes are explained in which picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import torch
from torch import Tensor

from camtool.device import onto
from camtool.errors import TargetError
from camtool.networks import resolve_target


@dataclass(frozen=True)
class Ranked:
    """A class that the network itself chooses in each picture.

    Attributes:
        place: Of its logit among all, 0 the greatest.
    """

    place: int

    @property
    def value(self) -> int:
        """What stands for it among class indices: -2, -3, and so on."""
        return -2 - self.place


BEST = Ranked(0)
"""The class of the greatest logit."""
NEXT = Ranked(1)
"""The best but for BEST; in a pair the best but for the other of the pair."""
_NONE = -1

Named: TypeAlias = "int | str | Ranked"
Target: TypeAlias = "Named | tuple[Named, Named]"
"""A class by index, label or rank, or a pair (a, b): the contrast *a rather than b*."""

Targets: TypeAlias = "Target | Sequence[Target | Sequence[Target] | None] | None"
"""One target for every picture, or a list with what is wanted of each; None for the best."""

Choice: TypeAlias = "int | tuple[int, int]"
"""A class index, or a pair of them; the value of a `Ranked` where the network chooses."""


def for_each(targets: Any, pictures: int) -> list[Any]:
    """What is wanted of each picture.

    Args:
        targets: As `Targets`; a tensor or an array of indices is a list of them.
        pictures: How many there are.

    Raises:
        ValueError: There are several targets, and not one for each picture.
    """
    if hasattr(targets, "tolist"):
        targets = targets.tolist()
    if targets is None or _is_one(targets):
        return [targets] * pictures
    if len(targets) != pictures:
        raise ValueError(
            f"{len(targets)} targets for {pictures} pictures; a list names what is wanted of each "
            "picture, several classes of one picture as a list in it"
        )
    return list(targets)


def choices_of(targets: Target | Sequence[Target] | None, labels: Sequence[str]) -> list[Choice]:
    """Class indices of one picture's targets; empty for None.

    Raises:
        TargetError: One matches no class, or several; or a pair is the same class twice.
        ValueError: A pair holds not two targets.
    """
    if targets is None:
        return []
    some = [targets] if _is_one(targets) else targets
    return [_choice(target, labels) for target in some]  # type: ignore[arg-type, union-attr]


def _choice(target: Target, labels: Sequence[str]) -> Choice:
    if isinstance(target, tuple):
        if len(target) != 2:
            raise ValueError(f"a contrast is a pair of classes, not {target!r}")
        one, other = (_index(each, labels) for each in target)
        if one == other:
            raise TargetError(f"a contrast is of two classes, not of {target[0]!r} with itself")
        return one, other
    return _index(target, labels)


def _index(target: Named, labels: Sequence[str]) -> int:
    if isinstance(target, Ranked):
        if len(labels) <= target.place:
            few = "one logit" if len(labels) == 1 else f"{len(labels)} logits"
            raise TargetError(f"there is no next class: the network has {few}")
        return target.value
    return resolve_target(target if isinstance(target, str) else int(target), labels)


def _is_one(targets: Any) -> bool:
    return isinstance(targets, (int, str, np.integer, tuple, Ranked))


class Pairs(NamedTuple):
    """The choices of N pictures, K of each.

    Attributes:
        indices: int64 [N,K,2], each class and the one that it is compared with, or -1.
        depth: How many of the network's own best classes are needed to know which are meant.
        compared: Whether any is compared with another.
    """

    indices: Tensor
    depth: int
    compared: bool

    def onto(self, device: torch.device) -> Pairs:
        """The same on a device."""
        return self._replace(indices=onto(self.indices, device))


def pairs_of(choices: Sequence[Sequence[Choice]]) -> Pairs:
    """The choices of pictures as pairs of numbers, on the CPU."""
    pairs = [
        [choice if isinstance(choice, tuple) else (choice, _NONE) for choice in some]
        for some in choices
    ]
    numbers = [pair for some in pairs for pair in some]
    depth = max(2, *(BEST.value - number + 1 for pair in numbers for number in pair))
    return Pairs(torch.tensor(pairs), depth, any(other != _NONE for _, other in numbers))


def ranked(pairs: Pairs, logits: Tensor) -> tuple[Tensor, Tensor]:
    """The classes that are chosen, the network's own choices among them.

    Args:
        pairs: Of N pictures, K of each, on the logits' device.
        logits: float [N,classes].

    Returns:
        int64 [N,K] classes, and int64 [N,K] those that they are compared with, or -1.
    """
    indices = pairs.indices
    places = BEST.value - indices
    order = logits.topk(min(pairs.depth, logits.shape[1]), dim=1).indices
    found = order.gather(1, places.clamp(min=0).flatten(1)).view_as(indices)
    chosen, versus = torch.where(places < 0, indices, found).unbind(-1)
    best, following = order[:, :1], order[:, :2][:, -1:]
    other = torch.where(best == chosen, following, best)
    return chosen, torch.where(indices[..., 1] == NEXT.value, other, versus)
