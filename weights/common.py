"""How much the classes' weights should have in common: localization of training pictures.

    python weights/common.py DATA [--weights weights/gapnet-1.safetensors] [--mode reference]

The share added by `release.choose_common` changes no probability but moves the boxes. It is chosen
on training pictures with their boxes, so that the validation pictures measure it unseen.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import get_args

from camtool.evaluate import Mode
from camtool.evaluate.datasets import Dataset, Findings
from camtool.fit.outcome import Problem
from camtool.fit.study_data import tiny_training
from camtool.networks import load_network
from camtool.networks.gapnet import GapNet
from measure import line, measure
from release import choose_common
from tinyimagenet import find_root, read_classes

SHARES = (0.0, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4)
STRIDE = 40  # 2,000 of the 80,000 pictures


def boxed(root: Path) -> Dataset:
    """Every 40th training picture with its box."""
    found, problems = Findings(), list[Problem]()
    synsets = read_classes(root)[0]
    rows = [(sample, wnid) for wnid in synsets for sample in tiny_training(root, wnid, problems)]
    for sample, wnid in rows[::STRIDE]:
        found.add(sample.path, wnid, sample.boxes)
    return Dataset(found.records, found.problems, root=root)


def main() -> None:
    """Print one line a share."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("data", type=Path, help="folder with Tiny ImageNet's standard layout")
    here = Path(__file__).resolve().parent
    parser.add_argument("--weights", type=Path, default=here / "gapnet-1.safetensors")
    parser.add_argument("--mode", choices=get_args(Mode), default="plain")
    options = parser.parse_args()
    pictures = boxed(find_root(options.data))
    for share in SHARES:
        network = load_network(options.weights)
        assert isinstance(network.module, GapNet)
        choose_common(network.module, share)
        found = measure(network, pictures, mode=options.mode)
        print(f"share {share:.2f}: {line(found)}", flush=True)


if __name__ == "__main__":
    main()
