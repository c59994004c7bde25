"""What a GPU is used for: forward passes, maps, and folders, as ratios in one run.

Usage: python benchmarks/gpu.py PHOTOS [--networks resnet50 efficientnet_lite0] [--dtypes ...]
                                [--pictures 6000] [--parts network folder]

PHOTOS are repeated by links until there are enough. ResNet-50 has seeded random weights, the
embedded network its own. Two tables for each network and number format:

* the network: the plain forward pass on inputs that lie on the GPU already, and what camtool adds
  to it, up to explanations of pictures that are decoded and resized already;
* the folder: pictures read by one process a core and nothing else, and the whole run, which reads,
  explains, paints and writes, by threads and by processes; beside them the loop of torchvision's
  documentation, which only classifies. Rates are those after the first results, for a run of
  minutes begins with seconds in which processes start.

`--device cpu` runs the same on a machine without a GPU, to see that it runs.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import torch

import camtool
from camtool.accelerate.memory import keep_freed_memory
from camtool.engines import ENGINES
from camtool.engines.engine import Job, Request
from camtool.engines.stream import explain_jobs
from camtool.engines.threads import available_cores
from camtool.folder.run import FolderRun, Plan
from camtool.images import read_image
from camtool.model import CamModel
from camtool.prepared import Prepared
from camtool.views.overlay import Look
from camtool.views.save import Views
from folder import Photos, bare, repeated

SECONDS = 1.5
"""That each figure of the network is taken over."""
STREAMED = 40
"""Batches of decoded pictures."""


@dataclass(frozen=True, slots=True)
class Decoded(Job):
    """A picture that is decoded and resized already."""

    ready: Prepared | None = None

    def prepared(self, model: CamModel, request: Request) -> Prepared:
        assert self.ready is not None
        return self.ready


def wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def rate(run: Callable[[], object], pictures: int, device: torch.device) -> float:
    """Pictures a second of what handles so many at once."""
    for _ in range(3):
        run()
    wait(device)
    rounds, start = 0, time.perf_counter()
    while (passed := time.perf_counter() - start) < SECONDS:
        for _ in range(3):
            run()
        wait(device)
        rounds += 3
    return pictures * rounds / passed


def streamed(items: Iterable[object], chunk: int) -> float:
    """Pictures a second of a stream after its first chunk."""
    stream = iter(items)
    for _ in islice(stream, chunk):
        pass
    start = time.perf_counter()
    count = sum(1 for _ in stream)
    return count / (time.perf_counter() - start)


def network_table(model: CamModel, photos: list[Path]) -> None:
    """The forward pass, and what is added to it."""
    device, batch = model.device, model.measured_batch_size()
    pictures = [model.prepare(path) for path in photos]
    some = [pictures[number % len(pictures)] for number in range(batch)]
    inputs = model.inputs(some)

    def maps() -> object:
        [forward] = model.forwards(inputs)
        chosen = forward.logits.topk(1).indices
        return model._evidence([forward], chosen)

    def plain() -> object:
        return model._body(inputs.to(model.dtype))

    def stream() -> Iterator[object]:
        engine = ENGINES["threads"](model, Request(batch_size=batch), None, print)
        jobs = (
            Decoded(number, b"", ready=pictures[number % len(pictures)])
            for number in range(STREAMED * batch)
        )
        return explain_jobs(engine, jobs)

    with torch.no_grad(), model.running():
        reference = rate(plain, batch, device)
        rows = {
            "plain forward": reference,
            "camtool's forward": rate(lambda: model.forwards(inputs), batch, device),
            "with the maps of the best class": rate(maps, batch, device),
            "with explanations, inputs on the device": rate(
                lambda: model._explain(inputs, some, None, 1), batch, device
            ),
        }
    rows["from decoded pictures to explanations"] = streamed(stream(), batch * 8)
    print_table(f"batches of {batch}", rows, reference)


@dataclass
class Clock:
    """When a run's pictures were done."""

    counts: list[tuple[int, float]] = field(default_factory=list)

    def note(self, done: int) -> None:
        self.counts.append((done, time.perf_counter()))

    @property
    def rate(self) -> float:
        """Pictures a second between the first results and the last."""
        (first, begun), (last, ended) = self.counts[0], self.counts[-1]
        return (last - first) / (ended - begun) if ended > begun else float("nan")


