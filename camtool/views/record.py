"""The numbers of an explanation as JSON and as a NumPy archive."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from camtool.choices import Rule
    from camtool.explanation import Explanation


def record_of(
    explanation: Explanation, threshold: float, boxes: bool = True, rule: Rule = "max"
) -> dict[str, Any]:
    """The JSON record of a picture, without the maps themselves.

    Args:
        explanation: The result.
        threshold: Of the boxes.
        boxes: List the boxes.
        rule: Of the threshold.
    """
    geometry = explanation.geometry
    width, height = geometry.size
    return {
        "path": explanation.name,
        "width": width,
        "height": height,
        "geometry": {
            "fit": geometry.fit,
            "region": list(geometry.region),
            "input": list(geometry.input),
        },
        "exact": explanation.exact,
        "steps": explanation.steps,
        "explanations": [
            _class_record(explanation, k)
            | ({"boxes": _boxes(explanation, k, threshold, rule)} if boxes else {})
            for k in range(len(explanation.labels))
        ],
    }


def _class_record(explanation: Explanation, k: int) -> dict[str, Any]:
    heat = explanation.maps[k]
    return {
        "index": int(explanation.indices[k]),
        "label": explanation.labels[k],
        "versus": explanation.versus[k] or None,
        "logit": float(explanation.logits[k]),
        "probability": explanation.probability(k),
        "bias": float(explanation.bias[k]),
        "residual": float(explanation.residual[k]),
        "map": {
            "height": heat.shape[0],
            "width": heat.shape[1],
            "min": float(heat.min()),
            "max": float(heat.max()),
            "mean": float(heat.mean(dtype=np.float64)),
        },
    }


def _boxes(explanation: Explanation, k: int, threshold: float, rule: Rule) -> list[dict[str, Any]]:
    return [
        {"box": list(found.box), "threshold": threshold, "share": found.share}
        for found in explanation.components(k, threshold, rule)
    ]


def archive_of(explanation: Explanation) -> bytes:
    """The maps and their numbers as a compressed NumPy archive.

    Returns:
        An .npz file: maps float32 [K,h,w]; indices int64, labels str, logits, bias, residual and
        probabilities float32, all [K]; region int64 [4], (x0, y0, x1, y1) in original pixels
        that the maps cover; size int64 [2], (W, H).
    """
    stream = io.BytesIO()
    np.savez_compressed(
        stream,
        maps=explanation.maps,
        indices=explanation.indices,
        labels=np.array(explanation.titles, dtype=np.str_),
        logits=explanation.logits,
        bias=explanation.bias,
        residual=explanation.residual,
        probabilities=explanation.probabilities,
        region=np.array(explanation.geometry.region, dtype=np.int64),
        size=np.array(explanation.geometry.size, dtype=np.int64),
    )
    return stream.getvalue()
