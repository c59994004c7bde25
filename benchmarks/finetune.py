"""What training the base's last stage further does for pictures unlike those it was trained on.

    python benchmarks/finetune.py

The handwritten digits that come with scikit-learn, 45 of each, at 64 pixels; the base was trained
on photographs.
"""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

import camtool
from camtool.fit.run import Plan, fit

EACH = 45


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        lay_out(place / "digits")
        plan = Plan(str(place / "digits"), place / "mine.safetensors")
        for name, further in (("layer alone", False), ("fine-tuned", True)):
            base = camtool.load("efficientnet_lite0", device="cpu")
            found = fit(base, replace(plan, finetune=further), warn=lambda line: None).outcome
            right = found.accuracy
            print(f"{name}: {right.value:.1f} % ({right.low:.1f} to {right.high:.1f}) right")


def lay_out(place: Path) -> None:
    """Folders by class."""
    digits = load_digits()
    for label in range(10):
        (place / str(label)).mkdir(parents=True)
        for n, values in enumerate(digits.images[digits.target == label][:EACH]):
            grey = Image.fromarray((values * 15.9).astype(np.uint8))
            shown = grey.convert("RGB").resize((64, 64), Image.Resampling.BICUBIC)
            shown.save(place / str(label) / f"{n:02d}.png")


if __name__ == "__main__":
    main()
