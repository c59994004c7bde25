"""The training loop: what is drawn, the schedule, and going on from a checkpoint."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

from camtool.fit.training import Longs, Position, Schedule, Trainer, batches, to_input

COUNT = 22
SCHEDULE = Schedule(epochs=3, batch=4, seed=5)


class Fitting(Trainer):
    """A line through noisy points, with dropout, which draws from torch's own generator."""

    def __init__(self, checkpoint: Path, schedule: Schedule = SCHEDULE) -> None:
        torch.manual_seed(schedule.seed)
        net = nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 1))
        optimizers = [
            torch.optim.AdamW(net[0].parameters(), 0.02),
            torch.optim.SGD(net[3].parameters(), 0.05, momentum=0.9),
        ]
        super().__init__(net, optimizers, schedule, COUNT, checkpoint)
        self.points = torch.randn(COUNT, 3, generator=torch.Generator().manual_seed(0))
        self.rates: list[tuple[float, float]] = []
        self.save_at = -1

    def loss(self, picked: Longs, rng: np.random.Generator) -> Tensor:
        x = self.points[torch.from_numpy(picked)]
        noise = torch.from_numpy(rng.normal(size=len(x))).float()
        self.notes["noise"].append(noise.mean().item())
        found: Tensor = self.network(x)
        return functional.mse_loss(found[:, 0], x.sum(1) + noise)

    def after_step(self, loss: float, speed: float) -> None:
        self.rates.append((self._groups[0]["lr"], self._groups[1]["lr"]))
        if len(self.rates) == self.save_at:
            self.save()


def tensors(trainer: Trainer) -> list[Tensor]:
    kept = list(trainer.network.state_dict().values())
    for optimizer in trainer.optimizers:
        for state in optimizer.state_dict()["state"].values():
            kept += [value for value in state.values() if isinstance(value, Tensor)]
    return kept


@pytest.mark.parametrize("stop", [1, 5, 7, 15])
def test_what_was_killed_anywhere_ends_as_what_was_not(tmp_path: Path, stop: int) -> None:
    whole = Fitting(tmp_path / "whole")
    notes = [whole.epoch() for _ in range(3)]
    assert whole.progress == 1
    killed = Fitting(tmp_path / "parts")
    killed.save_at = stop
    while killed.position.epoch <= (stop - 1) // 5:
        killed.epoch()
    again = Fitting(tmp_path / "parts")
    state = again.resume()
    assert state["position"]["step"] == again.position.step > 0
    while again.position.epoch < 3:
        last = again.epoch()
    assert len(again.rates) == 15 - stop
    assert again.rates == whole.rates[stop:]
    if len(again.rates) >= 5:
        assert last == notes[-1]
    for one, other in zip(tensors(whole), tensors(again), strict=True):
        assert torch.equal(one, other)


def test_what_is_kept_beside_comes_back(tmp_path: Path) -> None:
    trainer = Fitting(tmp_path / "deep" / "checkpoint")
    assert trainer.resume() == {}
    trainer.epoch()
    trainer.save(rows=[{"loss": 1.5}])
    assert Fitting(tmp_path / "deep" / "checkpoint").resume()["rows"] == [{"loss": 1.5}]


def test_every_optimizer_follows_the_schedule_from_its_own_peak(tmp_path: Path) -> None:
    trainer = Fitting(tmp_path / "checkpoint")
    trainer.epoch()
    for number, (first, second) in enumerate(trainer.rates):
        rate = SCHEDULE.rate(number * 4 / COUNT / 3)
        assert first == pytest.approx(0.02 * rate)
        assert second == pytest.approx(0.05 * rate)


def test_time_ends_a_run_too(tmp_path: Path) -> None:
    trainer = Fitting(tmp_path / "checkpoint", Schedule(3, 4, 5, minutes=1e-9))
    trainer.epoch()
    assert len(trainer.rates) == 1
    assert trainer.progress >= 1


@given(count=st.integers(1, 40), batch=st.integers(1, 9), seed=st.integers(0, 99))
def test_batches_follow_from_seed_epoch_and_step_alone(count: int, batch: int, seed: int) -> None:
    schedule = Schedule(9, batch, seed)
    full = list(batches(count, schedule, Position(epoch=1)))
    assert len(full) == count // batch
    assert len({int(n) for picked, _ in full for n in picked}) == len(full) * batch
    numbers = [rng.random() for _, rng in full]
    for step in range(len(full)):
        rest = list(batches(count, schedule, Position(epoch=1, step=step)))
        assert [rng.random() for _, rng in rest] == numbers[step:]
        for (one, _), (other, _) in zip(full[step:], rest, strict=True):
            np.testing.assert_array_equal(one, other)


@given(progress=st.floats(0, 1), warmup=st.floats(0, 0.9))
def test_the_learning_rate_rises_then_falls_to_zero(progress: float, warmup: float) -> None:
    schedule = Schedule(1, 1, 0, warmup)
    assert 0 <= schedule.rate(progress) <= 1
    later = min(1.0, progress + 0.01)
    if progress >= warmup:
        assert schedule.rate(later) <= schedule.rate(progress)
    elif later <= warmup:
        assert schedule.rate(later) >= schedule.rate(progress)
    assert schedule.rate(1) == 0
    assert schedule.rate(warmup) == pytest.approx(1)


def test_pictures_are_normalised_channel_by_channel() -> None:
    images = np.random.default_rng(0).integers(0, 256, (2, 4, 6, 3), np.uint8)
    found = to_input(images, (0.1, 0.2, 0.3), (0.5, 0.4, 0.2))
    assert found.shape == (2, 3, 4, 6)
    expected = (images[1, 2, 5] / 255 - (0.1, 0.2, 0.3)) / (0.5, 0.4, 0.2)
    np.testing.assert_allclose(found[1, :, 2, 5].numpy(), expected, rtol=1e-4)
