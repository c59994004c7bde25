"""A study as tables: of texts for people, and as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

_CUT = 9
CLAIM_HEADINGS = ("Text", "Claim", "Measured lead, points", "Order", "Size")

TITLES = {
    "accuracy": "Accuracy, %",
    "generalization": "Validation less training",
    "shifted": "Shifted by a quarter, %",
    "steadiness": "Change by the shift",
    "localization": "Localization, %",
}
"""Headings of measures; "at N" stands for itself."""
_SIGNS = {"generalization": "+", "steadiness": "+"}


def shown(figure: Mapping[str, float] | None, sign: str = "") -> str:
    """A figure with its interval, in percent or points; a dash where there is none."""
    if figure is None:
        return "–"
    value, low, high = (f"{figure[end]:{sign}.1f}" for end in ("value", "low", "high"))
    return f"{value} ({low} to {high})".replace("-", "−")


def table_rows(document: Mapping[str, Any]) -> Iterator[list[str]]:
    """The table of heads as texts, its headings first; columns without any figure are left out."""
    heads = document["heads"]
    measures = [each for each in heads[0]["figures"] if any(h["figures"][each] for h in heads)]
    titles = [TITLES.get(each, f"{each.capitalize()} px, %") for each in measures]
    learned = ["Training, %", "Training loss", "Validation loss", "Best epoch", "Seconds"]
    yield ["Head", "Parameters", *titles[:2], *learned, *titles[2:]]
    for head in heads:
        texts = [shown(head["figures"][each], _SIGNS.get(each, "")) for each in measures]
        yield [
            head["title"],
            f"{head['parameters']:,}",
            *texts[:2],
            f"{100 * head['training']['accuracy']:.1f}",
            f"{head['training']['loss']:.3f}",
            f"{head['loss']:.3f}",
            f"{np.mean(head['best_epochs']):.0f}",
            f"{np.mean(head['seconds']):.0f}",
            *texts[2:],
        ]


def claim_rows(document: Mapping[str, Any]) -> Iterator[list[str]]:
    """What became of the texts' claims, as texts under `CLAIM_HEADINGS`."""
    for claim in document["claims"]:
        points = "" if claim["points"] is None else f"{claim['points']:.0f} points: "
        yield [
            claim["source"],
            claim["text"],
            shown(claim["lead"], "+"),
            claim["order"],
            f"{points}{claim['size']}" if claim["size"] else "",
        ]


def to_csv(found: Mapping[str, Any]) -> str:
    """The table of heads as CSV: figures and the ends of their intervals, in percent."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    measures = list(found["heads"][0]["figures"])
    ends = [f"{each}{end}" for each in measures for end in ("", "_low", "_high")]
    writer.writerow(
        ["head", "title", "parameters", "arithmetic", "train_accuracy", "train_loss", "loss",
         "epochs_to_best", "seconds", *ends]
    )  # fmt: skip
    for head in found["heads"]:
        figures = [head["figures"][each] or {} for each in measures]
        writer.writerow(
            [
                head["head"],
                head["title"],
                head["parameters"],
                head["arithmetic"],
                f"{100 * head['training']['accuracy']:.2f}",
                f"{head['training']['loss']:.4f}",
                f"{head['loss']:.4f}",
                f"{np.mean(head['best_epochs']):.1f}",
                f"{np.mean(head['seconds']):.1f}",
                *(
                    f"{figure[end]:.2f}" if figure else ""
                    for figure in figures
                    for end in ("value", "low", "high")
                ),
            ]
        )
    return stream.getvalue()


def to_markdown(document: Mapping[str, Any]) -> str:
    """The table of heads in two parts, the parameters' arithmetic and the claims, as Markdown."""
    arithmetic = [["Head", "Parameters", "Formula", "Here"]] + [
        [head["title"], f"{head['parameters']:,}", head["formula"], head["arithmetic"]]
        for head in document["heads"]
    ]
    claims = [list(CLAIM_HEADINGS), *claim_rows(document)]
    rows = list(table_rows(document))
    first, second = [row[:_CUT] for row in rows], [[row[0], *row[_CUT:]] for row in rows]
    parts = (arithmetic, first, second, claims)
    return "\n".join(map(_markdown, parts))


def _markdown(rows: list[list[str]]) -> str:
    headings, *others = rows
    lines = [headings, ["---"] * len(headings), *others]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
