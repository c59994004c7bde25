"""What came of a fit as JSON."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from camtool.evaluate.figures import Figure
from camtool.fit.figures import calibration, with_twice_the_pictures
from camtool.fit.look import ClassLook
from camtool.fit.outcome import Outcome


def to_json(outcome: Outcome, looks: Sequence[ClassLook] = ()) -> dict[str, Any]:
    """The record of an outcome and of where the network looks; null where nothing is known."""
    answers, twice = outcome.answers, with_twice_the_pictures(outcome.curve)
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
        "twice_the_pictures": _figure(twice) if twice else None,
        "calibration_error": calibration(answers, outcome.form).error if answers else None,
        "suspicious": [
            {"label": outcome.labels[look.summary.position], **look.flag._asdict()}
            for look in looks
            if look.flag
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
