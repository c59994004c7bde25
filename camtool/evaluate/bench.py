"""One picture measured: every way to make maps, by everything that is asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from camtool.engines.engine import Failed
from camtool.engines.steps import one_line
from camtool.errors import ModelError
from camtool.evaluate import MetricGroup
from camtool.evaluate.datasets import Record
from camtool.evaluate.faithfulness import (
    Subject,
    adcc,
    coherency,
    complexity,
    faithfulness,
    scaled,
)
from camtool.evaluate.predictions import Prediction
from camtool.evaluate.sanity import rank_correlation
from camtool.evaluate.twins import Twins
from camtool.evaluate.ways import Seen, Way, at_size, seed_of
from camtool.images import ImageError
from camtool.model import CamModel
from camtool.prepared import Prepared
from camtool.regions.boxes import FloatMap
from camtool.results import probabilities_of

_EQUAL = 1e-5
"""Of a scaled map's range: what summing in another order leaves."""


@dataclass(frozen=True, eq=False)
class Kept:
    """One picture to look at again.

    Attributes:
        inputs: float32 [1,C,H,W], normalised; an array, which goes to another process as it is.
        answer: The class that the network answered with.
        maps: For each way the map of that class.
    """

    inputs: NDArray[np.float32]
    answer: int
    maps: list[FloatMap]


@dataclass(frozen=True, eq=False)
class Measured:
    """What was found in one picture.

    Attributes:
        scores: For each way its figures by name, as shares.
        predictions: For each way the map of the true class; empty where it is not asked for.
        kept: What is looked at again with other weights; None where it is not.
    """

    scores: list[dict[str, float]]
    predictions: list[Prediction]
    kept: Kept | None


@dataclass(frozen=True)
class Bench:
    """All that measures a picture, the same for every one.

    Attributes:
        judge: The network that is asked what becomes of the answer.
        ways: What is compared.
        metrics: What is measured.
        batch_size: Most changed versions to a forward pass.
        max_pixels: Refuse larger pictures.
        again: Pictures that are kept, to be looked at with other weights.
        twins: The same ways with other weights; None where none are looked at.
    """

    judge: CamModel
    ways: Sequence[Way]
    metrics: Sequence[MetricGroup]
    batch_size: int
    max_pixels: int
    again: frozenset[Path]
    twins: Twins | None = None

    def measure(self, record: Record) -> Measured | Failed:
        """Read a picture and measure every way on it; in any thread or process."""
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
        seen = Seen(inputs)
        logits = seen.forwards(self.judge)[0].logits[0].cpu().numpy()
        answer, seed = int(logits.argmax()), seed_of(inputs)
        classes = [answer, _other(answer, len(logits), seed)]
        if self._asked("localization"):
            classes.append(int(record.label))
        faithful = _Faithful(self, inputs, answer, seed) if self._asked("faithfulness") else None
        scores, predictions, own = [], [], []
        for way in self.ways:
            maps, residual = way.explain(seen, classes)
            found = {} if residual is None else {"residual": float(residual[0])}
            if faithful:
                found |= faithful.of(way, maps[0])
            if self._asked("sanity") and classes[1] != answer:
                found["class"] = rank_correlation(maps[0], maps[1])
            scores.append(found)
            own.append(maps[0])
            if self._asked("localization"):
                predictions.append(_prediction(maps[2], logits, classes[2], prepared))
        again = record.path in self.again
        kept = Kept(inputs.cpu().numpy(), answer, own) if again else None
        return Measured(scores, predictions, kept)

    def alike(self, given: tuple[int, Kept]) -> list[float]:
        """How like its own a picture's maps are with weights that are randomised up to a stage."""
        stage, kept = given
        assert self.twins is not None
        seen = Seen(torch.from_numpy(kept.inputs).to(self.judge.device))
        maps = self.twins.maps(stage, seen, kept.answer)
        return [rank_correlation(*pair) for pair in zip(kept.maps, maps, strict=True)]

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

    def __init__(self, bench: Bench, inputs: Tensor, answer: int, seed: int) -> None:
        self._answer = answer
        self._subject = Subject.of(inputs, lambda some: bench.confidences(some, answer), seed)
        self._known: list[tuple[FloatMap, dict[str, float], Seen]] = []

    def of(self, way: Way, heat: FloatMap) -> dict[str, float]:
        map_ = scaled(at_size(heat, self._subject.inputs))
        same = (known for known in self._known if np.allclose(known[0], map_, 0, _EQUAL))
        known = next(same, None)
        if known is None:
            inputs = self._subject.inputs
            masked = Seen(inputs * torch.from_numpy(map_).to(inputs))
            known = map_, faithfulness(self._subject, map_), masked
            self._known.append(known)
        _, found, masked = known
        again = scaled(way.heat(masked, self._answer))
        whole = adcc(found["drop"], coherency(again, map_), complexity(map_))
        return {**found, "adcc": whole}


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
