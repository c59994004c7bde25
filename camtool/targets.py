"""Which classes are explained in which picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

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


def pairs_of(choices: Sequence[Sequence[Choice]]) -> list[list[tuple[int, int]]]:
    """Each choice as a pair; -1 for a class that is compared with none."""
    return [
        [choice if isinstance(choice, tuple) else (choice, _NONE) for choice in some]
        for some in choices
    ]


def ranked(choices: Sequence[Sequence[Choice]], logits: Tensor) -> tuple[Tensor, Tensor]:
    """The classes that are chosen, the network's own choices among them.

    Args:
        choices: For each of N pictures K of them.
        logits: float [N,classes].

    Returns:
        int64 [N,K] classes, and int64 [N,K] those that they are compared with, or -1.
    """
    pairs = torch.tensor(pairs_of(choices), device=logits.device)
    places = BEST.value - pairs
    order = logits.topk(min(max(2, int(places.max()) + 1), logits.shape[1]), dim=1).indices
    found = order.gather(1, places.clamp(min=0).flatten(1)).view_as(pairs)
    chosen, versus = torch.where(places < 0, pairs, found).unbind(-1)
    best, following = order[:, :1], order[:, :2][:, -1:]
    other = torch.where(best == chosen, following, best)
    return chosen, torch.where(pairs[..., 1] == NEXT.value, other, versus)
