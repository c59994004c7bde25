"""What better maps gain and cost: other input sizes, flips, several scales, a lower stride.

Usage: python benchmarks/better_maps.py DATA [--model NAME] [--weights FILE] [--limit N]
                                        [--from-zero]

DATA is Tiny ImageNet. Every way is measured on the same pictures, without retraining: maps and
logits of several views are averaged in logits, maps of different sizes on the finest grid.
Thresholds run from each map's minimum to its maximum, as Choe et al. 2020 have it, or with
--from-zero from 0 logits. A gain comes with its paired 95 % bootstrap interval over pictures. The
cost is the time of the forward passes on one core as a multiple of the plain one, medians of runs
in turns. Then the plain maps are moved by parts of a cell: where a cell's centre lies depends on
how a network pads.
"""

from __future__ import annotations

import argparse
import copy
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

import camtool
from camtool.evaluate.datasets import Record, match_labels, read_dataset
from camtool.evaluate.metrics import IOUS
from camtool.images.resample import resample, upsample
from camtool.methods import class_activation_map
from camtool.model import CamModel
from camtool.prepared import Prepared
from camtool.regions.boxes import FloatMap
from localization import Floats, centred, draws, gain, ious_of, max_box_acc

GAPNET = Path(__file__).parents[1] / "weights" / "gapnet-1.safetensors"
BATCH = 8
SHIFTS = (-0.5, -0.25, 0.0, 0.25, 0.5)
INSETS = (0.0, 0.25, 0.5, 0.75)
UNIT = (0.0, 0.0, 1.0, 1.0)


@dataclass(frozen=True)
class View:
    """One forward pass.

    Attributes:
        scale: Of the input.
        flip: Whether it is mirrored.
        dilated: Whether the last stride is taken out.
        centred: Whether the mean of all classes' maps is taken off. It says nothing of the class:
            adding it to every map changes no probability.
    """

    scale: float = 1.0
    flip: bool = False
    dilated: bool = False
    centred: bool = False


def both(*views: View) -> tuple[View, ...]:
    """Each view and its mirror image."""
    return tuple(replace(view, flip=flip) for view in views for flip in (False, True))


PLAIN = "plain"
WAYS: dict[str, tuple[View, ...]] = {
    PLAIN: (View(),),
    "input x0.75": (View(0.75),),
    "input x1.5": (View(1.5),),
    "input x2": (View(2.0),),
    "flip": both(View()),
    "scales 0.75, 1": (View(0.75), View()),
    "scales 1, 1.5": (View(), View(1.5)),
    "scales 1, 1.5, 2": (View(), View(1.5), View(2.0)),
    "lower stride": (View(dilated=True),),
    "flip, input x1.5": both(View(1.5)),
    "flip, scales 0.75, 1": both(View(0.75), View()),
    "flip, scales 1, 1.5": both(View(), View(1.5)),
    "flip, scales 1, 1.5, 2": both(View(), View(1.5), View(2.0)),
    "flip, lower stride": both(View(dilated=True)),
    "minus mean class": (View(centred=True),),
    "minus mean class, flip": both(View(centred=True)),
    "minus mean class, input x1.5": (View(1.5, centred=True),),
    "minus mean class, scales 1, 1.5": (View(centred=True), View(1.5, centred=True)),
    "minus mean class, lower stride": (View(dilated=True, centred=True),),
}
VIEWS = tuple(dict.fromkeys(view for views in WAYS.values() for view in views))


@dataclass
class Scores:
    """Best IoU of every picture at every threshold, and whether its first guess is right."""

    from_zero: bool = False
    largest: list[Floats] = field(default_factory=list)
    every: list[Floats] = field(default_factory=list)
    right: list[bool] = field(default_factory=list)

    def add(self, heatmap: FloatMap, record: Record, right: bool = False) -> None:
        """Add a picture's map, and whether the first guess is its label."""
        largest, every = ious_of(heatmap, record, self.from_zero)
        self.largest.append(largest)
        self.every.append(every)
        self.right.append(right)

    def figures(self, weights: Floats) -> tuple[Floats, Floats]:
        """MaxBoxAcc and MaxBoxAccV2 [R] in percent, for weights [R, N] of the pictures."""
        every = [max_box_acc(self.every, weights, iou) for iou in IOUS]
        return max_box_acc(self.largest, weights), np.mean(every, axis=0)


