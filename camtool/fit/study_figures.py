"""What runs come to: figures with their intervals, and what becomes of the texts' claims."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np

from camtool.evaluate.bootstrap import BootstrapSums, estimate
from camtool.evaluate.figures import Figure
from camtool.fit.study_runs import Run, Scores
from camtool.fit.training import Longs

Verdict: TypeAlias = Literal["held", "refuted", "not decided"]

FIRST = "gap"
"""The head that all others are compared with."""


@dataclass(frozen=True)
class Claim:
    """What a text says of two heads.

    Attributes:
        source: The text.
        text: What it says.
        measure: By which it is judged; the larger is the better.
        ahead: The head that is said to be ahead.
        behind: The other one.
        points: By how many percentage points, where the text has numbers.
    """

    source: str
    text: str
    measure: str
    ahead: str
    behind: str
    points: float | None = None


_THREAD = "forum thread on 8×8×2048 features"
_TUTORIAL = "cats-and-dogs tutorial"
_ZHOU = "Zhou et al. 2016, 2"
_LIN = "Lin et al. 2014, 3.2"

CLAIMS = (
    Claim(_THREAD, "GAP 93 %, max pooling 85 %", "accuracy", "gap", "max", 8),
    Claim(_THREAD, "GAP 93 %, four parts 75 %", "accuracy", "gap", "four", 18),
    Claim(_THREAD, "GAP 93 %, one kernel 25 %", "accuracy", "gap", "kernel", 68),
    Claim(_THREAD, "GAP 93 %, moving average 12 %", "accuracy", "gap", "ema", 81),
    Claim(_TUTORIAL, "GAP is a little ahead of dense with dropout", "accuracy", "gap", "dropout"),
    Claim(_TUTORIAL, "GAP is ahead of plain dense", "accuracy", "gap", "dense"),
    Claim(_TUTORIAL, "The lead over plain dense is the larger one", "accuracy", "dropout", "dense"),
    Claim(_ZHOU, "Max pooling localizes worse than GAP", "localization", "gap", "max"),
    Claim(_LIN, "GAP overfits less than dense layers", "generalization", "gap", "dense"),
    Claim(_LIN, "GAP withstands translation better than dense", "steadiness", "gap", "dense"),
)
"""What the texts say, each to be held or refuted by what was measured."""


@dataclass(frozen=True, eq=False)
class Judged:
    """What became of a claim.

    Attributes:
        claim: What was said.
        lead: By how many points the head that was said to be ahead is ahead, paired by seed and
            picture; None where it was not measured.
        order: Whether it is ahead.
        size: Whether by as much as the text says; None where it does not say.
    """

    claim: Claim
    lead: Figure | None
    order: Verdict
    size: Verdict | None


def judge(claim: Claim, lead: Figure | None, learned: bool = True) -> Judged:
    """Hold a claim against the 95 % interval of the lead.

    The order is held where the interval lies above 0, refuted where it lies below. The size is
    refuted where the interval leaves it out; that it lies inside is called held only where the
    interval leaves 0 out.

    Args:
        claim: What was said.
        lead: None where it was not measured.
        learned: Whether either head does better than chance; else nothing is decided.
    """
    if lead is None or not learned:
        return Judged(claim, lead, "not decided", None if claim.points is None else "not decided")
    order: Verdict = "held" if lead.low > 0 else "refuted" if lead.high < 0 else "not decided"
    size: Verdict | None = None
    if claim.points is not None:
        inside = lead.low <= claim.points <= lead.high
        size = "refuted" if not inside else "held" if order == "held" else "not decided"
    return Judged(claim, lead, order, size)


def mean_of(scores: Scores, labels: Longs) -> Figure:
    """Mean over seeds and classes in percent, with its 95 % interval over seeds and pictures.

    In each replicate of the bootstrap pictures are drawn again, and so are seeds, whose variance
    is that of a sample. With one seed alone, the interval is that of the pictures.

    Args:
        scores: [S,N], one row a seed.
        labels: [N].
    """
    classes = int(labels.max()) + 1
    sums = BootstrapSums(classes * (len(scores) + 1))
    for label, score in zip(labels, scores.T, strict=True):
        row = np.zeros((classes, len(scores) + 1))
        row[label] = *score, 1
        sums.add(row.ravel())
    totals = sums.totals()[0].reshape(-1, classes, len(scores) + 1)
    counts = totals[:, :, -1:]
    means = totals[:, :, :-1] / np.maximum(counts, 1)
    each = means.sum(1) / np.maximum((counts > 0).sum(1), 1)
    seeds = len(scores)
    drawn = np.random.default_rng(0).multinomial(seeds, [1 / seeds] * seeds, len(each)) / seeds
    # Draws from so few deviate too little: by S - 1 in place of S in the variance.
    drawn = 1 / seeds + (drawn - 1 / seeds) * math.sqrt(seeds / max(1, seeds - 1))
    drawn[0] = 1 / seeds
    return Figure(*estimate(100 * (each * drawn).sum(1)))


class Table:
    """Scores of all heads and seeds.

    Args:
        runs: That are finished; every head with the same seeds.
        labels: [N], of the validation pictures.
        boxed: Numbers of those whose boxes are known.
    """

    def __init__(self, runs: Sequence[Run], labels: Longs, boxed: Longs) -> None:
        self.labels, self.boxed = labels, boxed
        self.runs: dict[str, list[Run]] = {}
        for run in runs:
            self.runs.setdefault(run.head, []).append(run)

    def scores(self, head: str, measure: str) -> Scores | None:
        """[S,N]; None where the head has none, or was not run.

        Beside the measures of `Run.scores` there are "generalization", validation less training
        accuracy, and "steadiness", accuracy on shifted pictures less that on them as they are.
        """
        runs = self.runs.get(head, [])
        if measure in ("generalization", "steadiness"):
            plain, moved = self.scores(head, "accuracy"), self.scores(head, "shifted")
            if plain is None or moved is None:
                return None
            trained = np.array([[run.training["accuracy"]] for run in runs])
            return plain - trained if measure == "generalization" else moved - plain
        found = [run.scores.get(measure) for run in runs]
        known = [one for one in found if one is not None]
        return np.array(known) if known and len(known) == len(found) else None

    def figure(self, head: str, measure: str, less: str = "") -> Figure | None:
        """A head's measure, or by how much it is above another head's; None where it has none."""
        scores = self.scores(head, measure)
        other = self.scores(less, measure) if less else None
        if scores is None or (less and other is None):
            return None
        labels = self.labels[self.boxed] if measure == "localization" else self.labels
        return mean_of(scores if other is None else scores - other, labels)

    def judged(self) -> list[Judged]:
        """What becomes of the texts' claims."""
        return [
            judge(
                claim,
                self.figure(claim.ahead, claim.measure, claim.behind),
                self.learned(claim.ahead) or self.learned(claim.behind),
            )
            for claim in CLAIMS
        ]

    def learned(self, head: str) -> bool:
        """Whether a head's accuracy is surely above chance."""
        accuracy = self.figure(head, "accuracy")
        return accuracy is not None and accuracy.low > 100 / len(set(self.labels.tolist()))


def curves(runs: Sequence[Run]) -> Mapping[str, list[float]]:
    """Means over seeds by epoch, of all that `Run.epochs` has."""
    keys = runs[0].epochs[0]
    return {
        key: np.mean([[row[key] for row in run.epochs] for run in runs], axis=0).tolist()
        for key in sorted(keys)
    }
