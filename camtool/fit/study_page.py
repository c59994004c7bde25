"""The page of a study: what was measured, in words and numbers, beside what the texts claim.

One HTML file without a script, which loads nothing and shows text from outside only escaped.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from camtool.explanation import Explanation
from camtool.fit.heads import HEADS
from camtool.fit.study import RUNS, Study
from camtool.fit.study_figures import FIRST
from camtool.fit.study_runs import camera, trained
from camtool.fit.study_tables import shown, table_rows
from camtool.images import ImageError, read_image
from camtool.images.write import small_jpeg
from camtool.views.html import data_url, page_of

_EXAMPLES, _SIDE, _BYTES = 6, 192, 18_000


def render(study: Study, document: Mapping[str, Any], folder: Path) -> str:
    """The page.

    Args:
        study: For the pictures that are shown.
        document: What `Study.to_json` gives; every number of the page is of it.
        folder: Where the trained networks are.
    """
    headings, *rows = table_rows(document)
    names, examples = _examples(study, folder)
    root = files("camtool")
    return page_of(
        root / "fit" / "study.html",
        [root / "fit" / "study.css"],
        shown=shown,
        polyline=_polyline,
        found=document,
        headings=headings,
        rows=rows,
        words=list(sentences(document)),
        facts=_facts(document),
        floor=math.floor(20 * _ends(document, "train_accuracy", "accuracy")[0]) / 20,
        top=math.ceil(10 * _ends(document, "train_loss", "loss")[1]) / 10,
        claims=[{**claim, "bar": _bar(claim)} for claim in document["claims"]],
        mapped=[HEADS[name].title for name in names],
        examples=examples,
    )


def sentences(document: Mapping[str, Any]) -> Iterator[str]:
    """What came out, in words; every one of them is computed."""
    heads = {head["head"]: head for head in document["heads"]}
    best = max(heads.values(), key=lambda head: head["figures"]["accuracy"]["value"])
    yield (
        f"The highest accuracy was that of {best['title']}: "
        f"{shown(best['figures']['accuracy'])} % with {best['parameters']:,} parameters."
    )
    if FIRST in heads and len(heads) > 1:
        gap = heads[FIRST]
        if best is not gap:
            yield (
                f"Global average pooling with its linear layer came to "
                f"{shown(gap['figures']['accuracy'])} % with {gap['parameters']:,} parameters."
            )
        yield from _beside(heads)
    for key, what in (("order", "which head is ahead"), ("size", "by how many points")):
        verdicts = [claim[key] for claim in document["claims"] if claim["lead"] and claim[key]]
        if verdicts:
            each = [f"{verdicts.count(one)} {one}" for one in ("held", "refuted", "not decided")]
            yield f"Claims about {what}: {', '.join(each)}."


def _beside(heads: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """Which heads are behind global average pooling, and which ahead."""
    for word, side in (("behind", -1), ("ahead of", 1)):
        found = [
            f"{head['title']} by {abs(lead['value']):.1f}"
            for head in heads.values()
            if (lead := head["lead"]["accuracy"])
            and min(side * lead["low"], side * lead["high"]) > 0
        ]
        if found:
            yield f"Surely {word} it, in points: {'; '.join(found)}."
    level = [
        head["title"]
        for head in heads.values()
        if (lead := head["lead"]["accuracy"]) and lead["low"] <= 0 <= lead["high"]
    ]
    if level:
        yield f"Not told apart from it by this study: {'; '.join(level)}."


def _facts(document: Mapping[str, Any]) -> dict[str, str]:
    settings, pictures, labels = (document[key] for key in ("settings", "pictures", "labels"))
    counts = [sum(pictures[half]) for half in ("training", "validation")]
    return {
        "Classes": ", ".join(labels) if len(labels) <= 6 else f"{len(labels)}",
        "Pictures": f"{counts[0]:,} to train on, {counts[1]:,} to measure on",
        "Seen as": f"{settings['size']} × {settings['size']} pixels, flipped half of the time",
        "Seeds": f"{len(document['seeds'])}",
        "Front-end": f"gapnet of widths {', '.join(map(str, settings['widths']))}, new each time",
        "Budget": f"{settings['epochs']} epochs in batches of {settings['batch']}; AdamW, learning "
        f"rate {settings['rate']:g} up and down, weight decay {settings['decay']:g}",
    }


def _ends(document: Mapping[str, Any], *keys: str) -> tuple[float, float]:
    """The least and the largest value of all heads' curves of some names."""
    curves: list[list[float]] = [head["curves"][key] for head in document["heads"] for key in keys]
    return min(map(min, curves)), max(map(max, curves))


def _polyline(values: Sequence[float], low: float, high: float) -> str:
    """Points of a curve in a box of 100 by 100, whose edges are `low` and `high`."""
    step = 100 / max(1, len(values) - 1)
    scale = 100 / ((high - low) or 1.0)
    return " ".join(f"{step * n:.1f},{scale * (high - v):.1f}" for n, v in enumerate(values))


def _bar(claim: Mapping[str, Any]) -> dict[str, float] | None:
    """Where a claim's interval lies, in percent of a line that shows 0 and the text's points."""
    lead = claim["lead"]
    if lead is None:
        return None
    said: float = claim["points"] or 0.0
    low: float = min(lead["low"], 0.0, said)
    high: float = max(lead["high"], 0.0, said)
    pad = 0.06 * (high - low) or 1.0
    start, width = low - pad, high - low + 2 * pad

    def place(value: float) -> float:
        return 100 * (value - start) / width

    ends = {end: place(lead[end]) for end in ("low", "high", "value")}
    return {**ends, "zero": place(0.0), "said": place(said)}


def _examples(study: Study, folder: Path) -> tuple[list[str], list[dict[str, Any]]]:
    """Names of the heads that have maps, and some pictures with the maps of each."""
    runs = [run for run in study.runs if run.seed == 0]
    every = ((run.head, camera(trained(run, folder / RUNS, study), study)) for run in runs)
    cams = {name: cam for name, cam in every if cam is not None}
    samples = study.validation.samples
    picked = [samples[int(n)] for n in np.linspace(0, len(samples) - 1, _EXAMPLES)]
    rows = []
    for sample in dict.fromkeys(picked) if cams else ():
        try:
            picture = read_image(sample.path)
        except ImageError:
            continue
        cells = [_cell(cam.explain(picture, int(sample.label))) for cam in cams.values()]
        plain = _url(picture)
        rows.append({"label": study.labels[sample.label], "picture": plain, "maps": cells})
    return [*cams], rows


def _cell(explanation: Explanation) -> dict[str, Any]:
    probability = f"{100 * float(explanation.probabilities[0]):.0f} %"
    return {"url": _url(np.asarray(explanation.overlay())), "probability": probability}


def _url(picture: NDArray[np.uint8]) -> str:
    return data_url(small_jpeg(picture, _SIDE, _BYTES)[0])
