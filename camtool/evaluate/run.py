"""Localization measured over a data set, with the same forward path as everything else."""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from camtool.engines import ENGINES
from camtool.engines.engine import Failed, Job, Request
from camtool.engines.settings import differences
from camtool.evaluate.datasets import Dataset, Problem, Record, load_mask, match_labels
from camtool.evaluate.evaluation import Evaluation, Mode
from camtool.evaluate.reference import REFERENCE_SIDE
from camtool.explanation import Explanation
from camtool.files import write_atomically
from camtool.images import MAX_PIXELS
from camtool.images.resample import upsample
from camtool.model import CamModel
from camtool.regions.boxes import FloatMap

MOST_SIDE = 512
"""Longest side of the grid on which maps are measured; boxes have sub-pixel coordinates there."""

SETTINGS = "maps.json"


class EvaluationError(RuntimeError):
    """The evaluation can't be done as asked."""


@dataclass(frozen=True)
class Measured:
    """What is needed of one picture to measure it: its true class's map and the guesses.

    Attributes:
        map: float32 [h,w], of the true class, in logits, at feature resolution.
        extent: (x0, y0, x1, y1) in original pixels that the map covers.
        size: (W, H) of the picture.
        rank: Place of the true label among the guesses, 0 the first.
        guess: Index of the first guess.
        probability: Of the first guess.
    """

    map: FloatMap
    extent: tuple[float, ...]
    size: tuple[int, int]
    rank: int
    guess: int
    probability: float

    @classmethod
    def of(cls, explanation: Explanation) -> Measured:
        """From an explanation of the true class alone."""
        logits = explanation.all_logits
        shifted = np.exp(logits - logits.max(), dtype=np.float64)
        return cls(
            map=explanation.maps[0],
            extent=explanation.geometry.extent,
            size=explanation.geometry.size,
            rank=int((logits > explanation.logits[0]).sum()),
            guess=int(logits.argmax()),
            probability=float(shifted.max() / shifted.sum()),
        )

    def heatmap(self, most: int = MOST_SIDE) -> FloatMap:
        """The map over the whole picture, at its size but at most `most` pixels long.

        NaN where the network saw nothing.
        """
        import torch

        width, height = self.size
        scale = min(1.0, most / max(self.size))
        grid = max(1, round(width * scale)), max(1, round(height * scale))
        sx, sy = grid[0] / width, grid[1] / height
        x0, y0, x1, y1 = self.extent
        extent = (x0 * sx, y0 * sy, x1 * sx, y1 * sy)
        return upsample(torch.from_numpy(np.ascontiguousarray(self.map)), extent, grid).numpy()

    def to_npz(self) -> bytes:
        """As a NumPy archive, from which `from_npz` reads it back."""
        stream = io.BytesIO()
        np.savez(
            stream,
            map=self.map,
            extent=np.array(self.extent),
            size=np.array(self.size),
            guess=np.array([self.rank, self.guess]),
            probability=np.array(self.probability),
        )
        return stream.getvalue()

    @classmethod
    def from_npz(cls, path: Path) -> Measured:
        """Read what `to_npz` wrote.

        Raises:
            OSError, ValueError, KeyError: The file can't be read, or is something else.
        """
        with np.load(path) as kept:
            width, height = kept["size"].tolist()
            rank, guess = kept["guess"].tolist()
            extent = tuple(kept["extent"].tolist())
            probability = float(kept["probability"])
            return cls(kept["map"], extent, (width, height), rank, guess, probability)


@dataclass
class Store:
    """Maps that were computed once, so that metrics can be run again without the network.

    Attributes:
        folder: Where they are; None to keep none.
        root: Of the data set; maps are named by the pictures' place under it.
    """

    folder: Path | None
    root: Path

    def path(self, record: Record) -> Path | None:
        """Where a picture's map is kept, whether it is there or not."""
        if self.folder is None:
            return None
        name = os.path.relpath(record.path, self.root)
        if name.startswith(".."):
            name = hashlib.sha256(os.fsencode(record.path)).hexdigest()[:32]
        return self.folder / f"{name}.{record.label}.npz"

    def get(self, record: Record) -> Measured | None:
        """A picture's map; None if it is not kept."""
        path = self.path(record)
        if path is None or not path.is_file():
            return None
        try:
            return Measured.from_npz(path)
        except (OSError, ValueError, KeyError):
            return None

    def put(self, record: Record, measured: Measured) -> None:
        """Keep a picture's map."""
        path = self.path(record)
        if path is not None:
            write_atomically(path, measured.to_npz())

    def settings(self) -> dict[str, Any] | None:
        """What the maps were made with; None if there are none."""
        path = self.folder / SETTINGS if self.folder else None
        if path is None or not path.is_file():
            return None
        settings: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return settings

    def claim(self, settings: dict[str, Any]) -> None:
        """Note what the maps are made with.

        Raises:
            EvaluationError: Those that are there were made with something else.
        """
        if self.folder is None:
            return
        before = self.settings()
        changed = differences(before, settings) if before else []
        if changed:
            raise EvaluationError(
                f"{self.folder} holds maps made otherwise ({'; '.join(changed)[:300]}); choose "
                "another folder"
            )
        content = json.dumps(settings, indent=1).encode()
        write_atomically(self.folder / SETTINGS, content)


def settings_of(model: CamModel, dtype: str) -> dict[str, Any]:
    """Everything that maps depend on, and the names of the classes."""
    record = model.describe()
    # The last digits of the proof's error depend on the machine.
    del record["head"]["max_error"]
    return {
        **record,
        "fit": model.fit,
        "size": model.preprocessing.size,
        "dtype": dtype,
        "labels": list(model.labels),
        "synsets": list(model.network.synsets),
    }


