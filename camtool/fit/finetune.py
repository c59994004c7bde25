"""The last stage of a base, trained on where a fitted layer left it.

A fifth of the pictures that are fitted on is set aside: by it the epoch is chosen, and whether any
is better than the layer alone. What is held out plays no part. Normalisation keeps the statistics
that the base came with, so that a picture's answer does not depend on its batch.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from camtool.engines.engine import never
from camtool.engines.settings import model_settings
from camtool.engines.threads import available_cores
from camtool.fit.base import linear_head, with_layer
from camtool.fit.data import DataError
from camtool.fit.sample import Sample
from camtool.fit.solver import Examples, fitted_layer, losses, one_thread
from camtool.fit.split import first_share
from camtool.fit.training import Longs, Schedule, Trainer
from camtool.heads import evaluating, probe_input
from camtool.heads.watch import logits_of
from camtool.images import ImageError
from camtool.model import CamModel
from camtool.prepared import same_shape

EPOCHS = 6
BATCH = 16
RATE = 1e-4
"""Peak of the learning rate of AdamW; a tenth of what is usual where a network is trained anew."""
DECAY = 0.01
CHOSEN_BY = 0.2
"""Share of the fitted pictures that is set aside."""


class _StoppedError(Exception):
    """The run was asked to stop."""


@dataclass(frozen=True)
class Tuned:
    """What came of it.

    Attributes:
        cam: The base with its last stage trained further; as it was where that is no better.
        epochs: After how many it is taken; 0 for the base as it was.
        before: Loss of the layer alone on the pictures set aside, in nats.
        after: That of the epoch taken.
        aside: Those pictures, by row of the examples.
    """

    cam: CamModel
    epochs: int
    before: float
    after: float
    aside: Sequence[int]


def last_stage(cam: CamModel) -> list[str]:
    """Parameters of the modules that work at the resolution of the features, by name."""
    module, head = cam.network.module, linear_head(cam)
    sample = probe_input(module, cam.preprocessing.size)
    with torch.no_grad():
        side = tuple(cam.forward(sample.to(cam.device)).features.shape[2:])
    found: list[str] = []

    def note(name: str) -> Callable[[nn.Module, Any, Any], None]:
        def see(part: nn.Module, _: Any, output: Any) -> None:
            shape = tuple(output.shape) if isinstance(output, Tensor) else ()
            # With channels last as some transformers' relatives have them, too.
            if len(shape) == 4 and side in (shape[2:], shape[1:3]):
                own = (parameter for parameter, _ in part.named_parameters(recurse=False))
                found.extend(f"{name}.{parameter}" for parameter in own)

        return see

    hooks = [part.register_forward_hook(note(name)) for name, part in module.named_modules()]
    try:
        with torch.no_grad(), evaluating(module):
            module(sample)
    finally:
        for hook in hooks:
            hook.remove()
    return [name for name in dict.fromkeys(found) if name not in (head.layer, head.bias)]


class _Tuner(Trainer):
    """Trains the last stage and the last layer of a network on pictures of any shape."""

    def __init__(
        self,
        cam: CamModel,
        network: nn.Module,
        names: Sequence[str],
        data: _Data,
        checkpoint: Path,
        step: Callable[[], None],
    ) -> None:
        """Args: see `tuned`; `step` is called after each, and may raise `_StoppedError`."""
        self.cam, self.data, self.step = cam, data, step
        self.kept: dict[str, Any] = {}
        chosen = [network.get_parameter(name).requires_grad_(True) for name in names]
        optimizer = torch.optim.AdamW(chosen, RATE, weight_decay=DECAY)
        count = len(data.inner)
        schedule = Schedule(EPOCHS, min(BATCH, count), data.seed)
        super().__init__(network, [optimizer], schedule, count, checkpoint)

    def losses(self, rows: Sequence[int], mirrored: Sequence[bool]) -> Tensor:
        """Cross-entropy float64 [n] of pictures, some of them mirrored, as much as each counts."""
        read = list(self.data.pool.map(self.cam.prepare, [self.data.paths[row] for row in rows]))
        logits: dict[int, Tensor] = {}
        for some in same_shape(read, [[]] * len(read), BATCH):
            turned = torch.tensor([mirrored[n] for n in some], device=self.cam.device)
            inputs = self.cam.inputs([read[n] for n in some])
            inputs = torch.where(turned[:, None, None, None], inputs.flip(-1), inputs)
            logits.update(zip(some, logits_of(self.network(inputs)).double(), strict=True))
        told = torch.stack([logits[n] for n in range(len(read))])
        examples = self.data.examples
        truth, shares = examples.truth[[*rows]], examples.shares()[[*rows]].reshape(len(rows), -1)
        found = losses(told, truth.to(told.device), examples.form)
        return found * shares.mean(1).to(told.device)

    def loss(self, picked: Longs, rng: np.random.Generator) -> Tensor:
        """Mean cross-entropy of a batch, half of it mirrored."""
        # The loop asks for training mode, in which normalisation would take the batch's statistics.
        self.network.eval()
        rows = [self.data.inner[n] for n in picked]
        return self.losses(rows, (rng.random(len(rows)) < 0.5).tolist()).mean()

    def after_step(self, loss: float, speed: float) -> None:
        """Stop where that is asked for; the step is kept."""
        try:
            self.step()
        except _StoppedError:
            self.save(**self.kept)
            raise

    def aside(self) -> float:
        """Mean loss of the pictures set aside, as they are."""
        self.network.eval()
        rows, total = self.data.aside, 0.0
        with torch.no_grad():
            for start in range(0, len(rows), BATCH):
                some = rows[start : start + BATCH]
                total += float(self.losses(some, [False] * len(some)).sum())
        return total / len(rows)


@dataclass(frozen=True)
class _Data:
    """What is trained on, by rows of the examples.

    Attributes:
        paths: Of the pictures.
        examples: The same.
        inner: Rows that are trained on.
        aside: Rows by which the epoch is chosen.
        seed: Of the order.
        pool: Threads that read.
    """

    paths: Sequence[Path]
    examples: Examples
    inner: Sequence[int]
    aside: Sequence[int]
    seed: int
    pool: ThreadPoolExecutor


def tuned(
    cam: CamModel,
    sample: Sample,
    examples: Examples,
    strength: float,
    folder: Path,
    seed: int,
    workers: int | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
    stopping: Callable[[], bool] = never,
) -> Tuned | None:
    """Train the last stage of a base further, where that is better than the fitted layer alone.

    After every epoch the state is kept in the folder, and where the run stops.

    Args:
        cam: The base.
        sample: The pictures.
        examples: Features and truth of those that are fitted on.
        strength: Of the penalty of the layer that is begun with.
        folder: Where the state is kept.
        seed: Of the order of the pictures.
        workers: Threads that read; None for as many as there are cores.
        progress: Told how many pictures of how many were trained on.
        stopping: Asked after every step whether to stop.

    Returns:
        None where it stopped.

    Raises:
        DataError: A picture can't be read any more.
        OSError: The state can't be written.
    """
    inner = first_share(sample.kinds(seed), 1 - CHOSEN_BY)
    aside = sorted({*range(len(examples.truth))} - {*inner})
    if not aside:
        return Tuned(cam, 0, math.nan, math.nan, aside)
    with one_thread():
        layer = fitted_layer(examples.some(inner), strength)
    network = with_layer(cam, layer.weight.float(), layer.bias.float()).requires_grad_(False)
    head = linear_head(cam)
    names = [*last_stage(cam), head.layer, head.bias]
    paths = [sample.pictures[number].path for number in sample.fitted]
    digests = [sample.pictures[number].digest.hex() for number in sample.fitted]
    key = _key(cam, examples, strength, seed, digests)
    with ThreadPoolExecutor(workers or available_cores()) as pool:
        data = _Data(paths, examples, inner, aside, seed, pool)
        steps = _Steps(EPOCHS * (len(inner) // min(BATCH, len(inner))), progress, stopping)
        tuner = _Tuner(cam, network, names, data, folder / f"{key}.checkpoint", steps)
        try:
            best = _best(tuner, names, steps)
        except _StoppedError:
            return None
        except ImageError as error:
            raise DataError(str(error)) from None
    return _taken(cam, network, best, sample.classes.labels, aside)


class _Steps:
    """Counts steps, and stops where that is asked for."""

    def __init__(
        self, total: int, progress: Callable[[int, int], None], stopping: Callable[[], bool]
    ) -> None:
        self.done, self.total, self.progress, self.stopping = 0, total, progress, stopping

    def __call__(self) -> None:
        self.done += 1
        self.progress(self.done * BATCH, self.total * BATCH)
        if self.stopping():
            raise _StoppedError


def _best(tuner: _Tuner, names: Sequence[str], steps: _Steps) -> dict[str, Any]:
    """Train to the end; the parameters of the best epoch, and what it and the start came to."""
    state = tuner.resume()
    if state:
        tuner.kept = {"best": state["best"]}
        each = tuner.count // tuner.schedule.batch
        steps.done = tuner.position.epoch * each + tuner.position.step
    else:
        loss = tuner.aside()
        tuner.kept = {"best": {"epoch": 0, "before": loss, "loss": loss, "state": {}}}
    while tuner.position.epoch < EPOCHS:
        tuner.epoch()
        loss, best = tuner.aside(), tuner.kept["best"]
        if loss < best["loss"]:
            parameters = {name: tuner.network.get_parameter(name).detach() for name in names}
            best = {**best, "epoch": tuner.position.epoch, "loss": loss}
            best["state"] = {name: value.clone() for name, value in parameters.items()}
        tuner.kept = {"best": best}
        tuner.save(**tuner.kept)
    found: dict[str, Any] = tuner.kept["best"]
    return found


def _taken(
    cam: CamModel,
    network: nn.Module,
    best: dict[str, Any],
    labels: tuple[str, ...],
    aside: Sequence[int],
) -> Tuned:
    """The base with the parameters of the best epoch."""
    if not best["epoch"]:
        return Tuned(cam, 0, best["before"], best["loss"], aside)
    network.load_state_dict(best["state"], strict=False)
    network.requires_grad_(False)
    digest = hashlib.sha256()
    for name, value in network.state_dict().items():
        digest.update(name.encode() + value.cpu().contiguous().numpy().tobytes())
    its = replace(cam.network, module=network, sha256=digest.hexdigest(), labels=labels, synsets=())
    dtype = str(cam.dtype).removeprefix("torch.")
    model = CamModel(its, None, str(cam.device), dtype, cam.fit, preprocessing=cam.preprocessing)
    return Tuned(model, best["epoch"], best["before"], best["loss"], aside)


def _key(
    cam: CamModel, examples: Examples, strength: float, seed: int, digests: Sequence[str]
) -> str:
    """What tells a state from one of other pictures, of another base, and so on."""
    settings = {
        **model_settings(cam),
        "preprocessing": asdict(cam.preprocessing),
        "device": cam.device.type,
        "torch": torch.__version__,
        "training": (EPOCHS, BATCH, RATE, DECAY, CHOSEN_BY),
        "strength": strength,
        "seed": seed,
        "form": examples.form,
        "balanced": examples.balanced,
        "truth": examples.truth.tolist(),
        "pictures": digests,
    }
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]
