"""Makes the pictures of the documentation: `python docs/pictures.py`."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path

from PIL import Image

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


def explorer() -> None:
    """The explorer as Chromium shows it, where there is one."""
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        print("no Chromium: explorer.jpg stays as it is")
        return
    model = camtool.load("efficientnet_lite0", device="cpu")
    with tempfile.TemporaryDirectory() as folder:
        page, shot = Path(folder, "page.html"), Path(folder, "shot.png")
        model.explain(EXAMPLES / "espresso.jpg", topk=1000).save(page)
        flags = ("--headless", "--no-sandbox", "--hide-scrollbars", "--window-size=1280,800")
        subprocess.run([browser, *flags, f"--screenshot={shot}", page.as_uri()], check=True)
        Image.open(shot).convert("RGB").save(FOLDER / "explorer.jpg", quality=85)


if __name__ == "__main__":
    main()
    explorer()
