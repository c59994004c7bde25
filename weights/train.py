"""Train the embedded network on Tiny ImageNet, or measure weights already trained.

    python weights/train.py DATA --output ONE --minutes 130
    python weights/train.py DATA --publish ONE/work/checkpoint.pt TWO/work/checkpoint.pt
    python weights/train.py DATA --evaluate weights/gapnet-1.safetensors

The schedule follows the larger of the share of epochs and the share of minutes gone, so a slow
or shared machine ends with the learning rate at zero all the same.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import nn
from torch.nn import functional

from camtool.evaluate.datasets import read_dataset
from camtool.fit import training
from camtool.fit.training import Bytes, Longs, Schedule
from camtool.networks import load_network
from camtool.networks.gapnet import GapNet, Residual, gapnet
from measure import line, measure
from muon import Muon
from release import average, choose_common, metadata, recalibrate, round_parameters, save
from tinyimagenet import (
    Split,
    find_root,
    load_train,
    load_val,
    random_crop,
    read_classes,
    resize,
    to_input,
)

HERE = Path(__file__).resolve().parent
WATCH_STRIDE = 8  # between epochs every eighth validation picture is enough to see the trend
ZOOM_OUT = (1.2, 3.0)
DATA_SIZE = 64  # the side of the data's own pictures
ZOOM_OUT_LARGE = 0.5  # beyond that size a crop is a blur; a small picture on a large one is sharp
STANDARD_SIZE = 72  # of 64, 72 and 80 the one at which validation pictures did best
COMMON = 0.2  # of those tried, what localized 2,000 training pictures best in reference mode
CALIBRATION = 4000  # training pictures

# glibc returns large blocks to the kernel and faults every page in again at the next batch; on
# virtual machines these faults cost several times the arithmetic. It reads these only at start.
MALLOC = {
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": str(16 << 30),
    "MALLOC_TOP_PAD_": str(512 << 20),
}


@dataclass(frozen=True)
class Phase:
    """What the network sees until the share ``until`` of training is over.

    Attributes:
        until: Share of training, 0..1.
        sizes: Sides in pixels; every batch draws one. Beyond 64 a batch holds fewer pictures, so
            that it has no more pixels.
        scale: Range of a crop's area relative to the picture's.
        zoom_out: Share of pictures that are extended by reflection and shrunk; a half beyond 64.
    """

    until: float
    sizes: list[int]
    scale: tuple[float, float]
    zoom_out: float


@dataclass(frozen=True)
class Recipe:
    """The configuration of a run, as read from JSON; see ``weights/README.md``."""

    widths: list[int]
    blocks: list[int]
    seed: int
    epochs: int
    batch: int
    muon_lr: float
    adam_lr: float
    warmup: float
    label_smoothing: float
    phases: list[Phase]

    @classmethod
    def read(cls, path: Path) -> Recipe:
        """Read a recipe from a JSON file."""
        values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        values["phases"] = [Phase(**phase) for phase in values["phases"]]
        return cls(**values)

    def phase(self, progress: float) -> Phase:
        """Return the phase at a share of training."""
        return next((p for p in self.phases if progress < p.until), self.phases[-1])

    def schedule(self, minutes: float) -> Schedule:
        """How long is trained, at most so many minutes."""
        return Schedule(self.epochs, self.batch, self.seed, self.warmup, minutes)


def initialize(model: GapNet) -> None:
    """Let every residual block start as its shortcut (Goyal et al. 2017, section 5.1)."""
    for module in model.modules():
        if isinstance(module, Residual):
            nn.init.zeros_(module.second.get_parameter("1.weight"))


def augment(images: Bytes, phase: Phase, rng: np.random.Generator) -> Bytes:
    """Draw one size for the batch and cut a random crop of it from each picture.

    Returns:
        [N, size, size, 3], of the first N pictures: of all of them up to the size of the data.
    """
    size = int(rng.choice(phase.sizes))
    images = images[: min(len(images), len(images) * DATA_SIZE**2 // size**2)]
    zoom_out = phase.zoom_out if size <= DATA_SIZE else ZOOM_OUT_LARGE
    scales = [ZOOM_OUT if out else phase.scale for out in rng.random(len(images)) < zoom_out]
    pairs = zip(images, scales, strict=True)
    return np.stack([random_crop(image, size, scale, rng) for image, scale in pairs])


def low_precision(device: torch.device) -> bool:
    """Say whether bfloat16 is the faster type: on CUDA, and on CPUs with AMX tiles only."""
    return device.type == "cuda" or bool(torch.cpu._is_amx_tile_supported())


class Trainer(training.Trainer):
    """Training of a gapnet by a recipe.

    Args:
        recipe: The configuration.
        data: The training split; its labels number the classes.
        minutes: Time allowed, evaluation between epochs included.
        work: Folder of the checkpoint.
        device: Where to train.
    """

    def __init__(
        self, recipe: Recipe, data: Split, minutes: float, work: Path, device: torch.device
    ) -> None:
        torch.manual_seed(recipe.seed)
        self.recipe, self.data, self.device = recipe, data, device
        model = gapnet(recipe.widths, recipe.blocks, int(data.labels.max()) + 1)
        initialize(model)
        self.model = model.to(device).to(memory_format=torch.channels_last)
        convolutions = [p for p in self.model.parameters() if p.ndim == 4]
        others = [p for p in self.model.parameters() if p.ndim != 4]
        optimizers = (
            Muon(convolutions, recipe.muon_lr),
            torch.optim.Adam(others, recipe.adam_lr, betas=(0.9, 0.99)),
        )
        schedule, count = recipe.schedule(minutes), len(data.labels)
        super().__init__(self.model, optimizers, schedule, count, work / "checkpoint.pt")

    def loss(self, picked: Longs, rng: np.random.Generator) -> torch.Tensor:
        """The loss of random crops; notes their side."""
        images = augment(self.data.images[picked], self.recipe.phase(self.progress), rng)
        labels = torch.from_numpy(self.data.labels[picked[: len(images)]]).to(self.device)
        self.notes["resolution"].append(images.shape[1])
        with torch.autocast(self.device.type, torch.bfloat16, low_precision(self.device)):
            logits = self.model(to_input(images, self.device))
        return functional.cross_entropy(
            logits.float(), labels, label_smoothing=self.recipe.label_smoothing
        )

    def after_step(self, loss: float, speed: float) -> None:
        """Tell how it is going, and save now and then."""
        if self.position.step % 50 == 0:
            self.save()
        line = f"epoch {self.position.epoch} step {self.position.step} loss {loss:.3f}"
        end = "\r" if sys.stderr.isatty() else "\n"
        if end == "\r" or self.position.step % 25 == 0:
            print(f"{line} {speed:.0f} img/s {self.progress:.1%}", end=end, file=sys.stderr)


@torch.inference_mode()
def accuracy(model: GapNet, data: Split, size: int, batch: int = 100) -> tuple[float, float]:
    """Return top-1 and top-5 accuracy, 0..1, with pictures resized to ``size`` pixels.

    Quick, for watching a training; what is published is measured by `measure`.
    """
    model.eval()
    hits = np.zeros(2)
    for start in range(0, len(data.labels), batch):
        pictures = [resize(image, size) for image in data.images[start : start + batch]]
        logits = model(to_input(np.stack(pictures), model.fc.weight.device))
        match = logits.topk(5).indices.cpu().numpy() == data.labels[start : start + batch, None]
        hits += match[:, 0].sum(), match.sum()
    return float(hits[0] / len(data.labels)), float(hits[1] / len(data.labels))


def train(trainer: Trainer, val: Split, log: Path) -> None:
    """Run to the end, appending one JSON line an epoch to ``log``."""
    watched = val.every(WATCH_STRIDE)
    while trainer.progress < 1:
        row: dict[str, float] = {"epoch": trainer.position.epoch + 1, **trainer.epoch()}
        start = time.monotonic()
        last = trainer.progress >= 1
        row["lr"] = trainer.optimizers[0].param_groups[0]["lr"]
        row["val_top1"], row["val_top5"] = accuracy(
            trainer.model, val if last else watched, DATA_SIZE
        )
        trainer.position.elapsed += time.monotonic() - start
        row["elapsed"] = round(trainer.position.elapsed, 1)
        trainer.save()
        text = json.dumps({k: round(v, 5) for k, v in row.items()})
        print(text, flush=True)
        with log.open("a", encoding="utf-8") as file:
            file.write(text + "\n")


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("data", type=Path, help="folder with Tiny ImageNet's standard layout")
    parser.add_argument("--output", type=Path, default=HERE, help="where weights and log go")
    parser.add_argument("--config", type=Path, default=HERE / "gapnet-1.json")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="time allowed")
    parser.add_argument("--epochs", type=int, help="instead of the recipe's")
    parser.add_argument("--work", type=Path, help="checkpoint and cache; default: OUTPUT/work")
    parser.add_argument("--resume", action="store_true", help="go on from the checkpoint")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument(
        "--publish", type=Path, nargs="+", help="publish the mean of these checkpoints; no training"
    )
    parser.add_argument("--evaluate", type=Path, help="measure this file instead of training")
    parser.add_argument("--size", type=int, action="append", help="input size to measure")
    return parser.parse_args(arguments)


def plain_batches(data: Split, device: torch.device) -> Iterator[torch.Tensor]:
    """Whole training pictures, evenly spaced, at the standard size."""
    some = data.every(max(1, len(data.labels) // CALIBRATION)).images
    for start in range(0, len(some), 100):
        pictures = [resize(image, STANDARD_SIZE) for image in some[start : start + 100]]
        yield to_input(np.stack(pictures), device)


def publish(trainer: Trainer, root: Path, path: Path) -> None:
    """Finish the network, write it, measure it, and write what was measured into the file too."""
    choose_common(trainer.model, COMMON)
    recalibrate(trainer.model, plain_batches(trainer.data, trainer.device))
    round_parameters(trainer.model)
    description = metadata(asdict(trainer.recipe), read_classes(root), STANDARD_SIZE)
    save(trainer.model, path, description)
    dataset = read_dataset(root, "tiny-imagenet")
    found = measure(load_network(path), dataset, device=str(trainer.device))
    top = {"top1": f"{found.top1 / 100:.4f}", "top5": f"{found.top5 / 100:.4f}"}
    print(f"{path}: SHA-256 {save(trainer.model, path, description | top)}\n{line(found)}")


def run(options: argparse.Namespace, root: Path) -> None:
    """Train from the start or from the checkpoint, and publish."""
    work: Path = options.work or options.output / "work"
    work.mkdir(parents=True, exist_ok=True)
    recipe = Recipe.read(options.config)
    if options.epochs:
        recipe = replace(recipe, epochs=options.epochs)
    data = load_train(root, work / "train.npy")
    trainer = Trainer(recipe, data, options.minutes, work, torch.device(options.device))
    log: Path = options.output / "gapnet-1.jsonl"
    if options.publish:
        ends = [torch.load(p, map_location="cpu", weights_only=True) for p in options.publish]
        average(trainer.model, [end["model"] for end in ends])
    else:
        if options.resume:
            trainer.resume()
        else:
            log.unlink(missing_ok=True)
        train(trainer, load_val(root), log)
    publish(trainer, root, options.output / "gapnet-1.safetensors")


def main() -> None:
    """Train and write the weights, or measure a file."""
    options = parse()
    root = find_root(options.data)
    if options.evaluate:
        network, dataset = load_network(options.evaluate), read_dataset(root, "tiny-imagenet")
        for size in options.size or [None]:
            print(line(measure(network, dataset, size, options.device)), flush=True)
        return
    cv2.setNumThreads(1)
    torch.set_flush_denormal(True)
    run(options, root)


if __name__ == "__main__":
    if sys.platform == "linux" and not MALLOC.items() <= os.environ.items():
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **MALLOC})
    main()
