"""Several methods measured on the same pictures, beside maps that need no network."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from camtool.engines.engine import Failed
from camtool.engines.threads import Workers
from camtool.evaluate import MetricGroup
from camtool.evaluate.bench import Bench, Kept, Measured
from camtool.evaluate.comparison import Comparison, Row
from camtool.evaluate.datasets import Dataset, Problem, Record, load_mask, match_labels
from camtool.evaluate.evaluator import Evaluator
from camtool.evaluate.lanes import Lanes, lanes_of
from camtool.evaluate.metrics import ClassMean
from camtool.evaluate.predictions import EvaluationError, MapSettings
from camtool.evaluate.sanity import PICTURES, STAGES, passes
from camtool.evaluate.twins import Rebuild, Twins
from camtool.evaluate.ways import Way, leads_of, ways_of
from camtool.images import MAX_PIXELS
from camtool.model import CamModel
from camtool.regions.boxes import ZHOU_THRESHOLD

Progress = Callable[[int, int], None]

_FEW = 8
"""Pictures, for fewer of which no processes are started: each needs seconds to begin."""


def compare(
    dataset: Dataset,
    models: Sequence[CamModel],
    rebuild: Rebuild,
    metrics: Sequence[MetricGroup],
    *,
    threshold: float = ZHOU_THRESHOLD,
    batch_size: int = 8,
    workers: int | None = None,
    processes: bool = False,
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
        workers: Threads or processes; None for as many as there are cores.
        processes: Start processes on a CPU, which take half the time of threads, where there are
            pictures enough and the models can be pickled. Each of them first imports the script
            that runs: only a script that does nothing without ``__name__ == "__main__"``, as a
            command does, may ask for them.
        max_pixels: Refuse larger pictures.
        progress: Told how many pictures of how many are done; randomised ones count once more.

    Raises:
        EvaluationError: No picture could be measured, or a process was killed.
    """
    if "sanity" in metrics and next(models[0].network.module.parameters(), None) is None:
        raise EvaluationError("sanity draws weights anew, and this network has none of torch")
    settings = MapSettings.of(models[0])
    if "localization" in metrics:
        dataset = match_labels(dataset, settings.labels, settings.synsets)
    ways = ways_of(models)
    fused = [model for model in models if model in leads_of(models) and model.fuse()]
    judge = (fused or models)[0]
    again = dataset.evenly(PICTURES).records if "sanity" in metrics else []
    paths = frozenset(record.path for record in again)
    twins = Twins.of(judge.network, ways, rebuild) if again else None
    bench = Bench(judge, ways, metrics, batch_size, max_pixels, paths, twins)
    threads = Workers.for_folder(judge.device, workers)
    tallies = [_Tally(Evaluator(len(settings.labels), threshold=threshold)) for _ in ways]
    total = len(dataset.records) + len(again) * len(STAGES)
    several = processes and len(dataset.records) >= _FEW
    with lanes_of(bench, threads, several) as lanes:
        kept, problems = _measure_all(lanes, dataset, tallies, lambda n: progress(n, total))
        measured = len(dataset.records) + len(dataset.problems) - len(problems)
        if not measured:
            first = problems[0] if problems else None
            why = f"; the first problem: {first.path}: {first.reason}" if first else ""
            raise EvaluationError(f"no picture could be measured{why}")
        done = len(dataset.records)
        _cascade(kept, tallies, lanes, lambda n: progress(done + n, total))
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
    lanes: Lanes[Bench],
    dataset: Dataset,
    tallies: Sequence[_Tally],
    progress: Callable[[int], None],
) -> tuple[list[Kept], list[Problem]]:
    """Measure every picture; what is kept of them, and all problems of the data set."""
    kept, problems = [], list(dataset.problems)
    measured = lanes.mapped(Bench.measure, dataset.records)
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


def _cascade(
    kept: Sequence[Kept],
    tallies: Sequence[_Tally],
    lanes: Lanes[Bench],
    progress: Callable[[int], None],
) -> None:
    """Compare every way's maps with those of the network while it is randomised, top down."""
    found = np.zeros((len(kept), len(tallies)))
    for stage in range(len(STAGES)):
        items = [(stage, one) for one in kept]
        for number, (_, correlations) in enumerate(lanes.mapped(Bench.alike, items)):
            found[number] += correlations
            progress(stage * len(kept) + number + 1)
    for row in found / len(STAGES):
        for tally, mean in zip(tallies, row, strict=True):
            tally.add({"weights": float(mean)})
