"""What came of a fit as JSON."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import Any

from camtool.evaluate.figures import Figure
from camtool.fit.outcome import Outcome


def to_json(outcome: Outcome) -> dict[str, Any]:
    """The record of an outcome; null where a number is not known."""
    counts = zip(outcome.labels, outcome.fitted, outcome.held, strict=True)
    return {
        "base": outcome.base,
        "form": outcome.form,
        "classes": [{"label": label, "fitted": on, "held": out} for label, on, out in counts],
        "strength": outcome.strength,
        "penalties": [asdict(one) for one in outcome.penalties],
        "accuracy": _figure(outcome.accuracy),
        "majority": _number(outcome.majority),
        "curve": [
            {"pictures": point.pictures, "accuracy": _figure(point.accuracy)}
            for point in outcome.curve
        ],
        "held": [
            {
                "path": answer.path,
                "truth": list(answer.truth),
                "probabilities": [round(float(one), 6) for one in answer.probabilities],
            }
            for answer in outcome.answers
        ],
        "duplicates": [list(group) for group in outcome.duplicates],
        "problems": [asdict(problem) for problem in outcome.problems],
    }


def _number(value: float) -> float | None:
    return None if math.isnan(value) else value


def _figure(figure: Figure) -> dict[str, float] | None:
    if math.isnan(figure.value):
        return None
    return {"value": figure.value, "low": figure.low, "high": figure.high}
