"""Who is fitted on and who is held out: near-duplicates are always on one side."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Hashable, Iterable, Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from camtool.fit.outcome import Floats

ALIKE = 0.9
"""Least cosine of pooled features of near-duplicates.

On photographs of Tiny ImageNet, measured on the embedded network: copies compressed anew 0.99 and
more, at twice the size 0.99, mirrored 0.91, without a margin of 3 % 0.89; the most alike of 1,000
different pictures 0.85."""

ALIKE_IN_CLASS = 0.85
"""Least cosine of what is left of the features without their class's mean: a class whose pictures
all look alike, as of parts before one background, is not one group of duplicates."""

FEW = 4
"""Pictures of a class, below which the mean says nothing."""

_BLOCK = 2048

Indices: TypeAlias = npt.NDArray[np.int64]
Kinds: TypeAlias = Sequence[Sequence[Sequence[int]]]
"""By class, groups of near-duplicates, which are pictures by number."""


class _Sets:
    """Disjoint sets of numbers, joined pair by pair (Galler and Fischer 1964)."""

    def __init__(self, count: int) -> None:
        self.parents = list(range(count))

    def find(self, number: int) -> int:
        while self.parents[number] != number:
            self.parents[number] = self.parents[self.parents[number]]
            number = self.parents[number]
        return number

    def join(self, first: int, second: int) -> None:
        low, high = sorted((self.find(first), self.find(second)))
        self.parents[high] = low


def groups_of(digests: Sequence[bytes], features: Floats, truths: Sequence[Hashable]) -> Indices:
    """The group of near-duplicates that each picture is in.

    Args:
        digests: Of N files; the same bytes are one group.
        features: float32 [N,C], not negative in most networks.
        truths: What each picture shows; only pictures that show the same are compared.

    Returns:
        [N], the number of the first picture of its group.
    """
    sets = _Sets(len(digests))
    for numbers in _alike(digests):
        for number in numbers[1:]:
            sets.join(numbers[0], number)
    for numbers in _alike(truths):
        members = np.array(numbers)
        for first, second in _near(features[members]):
            sets.join(int(members[first]), int(members[second]))
    return np.array([sets.find(number) for number in range(len(digests))], np.int64)


def _alike(values: Iterable[Hashable]) -> list[list[int]]:
    """The numbers of equal values."""
    found: dict[Hashable, list[int]] = defaultdict(list)
    for number, value in enumerate(values):
        found[value].append(number)
    return list(found.values())


def _near(features: Floats) -> Iterable[tuple[int, int]]:
    """Pairs of near-duplicates among the pictures of one class."""
    plain = _directions(features)
    centred = _directions(features - features.mean(0)) if len(features) >= FEW else plain
    for start in range(0, len(features), _BLOCK):
        some = slice(start, start + _BLOCK)
        near = (plain[some] @ plain.T >= ALIKE) & (centred[some] @ centred.T >= ALIKE_IN_CLASS)
        for first, second in zip(*np.nonzero(near), strict=True):
            if first + start < second:
                yield int(first) + start, int(second)


def _directions(features: Floats) -> Floats:
    lengths = np.linalg.norm(features, axis=1, keepdims=True)
    return np.asarray(features / np.maximum(lengths, np.finfo(np.float32).tiny))


def shuffled(
    digests: Sequence[bytes], groups: Indices, truths: Sequence[Hashable], seed: int
) -> Kinds:
    """For each kind of truth its groups of pictures, in a random order.

    The order hangs on the files' content and the seed, not on their names or places. A group that
    shows several things goes with its first picture.
    """
    members: dict[int, list[int]] = defaultdict(list)
    for number, group in enumerate(groups):
        members[int(group)].append(number)

    def place(group: int) -> bytes:
        least = min(digests[number] for number in members[group])
        return hashlib.sha256(seed.to_bytes(8, "big", signed=True) + least).digest()

    kinds: dict[Hashable, list[int]] = defaultdict(list)
    for group in members:
        kinds[truths[group]].append(group)
    return [[members[group] for group in sorted(found, key=place)] for found in kinds.values()]


def held_out(kinds: Kinds, share: float) -> set[int]:
    """Pictures to hold out: that share of every kind, and one group at the least.

    A kind of one group alone is fitted on.
    """
    held: set[int] = set()
    for groups in kinds:
        wanted = share * sum(map(len, groups))
        some: list[int] = []
        # One group stays, whatever the share.
        for group in groups[:-1] if share else []:
            if len(some) + len(group) / 2 <= wanted:
                some += group
        if share and len(groups) > 1:
            held.update(some or sorted(groups[:-1], key=len)[0])
    return held


def folds_of(kinds: Kinds, count: int) -> dict[int, int]:
    """The fold in which each picture is left out; none for a kind of one group alone."""
    return {
        number: place % count
        for groups in kinds
        if len(groups) > 1
        for place, group in enumerate(groups)
        for number in group
    }


def first_share(kinds: Kinds, share: float) -> list[int]:
    """That share of every kind, one group at the least; a larger share holds the smaller ones."""
    some = (groups[: max(1, round(share * len(groups)))] for groups in kinds)
    return sorted(number for groups in some for group in groups for number in group)
