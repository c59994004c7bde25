"""The pictures of a fit, those that are fitted on and those that are held out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor

from camtool.fit.data import Classes, Found, Labelled
from camtool.fit.outcome import Floats
from camtool.fit.split import Indices, Kinds, groups_of, held_out, shuffled
from camtool.fit.store import Thumbs

Truth: TypeAlias = tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Sample:
    """Pictures with what they show, and on which side each is.

    Attributes:
        pictures: All N of them.
        truths: What each shows.
        plain: float32 [N,C], features of the pictures as they are.
        groups: [N], the first picture of the near-duplicates that each is one of.
        fitted: Numbers of those that are fitted on.
        held: Numbers of those that are held out.
        classes: What there is to show.
    """

    pictures: list[Labelled]
    truths: list[Truth]
    plain: Floats
    groups: Indices
    fitted: list[int]
    held: list[int]
    classes: Classes

    def matrix(self, numbers: Sequence[int]) -> Tensor:
        """float64 [n,K], 1 for a class that a picture shows."""
        matrix = torch.zeros(len(numbers), len(self.classes.names), dtype=torch.float64)
        for row, number in enumerate(numbers):
            matrix[row, list(self.truths[number])] = 1
        return matrix

    def kinds(self, seed: int) -> Kinds:
        """Of the pictures that are fitted on, counted among them, their groups by class."""
        first: dict[int, int] = {}
        groups = [first.setdefault(int(self.groups[n]), row) for row, n in enumerate(self.fitted)]
        digests = [self.pictures[n].digest for n in self.fitted]
        strata = _strata([self.truths[n] for n in self.fitted])
        return shuffled(digests, np.array(groups, np.int64), strata, seed)

    def duplicates(self) -> list[list[int]]:
        """Groups of more than one picture."""
        members: dict[int, list[int]] = {}
        for number, group in enumerate(self.groups):
            members.setdefault(int(group), []).append(number)
        return [numbers for numbers in members.values() if len(numbers) > 1]

    def lone(self) -> list[tuple[str, str]]:
        """Classes of which one picture alone is there, or none held out; with what that means."""
        counts = Counter(one for truth in self.truths for one in truth)
        tested = {one for number in self.held for one in self.truths[number]}
        told = []
        for index, name in enumerate(self.classes.names):
            if counts[index] == 1:
                told.append((name, "has one picture alone: nothing says how well it is known"))
            elif self.held and index not in tested:
                told.append((name, "has none held out: too few, or all nearly the same picture"))
        return told


def sample_of(
    found: Found,
    apart: Found,
    classes: Classes,
    plain: Floats,
    thumbs: Thumbs,
    share: float,
    seed: int,
) -> Sample:
    """Split pictures into those that are fitted on and those that are held out.

    Args:
        found: Pictures to fit on.
        apart: Those that are held out; where there are none, some of the others are. Then what is
            nearly one of them is not fitted on, and named in `found`.
        classes: What there is to show.
        plain: float32 [N,C], features of both, one after the other.
        thumbs: uint8 [N,S,S,3], the same pictures made small.
        share: Of each class, to hold out.
        seed: Of the choice.
    """
    pictures = [*found.pictures, *apart.pictures]
    truths = [classes.truth(picture) for picture in pictures]
    digests = [picture.digest for picture in pictures]
    groups = groups_of(digests, thumbs, plain, truths)
    if apart.pictures:
        held = {*range(len(found.pictures), len(pictures))}
    else:
        held = held_out(shuffled(digests, groups, _strata(truths), seed), share)
    seen = {int(groups[number]) for number in held}
    fitted = []
    for number, picture in enumerate(pictures):
        if number not in held and int(groups[number]) in seen:
            found.problem(picture.path, "is nearly the same as one held out; not fitted on")
        elif number not in held:
            fitted.append(number)
    return Sample(pictures, truths, plain, groups, fitted, sorted(held), classes)


def _strata(truths: Sequence[Truth]) -> list[int]:
    """What each picture counts as where every class should be on both sides: its rarest class."""
    counts = Counter(one for truth in truths for one in truth)
    return [min(truth, key=lambda one: (counts[one], one), default=-1) for truth in truths]
