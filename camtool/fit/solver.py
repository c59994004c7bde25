"""Logistic regression with a penalty on the weights, by L-BFGS in double precision."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from camtool.fit.outcome import Floats, Form, Penalty

TOLERANCE = 1e-6
"""Largest derivative at which the loss, per unit of weight of the pictures, is called least."""

ROUGH = 1e-5
"""The same while strengths are compared: losses of ten classes moved by less than a tenth of what
lies between two strengths, in a third of the time."""

MOST_STEPS = 500
_HISTORY = 20

STRENGTHS = tuple(10 ** (half / 2) for half in range(-6, 3))
"""What cross-validation tries, 0.001 to 10. Ten ImageNet classes had their least loss at 0.1 with a
hundred pictures each, and at 3 with ten."""

USUAL = 0.1
"""The strength where there are too few pictures to choose one."""


LEAST = 0.5
"""Least deviation that a feature is divided by, as a share of all features' (root mean square).

One that hardly changes among few pictures would be blown up, and decide where it does change: of
two classes with ten pictures each 82 % were right without a least deviation, 89 % with it."""


@dataclass(frozen=True, eq=False)
class Scale:
    """What makes features of mean 0 and of deviation 1 at most, over the pictures fitted on.

    Attributes:
        mean: float64 [C].
        deviation: float64 [C], above 0.
    """

    mean: Tensor
    deviation: Tensor

    @classmethod
    def of(cls, features: Tensor) -> Scale:
        """The scale of features [N,C]."""
        features = features.double()
        deviation = features.std(0, correction=0)
        least = LEAST * deviation.square().mean().sqrt()
        return cls(features.mean(0), deviation.clamp(min=float(least) or 1.0))

    def __call__(self, features: Tensor) -> Tensor:
        """Features [N,C] standardised, float64."""
        return (features.double() - self.mean) / self.deviation

    def folded(self, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
        """Weight [K,C] and bias [K] for features as they are, from those for standardised ones."""
        weight = weight / self.deviation
        return weight, bias - weight @ self.mean


@contextmanager
def one_thread() -> Iterator[None]:
    """Sums in one order: with more threads their last digits hang on how many there are."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def losses(logits: Tensor, truth: Tensor, form: Form) -> Tensor:
    """Cross-entropy [N] of each picture, in nats; with "sigmoid" summed over the classes.

    Args:
        logits: float64 [N,K].
        truth: float64 [N,K], 1 for a class that is there, else 0.
        form: What makes probabilities of logits.
    """
    if form == "sigmoid":
        return F.binary_cross_entropy_with_logits(logits, truth, reduction="none").sum(1)
    return -(truth * logits.log_softmax(1)).sum(1)


def bytes_to_solve(rows: int, channels: int, classes: int) -> int:
    """Memory that `solve` takes, to a factor of two.

    Features in both precisions, some matrices of answers, and what L-BFGS remembers.

    Args:
        rows: Views of all pictures.
        channels: Of the features.
        classes: To tell apart.
    """
    return rows * (12 * channels + 64 * classes) + (2 * _HISTORY + 6) * 8 * classes * (channels + 1)


def solve(
    features: Tensor,
    truth: Tensor,
    form: Form,
    strength: float,
    shares: Tensor,
    start: Tensor | None = None,
    tolerance: float = TOLERANCE,
) -> Tensor:
    """Weight and bias that make |weight|²/2 + strength · Σ shares · cross-entropy least.

    That is scikit-learn's objective, with `strength` its C and `shares` its sample weights; it
    has one least point, whatever the start, but that a softmax's biases may all be moved alike.

    Args:
        features: float64 [N,C], standardised.
        truth: float64 [N,K].
        form: What makes probabilities of logits.
        strength: C.
        shares: float64 [N] or, for "sigmoid", [N,K]: how much each answer counts.
        start: float64 [K,C+1], where to begin: the solution for another strength; None for zeros.
        tolerance: Largest derivative to stop at.

    Returns:
        float64 [K,C+1], the bias last.
    """
    classes, channels = truth.shape[1], features.shape[1]
    found = torch.zeros(classes, channels + 1, dtype=torch.float64) if start is None else start
    found = found.clone().requires_grad_(True)
    shares = shares.reshape(len(features), -1)
    scale = 1 / (strength * float(shares.sum()))

    @torch.no_grad()
    def objective() -> Tensor:
        weight, bias = found[:, :-1], found[:, -1]
        logits = features @ weight.T + bias
        if form == "sigmoid":
            value = F.binary_cross_entropy_with_logits(logits, truth, shares, reduction="sum")
            slope = (logits.sigmoid() - truth) * shares
        else:
            value = (losses(logits, truth, form) * shares[:, 0]).sum()
            slope = (logits.softmax(1) - truth) * shares
        slope *= strength * scale
        found.grad = torch.cat([slope.T @ features + weight * scale, slope.sum(0)[:, None]], 1)
        return (weight.square().sum() / 2 + strength * value) * scale

    optimizer = torch.optim.LBFGS(
        [found],
        max_iter=MOST_STEPS,
        max_eval=2 * MOST_STEPS,
        tolerance_grad=tolerance,
        tolerance_change=1e-12,
        history_size=_HISTORY,
        line_search_fn="strong_wolfe",
    )
    optimizer.step(objective)  # type: ignore[no-untyped-call]
    return found.detach()


