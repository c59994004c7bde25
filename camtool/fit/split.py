"""Who is fitted on and who is held out: near-duplicates are always on one side."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Hashable, Iterable, Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from camtool.fit.outcome import Floats
from camtool.fit.store import Thumbs

ALIKE = 0.9
"""Least correlation of near-duplicates, made small: of their pixels, or mirrored pixels.

On Tiny ImageNet: compressed anew 0.97 and more, at another size 0.99, without a margin of 3 % in
the median 0.95; the most alike of 100 different pictures of one class 0.88."""

ALIKE_IN_CLASS = 0.6
"""Least cosine of what is left of their pooled features without their class's mean. A class whose
pictures all look alike, as of parts before one background, is not one group of duplicates.

On the embedded network: compressed to a tenth 0.6 and more, all else that is named above 0.7."""

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


def groups_of(
    digests: Sequence[bytes], thumbs: Thumbs, features: Floats, truths: Sequence[Hashable]
) -> Indices:
    """The group of near-duplicates that each picture is in.

    Args:
        digests: Of N files; the same bytes are one group.
        thumbs: uint8 [N,S,S,3], the pictures made small.
        features: float32 [N,C], pooled.
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
        for first, second in _near(thumbs[members], features[members]):
            sets.join(int(members[first]), int(members[second]))
    return np.array([sets.find(number) for number in range(len(digests))], np.int64)


def _alike(values: Iterable[Hashable]) -> list[list[int]]:
    """The numbers of equal values."""
    found: dict[Hashable, list[int]] = defaultdict(list)
    for number, value in enumerate(values):
        found[value].append(number)
    return list(found.values())


def _near(thumbs: Thumbs, features: Floats) -> Iterable[tuple[int, int]]:
    """Pairs of near-duplicates among the pictures of one class."""
    plain, mirrored = _contrasts(thumbs), _contrasts(thumbs[:, :, ::-1])
    inside = _directions(features - features.mean(0) if len(features) >= FEW else features)
    for start in range(0, len(features), _BLOCK):
        some = slice(start, start + _BLOCK)
        alike = torch.maximum(plain[some] @ plain.T, plain[some] @ mirrored.T) >= ALIKE
        near = alike & (inside[some] @ inside.T >= ALIKE_IN_CLASS)
        for first, second in near.nonzero().tolist():
            if first + start < second:
                yield first + start, second


def _contrasts(thumbs: Thumbs) -> Tensor:
    """float32 [N,S*S*3]: products of two rows are correlations of the pictures."""
    values = thumbs.astype(np.float32)
    return _directions((values - values.mean((1, 2), keepdims=True)).reshape(len(thumbs), -1))


def _directions(values: Floats) -> Tensor:
    return torch.nn.functional.normalize(torch.from_numpy(values), dim=1)


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