def same_size(pool: nn.MaxPool2d | nn.AvgPool2d) -> nn.Module:
    """A pool at stride 1 whose output is as large as its input."""
    kernel = int(pool.kernel_size if isinstance(pool.kernel_size, int) else pool.kernel_size[0])
    before, after = (kernel - 1) // 2, kernel // 2
    kind = type(pool)
    return nn.Sequential(nn.ReplicationPad2d((before, after, before, after)), kind(kernel, 1))


def lower_stride(module: nn.Module, size: int) -> nn.Module:
    """A copy whose last stride of 2 is taken out, with what follows dilated by 2.

    As Chen et al., "DeepLab" (2017), section 3.1: the filters see what they saw before, on a grid
    twice as fine. Every layer on the coarsest grid is changed, so parallel paths stay together.
    """
    module = copy.deepcopy(module)
    rows = rows_of(module, size)
    coarsest = min(rows_out for _, rows_out in rows.values())
    for name, (rows_in, rows_out) in rows.items():
        layer = module.get_submodule(name)
        if rows_out != coarsest:
            continue
        if isinstance(layer, (nn.MaxPool2d, nn.AvgPool2d)):
            module.set_submodule(name, same_size(layer))
        elif isinstance(layer, nn.Conv2d) and rows_in > coarsest:
            layer.stride = (1, 1)
        elif isinstance(layer, nn.Conv2d) and layer.kernel_size != (1, 1):
            layer.dilation = (2, 2)
            layer.padding = (2 * int(layer.padding[0]), 2 * int(layer.padding[1]))
    return module


def rows_of(module: nn.Module, size: int) -> dict[str, tuple[int, int]]:
    """Rows of the input and of the output of every convolution and pool, by name."""
    rows: dict[str, tuple[int, int]] = {}

    def watch(name: str, layer: nn.Module) -> torch.utils.hooks.RemovableHandle:
        def note(_: nn.Module, inputs: tuple[torch.Tensor], output: torch.Tensor) -> None:
            rows[name] = inputs[0].shape[2], output.shape[2]

        return layer.register_forward_hook(note)

    kinds = (nn.Conv2d, nn.MaxPool2d, nn.AvgPool2d)
    named = [(name, layer) for name, layer in module.named_modules() if isinstance(layer, kinds)]
    handles = [watch(name, layer) for name, layer in named]
    with torch.inference_mode():
        module(torch.zeros(1, 3, size, size))
    for handle in handles:
        handle.remove()
    return rows


class Models:
    """The network for every input scale and stride."""

    def __init__(self, name: str, weights: Path | None) -> None:
        self.plain = camtool.load(name, weights=weights, device="cpu")
        size = self.plain.preprocessing.size
        network = self.plain.network
        dilated = replace(network, module=lower_stride(network.module, size))
        self._models = {
            (view.scale, view.dilated): CamModel(
                dilated if view.dilated else network, device="cpu", size=round(size * view.scale)
            )
            for view in VIEWS
        }

    def of(self, view: View) -> CamModel:
        """The network for a view."""
        return self._models[view.scale, view.dilated]

    def prepare(self, view: View, records: Sequence[Record]) -> list[Prepared]:
        """Pictures as a view shows them."""
        prepared = [self.of(view).prepare(record.path) for record in records]
        if not view.flip:
            return prepared
        seen: list[Any] = [self.of(view).pixels_of(one) for one in prepared]
        mirrored = [np.ascontiguousarray(one[:, ::-1]) for one in seen]
        return [replace(p, pixels=q) for p, q in zip(prepared, mirrored, strict=True)]

    def see(self, view: View, records: Sequence[Record]) -> tuple[torch.Tensor, torch.Tensor]:
        """Maps [N, h, w] of the true classes, and all logits [N, classes]."""
        classes = [[int(record.label)] for record in records]
        prepared = self.prepare(view, records)
        found = self.of(view).explain_indices(prepared, classes)
        maps = torch.from_numpy(np.stack([one.maps[0] for one in found]))
        if view.centred:
            maps = maps - mean_map(self.of(view), prepared)
        logits = torch.from_numpy(np.stack([one.all_logits for one in found]))
        return maps.flip(-1) if view.flip else maps, logits


