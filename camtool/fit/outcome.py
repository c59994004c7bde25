"""What came of a fit: plain data that the command prints and the page shows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from camtool.evaluate.figures import Figure

Floats: TypeAlias = npt.NDArray[np.float32]
Form: TypeAlias = Literal["softmax", "sigmoid"]
"""One class a picture, or any number of them, each by itself."""


@dataclass(frozen=True, eq=False)
class Answer:
    """What the fitted network says of a picture that it was not fitted on.

    Attributes:
        path: Of the picture.
        truth: Classes that it shows: one, or any number of them with "sigmoid".
        probabilities: float32 [K].
    """

    path: str
    truth: tuple[int, ...]
    probabilities: Floats


@dataclass(frozen=True)
class Penalty:
    """One strength of the penalty that cross-validation tried.

    Attributes:
        strength: C, the inverse of the penalty on the squared weights, as scikit-learn has it.
        loss: Mean cross-entropy over the folds, in nats for each picture.
        accuracy: In percent.
    """

    strength: float
    loss: float
    accuracy: float


@dataclass(frozen=True, eq=False)
class Point:
    """One point of the learning curve.

    Attributes:
        pictures: That were fitted on.
        accuracy: On the pictures held out.
    """

    pictures: int
    accuracy: Figure


@dataclass(frozen=True)
class Problem:
    """Something of the data that was left out, or that somebody should look at.

    Attributes:
        path: Of the picture, or of the class's folder.
        reason: In one line.
    """

    path: str
    reason: str


@dataclass(frozen=True, eq=False)
class Outcome:
    """What came of a fit.

    Attributes:
        labels: Of the classes, in the order of the logits.
        form: What makes probabilities of the logits.
        base: The network whose features were taken, as users name it.
        fitted: [K], pictures of each class that were fitted on.
        held: [K], pictures of each class that were held out.
        penalties: What cross-validation tried.
        strength: The one that was taken.
        answers: For every picture held out.
        accuracy: On them, in percent, with its 95 % interval: the most probable class is the true
            one; with "sigmoid", all classes are right at a probability of a half.
        majority: What the most frequent answer alone would reach on them, in percent.
        curve: Accuracy for fewer pictures, and for all; empty where too few were held out.
        duplicates: Groups of pictures that are nearly the same; each is on one side whole.
        problems: All of them.
    """

    labels: tuple[str, ...]
    form: Form
    base: str
    fitted: tuple[int, ...]
    held: tuple[int, ...]
    penalties: tuple[Penalty, ...]
    strength: float
    answers: tuple[Answer, ...]
    accuracy: Figure
    majority: float
    curve: tuple[Point, ...]
    duplicates: tuple[tuple[str, ...], ...]
    problems: tuple[Problem, ...]
