"""One head, one seed: trained, measured, and kept whole."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional

import camtool
from camtool.evaluate.figures import Floats
from camtool.evaluate.metrics import IOUS, centre_ious, default_thresholds, map_ious, to_map
from camtool.files import make_folders, write_atomically
from camtool.fit.heads import HEADS, Head
from camtool.fit.study_data import Pictures
from camtool.fit.training import Longs, Schedule, Trainer, to_input
from camtool.heads import evaluating
from camtool.model import CamModel
from camtool.networks import Preprocessing
from camtool.networks.gapnet import gapnet

Scores: TypeAlias = npt.NDArray[np.float64]

AT_ONCE = 256
STEPS, LEAST_BATCH = 16, 8
IOU = IOUS.index(0.5)
"""A box is right from this overlap on, as nearly everybody counts it."""


@dataclass(frozen=True)
class Settings:
    """What all heads have in common.

    Attributes:
        size: Side of the pictures in pixels.
        epochs: Passes over the training pictures.
        batch: Pictures to an optimizer step.
        rate: Highest learning rate of AdamW.
        decay: Its weight decay.
        widths: Of the front-end, see `gapnet`.
        blocks: Likewise.
    """

    size: int = 64
    epochs: int = 20
    batch: int = 64
    rate: float = 2e-3
    decay: float = 0.05
    widths: tuple[int, ...] = (16, 48, 96, 128)
    blocks: tuple[int, ...] = (1, 1)

    @property
    def spec(self) -> Preprocessing:
        """What the networks expect of their input."""
        return Preprocessing(self.size)

    @property
    def sides(self) -> tuple[int, ...]:
        """Sides in pixels that validation pictures are shown at: the one trained at is first."""
        return self.size, self.size * 3 // 4, self.size * 3 // 2


@dataclass(eq=False)
class Ground:
    """What all heads stand on.

    Attributes:
        settings: Of the networks and their training.
        labels: Of the classes.
        training: Pictures.
        validation: Pictures.
        device: Where to compute.
    """

    settings: Settings
    labels: tuple[str, ...]
    training: Pictures
    validation: Pictures
    device: torch.device


class Net(nn.Module):
    """The front-end and a head."""

    def __init__(self, body: nn.Module, head: Head) -> None:
        super().__init__()
        self.body, self.head = body, head

    def forward(self, x: Tensor) -> Tensor:
        """Map normalised pictures [N,3,H,W] to logits [N,K]."""
        logits: Tensor = self.head(self.body(x))
        return logits


def build(head: str, settings: Settings, classes: int, seed: int = 0) -> Net:
    """An untrained network; with one seed all heads get the same front-end."""
    torch.manual_seed(seed)
    body = gapnet(settings.widths, settings.blocks, classes).features
    return Net(body, HEADS[head](settings.widths[-1], shape_of(settings), classes))


def shape_of(settings: Settings) -> tuple[int, int]:
    """(h, w) of the features."""
    with torch.device("meta"):
        body = gapnet(settings.widths, settings.blocks, 1).features.eval()
        found: Tensor = body(torch.empty(1, 3, settings.size, settings.size))
    return found.shape[2], found.shape[3]


@dataclass(eq=False)
class Run:
    """What came of one head with one seed.

    Attributes:
        head: Its name.
        seed: Of initialisation, order and flips.
        epochs: A row each: "train_loss", "train_accuracy" (of its batches, while it learned),
            "loss" and "accuracy" on the validation pictures; losses in nats, accuracies in 0..1.
        seconds: That training took, without measuring.
        training: "loss" and "accuracy" on the training pictures at the end, as they are.
        scores: By measure, one number in 0..1 for each validation picture: "accuracy", "shifted"
            and "at N" pixels; None where the head can't run. "localization" has one for each
            picture with boxes; None where there are no boxes or no maps.
        threshold: Where boxes are cut, the best one; a share of the map's maximum.
    """

    head: str
    seed: int
    epochs: list[dict[str, float]] = field(default_factory=list)
    seconds: float = 0.0
    training: dict[str, float] = field(default_factory=dict)
    scores: dict[str, list[float] | None] = field(default_factory=dict)
    threshold: float | None = None

    @property
    def best(self) -> int:
        """The epoch of the highest validation accuracy; the first of several."""
        return 1 + int(np.argmax([row["accuracy"] for row in self.epochs]))


class _Learner(Trainer):
    """Training of one network on pictures that are flipped half of the time."""

    def __init__(self, net: Net, ground: Ground, seed: int, checkpoint: Path) -> None:
        settings, self.ground = ground.settings, ground
        self.pixels, self.labels = ground.training.pixels[settings.size], ground.training.labels
        count = len(self.labels)
        schedule = Schedule(settings.epochs, batch_for(count, settings), seed)
        optimizer = torch.optim.AdamW(net.parameters(), settings.rate, weight_decay=settings.decay)
        super().__init__(net, [optimizer], schedule, count, checkpoint)
        self.weights = torch.from_numpy(balanced(self.labels) * count).float()

    def loss(self, picked: Longs, rng: np.random.Generator) -> Tensor:
        """Cross-entropy, every class with the same weight."""
        images = self.pixels[picked]
        flipped = rng.random(len(images)) < 0.5
        images[flipped] = images[flipped, :, ::-1]
        spec, device = self.ground.settings.spec, self.ground.device
        logits = self.network(to_input(images, spec.mean, spec.std, device))
        labels = torch.from_numpy(self.labels[picked]).to(device)
        right = (logits.argmax(1) == labels).float()
        self.notes["accuracy"].append(right.mean().item())
        each = functional.cross_entropy(logits, labels, reduction="none")
        return (each * self.weights[torch.from_numpy(picked)].to(device)).mean()


def batch_for(count: int, settings: Settings) -> int:
    """Pictures to a step: fewer where an epoch would have less than `STEPS` steps.

    The statistics of batch norm follow the features only over some hundred steps.
    """
    return min(count, max(LEAST_BATCH, min(settings.batch, count // STEPS)))


def balanced(labels: Longs) -> Scores:
    """Weights [N] of pictures that sum up to one, and for each class to the same."""
    classes, counts = np.unique(labels, return_counts=True)
    return np.asarray(1 / (len(classes) * counts[np.searchsorted(classes, labels)]))


def learn(
    run: Run,
    ground: Ground,
    folder: Path,
    stop: Callable[[], bool] = lambda: False,
    told: Callable[[], None] = lambda: None,
) -> bool:
    """Train and measure a head, or go on with it, or take it as it was kept.

    Args:
        run: Head and seed; the rest is filled in.
        ground: What it stands on.
        folder: Where runs are kept.
        stop: Says before an epoch whether to go on another time.
        told: Called after each epoch.

    Returns:
        Whether it is finished.
    """
    make_folders(folder)
    name = f"{run.head}-{run.seed}"
    finished = folder / f"{name}.json"
    if finished.is_file():
        run.__dict__.update(json.loads(finished.read_text("utf-8")))
        return True
    settings, validation = ground.settings, ground.validation
    net = build(run.head, settings, len(ground.labels), run.seed)
    net = net.to(ground.device).to(memory_format=torch.channels_last)
    learner = _Learner(net, ground, run.seed, folder / f"{name}.checkpoint")
    run.epochs = list(learner.resume().get("epochs", []))
    while learner.position.epoch < settings.epochs:
        if stop():
            return False
        means = learner.epoch()
        row = {f"train_{key}": value for key, value in sorted(means.items())}
        run.epochs.append({**row, **measured(net, validation, settings)})
        learner.save(epochs=run.epochs)
        told()
    run.seconds = round(learner.position.elapsed, 2)
    run.training = measured(net, ground.training, settings)
    run.scores = _scores(net, validation, settings)
    run.scores["localization"], run.threshold = _localized(net, ground)
    state = {key: value.cpu().contiguous() for key, value in net.state_dict().items()}
    save_file(state, folder / f"{name}.safetensors")
    write_atomically(finished, json.dumps(run.__dict__).encode())
    learner.checkpoint.unlink(missing_ok=True)
    return True


def trained(run: Run, folder: Path, ground: Ground) -> Net:
    """The network of a run that is finished."""
    net = build(run.head, ground.settings, len(ground.labels))
    net.load_state_dict(load_file(folder / f"{run.head}-{run.seed}.safetensors"))
    return net.eval()


def logits_of(
    net: Net, pixels: npt.NDArray[np.uint8], settings: Settings, move: tuple[int, int] = (0, 0)
) -> Scores:
    """The logits [N,K] of pictures, in evaluation mode, moved by so many pixels (down, right).

    What moves in from outside is the picture reflected at its edge.
    """
    device, spec = next(net.parameters()).device, settings.spec
    found: list[Tensor] = []
    with torch.inference_mode(), evaluating(net):
        for start in range(0, len(pixels), AT_ONCE):
            some = to_input(pixels[start : start + AT_ONCE], spec.mean, spec.std, device)
            found.append(net(moved(some, *move)).cpu())
    return torch.cat(found).double().numpy()


def moved(x: Tensor, down: int, right: int) -> Tensor:
    """Pictures [N,C,H,W] moved by less than their size, the edge reflected."""
    if not down and not right:
        return x
    height, width = x.shape[2:]
    edge = max(abs(down), abs(right))
    wide = functional.pad(x, [edge] * 4, mode="reflect")
    return wide[:, :, edge - down :, edge - right :][:, :, :height, :width]


def measured(net: Net, data: Pictures, settings: Settings) -> dict[str, float]:
    """Cross-entropy in nats and accuracy in 0..1, means over classes of the means of each."""
    logits, weights = logits_of(net, data.pixels[settings.size], settings), balanced(data.labels)
    each = functional.cross_entropy(
        torch.from_numpy(logits), torch.from_numpy(data.labels), reduction="none"
    ).numpy()
    right = logits.argmax(1) == data.labels
    return {"loss": float(each @ weights), "accuracy": float(right @ weights)}


def _scores(net: Net, data: Pictures, settings: Settings) -> dict[str, list[float] | None]:
    """What each picture scores: as it is, moved by a quarter in eight directions, resized."""

    def right(side: int, move: tuple[int, int] = (0, 0)) -> Scores:
        logits = logits_of(net, data.pixels[side], settings, move)
        return np.asarray(logits.argmax(1) == data.labels, np.float64)

    plain, *others = settings.sides
    steps = (-(plain // 4), 0, plain // 4)
    moves = [(down, right) for down in steps for right in steps if down or right]
    scores: dict[str, list[float] | None] = {
        "accuracy": right(plain).tolist(),
        "shifted": np.mean([right(plain, move) for move in moves], axis=0).tolist(),
    }
    for side in others:
        scores[f"at {side}"] = right(side).tolist() if net.head.any_size else None
    return scores


def camera(net: Net, ground: Ground) -> CamModel | None:
    """What explains a network by its class maps; None where its head has none."""
    head = net.head.mapped()
    if head is None:
        return None
    return camtool.load(
        Net(net.body, head).eval(),
        labels=list(ground.labels),
        fit="squash",
        preprocessing=ground.settings.spec,
        activation="softmax",
    )


def _localized(net: Net, ground: Ground) -> tuple[list[float] | None, float | None]:
    """Whether the box of the true class's map is right, for each picture with boxes."""
    data, settings, spec = ground.validation, ground.settings, ground.settings.spec
    boxed = with_boxes(data)
    cam = camera(net, ground)
    if cam is None or not len(boxed):
        return None, None
    thresholds = default_thresholds(100)
    found: list[Floats] = []
    for start in range(0, len(boxed), AT_ONCE):
        some = boxed[start : start + AT_ONCE]
        inputs = to_input(data.pixels[settings.size][some], spec.mean, spec.std, cam.device)
        targets: Any = [int(label) for label in data.labels[some]]
        explained = cam.explain_tensor(inputs, targets, batch_size=64)
        for number, one in zip(some, explained, strict=True):
            heat = one.heatmap()
            true = to_map(data.samples[number].boxes, data.sizes[number], heat.shape)
            found.append(map_ious(heat, true, thresholds)[0])
    right = np.stack(found) >= IOUS[IOU]
    best = int(right.mean(0).argmax())
    return right[:, best].astype(float).tolist(), float(thresholds[best])


def with_boxes(data: Pictures) -> Longs:
    """Numbers of the pictures whose boxes are known."""
    return np.array([n for n, sample in enumerate(data.samples) if sample.boxes], np.int64)


def centre_box(data: Pictures) -> list[float]:
    """For each picture with boxes, whether the box in its middle is right, at its best size."""
    ious = [centre_ious(data.samples[n].boxes, data.sizes[n]) for n in with_boxes(data)]
    right = np.stack(ious) >= IOUS[IOU]
    best: list[float] = right[:, int(right.mean(0).argmax())].astype(float).tolist()
    return best
