"""What an evaluation leaves behind: its numbers, its curves, and pictures worth looking at."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from camtool.evaluate import cases, curves
from camtool.evaluate.evaluation import CONTESTANTS, TITLES, report_rows
from camtool.evaluate.run import Case, Extremes, Outcome
from camtool.files import write_atomically
from camtool.images import ImageError, encode, read_image
from camtool.regions.boxes import components_from_map
from camtool.views.overlay import Look, paint, scale_of

THUMBNAIL = 320

_NAMES = dict(zip(CONTESTANTS, ("network", "centre box", "whole image"), strict=True))


def write_evaluation(
    folder: Path, outcome: Outcome, result: dict[str, Any], labels: Sequence[str], root: Path
) -> None:
    """Write metrics.json, curves.png and cases.html.

    Args:
        folder: Where; made if it is missing.
        outcome: What was found.
        result: The same as plain numbers, for metrics.json.
        labels: Of the network.
        root: Of the data set; pictures are named by their place under it.

    Raises:
        OSError: A file can't be written.
    """
    write_atomically(folder / "metrics.json", json.dumps(result, indent=1).encode())
    title = f"{result['model']['name']} on {result['images']:,} pictures"
    picture = curves.curves(charts(result), title=title, footer=_footer(result))
    write_atomically(folder / "curves.png", encode(picture, ".png"))
    cases.write_cases(
        folder / "cases.html",
        list(_sections(outcome.extremes, labels, result["threshold"], root)),
        title=title,
        facts=_facts(result),
        table=report_rows(result),
    )


def charts(result: dict[str, Any]) -> list[curves.Chart]:
    """The curves over thresholds that the figures were taken from.

    The network's curves run over thresholds relative to the map's maximum; the centre box's over
    its side relative to the picture's.
    """
    found = result["metrics"]
    names = [
        name for name in ("max_box_acc", "max_box_acc_v2_30", "max_box_acc_v2_70") if name in found
    ]
    made = [
        curves.Chart(
            title=TITLES[name],
            x_label="threshold (centre box: side), share of the maximum",
            y_label="% of pictures",
            series=tuple(
                _series(_NAMES[who], found[name][who], result["thresholds"])
                for who in CONTESTANTS[:2]
            ),
        )
        for name in names
    ]
    if "pxap" in found:
        made.append(_precision_recall(found["pxap"]))
    return made


def _series(name: str, figure: dict[str, Any], thresholds: Sequence[float]) -> curves.Series:
    curve = figure["curve"]
    x = thresholds if len(curve) == len(thresholds) else np.arange(1, len(curve) + 1) / len(curve)
    best = None if figure["threshold"] is None else (figure["threshold"], figure["value"])
    return curves.Series(name, [float(value) for value in x], curve, best)


def _precision_recall(figures: dict[str, Any]) -> curves.Chart:
    series = tuple(
        curves.Series(
            _NAMES[who],
            [100 * value for value in figures[who]["recall"]],
            [100 * value for value in figures[who]["precision"]],
        )
        for who in CONTESTANTS
    )
    return curves.Chart(TITLES["pxap"], "recall, %", "precision, %", series)


def _footer(result: dict[str, Any]) -> str:
    return (
        f"{result['mode']} mode, fit {result['fit']}, input size {result['model']['size']}; "
        "dots mark the best points"
    )


def _facts(result: dict[str, Any]) -> dict[str, str]:
    model = result["model"]
    return {
        "Model": f"{model['name']} ({model['weights']})",
        "Pictures": f"{result['images']:,}",
        "Mode": result["mode"],
        "Fit": f"{result['fit']}, input size {model['size']}",
        "Top-1 / top-5 accuracy": f"{result['top1']:.1f} % / {result['top5']:.1f} %",
        "Box threshold": f"{result['threshold']:.0%} of the map's maximum",
        "Not usable": f"{len(result['problems']):,} things in the data set",
    }


def _sections(
    extremes: Extremes, labels: Sequence[str], threshold: float, root: Path
) -> Iterator[cases.Section]:
    named = (
        ("Best boxes", "Largest overlap of the found box with a true one.", extremes.best),
        ("Worst boxes", "Smallest overlap; the true label was given.", extremes.worst),
        (
            "Most confident wrong labels",
            "The first guess is not the true label; map and box are the true label's.",
            extremes.wrong,
        ),
    )
    for title, note, some in named:
        made = (_case(case, labels, threshold, root) for case in some)
        yield cases.Section(title, note, tuple(case for case in made if case is not None))


def _case(case: Case, labels: Sequence[str], threshold: float, root: Path) -> cases.Case | None:
    """A case as the page shows it; None if its picture has gone since."""
    try:
        image = read_image(case.record.path)
    except ImageError:
        return None
    heatmap = case.measured.heatmap(THUMBNAIL)
    scale = heatmap.shape[1] / image.shape[1]
    found = components_from_map(heatmap, threshold, components="largest")
    return cases.Case(
        path=os.path.relpath(case.record.path, root),
        picture=_painted(image, heatmap),
        label=labels[int(case.record.label)],
        guess=labels[case.measured.guess],
        probability=case.measured.probability,
        overlap=case.overlap,
        true=[tuple(side * scale for side in box) for box in case.record.boxes],
        found=[component.box for component in found],
    )


def _painted(image: NDArray[np.uint8], heatmap: NDArray[np.float32]) -> NDArray[np.uint8]:
    small = np.array(Image.fromarray(image).resize((heatmap.shape[1], heatmap.shape[0])))
    heats, look = heatmap[None], Look()
    painted: NDArray[np.uint8] = paint(small, heats, scale_of(heats, look), look)[0]
    return painted