def mean_map(model: CamModel, prepared: Sequence[Prepared]) -> torch.Tensor:
    """Mean [N, h, w] of the maps of all classes."""
    with torch.inference_mode():
        forward = model.forward(model.inputs(prepared))
        assert forward.linear is not None
        weight, _ = forward.linear(torch.arange(model.head.classes).expand(len(prepared), -1))
        return class_activation_map(forward.features, weight.mean(-2, keepdim=True))[:, 0]


def average(maps: Sequence[torch.Tensor]) -> torch.Tensor:
    """Mean of maps [N, h, w] of different sizes, on the finest of their grids."""
    rows, columns = max(tuple(one.shape[1:]) for one in maps)
    return torch.stack([resample(one, UNIT, UNIT, (rows, columns)) for one in maps]).mean(0)


def moved(
    heat: torch.Tensor, size: tuple[int, int], shift: tuple[float, float], inset: float
) -> FloatMap:
    """A map [h, w] on the picture's pixels if its cells lay elsewhere.

    Args:
        heat: The map.
        size: (W, H) of the picture.
        shift: How far to the right and down, in cells.
        inset: How far inside the picture's edges the outer cells end, in cells. Beyond them the
            outermost values go on.
    """
    rows, columns = heat.shape
    framed = torch.from_numpy(np.pad(heat.numpy(), 1, mode="edge"))
    sides = []
    for cells, length, by in zip((columns, rows), size, shift, strict=True):
        cell = length / (cells + 2 * inset)
        start = cell * (inset - 1 + by)
        sides.append((start, start + cell * (cells + 2)))
    (x0, x1), (y0, y1) = sides
    return upsample(framed, (x0, y0, x1, y1), size).numpy()


def batches(records: Sequence[Record]) -> Iterator[Sequence[Record]]:
    for start in range(0, len(records), BATCH):
        print(f"\r{start} of {len(records)} pictures", end="", file=sys.stderr)
        yield records[start : start + BATCH]
    print(file=sys.stderr)


Placement = tuple[tuple[float, float], float]
PLACEMENTS: tuple[Placement, ...] = (
    *(((x, y), 0.0) for y in SHIFTS for x in SHIFTS),
    *(((0.0, 0.0), inset) for inset in INSETS if inset),
)


def measure(
    models: Models, records: Sequence[Record], from_zero: bool
) -> tuple[dict[str, Scores], dict[Placement, Scores]]:
    """Scores of every way, and of the plain map for every place that its cells could have."""
    ways = {name: Scores(from_zero) for name in WAYS}
    placements = {placement: Scores(from_zero) for placement in PLACEMENTS}
    for batch in batches(records):
        seen = {view: models.see(view, batch) for view in VIEWS}
        for name, views in WAYS.items():
            maps = average([seen[view][0] for view in views])
            guesses = torch.stack([seen[view][1] for view in views]).mean(0).argmax(1)
            for record, heat, guess in zip(batch, maps, guesses, strict=True):
                heatmap = upsample(heat, (0, 0, *record.size), record.size).numpy()
                ways[name].add(heatmap, record, int(guess) == record.label)
        for placement, scores in placements.items():
            for record, heat in zip(batch, seen[View()][0], strict=True):
                scores.add(moved(heat, record.size, *placement), record)
    return ways, placements


def costs(models: Models, records: Sequence[Record], rounds: int) -> dict[str, float]:
    """Time of every way's forward passes as a multiple of the plain one's."""
    inputs = {view: models.of(view).inputs(models.prepare(view, records)) for view in VIEWS}
    times: dict[View, list[float]] = {view: [] for view in VIEWS}
    for turn in range(rounds + 1):
        for view in VIEWS:
            start = time.perf_counter()
            models.of(view).forward(inputs[view])
            if turn:
                times[view].append(time.perf_counter() - start)
    medians = {view: float(np.median(taken)) for view, taken in times.items()}
    return {name: sum(medians[v] for v in views) / medians[View()] for name, views in WAYS.items()}