@dataclass
class Case:
    """One picture as the page of cases shows it."""

    record: Record
    measured: Measured
    overlap: float | None


@dataclass
class Extremes:
    """The best, the worst and the most confident wrong pictures so far.

    Attributes:
        keep: How many of each.
    """

    keep: int = 24
    best: list[Case] = field(default_factory=list)
    worst: list[Case] = field(default_factory=list)
    wrong: list[Case] = field(default_factory=list)

    def add(self, case: Case) -> None:
        """Look at one more picture."""
        if case.overlap is not None:
            overlap = case.overlap
            self.best = self._keep([*self.best, case], lambda c: -(c.overlap or 0.0))
            if overlap < 1:
                self.worst = self._keep([*self.worst, case], lambda c: c.overlap or 0.0)
        if case.measured.rank > 0:
            self.wrong = self._keep([*self.wrong, case], lambda c: -c.measured.probability)

    def _keep(self, cases: list[Case], key: Callable[[Case], float]) -> list[Case]:
        return sorted(cases, key=key)[: self.keep]


@dataclass
class Outcome:
    """What an evaluation found.

    Attributes:
        evaluation: The metrics.
        extremes: Pictures worth looking at.
        problems: What could not be used, named.
        top: Number of pictures whose label was the first guess, and among the first five.
    """

    evaluation: Evaluation
    extremes: Extremes
    problems: list[Problem]
    top: list[int] = field(default_factory=lambda: [0, 0])


def evaluate(
    dataset: Dataset,
    labels: Sequence[str],
    synsets: Sequence[str],
    store: Store,
    model: Callable[[], CamModel],
    *,
    mode: Mode = "plain",
    threshold: float = 0.2,
    batch_size: int = 8,
    workers: int | None = None,
    max_pixels: int = MAX_PIXELS,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Outcome:
    """Measure localization over a data set; memory does not grow with it but for its records.

    Args:
        dataset: Records, with labels as the data set has them.
        labels: Of the network.
        synsets: WordNet ids of the network's classes; empty if unknown.
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
    """
    matched = match_labels(dataset.records, labels, synsets)
    problems = [*dataset.problems, *matched.problems]
    evaluation = Evaluation(len(labels), mode=mode, threshold=threshold)
    outcome = Outcome(evaluation, Extremes(), problems)
    source = _Source(matched.records, store, model, batch_size, workers, max_pixels)
    for number, (record, measured) in enumerate(source.measured(), 1):
        if isinstance(measured, Failed):
            problems.append(Problem(str(record.path), measured.reason))
        else:
            _add(outcome, record, measured)
        progress(number, len(matched.records))
    if not evaluation.images:
        first = f"; the first problem: {problems[0].path}: {problems[0].reason}" if problems else ""
        raise EvaluationError(f"no picture could be measured{first}")
    return outcome


@dataclass
class _Source:
    """Maps of the true classes: from the store where they are there, else from the network."""

    records: Sequence[Record]
    store: Store
    model: Callable[[], CamModel]
    batch_size: int
    workers: int | None
    max_pixels: int

    def measured(self) -> Iterator[tuple[Record, Measured | Failed]]:
        """Each record with its map, in the order of the data set, or with why there is none."""
        missing = [n for n, record in enumerate(self.records) if self.store.get(record) is None]
        fresh = self._computed(missing) if missing else iter(())
        waiting = iter(missing)
        following = next(waiting, None)
        for number, record in enumerate(self.records):
            if number == following:
                yield record, next(fresh)
                following = next(waiting, None)
            else:
                kept = self.store.get(record)
                yield record, kept or Failed(str(record.path), "its kept map was removed")

    def _computed(self, numbers: Sequence[int]) -> Iterator[Measured | Failed]:
        model = self.model()
        request = Request(batch_size=self.batch_size, max_pixels=self.max_pixels)
        engine = ENGINES["threads"](model, request, self.workers, print)
        jobs = (Job(n, self.records[n].path, self.records[n].label) for n in numbers)
        for chunk in engine.run(jobs, _Measuring(self.records, self.store)):
            yield from chunk


@dataclass(frozen=True)
class _Measuring:
    """What is made of each picture: its map, kept in the store."""

    records: Sequence[Record]
    store: Store

    def finish(self, job: Job, explanation: Explanation, _milliseconds: float) -> Measured | Failed:
        measured = Measured.of(explanation)
        self.store.put(self.records[job.number], measured)
        return measured

    def fail(self, _job: Job, failed: Failed) -> Measured | Failed:
        return failed


def _add(outcome: Outcome, record: Record, measured: Measured) -> None:
    evaluation = outcome.evaluation
    seen = measured.heatmap()
    # Reference mode resizes the map itself, from feature resolution as the published code does.
    heatmap = measured.map if evaluation.mode == "reference" else seen
    try:
        mask = _mask_of(record, evaluation.mode)
    except (OSError, ValueError) as error:
        outcome.problems.append(Problem(str(record.path), f"its mask can't be used: {error}"))
        return
    overlap = evaluation.update(
        heatmap,
        np.array(record.boxes),
        measured.size,
        label=int(record.label),
        rank=measured.rank,
        mask=mask,
    )
    outcome.top[0] += measured.rank < 1
    outcome.top[1] += measured.rank < 5
    outcome.extremes.add(Case(record, measured, overlap))


def _mask_of(record: Record, mode: Mode) -> NDArray[np.uint8] | None:
    """A picture's mask; in reference mode its parts are resized before they are put together."""
    side = REFERENCE_SIDE if mode == "reference" else None
    return None if record.mask is None else load_mask(record.mask, side)
