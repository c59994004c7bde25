"""What pictures are known to show: the truth, beside what the network predicts."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from camtool.choices import TruthSource
from camtool.errors import TargetError
from camtool.folder.discovery import Picture
from camtool.folder.entry import Explained
from camtool.folder.lists import SourceError
from camtool.images.read import printable
from camtool.networks.labels import classes_by_name, plain, resolve_target
from camtool.targets import Ranked

if TYPE_CHECKING:
    from camtool.explanation import Explanation
    from camtool.model import CamModel

CONFUSIONS = 100
"""Most pairs of classes that a verdict lists."""
_QUANTILE = 1.959963984540054
"""Of the normal distribution, for an interval that holds 95 %."""


def with_truth(
    pictures: Sequence[Picture],
    model: CamModel,
    kind: TruthSource,
    classes: int,
    warn: Callable[[str], None],
) -> list[Picture]:
    """The pictures with what they are known to show, and with what is explained for it.

    The truth is the target that a list names, or else the name of the uppermost folder that a
    picture lies in. With "auto" folders count where no list names a target and most of them are
    called like a class, by label or synset; with "folder" they do in any case; with "none" nothing
    is the truth, and a list's target is the one class explained.

    Args:
        pictures: Of the run, in its order.
        model: Whose classes they are.
        kind: Where the truth comes from.
        classes: How many of the best classes are explained beside the truth; 0 where others are.
        warn: Told once where folders are taken for classes.

    Raises:
        SourceError: With "folder", if no folder is called like a class.
    """
    if kind == "none" or (kind == "auto" and len(model.labels) < 2):
        return list(pictures)
    listed = any(picture.listed is not None for picture in pictures)
    known = classes_by_name(model.labels, model.network.synsets)
    folders = {} if listed and kind == "auto" else _folders(pictures, known, kind, warn)
    named = lru_cache(maxsize=None)(partial(_named, labels=model.labels, known=known))
    chosen = lru_cache(maxsize=None)(lambda truth: [*map(Ranked, range(classes)), truth])

    def judged(picture: Picture) -> Picture:
        if picture.listed is None:
            truth = folders.get(_folder_of(picture))
        else:
            truth = named(picture.listed)
        if truth is None:
            return picture
        return replace(picture, truth=truth, target=chosen(truth) if classes else None)

    return [judged(picture) for picture in pictures]


def _named(target: str, labels: Sequence[str], known: Mapping[str, int]) -> int | None:
    """The class of a list's target; None leaves it to the engine to say why there is none."""
    try:
        return known[plain(target)] if plain(target) in known else resolve_target(target, labels)
    except TargetError:
        return None


def _folder_of(picture: Picture) -> str:
    return picture.key.partition("/")[0] if "/" in picture.key else ""


def _folders(
    pictures: Iterable[Picture],
    classes: Mapping[str, int],
    kind: TruthSource,
    warn: Callable[[str], None],
) -> Mapping[str, int]:
    """Class of each uppermost folder that is called like one; none where too few are."""
    names = sorted({_folder_of(picture) for picture in pictures} - {""})
    found = {name: classes[plain(name)] for name in names if plain(name) in classes}
    if kind == "folder" and not found:
        some = ", ".join(map(printable, names[:3])) or "there is none"
        raise SourceError(f"--truth folder: no sub-folder is called like a class ({some})")
    if kind == "auto" and 2 * len(found) <= len(names):
        return {}
    others = [printable(name) for name in names if name not in found]
    but = f" (not {', '.join(others[:3])}{', …' * (len(others) > 3)})" if others else ""
    warn(
        f"{len(found)} of {len(names)} sub-folders are called like classes{but}, which is taken "
        "for the truth; --truth none ignores it"
    )
    return found


def beside_truth(explanation: Explanation, truth: int) -> Explanation:
    """Each class once, and the contrast of prediction and truth where they differ.

    Args:
        explanation: Of the best classes, and of the truth after them.
        truth: Index of the class that the picture is known to show.
    """
    at = int(np.argmax(explanation.indices == truth))
    wrong = at > 0
    some = [*range(max(at + 1, len(explanation.indices) - 1)), *[0] * wrong]
    labels, versus = explanation.labels, explanation.versus

    def difference(values: NDArray[np.float32]) -> NDArray[np.float32]:
        found = values[some]
        if wrong:
            found[-1] -= values[at]
        return found

    return replace(
        explanation,
        maps=difference(explanation.maps),
        indices=explanation.indices[some],
        labels=tuple(labels[k] for k in some),
        versus=(*(versus[k] for k in some[: len(some) - wrong]), *[labels[at]] * wrong),
        logits=difference(explanation.logits),
        bias=difference(explanation.bias),
        residual=difference(explanation.residual),
        probabilities=explanation.probabilities[some],
    )


@dataclass(frozen=True)
class Confusion:
    """Pictures of one class that were taken for another."""

    truth: str
    predicted: str
    pictures: int


@dataclass(frozen=True)
class Verdict:
    """How often the network was right, of the pictures whose truth is known.

    Attributes:
        pictures: How many these are.
        right: Those whose truth has the greatest logit.
        accuracy: The share of the right ones.
        interval: Ends of its 95 % interval.
        confusions: The most frequent first, at most `CONFUSIONS`.
    """

    pictures: int
    right: int
    accuracy: float
    interval: tuple[float, float]
    confusions: tuple[Confusion, ...]

    def __str__(self) -> str:
        low, high = self.interval
        return (
            f"{self.right:,} of {self.pictures:,}, {self.accuracy:.1%} "
            f"(95% interval {low:.1%} to {high:.1%})"
        )


def verdict_of(entries: Iterable[Explained], labels: Sequence[str]) -> Verdict | None:
    """The verdict on a run; None where no truth is known.

    Args:
        entries: What was explained.
        labels: One for each class.
    """
    pairs = Counter((entry.truth, entry.predicted) for entry in entries if entry.truth is not None)
    pictures = pairs.total()
    if not pictures:
        return None
    right = sum(number for (truth, predicted), number in pairs.items() if truth == predicted)
    wrong = sorted((-number, pair) for pair, number in pairs.items() if pair[0] != pair[1])
    return Verdict(
        pictures,
        right,
        right / pictures,
        wilson(right, pictures),
        tuple(
            Confusion(labels[truth], labels[predicted], -number)
            for number, (truth, predicted) in wrong[:CONFUSIONS]
        ),
    )


def wilson(right: int, pictures: int) -> tuple[float, float]:
    """The 95 % interval of a share (Wilson 1927), in 0..1.

    Args:
        right: How many of the pictures count.
        pictures: 1 or more.
    """
    share, z = right / pictures, _QUANTILE**2 / pictures
    centre = (share + z / 2) / (1 + z)
    half = math.sqrt(share * (1 - share) * z + (z / 2) ** 2) / (1 + z)
    return max(0.0, centre - half), min(1.0, centre + half)
