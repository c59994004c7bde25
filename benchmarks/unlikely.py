"""How likely the best class is on photographs of classes that a network knows.

Usage: python benchmarks/unlikely.py PHOTOS [--model efficientnet_lite0] [--below 0.15]

PHOTOS holds ImageNet photographs called by their synset, as n01443537_goldfish.JPEG. Prints how
many have a best class of a probability below each of some, and how many of these it gets wrong;
that of --below is where `camtool explain` cautions.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import camtool
from camtool.cli.explain import UNLIKELY


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("photos", type=Path)
    parser.add_argument("--model", default="efficientnet_lite0")
    parser.add_argument("--below", type=float, default=UNLIKELY)
    options = parser.parse_args()
    model = camtool.load(options.model)
    paths = sorted(options.photos.glob("n*.JPEG"))
    found = []
    for path in paths:
        best = model.explain(path, topk=1)
        right = model.network.synsets[best.indices[0]] == path.name.split("_")[0]
        found.append((float(best.probabilities[0]), right))
    print("| best class below | of all | of these wrong |\n|---:|---:|---:|")
    for below in sorted({0.1, 0.15, 0.2, 0.3, 0.5, 1.01, options.below}):
        some = [right for probability, right in found if probability < below]
        print(f"| {min(below, 1.0):.0%} | {len(some)} | {some.count(False)} |")


if __name__ == "__main__":
    main()
