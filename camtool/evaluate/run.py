"""Localization measured over a data set, with the same forward path as everything else."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from camtool.engines.threads import Failed
from camtool.evaluate import Mode
from camtool.evaluate.datasets import Dataset, Problem, Record, load_mask, match_labels
from camtool.evaluate.evaluator import Evaluator
from camtool.evaluate.predictions import (
    EvaluationError,
    MapSettings,
    MapStore,
    Prediction,
    predict,
)
from camtool.evaluate.reference import REFERENCE_SIDE
from camtool.evaluate.results import Case, EvaluationResult, Highlights
from camtool.images import MAX_PIXELS
from camtool.model import CamModel
from camtool.regions.boxes import ZHOU_THRESHOLD


def evaluate(
    dataset: Dataset,
    settings: MapSettings,
    store: MapStore,
    model: Callable[[], CamModel],
    *,
    mode: Mode = "plain",
    threshold: float = ZHOU_THRESHOLD,
    batch_size: int = 8,
    workers: int | None = None,
    max_pixels: int = MAX_PIXELS,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> EvaluationResult:
    """Measure localization over a data set; memory does not grow with it but for its records.

    Args:
        dataset: Records, with labels as the data set has them.
        settings: What the maps are made with.
        store: Where maps are kept, and taken from where they are there.
        model: Gives the model; called only if a map is missing.
        mode: "plain", or "reference": Choe et al. 2020 to the digit.
        threshold: At which single figures and the cases' boxes are taken.
        batch_size: Most pictures to a forward pass.
        workers: Threads of each kind; None for as many as there are cores.
        max_pixels: Refuse larger pictures.
        progress: Told how many pictures of how many are done.

    Raises:
        EvaluationError: No picture could be measured.
        OSError: A map can't be kept.
    """
    dataset = match_labels(dataset, settings.labels, settings.synsets)
    records, problems = dataset.records, list(dataset.problems)
    evaluator = Evaluator(len(settings.labels), mode=mode, threshold=threshold)
    highlights, ranks = Highlights(), []
    predictions = predict(
        records, store, model, batch_size=batch_size, workers=workers, max_pixels=max_pixels
    )
    for number, (record, prediction) in enumerate(zip(records, predictions, strict=True), 1):
        case = _measured(evaluator, record, prediction)
        if isinstance(case, Problem):
            problems.append(case)
        else:
            highlights.add(case)
            ranks.append(case.prediction.rank)
        progress(number, len(records))
    if not ranks:
        first = f"; the first problem: {problems[0].path}: {problems[0].reason}" if problems else ""
        raise EvaluationError(f"no picture could be measured{first}")
    top1, top5 = (100 * sum(rank < guesses for rank in ranks) / len(ranks) for guesses in (1, 5))
    return EvaluationResult(
        settings,
        dataset.format,
        dataset.root,
        top1,
        top5,
        evaluator.result(),
        problems,
        highlights,
    )


def _measured(
    evaluator: Evaluator, record: Record, prediction: Prediction | Failed
) -> Case | Problem:
    """Add a picture to the evaluation, or say why that can't be."""
    if isinstance(prediction, Failed):
        return Problem(str(record.path), prediction.reason)
    reference = evaluator.mode == "reference"
    try:
        # The reference resizes the parts of a mask before it puts them together.
        side = REFERENCE_SIDE if reference else None
        mask = None if record.mask is None else load_mask(record.mask, side)
    except (OSError, ValueError) as error:
        return Problem(str(record.path), f"its mask can't be used: {error}")
    iou = evaluator.update(
        # It resizes the map itself, too, from feature resolution as the published code does.
        prediction.map if reference else prediction.heatmap(),
        np.array(record.boxes),
        prediction.size,
        label=int(record.label),
        rank=prediction.rank,
        mask=mask,
    )
    return Case(record, prediction, iou)
