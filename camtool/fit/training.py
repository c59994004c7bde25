"""The one training loop: batches, schedule, optimizer steps, and a checkpoint to go on from."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from camtool.files import replacing

Bytes: TypeAlias = npt.NDArray[np.uint8]
Longs: TypeAlias = npt.NDArray[np.int64]


def to_input(
    images: Bytes, mean: Sequence[float], std: Sequence[float], device: torch.device | str = "cpu"
) -> Tensor:
    """Normalise uint8 RGB [N,H,W,3] to float32 [N,3,H,W], channels last in memory.

    Args:
        images: The pictures.
        mean: One a channel, of values in 0..1.
        std: Likewise.
        device: Where it should be.
    """
    x = torch.from_numpy(images).to(device).permute(0, 3, 1, 2).float()
    centre, scale = (torch.tensor(v, device=device).view(3, 1, 1) * 255 for v in (mean, std))
    return (x - centre) / scale


@dataclass(frozen=True)
class Schedule:
    """How long is trained, and how fast.

    Attributes:
        epochs: Passes over the data.
        batch: Pictures to an optimizer step; what is left over at the end of an epoch waits.
        seed: Of everything that is drawn.
        warmup: Share of training in which the learning rate rises, 0..1.
        minutes: Time allowed; training ends at whichever of the two is reached first.
    """

    epochs: int
    batch: int
    seed: int
    warmup: float = 0.1
    minutes: float = float("inf")

    def rate(self, progress: float) -> float:
        """Return the learning rate relative to its peak: linear up, then linear down to 0."""
        rise = progress / self.warmup if self.warmup else 1.0
        return max(0.0, min(rise, (1 - progress) / (1 - self.warmup)))


@dataclass
class Position:
    """How far a run has come: what a checkpoint needs besides tensors."""

    epoch: int = 0
    step: int = 0
    elapsed: float = 0.0


def batches(
    count: int, schedule: Schedule, position: Position
) -> Iterator[tuple[Longs, np.random.Generator]]:
    """Yield the rest of an epoch: picture numbers and the batch's own source of randomness.

    Both follow from seed, epoch and step alone, so a resumed run draws what it would have drawn.
    """
    order = np.random.default_rng((schedule.seed, position.epoch)).permutation(count)
    for step in range(position.step, count // schedule.batch):
        rng = np.random.default_rng((schedule.seed, position.epoch, step))
        yield order[step * schedule.batch :][: schedule.batch], rng


class Trainer(ABC):
    """One run: network, optimizers, position and checkpoint.

    Args:
        model: The network.
        optimizers: Their learning rates now are the peaks.
        schedule: How long, and how fast.
        count: Pictures that are trained on.
        checkpoint: The file to go on from.

    Attributes:
        notes: What `loss` noted of the epoch's batches by name, beside the losses.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizers: Sequence[torch.optim.Optimizer],
        schedule: Schedule,
        count: int,
        checkpoint: Path,
    ) -> None:
        self.network, self.optimizers = model, optimizers
        self.schedule, self.count, self.checkpoint = schedule, count, checkpoint
        self.position = Position()
        self.notes: defaultdict[str, list[float]] = defaultdict(list)
        self._groups = [group for each in optimizers for group in each.param_groups]
        self._peaks = [group["lr"] for group in self._groups]

    @abstractmethod
    def loss(self, picked: Longs, rng: np.random.Generator) -> Tensor:
        """The loss of a batch.

        Args:
            picked: Numbers of its pictures.
            rng: The batch's own source of randomness.
        """

    def after_step(self, loss: float, speed: float) -> None:  # noqa: B027
        """Called after each step, with the pictures a second of this epoch."""

    @property
    def progress(self) -> float:
        """Share of training done: the larger of the shares of epochs and of minutes."""
        part = self.position.step * self.schedule.batch / self.count
        epochs = (self.position.epoch + part) / self.schedule.epochs
        return max(epochs, self.position.elapsed / 60 / self.schedule.minutes)

    def epoch(self) -> dict[str, float]:
        """Train to the end of the epoch, or of the time; return the means of what was noted."""
        self.network.train()
        self.notes.clear()
        start, before = time.monotonic(), self.position.elapsed
        for number, (picked, rng) in enumerate(
            batches(self.count, self.schedule, self.position), 1
        ):
            loss = self._step(picked, rng)
            self.notes["loss"].append(loss)
            self.position.step += 1
            seconds = time.monotonic() - start
            self.position.elapsed = before + seconds
            self.after_step(loss, number * self.schedule.batch / seconds)
            if self.progress >= 1:
                break
        self.position.epoch, self.position.step = self.position.epoch + 1, 0
        return {name: float(np.mean(values)) for name, values in self.notes.items()}

    def _step(self, picked: Longs, rng: np.random.Generator) -> float:
        # What torch draws, as for dropout, follows from the batch too.
        torch.manual_seed(int(rng.spawn(1)[0].integers(2**63)))
        loss = self.loss(picked, rng)
        for optimizer in self.optimizers:
            optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        rate = self.schedule.rate(self.progress)
        for group, peak in zip(self._groups, self._peaks, strict=True):
            group["lr"] = peak * rate
        for optimizer in self.optimizers:
            optimizer.step()
        return loss.item()

    def save(self, **more: Any) -> None:
        """Write the checkpoint whole.

        Args:
            **more: What `resume` should give back; plain data and tensors.
        """
        state = {
            "model": self.network.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "position": asdict(self.position),
            **more,
        }
        with replacing(self.checkpoint, "wb") as stream:
            torch.save(state, stream)

    def resume(self) -> dict[str, Any]:
        """Go on from the checkpoint, where there is one; what it holds, or nothing."""
        if not self.checkpoint.is_file():
            return {}
        device = next(self.network.parameters()).device
        state: dict[str, Any] = torch.load(self.checkpoint, map_location=device, weights_only=True)
        self.network.load_state_dict(state["model"])
        for optimizer, kept in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(kept)
        # load_state_dict puts other groups in place of those that were there.
        self._groups = [group for each in self.optimizers for group in each.param_groups]
        self.position = Position(**state["position"])
        return state
