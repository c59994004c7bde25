"""Several methods measured on the same pictures, beside maps that need no network."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from camtool.engines.engine import Failed
from camtool.engines.steps import one_line
from camtool.engines.threads import Workers
from camtool.errors import ModelError
from camtool.evaluate import MetricGroup
from camtool.evaluate.comparison import Comparison, Row
from camtool.evaluate.datasets import Dataset, Problem, Record, load_mask, match_labels
from camtool.evaluate.evaluator import Evaluator
from camtool.evaluate.faithfulness import (
    Subject,
    adcc,
    coherency,
    complexity,
    faithfulness,
    scaled,
)
from camtool.evaluate.metrics import ClassMean
from camtool.evaluate.predictions import EvaluationError, MapSettings, Prediction
from camtool.evaluate.sanity import PICTURES, STAGES, passes, randomise, rank_correlation
from camtool.evaluate.ways import Way, at_size, explaining, ways_of
from camtool.images import MAX_PIXELS, ImageError
from camtool.model import CamModel, probabilities_of
from camtool.networks import Network
from camtool.prepared import Prepared
from camtool.regions.boxes import ZHOU_THRESHOLD, FloatMap

A = TypeVar("A")
B = TypeVar("B")
_EQUAL = 1e-5
"""Of a scaled map's range: what summing in another order leaves."""

Progress = Callable[[int, int], None]


@dataclass(frozen=True, eq=False)
class Measured:
    """What was found in one picture.

    Attributes:
        scores: For each way its figures by name, as shares.
        predictions: For each way the map of the true class; empty where it is not asked for.
    """

    scores: list[dict[str, float]]
    predictions: list[Prediction]


@dataclass(frozen=True)
class _Bench:
    """All that measures a picture, the same for every one.

    Attributes:
        judge: The network that is asked what becomes of the answer.
        ways: What is compared.
        metrics: What is measured.
        batch_size: Most changed versions to a forward pass.
        max_pixels: Refuse larger pictures.
    """

    judge: CamModel
    ways: Sequence[Way]
    metrics: Sequence[MetricGroup]
    batch_size: int
    max_pixels: int

    def measure(self, record: Record) -> Measured | Failed:
        """Read a picture and measure every way on it; by any thread."""
        try:
            prepared = self.judge.prepare(record.path, self.max_pixels)
            return self._measured(record, prepared)
        except ImageError as error:
            return Failed(error.name, error.reason)
        except ModelError as error:
            return Failed(str(record.path), str(error))
        except OSError as error:
            return Failed(str(record.path), one_line(error))

    @torch.no_grad()
    def _measured(self, record: Record, prepared: Prepared) -> Measured:
        inputs = self.judge.inputs([prepared])
        logits = self.judge.forward(inputs).logits[0].cpu().numpy()
        answer, seed = int(logits.argmax()), _seed(inputs)
        classes = [answer, _other(answer, len(logits), seed)]
        if self._asked("localization"):
            classes.append(int(record.label))
        faithful = _Faithful(self, inputs, answer, seed) if self._asked("faithfulness") else None
        scores, predictions = [], []
        for way in self.ways:
            maps, residual = way.explain(inputs, classes)
            found = {} if residual is None else {"residual": float(residual[0])}
            if faithful:
                found |= faithful.of(way, maps[0])
            if self._asked("sanity") and classes[1] != answer:
                found["class"] = rank_correlation(maps[0], maps[1])
            scores.append(found)
            if self._asked("localization"):
                predictions.append(_prediction(maps[2], logits, classes[2], prepared))
        return Measured(scores, predictions)

    def _asked(self, group: MetricGroup) -> bool:
        return group in self.metrics

    def confidences(self, versions: Tensor, index: int) -> Tensor:
        """Confidence in a class, [V], of inputs [V,C,H,W]."""
        cuts = list(range(self.batch_size, len(versions), self.batch_size))
        batches = torch.tensor_split(versions, cuts)
        logits = torch.cat([self.judge.forward(batch).logits for batch in batches])
        return probabilities_of(logits, self.judge.activation)[:, index]


class _Faithful:
    """Faithfulness of one picture's maps; equal maps, which methods often share, measured once."""

    def __init__(self, bench: _Bench, inputs: Tensor, answer: int, seed: int) -> None:
        self._answer = answer
        self._subject = Subject.of(inputs, lambda some: bench.confidences(some, answer), seed)
        self._known: list[tuple[FloatMap, dict[str, float]]] = []

    def of(self, way: Way, heat: FloatMap) -> dict[str, float]:
        inputs = self._subject.inputs
        map_ = scaled(at_size(heat, inputs))
        same = (found for known, found in self._known if np.allclose(known, map_, 0, _EQUAL))
        found = next(same, None)
        if found is None:
            found = faithfulness(self._subject, map_)
            self._known.append((map_, found))
        again = scaled(way.heat(inputs * torch.from_numpy(map_).to(inputs), self._answer))
        whole = adcc(found["drop"], coherency(again, map_), complexity(map_))
        return {**found, "adcc": whole}


