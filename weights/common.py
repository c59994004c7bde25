"""How much the classes' weights should have in common: localization of training pictures.

    python weights/common.py DATA [--weights weights/gapnet-1.safetensors]

The share added by `release.choose_common` changes no probability but moves the boxes. It is chosen
on training pictures with their boxes, so that the validation pictures measure it unseen.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import numpy.typing as npt

from evaluation import localization
from release import choose_common, load
from tinyimagenet import Split, find_root, read_classes, read_rgb

SHARES = (0.0, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4)
STRIDE = 40  # 2,000 of the 80,000 pictures


def boxed(root: Path) -> Split:
    """Read every 40th training picture with its box (inclusive in the file, exclusive here)."""
    rows: list[tuple[Path, int, list[int]]] = []
    for label, wnid in enumerate(read_classes(root)[0]):
        folder = root / "train" / wnid
        lines = (folder / f"{wnid}_boxes.txt").read_text(encoding="utf-8").splitlines()
        boxes = {name: box for name, *box in (line.split("\t") for line in lines if line)}
        files = sorted((folder / "images").glob("*.JPEG"))
        rows += [(path, label, [int(v) for v in boxes[path.name]]) for path in files]
    paths, labels, places = zip(*rows[::STRIDE], strict=True)
    ends: npt.NDArray[np.int64] = np.array(places, np.int64)
    ends[:, 2:] += 1
    return Split(np.stack([read_rgb(path) for path in paths]), np.array(labels), ends)


def main() -> None:
    """Print one line a share."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("data", type=Path, help="folder with Tiny ImageNet's standard layout")
    here = Path(__file__).resolve().parent
    parser.add_argument("--weights", type=Path, default=here / "gapnet-1.safetensors")
    options = parser.parse_args()
    pictures = boxed(find_root(options.data))
    model, description = load(options.weights)
    size = json.loads(description["preprocessing"])["size"]
    for share in SHARES:
        choose_common(model, share)
        place = localization(model, pictures, size)
        print(f"share {share:.2f}: label given {place.known:.2%} at {place.threshold:.2f}")


if __name__ == "__main__":
    main()
