"""What a GPU is used for: forward passes, maps, and folders, as ratios in one run.

Usage: python benchmarks/gpu.py PHOTOS [--networks resnet50 efficientnet_lite0] [--dtypes ...]
                                [--pictures 8000] [--parts network folder]

PHOTOS are repeated by links until there are enough. ResNet-50 has seeded random weights, the
embedded network its own. Two tables for each network and number format:

* the network: the plain forward pass on inputs that lie on the GPU already, and what camtool adds
  to it, up to explanations of pictures that are decoded already;
* the folder: pictures read by one process a core and nothing else, and the whole run, which reads,
  explains, paints, writes and makes a report, by threads and by processes; beside them the loop of
  torchvision's documentation, which only classifies. Rates are those of the last three quarters,
  for a run of minutes begins with seconds in which processes start.

`--device cpu` runs the same on a machine without a GPU, to see that it runs.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any

import torch

import camtool
from camtool.accelerate.memory import keep_freed_memory
from camtool.engines import ENGINES
from camtool.engines.threads import Workers, available_cores
from camtool.folder.run import FolderRun, Plan
from camtool.images import read_image
from camtool.model import CamModel
from camtool.prepared import Prepared
from camtool.views.overlay import Look
from camtool.views.save import Views
from folder import Photos, bare, repeated

SECONDS = 1.0
"""That each figure of the network is taken over."""
STREAMED = 40
"""Batches of decoded pictures."""


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


class Table:
    """Rates as ratios to the first one, printed one by one."""

    def __init__(self, title: str) -> None:
        self.first = 0.0
        print(f"\n{title}\n\n| | pictures/s | × the first |\n|---|---:|---:|", flush=True)

    def add(self, name: str, each: float) -> None:
        self.first = self.first or each
        print(f"| {name} | {each:,.0f} | {each / self.first:.2f} |", flush=True)


def lanes_rate(model: CamModel, items: list[Prepared], batch: int) -> float:
    """Of batches of pictures through as many lanes as a run of threads has."""
    batches = [
        [items[(start + n) % len(items)] for n in range(batch)]
        for start in range(0, STREAMED * batch, batch)
    ]
    lanes = Workers.for_folder(model.device).lanes
    with ThreadPoolExecutor(lanes) as pool:
        done = pool.map(lambda some: model.explain_indices(some, None, 1), batches)
        return streamed((each for results in done for each in results), batch * 4)


def network_table(model: CamModel, photos: list[Path], compiled: bool) -> None:
    """The forward pass, and what is added to it."""
    device, batch = model.device, model.measured_batch_size()
    pictures = [model.prepare(path) for path in photos[: 2 * batch]]
    pictures = [one for one in pictures if one.geometry.input == pictures[0].geometry.input]
    some = [pictures[number % len(pictures)] for number in range(batch)]
    inputs = model.inputs(some)

    def maps() -> object:
        [forward] = model.forwards(inputs)
        chosen = forward.logits.topk(1).indices
        return model.evidence([forward], chosen)

    table = Table(f"batches of {batch}")
    with torch.no_grad(), model.running():
        plain = rate(lambda: model._body(inputs.to(model.dtype)), batch, device)
        table.add("plain forward", plain)
        if compiled:
            faster = torch.compile(model._body)
            each = rate(lambda: faster(inputs.to(model.dtype)), batch, device)
            table.add("plain forward, compiled", each)
        table.add("camtool's forward", rate(lambda: model.forwards(inputs), batch, device))
        table.add("with the maps of the best class", rate(maps, batch, device))
        resized = [replace(one, pixels=model.pixels_of(one)) for one in pictures]
        table.add("from decoded and resized pictures", lanes_rate(model, resized, batch))
        table.add("from decoded pictures", lanes_rate(model, pictures, batch))


@dataclass
class Clock:
    """When a run's pictures were done."""

    begun: float = field(default_factory=time.perf_counter)
    counts: list[tuple[int, float]] = field(default_factory=list)

    def note(self, done: int) -> None:
        self.counts.append((done, time.perf_counter()))

    @property
    def rate(self) -> float:
        """Pictures a second of the last three quarters: by then all processes are at work."""
        last, ended = self.counts[-1]
        first, begun = next(pair for pair in self.counts if 4 * pair[0] >= last)
        return (last - first) / (ended - begun) if ended > begun else float("nan")

    @property
    def start(self) -> float:
        """Seconds until the first results."""
        return self.counts[0][1] - self.begun


def folder_run(model: CamModel, source: Path, engine: str, batch: int, views: Views) -> Clock:
    """A whole run with a report."""
    clock = Clock()
    with tempfile.TemporaryDirectory() as output:
        plan = Plan(str(source), Path(output) / "out", views, batch_size=batch)
        run = FolderRun(model, plan, lambda now: clock.note(now.done), print, ENGINES[engine])
        summary = run.run()
        if summary.done != summary.total:
            raise RuntimeError(f"{summary.failed} pictures failed; {summary.stopped}")
    return clock


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
    size = batch or min(32, model.measured_batch_size())
    overlays = Views(("overlay",), Look(), boxes=False, picture=".jpg")
    table = Table(f"whole folder, batches of {size}, {available_cores()} cores")
    table.add("reading alone", reading_rate([str(path) for path in sorted(source.iterdir())]))
    for engine in engines:
        clock = folder_run(model, source, engine, size, overlays)
        row = f"{engine}, overlays and report, first after {clock.start:.0f} s"
        table.add(row, clock.rate)
    table.add(
        "torchvision's loop, classifying only",
        documented_rate(name, model.dtype, source, model.device),
    )


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
    parser.add_argument("--pictures", type=int, default=8000)
    parser.add_argument("--batch", type=int, help="of the folder's runs")
    parser.add_argument("--compile", action="store_true", help="beside it torch.compile's pass")
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
                    network_table(model, photos, arguments.compile)
                if "folder" in arguments.parts:
                    folder_table(model, name, Path(folder), arguments.engines, arguments.batch)


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