@dataclass(frozen=True, eq=False)
class Examples:
    """What is fitted on.

    Attributes:
        features: float32 [N,V,C], of V views of each picture; the first is the picture as it is.
        truth: float64 [N,K], 1 for a class that a picture shows, else 0.
        form: What makes probabilities of logits.
        balanced: Whether every class counts the same, however many pictures it has.
    """

    features: Floats
    truth: Tensor
    form: Form
    balanced: bool

    def some(self, numbers: Sequence[int]) -> Examples:
        """Those of some pictures."""
        chosen = [*numbers]
        return Examples(self.features[chosen], self.truth[chosen], self.form, self.balanced)

    @property
    def plain(self) -> Tensor:
        """float32 [N,C], of the pictures as they are."""
        return torch.from_numpy(np.ascontiguousarray(self.features[:, 0]))

    def shares(self) -> Tensor:
        """How much each answer counts: float64 [N], or [N,K] with "sigmoid"; 1 in the mean.

        Balanced as scikit-learn does it (King and Zeng 2001): the number of pictures, over that of
        the classes and of the class's own pictures.
        """
        count, classes = self.truth.shape
        if self.form == "softmax":
            each = count / (classes * self.truth.sum(0).clamp(min=1))
            return self.truth @ each if self.balanced else torch.ones(count, dtype=torch.float64)
        if not self.balanced:
            return torch.ones_like(self.truth)
        there = self.truth.sum(0)
        weights = count / (2 * there.clamp(min=1)), count / (2 * (count - there).clamp(min=1))
        return torch.where(self.truth > 0, *weights)


def right(logits: Tensor, truth: Tensor, form: Form) -> Tensor:
    """Bool [N], whether the answer is right: the best class, or with "sigmoid" every class."""
    if form == "sigmoid":
        return ((logits > 0) == (truth > 0)).all(1)
    return logits.argmax(1) == truth.argmax(1)


@dataclass(frozen=True, eq=False)
class Layer:
    """A linear layer: weight float64 [K,C] and bias float64 [K]."""

    weight: Tensor
    bias: Tensor

    def __call__(self, features: Tensor) -> Tensor:
        """Logits float64 [N,K] of features [N,C]."""
        return features.double() @ self.weight.T + self.bias


def fitted_layer(examples: Examples, strength: float, tolerance: float = TOLERANCE) -> Layer:
    """The layer for one strength, as a file has it: rounded to float32."""
    layer = next(_path(examples, [strength], tolerance))
    return Layer(layer.weight.float().double(), layer.bias.float().double())


def _path(examples: Examples, strengths: Sequence[float], tolerance: float) -> Iterator[Layer]:
    """The layer for each strength; each begins where the last one ended."""
    count, views, channels = examples.features.shape
    features = torch.from_numpy(examples.features.reshape(count * views, channels))
    scale = Scale.of(features)
    standard = scale(features)
    truth = examples.truth.repeat_interleave(views, 0)
    shares = examples.shares().repeat_interleave(views, 0) / views
    found = None
    for strength in strengths:
        found = solve(standard, truth, examples.form, strength, shares, found, tolerance)
        yield Layer(*scale.folded(found[:, :-1], found[:, -1]))


def cross_validate(
    examples: Examples, folds: Mapping[int, int], count: int, workers: int
) -> list[Penalty]:
    """What each strength comes to on pictures that were left out.

    Args:
        examples: Of N pictures.
        folds: The fold in which a picture is left out; those without one never are.
        count: Of the folds.
        workers: How many of them are fitted at once; the result does not depend on it.
    """

    def left_out(fold: int) -> list[tuple[float, float, float]]:
        out = [number for number, its in folds.items() if its == fold]
        others = sorted({*range(len(examples.truth))} - {*out})
        rest, form = examples.some(out), examples.form
        shares = rest.shares().reshape(len(out), -1).mean(1)
        sums = []
        for layer in _path(examples.some(others), STRENGTHS, ROUGH):
            logits = layer(rest.plain)
            loss = (losses(logits, rest.truth, form) * shares).sum()
            hits = right(logits, rest.truth, form).sum()
            sums.append((float(loss), float(hits), float(shares.sum())))
        return sums

    with ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        totals = np.array([*pool.map(left_out, range(count))]).sum(0)
    return [
        Penalty(strength, loss / weight, 100 * hits / len(folds))
        for strength, (loss, hits, weight) in zip(STRENGTHS, totals.tolist(), strict=True)
    ]
