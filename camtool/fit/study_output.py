"""The files that a study leaves: study.json, study.csv, curves.png and the page."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from camtool.files import write_atomically
from camtool.fit.study import Study, to_csv

CLAIM_HEADINGS = ("Text", "Claim", "Measured lead, points", "Order", "Size")

TITLES = {
    "accuracy": "Accuracy, %",
    "generalization": "Validation − training",
    "shifted": "Shifted by a quarter, %",
    "steadiness": "Change by the shift",
    "localization": "Localization, %",
}
"""Headings of measures; "at N" stands for itself."""


def write_files(folder: Path, study: Study, document: Mapping[str, Any]) -> list[str]:
    """Write what came of a study; curves.png only where matplotlib is installed.

    Args:
        folder: Where.
        study: Its runs are kept there.
        document: What `Study.to_json` gives.

    Returns:
        The names of the files.

    Raises:
        OSError: A file can't be written.
    """
    from camtool.fit.study_page import render

    files: dict[str, Callable[[], bytes]] = {
        "study.json": lambda: json.dumps(document, indent=1).encode(),
        "study.csv": lambda: to_csv(document).encode(),
        "study.html": lambda: render(study, document, folder).encode(),
    }
    try:
        from camtool.evaluate.curves import encode
        from camtool.fit.study_curves import draw
    except ImportError:
        pass
    else:
        files["curves.png"] = lambda: encode(draw(document))
    for name, content in files.items():
        write_atomically(folder / name, content())
    return list(files)


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
    yield [
        "Head", "Parameters", "Train, %", "Train loss", "Loss", "Best epoch", "Seconds",
        *(TITLES.get(each, f"{each.capitalize()} px, %") for each in measures),
    ]  # fmt: skip
    for head in heads:
        signs = {"generalization": "+", "steadiness": "+"}
        yield [
            head["title"],
            f"{head['parameters']:,}",
            f"{100 * head['training']['accuracy']:.1f}",
            f"{head['training']['loss']:.3f}",
            f"{head['loss']:.3f}",
            f"{np.mean(head['best_epochs']):.0f}",
            f"{np.mean(head['seconds']):.0f}",
            *(shown(head["figures"][each], signs.get(each, "")) for each in measures),
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
