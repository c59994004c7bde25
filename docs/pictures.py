"""Makes the pictures of the documentation: `python docs/pictures.py`."""

from __future__ import annotations

from pathlib import Path

import camtool

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "docs" / "pictures"
EXAMPLES = ROOT / "examples"


def main() -> None:
    """Write every picture anew."""
    FOLDER.mkdir(exist_ok=True)
    model = camtool.load("efficientnet_lite0", device="cpu")
    model.explain(EXAMPLES / "espresso.jpg").save(FOLDER / "espresso.jpg")
    pair = ("military uniform", "suit")
    contrast = model.explain(EXAMPLES / "uniform.jpg", [pair, *pair])
    contrast.panel(camtool.Look(signed=True)).save(FOLDER / "contrast.jpg", quality=90)


if __name__ == "__main__":
    main()