def baselines(records: Sequence[Record]) -> dict[str, Scores]:
    """What one box in the middle of every picture gets, at its best size, and the whole picture."""
    centre = list(centred(records))
    whole = [ious[-1:] for ious in centre]
    return {
        "(centre box)": Scores(largest=centre, every=centre),
        "(whole image)": Scores(largest=whole, every=whole),
    }


def print_ways(ways: dict[str, Scores], cost: dict[str, float]) -> None:
    weights = draws(len(ways[PLAIN].right))
    plain, plain_v2 = ways[PLAIN].figures(weights)
    print("| | MaxBoxAcc | gain | MaxBoxAccV2 | gain | top-1 | cost |")
    print("|---|---:|---:|---:|---:|---:|---:|")
    for name, scores in ways.items():
        box, box_v2 = scores.figures(weights)
        gains = ("", "") if name == PLAIN else (gain(box, plain), gain(box_v2, plain_v2))
        print(
            f"| {name} | {box[0]:.1f} | {gains[0]} | {box_v2[0]:.1f} | {gains[1]} "
            f"| {100 * np.mean(scores.right):.1f} | {cost[name]:.2f} |"
        )


def print_placements(placements: dict[Placement, Scores]) -> None:
    weights = draws(len(placements[PLACEMENTS[0]].right))
    found = {placement: scores.figures(weights) for placement, scores in placements.items()}
    for which, title in enumerate(("MaxBoxAcc", "MaxBoxAccV2")):
        print(f"\n{title}, map moved by parts of a cell: right by column, down by row\n")
        print("| | " + " | ".join(f"{x:+.2f}" for x in SHIFTS) + " |")
        print("|---|" + "---:|" * len(SHIFTS))
        for y in SHIFTS:
            row = (f"{found[(x, y), 0.0][which][0]:.1f}" for x in SHIFTS)
            print(f"| {y:+.2f} | " + " | ".join(row) + " |")
    print("\n| moved or shrunk | gain in MaxBoxAcc | gain in MaxBoxAccV2 |\n|---|---:|---:|")
    plain = found[(0.0, 0.0), 0.0]
    shown = [((s, s), 0.0) for s in SHIFTS if s] + [((0.0, 0.0), i) for i in INSETS if i]
    for (x, y), inset in shown:
        gains = [gain(new, old) for new, old in zip(found[(x, y), inset], plain, strict=True)]
        what = f"cells end {inset} cells inside" if inset else f"{x:+.2f} right, {y:+.2f} down"
        print(f"| {what} | {gains[0]} | {gains[1]} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("data", type=Path, help="folder of Tiny ImageNet")
    parser.add_argument("--model", default=str(GAPNET))
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--limit", type=int, default=1000, help="pictures, evenly spaced")
    parser.add_argument("--rounds", type=int, default=15, help="timed forward passes of each way")
    parser.add_argument("--from-zero", action="store_true", help="no threshold below 0 logits")
    options = parser.parse_args()
    torch.set_num_threads(1)
    models = Models(options.model, options.weights)
    network = models.plain.network
    dataset = read_dataset(options.data, "tiny-imagenet")
    matched = match_labels(dataset, models.plain.labels, network.synsets)
    chosen = matched.evenly(options.limit).records
    ways, placements = measure(models, chosen, options.from_zero)
    size = models.plain.preprocessing.size
    print(f"{network.name}, input {size}, {len(chosen)} pictures of Tiny ImageNet\n")
    print_ways(ways, costs(models, chosen[:BATCH], options.rounds))
    for name, scores in baselines(chosen).items():
        box, box_v2 = scores.figures(draws(len(chosen)))
        print(f"| {name} | {box[0]:.1f} | | {box_v2[0]:.1f} | | | |")
    print_placements(placements)


if __name__ == "__main__":
    main()
