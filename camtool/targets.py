"""Which classes are explained in which picture."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np

from camtool.networks import resolve_target

Target: TypeAlias = "int | str | tuple[int | str, int | str]"
"""A class by index or label, or a pair (a, b): the contrast *a rather than b*."""

Targets: TypeAlias = "Target | Sequence[Target | Sequence[Target] | None] | None"
"""One target for every picture, or a list with what is wanted of each; None for the best."""

Choice: TypeAlias = "int | tuple[int, int]"
"""A class index, or a pair of them."""


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
        TargetError: One matches no class, or several.
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
        return one, other
    return _index(target, labels)


def _index(target: int | str, labels: Sequence[str]) -> int:
    return resolve_target(target if isinstance(target, str) else int(target), labels)


def _is_one(targets: Any) -> bool:
    return isinstance(targets, (int, str, np.integer, tuple))


def pairs_of(choices: Sequence[Sequence[Choice]]) -> list[list[tuple[int, int]]]:
    """Each choice as a pair; -1 for a class that is compared with none."""
    return [
        [choice if isinstance(choice, tuple) else (choice, -1) for choice in some]
        for some in choices
    ]
