"""Several methods measured on the same pictures, beside maps that need no network."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import TypeVar

import numpy as np
import torch

from camtool.engines.engine import Failed
from camtool.engines.threads import Workers
from camtool.evaluate import MetricGroup
from camtool.evaluate.bench import Bench, Kept, Measured
from camtool.evaluate.comparison import Comparison, Row
from camtool.evaluate.datasets import Dataset, Problem, Record, load_mask, match_labels
from camtool.evaluate.evaluator import Evaluator
from camtool.evaluate.metrics import ClassMean
from camtool.evaluate.predictions import EvaluationError, MapSettings
from camtool.evaluate.sanity import PICTURES, STAGES, passes, randomise, rank_correlation
from camtool.evaluate.ways import Way, explaining, ways_of
from camtool.images import MAX_PIXELS
from camtool.model import CamModel
from camtool.networks import Network
from camtool.regions.boxes import ZHOU_THRESHOLD

A = TypeVar("A")
B = TypeVar("B")
Progress = Callable[[int, int], None]
Rebuild = Callable[[Network], Sequence[CamModel]]


def compare(
    dataset: Dataset,
    models: Sequence[CamModel],
    rebuild: Rebuild,
    metrics: Sequence[MetricGroup],
    *,
    threshold: float = ZHOU_THRESHOLD,
    batch_size: int = 8,
    workers: int | None = None,
    max_pixels: int = MAX_PIXELS,
    progress: Progress = lambda done, total: None,
) -> Comparison:
    """Measure methods on a data set.

    Localization is that of the true class's map, as in `run.evaluate`; faithfulness and sanity are
    those of the map of the class that the network answers with, whatever the label.

    Args:
        dataset: Records; with true labels and boxes or masks where localization is measured.
        models: One network with several methods, not fused yet.
        rebuild: Makes the same models of the same network with other weights.
        metrics: What is measured.
        threshold: At which GT-known, top-1 and top-5 localization are taken.
        batch_size: Most versions of a picture to a forward pass.
        workers: Threads; None for as many as there are cores.
        max_pixels: Refuse larger pictures.
        progress: Told how many pictures of how many are done; randomised ones count once more.

    Raises:
        EvaluationError: No picture could be measured.
    """
    settings = MapSettings.of(models[0])
    if "localization" in metrics:
        dataset = match_labels(dataset, settings.labels, settings.synsets)
    ways = ways_of(models)
    fused = [model for model in models if model.fuse()]
    judge = (fused or models)[0]
    again = dataset.evenly(PICTURES).records if "sanity" in metrics else []
    paths = frozenset(record.path for record in again)
    bench = Bench(judge, ways, metrics, batch_size, max_pixels, paths)
    threads = Workers.for_folder(judge.device, workers)
    tallies = [_Tally(Evaluator(len(settings.labels), threshold=threshold)) for _ in ways]
    total = len(dataset.records) + len(again) * len(STAGES)
    kept, problems = _measure_all(bench, dataset, tallies, threads, lambda n: progress(n, total))
    measured = len(dataset.records) + len(dataset.problems) - len(problems)
    if not measured:
        first = f"; the first problem: {problems[0].path}: {problems[0].reason}" if problems else ""
        raise EvaluationError(f"no picture could be measured{first}")
    if kept:
        twins = _with_twins(judge.network, ways, rebuild)
        done = len(dataset.records)
        _cascade(*twins, kept, tallies, threads, lambda n: progress(done + n, total))
    rows = [tally.row(way) for tally, way in zip(tallies, ways, strict=True)]
    return Comparison(settings, dataset.format, measured, tuple(metrics), rows, problems)


@dataclass(eq=False)
class _Tally:
    """What one way came to so far."""

    evaluator: Evaluator
    means: dict[str, ClassMean] = field(default_factory=dict)

    def add(self, scores: Mapping[str, float]) -> None:
        for name, score in scores.items():
            self.means.setdefault(name, ClassMean(1)).update(score)

    def row(self, way: Way) -> Row:
        figures = {name: mean.result() for name, mean in self.means.items()}
        if self.evaluator.images:
            found = self.evaluator.result().metrics
            figures |= {name: metric.network for name, metric in found.items()}
        checked = [figures.get(name) for name in ("weights", "class")]
        sane = passes(*checked) if checked[0] is not None else None
        return Row(way.name, way.baseline, way.passes, figures, sane)


def _measure_all(
    bench: Bench,
    dataset: Dataset,
    tallies: Sequence[_Tally],
    threads: Workers,
    progress: Callable[[int], None],
) -> tuple[list[Kept], list[Problem]]:
    """Measure every picture; what is kept of them, and all problems of the data set."""
    kept, problems = [], list(dataset.problems)
    measured = _mapped(bench.measure, dataset.records, threads)
    for number, (record, found) in enumerate(measured, 1):
        problem = _add(tallies, record, found)
        if problem is not None:
            problems.append(problem)
        elif isinstance(found, Measured) and found.kept:
            kept.append(found.kept)
        progress(number)
    return kept, problems


def _add(tallies: Sequence[_Tally], record: Record, found: Measured | Failed) -> Problem | None:
    """Add a picture to every row, or say why that can't be."""
    if isinstance(found, Failed):
        return Problem(str(record.path), found.reason)
    try:
        mask = None if record.mask is None else load_mask(record.mask)
    except (OSError, ValueError) as error:
        return Problem(str(record.path), f"its mask can't be used: {error}")
    for tally, scores in zip(tallies, found.scores, strict=True):
        tally.add(scores)
    for tally, prediction in zip(tallies, found.predictions, strict=False):
        tally.evaluator.update(
            prediction.heatmap(),
            np.array(record.boxes),
            prediction.size,
            label=int(record.label),
            rank=prediction.rank,
            mask=mask,
        )
    return None


