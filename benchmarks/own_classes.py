"""Heads fitted to a few classes of Tiny ImageNet: how long it takes, how well they know and find.

    python benchmarks/own_classes.py tiny-imagenet-200

Each task is fitted on the embedded network and measured on the validation pictures of the same
classes, beside gapnet, which was trained on all pictures of all 200 classes, with its answers
restricted to those of the task. The embedded network was trained on ImageNet, from which all these
pictures were taken: pictures of one's own are harder.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

import camtool
from camtool.engines.engine import Failed
from camtool.engines.stream import explain_stream
from camtool.evaluate import run
from camtool.evaluate.datasets import Dataset, read_dataset
from camtool.evaluate.predictions import MapSettings, MapStore
from camtool.fit.run import Plan, fit
from camtool.folder.truth import wilson
from camtool.model import CamModel

GAPNET = Path(__file__).parents[1] / "weights" / "gapnet-1.safetensors"
CATS = ("n02123045", "n02123394", "n02124075")
DOGS = ("n02085620", "n02094433", "n02099601", "n02099712", "n02106662", "n02113799")

Task = dict[str, tuple[str, ...]]
"""The synsets that are one class."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("root", type=Path, help="folder of Tiny ImageNet")
    root = parser.parse_args().root
    synsets = sorted((root / "wnids.txt").read_text().split())
    measure(root, "Ten classes, 100 pictures of each", {one: (one,) for one in synsets[::20]}, 100)
    two: Task = {"cat": CATS, "dog": DOGS}
    measure(root, "Cats against dogs, all pictures", two, sys.maxsize)
    others = [one for one in synsets if one not in CATS + DOGS]
    three = {**two, "neither": tuple(others[::10])}
    measure(root, "Cats, dogs, and neither, 60 pictures of each synset", three, 60)


def measure(root: Path, name: str, task: Task, count: int) -> None:
    """Fit a task on so many pictures of each synset, and print what came of it."""
    mine = validation(read_dataset(root, "tiny-imagenet"), task)
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        lay_out(place, root, task, count, mine)
        plan = Plan(f"{place}/train", place / "mine.safetensors", validation=f"{place}/val")
        base = camtool.load("efficientnet_lite0", device="cpu")
        wall, cpu = time.perf_counter(), time.process_time()
        outcome = fit(base, plan, warn=lambda line: None).outcome
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        again = time.perf_counter()
        fit(base, replace(plan, seed=1), warn=lambda line: None)
        again = time.perf_counter() - again
        cam = camtool.load(plan.output, device="cpu", fit="squash")
    print(f"\n{name}: {sum(outcome.fitted):,} to fit, {len(outcome.answers):,} to measure on")
    print(f"  {wall:.0f} s on the clock, {cpu:.0f} s of CPU; a second fit {again:.0f} s")
    accuracy = outcome.accuracy
    right, low, high = restricted(task, mine)
    print(f"  accuracy, fitted       {accuracy.value:.1f} ({accuracy.low:.1f}-{accuracy.high:.1f})")
    print(f"  accuracy, gapnet       {right:.1f} ({low:.1f}-{high:.1f})")
    print(f"  most frequent answer   {outcome.majority:.1f}")
    known = [record for record in mine.records if record.label != "neither"]
    localize(cam, Dataset(known, []))


def validation(known: Dataset, task: Task) -> Dataset:
    """The validation pictures of a task, labelled by its classes."""
    names = {synset: name for name, synsets in task.items() for synset in synsets}
    some = [one for one in known.records if one.label in names]
    return Dataset([replace(one, label=names[str(one.label)]) for one in some], [])


def lay_out(place: Path, root: Path, task: Task, count: int, mine: Dataset) -> None:
    """Folders by class, of links."""
    files = [
        (f"train/{name}", path)
        for name, synsets in task.items()
        for synset in synsets
        for path in sorted((root / "train" / synset / "images").iterdir())[:count]
    ]
    for folder, path in [*files, *((f"val/{one.label}", one.path) for one in mine.records)]:
        (place / folder).mkdir(parents=True, exist_ok=True)
        (place / folder / path.name).symlink_to(path.absolute())


def restricted(task: Task, mine: Dataset) -> tuple[float, float, float]:
    """Accuracy of gapnet in percent, and its interval, where it may answer a task's classes alone.

    A class's probability is that of its synsets together.
    """
    gapnet = camtool.load(GAPNET, device="cpu", fit="squash")
    members = [[gapnet.network.synsets.index(one) for one in some] for some in task.values()]
    names, hits = list(task), 0
    paths = [record.path for record in mine.records]
    for record, (_, found) in zip(mine.records, explain_stream(gapnet, paths), strict=True):
        assert not isinstance(found, Failed)
        scores = [np.logaddexp.reduce(found.all_logits[some]) for some in members]
        hits += names[int(np.argmax(scores))] == record.label
    low, high = wilson(hits, len(mine.records))
    return 100 * hits / len(mine.records), 100 * low, 100 * high


def localize(cam: CamModel, mine: Dataset) -> None:
    """Print how well maps of the true class localize, beside a box in the centre."""
    result = run.evaluate(mine, MapSettings.of(cam), MapStore(None, Path()), lambda: cam)
    for heading, network, _, centre, *_ in result.table()[1:]:
        if heading in ("GT-known localization", "MaxBoxAccV2"):
            print(f"  {heading:<22} {network}, centre box {centre}")


if __name__ == "__main__":
    main()