def _seed(inputs: Tensor) -> int:
    return zlib.crc32(inputs.float().cpu().numpy().tobytes())


def _other(answer: int, classes: int, seed: int) -> int:
    """Any other class; the same one where there is none."""
    return (answer + 1 + seed % max(1, classes - 1)) % classes


def _prediction(heat: np.ndarray, logits: np.ndarray, label: int, prepared: Prepared) -> Prediction:
    odds = np.exp(logits - logits.max(), dtype=np.float64)
    return Prediction(
        heat,
        prepared.geometry.extent,
        prepared.geometry.size,
        int((logits > logits[label]).sum()),
        int(logits.argmax()),
        float(odds.max() / odds.sum()),
    )


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


def compare(
    dataset: Dataset,
    models: Sequence[CamModel],
    rebuild: Callable[[Network], Sequence[CamModel]],
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
    records, problems = dataset.records, list(dataset.problems)
    ways = ways_of(models)
    judge = next((model for model in models if model.fuse()), models[0])
    for model in models:
        model.fuse()
    tallies = [_Tally(Evaluator(len(settings.labels), threshold=threshold)) for _ in ways]
    threads = Workers.for_folder(judge.device, workers)
    bench = _Bench(judge, ways, metrics, batch_size, max_pixels)
    again = _evenly(records) if "sanity" in metrics else []
    total, measured = len(records) + len(again) * len(STAGES), 0
    for number, (record, found) in enumerate(_mapped(bench.measure, records, threads), 1):
        problem = _add(tallies, record, found)
        if problem is None:
            measured += 1
        else:
            problems.append(problem)
        progress(number, total)
    if not measured:
        first = f"; the first problem: {problems[0].path}: {problems[0].reason}" if problems else ""
        raise EvaluationError(f"no picture could be measured{first}")
    if again:
        _randomised(
            bench, rebuild, again, tallies, threads,
            lambda done: progress(len(records) + done, total),
        )  # fmt: skip
    rows = [tally.row(way) for tally, way in zip(tallies, ways, strict=True)]
    return Comparison(settings, dataset.format, measured, tuple(metrics), rows, problems)


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


def _randomised(
    bench: _Bench,
    rebuild: Callable[[Network], Sequence[CamModel]],
    records: Sequence[Record],
    tallies: Sequence[_Tally],
    threads: Workers,
    progress: Callable[[int], None],
) -> None:
    """Compare every way's maps with those of the network while it is randomised, top down."""
    network = bench.judge.network
    module = deepcopy(network.module)
    # "As given": its weights are read anew for every picture.
    twins = rebuild(replace(network, module=module, weights="as given"))
    ways = [
        way if way.baseline else replace(way, explain=explaining(twins[number]))
        for number, way in enumerate(bench.ways)
    ]
    read = [
        (inputs, index, [way.explain(inputs, [index])[0][0] for way in bench.ways])
        for _, prepared in _mapped(_reader(bench), records, threads)
        if not isinstance(prepared, Failed)
        for inputs, index in [prepared]
    ]
    sums = [[0.0] * len(ways) for _ in read]
    done = 0
    for _ in randomise(module):

        def alike(one: tuple[Tensor, int, list[np.ndarray]]) -> list[float]:
            inputs, index, before = one
            return [
                rank_correlation(heat, way.explain(inputs, [index])[0][0])
                for way, heat in zip(ways, before, strict=True)
            ]

        for number, (_, found) in enumerate(_mapped(alike, read, threads)):
            sums[number] = [a + b for a, b in zip(sums[number], found, strict=True)]
            done += 1
            progress(done)
    for row in sums:
        for tally, total in zip(tallies, row, strict=True):
            tally.add({"weights": total / len(STAGES)})


def _reader(bench: _Bench) -> Callable[[Record], tuple[Tensor, int] | Failed]:
    def read(record: Record) -> tuple[Tensor, int] | Failed:
        try:
            inputs = bench.judge.inputs([bench.judge.prepare(record.path, bench.max_pixels)])
            return inputs, int(bench.judge.forward(inputs).logits[0].argmax())
        except (ImageError, ModelError, OSError) as error:
            return Failed(str(record.path), str(error))

    return read


def _evenly(records: Sequence[Record]) -> Sequence[Record]:
    return Dataset(list(records), []).evenly(PICTURES).records


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
