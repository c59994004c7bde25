"""Memory of a folder run at its 1,000th picture and at its end.

Usage: python benchmarks/memory.py [--pictures 20000] [--save overlay]

The pictures are 64×64 and the network is one convolution, so that what grows with the folder is
not hidden by what does not. Results, report and COCO file are written.
"""

from __future__ import annotations

import argparse
import io
import tempfile
from pathlib import Path
from typing import get_args

import numpy as np
import torch
from PIL import Image
from torch import nn

import camtool
from camtool.accelerate.memory import keep_freed_memory
from camtool.choices import Kind
from camtool.folder.run import FolderRun, Plan, Summary
from camtool.views.overlay import Look
from camtool.views.save import Views

EARLY = 1000


class OneConvolution(nn.Module):
    """The smallest network with a class activation map: 16 channels, ten classes."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 16, 3, stride=8, padding=1), nn.ReLU())
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(16, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map [N,3,H,W] to logits [N,10]."""
        logits: torch.Tensor = self.fc(self.pool(self.features(x)).flatten(1))
        return logits


def resident() -> int:
    """Bytes of this process that are in memory (Linux)."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise OSError("the system does not say")


def make_pictures(folder: Path, count: int, kinds: int = 50) -> None:
    """Fill a folder with links to a few 64×64 pictures."""
    random = np.random.default_rng(0)
    originals = folder.with_name("originals")
    for parent in (originals, folder):
        parent.mkdir()
    for number in range(kinds):
        stream = io.BytesIO()
        coarse = random.integers(0, 256, (6, 6, 3), np.uint8)
        Image.fromarray(coarse).resize((64, 64)).save(stream, "JPEG")
        (originals / f"{number}.jpg").write_bytes(stream.getvalue())
    for number in range(count):
        (folder / f"{number:06d}.jpg").symlink_to(originals / f"{number % kinds}.jpg")


def measure(folder: Path, output: Path, kinds: str) -> dict[int, int]:
    """Resident bytes by the number of pictures done; of the end under -1."""
    torch.manual_seed(0)
    model = camtool.load(OneConvolution(), device="cpu", size=64)
    wanted = tuple(kind for kind in get_args(Kind) if kind in kinds.split(","))
    views = Views(wanted, Look(), picture=".jpg")
    plan = Plan(str(folder), output, views, formats=("csv", "jsonl"), coco=True)
    found: dict[int, int] = {}

    def note(summary: Summary) -> None:
        step = summary.done // EARLY * EARLY
        if step and step not in found:
            found[step] = resident()

    FolderRun(model, plan, note).run()
    found[-1] = resident()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--pictures", type=int, default=20_000)
    parser.add_argument("--save", default="overlay")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        keep_freed_memory()
        make_pictures(Path(name) / "photos", arguments.pictures)
        found = measure(Path(name) / "photos", Path(name) / "out", arguments.save)
    early = found[EARLY]
    for step, size in found.items():
        label = f"{step:,} pictures" if step > 0 else "end, results written"
        print(f"{label:>22}: {size / 2**20:7.1f} MB  ({(size - early) / 2**20:+.1f})")


if __name__ == "__main__":
    main()
