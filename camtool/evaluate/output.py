"""The files that an evaluation leaves: its numbers, its curves, and pictures worth looking at."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from camtool.evaluate.cases import Card, Section, render
from camtool.evaluate.results import Case, EvaluationResult
from camtool.files import write_atomically
from camtool.images import ImageError, read_image
from camtool.regions.boxes import components_from_map
from camtool.views.overlay import Look, paint, scale_of

THUMBNAIL = 320
"""Longest side of a picture on the page of cases, in pixels."""


def write_files(folder: Path, result: EvaluationResult) -> list[str]:
    """Write metrics.json, cases.html and, where matplotlib is installed, curves.png.

    Args:
        folder: Where; made if it is missing.
        result: What was found.

    Returns:
        The names of the files that were written.

    Raises:
        OSError: A file can't be written.
    """
    files: dict[str, Callable[[], bytes]] = {
        "metrics.json": lambda: json.dumps(result.to_json(), indent=1).encode(),
        "cases.html": lambda: _page(result).encode(),
    }
    try:
        from camtool.evaluate.curves import draw_curves, encode
    except ImportError:
        pass
    else:
        files["curves.png"] = lambda: encode(draw_curves(result))
    for name, content in files.items():
        write_atomically(folder / name, content())
    return list(files)


def _page(result: EvaluationResult) -> str:
    return render(
        title=f"{result.settings.name} on {result.localization.images:,} pictures",
        facts=_facts(result),
        table=result.table(),
        sections=list(_sections(result)),
    )


def _facts(result: EvaluationResult) -> dict[str, str]:
    settings, found = result.settings, result.localization
    return {
        "Model": f"{settings.name} ({settings.model['weights']})",
        "Pictures": f"{found.images:,}",
        "Mode": found.mode,
        "Fit": f"{settings.fit}, input size {settings.size}",
        "Top-1 / top-5 accuracy": f"{result.top1:.1f} % / {result.top5:.1f} %",
        "Box threshold": f"{found.threshold:.0%} of the map's maximum",
        "Not usable": f"{len(result.problems):,} things in the data set",
    }


def _sections(result: EvaluationResult) -> Iterator[Section]:
    highlights = result.highlights
    for title, note, cases in (
        ("Best boxes", "Largest overlap of the found box with a true one.", highlights.best),
        ("Worst boxes", "Smallest overlap; the true label was given.", highlights.worst),
        (
            "Most confident wrong labels",
            "The first guess is not the true label; map and box are the true label's.",
            highlights.wrong,
        ),
    ):
        cards = (_card(case, result) for case in cases)
        yield Section(title, note, [card for card in cards if card is not None])


def _card(case: Case, result: EvaluationResult) -> Card | None:
    """A case as the page shows it; None if its picture has gone since."""
    record, prediction, labels = case.record, case.prediction, result.settings.labels
    try:
        image = read_image(record.path)
    except ImageError:
        return None
    heatmap = prediction.heatmap(THUMBNAIL)
    scale = heatmap.shape[1] / image.shape[1]
    threshold = result.localization.threshold
    found = components_from_map(heatmap, threshold, components="largest")
    return Card(
        path=os.path.relpath(record.path, result.root),
        picture=_painted(image, heatmap),
        label=labels[int(record.label)],
        guess=labels[prediction.guess],
        probability=prediction.probability,
        iou=case.iou,
        true=[(x0 * scale, y0 * scale, x1 * scale, y1 * scale) for x0, y0, x1, y1 in record.boxes],
        found=[component.box for component in found],
    )


def _painted(image: NDArray[np.uint8], heatmap: NDArray[np.float32]) -> NDArray[np.uint8]:
    small = np.array(Image.fromarray(image).resize((heatmap.shape[1], heatmap.shape[0])))
    heats, look = heatmap[None], Look()
    painted: NDArray[np.uint8] = paint(small, heats, scale_of(heats, look), look)[0]
    return painted
