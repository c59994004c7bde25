"""The network's maps of the true classes: computed, or kept from an earlier evaluation."""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from camtool.engines.settings import differences
from camtool.engines.threads import Failed, Job, Pipeline, Workers
from camtool.evaluate.datasets import Record
from camtool.explanation import Explanation
from camtool.files import write_atomically
from camtool.images import MAX_PIXELS
from camtool.images.resample import upsample
from camtool.model import CamModel
from camtool.regions.boxes import FloatMap

LONGEST_SIDE = 512
"""Of the grid on which maps are measured, in pixels; boxes have sub-pixel coordinates there."""

SETTINGS = "maps.json"


class EvaluationError(RuntimeError):
    """The evaluation can't be done as asked."""


@dataclass(frozen=True, eq=False)
class Prediction:
    """What a network makes of one picture whose class is known.

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
    def of(cls, explanation: Explanation) -> Prediction:
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

    def heatmap(self, longest: int = LONGEST_SIDE) -> FloatMap:
        """The map over the whole picture, at its size but at most `longest` pixels long.

        NaN where the network saw nothing.
        """
        import torch

        width, height = self.size
        scale = min(1.0, longest / max(self.size))
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
    def from_npz(cls, path: Path) -> Prediction:
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


@dataclass(frozen=True)
class MapSettings:
    """Everything that maps depend on, and the names of the classes.

    Attributes:
        model: The model's own JSON record.
        fit: How pictures meet the network.
        size: Side of its input in pixels.
        dtype: Number format of its body.
        labels: One for each class.
        synsets: WordNet ids of the classes; empty if unknown.
    """

    model: dict[str, Any]
    fit: str
    size: int
    dtype: str
    labels: tuple[str, ...]
    synsets: tuple[str, ...]

    @classmethod
    def of(cls, model: CamModel) -> MapSettings:
        """Those of a model that is about to run."""
        record = model.describe()
        # The last digits of the proof's error depend on the machine.
        record["head"].pop("max_error", None)
        dtype = str(model.dtype).removeprefix("torch.")
        labels, synsets = tuple(model.labels), tuple(model.network.synsets)
        return cls(record, model.fit, model.preprocessing.size, dtype, labels, synsets)

    @property
    def name(self) -> str:
        """Of the network."""
        return str(self.model["name"])

    def to_json(self) -> dict[str, Any]:
        """All but the names of the classes, for metrics.json."""
        return {**self.model, "fit": self.fit, "size": self.size, "dtype": self.dtype}

    def to_file(self) -> dict[str, Any]:
        """All of them, for the folder of the maps."""
        return {**self.to_json(), "labels": list(self.labels), "synsets": list(self.synsets)}

    @classmethod
    def from_file(cls, kept: dict[str, Any]) -> MapSettings:
        """From what `to_file` gave. Raises KeyError, TypeError or AttributeError otherwise."""
        model = dict(kept)
        fit, size, dtype = (model.pop(key) for key in ("fit", "size", "dtype"))
        labels, synsets = (tuple(model.pop(key)) for key in ("labels", "synsets"))
        return cls(model, fit, size, dtype, labels, synsets)


@dataclass(frozen=True)
class MapStore:
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

    def get(self, record: Record) -> Prediction | None:
        """A picture's map; None if it is not kept."""
        path = self.path(record)
        if path is None or not path.is_file():
            return None
        try:
            return Prediction.from_npz(path)
        except (OSError, ValueError, KeyError):
            return None

    def put(self, record: Record, prediction: Prediction) -> None:
        """Keep a picture's map. Raises OSError."""
        path = self.path(record)
        if path is not None:
            write_atomically(path, prediction.to_npz())

    def settings(self) -> MapSettings | None:
        """What the maps were made with; None if there are none.

        Raises:
            EvaluationError: The file that says so is damaged.
        """
        path = self.folder / SETTINGS if self.folder else None
        if path is None or not path.is_file():
            return None
        try:
            return MapSettings.from_file(json.loads(path.read_text(encoding="utf-8")))
        except (ValueError, KeyError, TypeError, AttributeError):
            raise EvaluationError(f"{path} is damaged; choose another folder for maps") from None

    def claim(self, settings: MapSettings) -> None:
        """Note what the maps are made with.

        Raises:
            EvaluationError: Those that are there were made with something else.
            OSError: The folder can't be written.
        """
        if self.folder is None:
            return
        before, now = self.settings(), settings.to_file()
        changed = differences(before.to_file(), now) if before else []
        if changed:
            raise EvaluationError(
                f"{self.folder} holds maps made otherwise ({'; '.join(changed)[:300]}); choose "
                "another folder"
            )
        write_atomically(self.folder / SETTINGS, json.dumps(now, indent=1).encode())


def predict(
    records: Sequence[Record],
    store: MapStore,
    model: Callable[[], CamModel],
    *,
    batch_size: int = 8,
    workers: int | None = None,
    max_pixels: int = MAX_PIXELS,
) -> Iterator[Prediction | Failed]:
    """A prediction for each record, in their order, or why there is none.

    Args:
        records: Pictures, with indices of the network's classes as labels.
        store: Where maps are kept, and taken from where they are there.
        model: Gives the model; called only if a map is missing.
        batch_size: Most pictures to a forward pass.
        workers: Threads of each kind; None for as many as there are cores.
        max_pixels: Refuse larger pictures.
    """
    missing = [number for number, record in enumerate(records) if store.get(record) is None]
    fresh: Iterator[Prediction | Failed] = iter(())
    if missing:
        jobs = (Job(number, records[number].path, records[number].label) for number in missing)
        fresh = _computed(records, jobs, store, model(), batch_size, workers, max_pixels)
    computed = set(missing)
    for number, record in enumerate(records):
        if number in computed:
            yield next(fresh)
        else:
            yield store.get(record) or Failed(str(record.path), "its kept map was removed")


def _computed(
    records: Sequence[Record],
    jobs: Iterator[Job],
    store: MapStore,
    model: CamModel,
    batch_size: int,
    workers: int | None,
    max_pixels: int,
) -> Iterator[Prediction | Failed]:
    """The predictions for jobs, numbered by their records, as the network makes them."""

    def keep(job: Job, explanation: Explanation, _milliseconds: float) -> Prediction:
        prediction = Prediction.of(explanation)
        store.put(records[job.number], prediction)
        return prediction

    pipeline: Pipeline[Prediction | Failed] = Pipeline(
        model,
        keep,
        lambda _job, failed: failed,
        batch_size=batch_size,
        max_pixels=max_pixels,
        workers=Workers.for_folder(model.device, workers),
    )
    for chunk in pipeline.run(jobs):
        yield from chunk