def folder_rate(model: CamModel, source: Path, engine: str, batch: int, views: Views) -> float:
    """Of a whole run with a report."""
    clock = Clock()
    with tempfile.TemporaryDirectory() as output:
        plan = Plan(str(source), Path(output) / "out", views, batch_size=batch)
        run = FolderRun(model, plan, lambda now: clock.note(now.done), print, ENGINES[engine])
        summary = run.run()
        if summary.done != summary.total:
            raise RuntimeError(f"{summary.failed} pictures failed; {summary.stopped}")
    return clock.rate


def read(path: str) -> int:
    return read_image(path).size


def reading_rate(paths: list[str]) -> float:
    """Of reading alone, by one process a core."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(available_cores(), context) as pool:
        list(pool.map(read, paths[: len(paths) // 4], chunksize=8))
        return streamed(pool.map(read, paths, chunksize=16), 1)


def documented_rate(name: str, dtype: torch.dtype, source: Path, device: torch.device) -> float:
    """Of the loop that classifies, as torchvision documents it, in batches of 64."""
    module, transform = bare(name)
    module.to(device, dtype).to(memory_format=torch.channels_last)
    loader = torch.utils.data.DataLoader(
        Photos(source, transform),
        batch_size=64,
        num_workers=available_cores(),
        pin_memory=device.type == "cuda",
        multiprocessing_context="spawn",
    )

    def classify() -> Iterator[int]:
        for batch in loader:
            moved = batch.to(device, dtype, non_blocking=True)
            yield from module(moved).float().softmax(1).topk(1).indices.flatten().tolist()

    with torch.inference_mode():
        return streamed(classify(), 64)


def folder_table(
    model: CamModel, name: str, source: Path, engines: list[str], batch: int | None
) -> None:
    """Reading alone, and whole runs."""
    size = batch or min(64, model.measured_batch_size())
    reference = reading_rate([str(path) for path in sorted(source.iterdir())])
    overlays = Views(("overlay",), Look(), boxes=False, picture=".jpg")
    rows = {
        "reading alone": reference,
        "torchvision's loop, classifying only": documented_rate(
            name, model.dtype, source, model.device
        ),
    }
    for engine in engines:
        rows[f"{engine}, nothing saved"] = folder_rate(
            model, source, engine, size, Views((), Look())
        )
        rows[f"{engine}, overlays"] = folder_rate(model, source, engine, size, overlays)
    print_table(f"whole folder, batches of {size}, {available_cores()} cores", rows, reference)


def print_table(title: str, rows: dict[str, float], reference: float) -> None:
    print(f"\n{title}\n\n| | pictures/s | × the first |\n|---|---:|---:|")
    for name, each in rows.items():
        print(f"| {name} | {each:,.0f} | {each / reference:.2f} |", flush=True)


def named(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else str(device)


def loaded(name: str, dtype: str, device: str) -> Any:
    weights = None if name == "efficientnet_lite0" else "random"
    model = camtool.load(name, weights=weights, device=device, dtype=dtype, fit="crop")
    model.fuse()
    return model


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("photos", type=Path)
    parser.add_argument("--networks", nargs="+", default=["resnet50", "efficientnet_lite0"])
    parser.add_argument("--dtypes", nargs="+", default=["float32", "bfloat16"])
    parser.add_argument("--parts", nargs="+", default=["network", "folder"])
    parser.add_argument("--engines", nargs="+", default=["threads", "processes"])
    parser.add_argument("--pictures", type=int, default=6000)
    parser.add_argument("--batch", type=int, help="of the folder's runs")
    parser.add_argument("--device", default="cuda")
    arguments = parser.parse_args()
    keep_freed_memory()
    photos = sorted(path for path in arguments.photos.iterdir() if path.is_file())
    with tempfile.TemporaryDirectory() as folder:
        repeated(arguments.photos, Path(folder), arguments.pictures)
        for name in arguments.networks:
            for dtype in arguments.dtypes:
                model = loaded(name, dtype, arguments.device)
                print(f"\n## {name}, {dtype}, {named(model.device)}, torch {torch.__version__}")
                if "network" in arguments.parts:
                    network_table(model, photos)
                if "folder" in arguments.parts:
                    folder_table(model, name, Path(folder), arguments.engines, arguments.batch)


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