def _with_twins(
    network: Network, ways: Sequence[Way], rebuild: Rebuild
) -> tuple[torch.nn.Module, list[Way]]:
    """A copy of a network's module, and the ways to make its maps whatever its weights become."""
    module = deepcopy(network.module)
    # "As given": its weights are read anew for every picture.
    twins = iter(rebuild(replace(network, module=module, weights="as given")))
    return module, [
        way if way.baseline else replace(way, explain=explaining(next(twins))) for way in ways
    ]


def _cascade(
    module: torch.nn.Module,
    ways: Sequence[Way],
    kept: Sequence[Kept],
    tallies: Sequence[_Tally],
    threads: Workers,
    progress: Callable[[int], None],
) -> None:
    """Compare every way's maps with those of the network while it is randomised, top down."""

    def alike(one: Kept) -> list[float]:
        return [
            rank_correlation(heat, way.explain(one.inputs, [one.answer])[0][0])
            for way, heat in zip(ways, one.maps, strict=True)
        ]

    found = np.zeros((len(kept), len(ways)))
    for stage, _ in enumerate(randomise(module)):
        for number, (_, correlations) in enumerate(_mapped(alike, kept, threads)):
            found[number] += correlations
            progress(stage * len(kept) + number + 1)
    for row in found / len(STAGES):
        for tally, mean in zip(tallies, row, strict=True):
            tally.add({"weights": float(mean)})


def _mapped(
    function: Callable[[A], B], items: Sequence[A], threads: Workers
) -> Iterator[tuple[A, B]]:
    """Each item with what a function makes of it, in order, a few ahead in threads."""
    remaining = iter(items)
    before = torch.get_num_threads()
    with ThreadPoolExecutor(threads.lanes, "camtool-measure", threads.quiet_torch) as pool:
        waiting = [
            (item, pool.submit(function, item)) for item in islice(remaining, threads.lanes * 2)
        ]
        try:
            while waiting:
                item, future = waiting.pop(0)
                result = future.result()
                waiting += [(one, pool.submit(function, one)) for one in islice(remaining, 1)]
                yield item, result
        finally:
            for _, future in waiting:
                future.cancel()
            torch.set_num_threads(before)
