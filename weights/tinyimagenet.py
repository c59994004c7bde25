"""Tiny ImageNet as arrays, and the random crops that training sees.

The standard layout: ``wnids.txt``, ``words.txt``, ``train/<wnid>/images/*.JPEG``,
``val/images/*.JPEG`` and ``val/val_annotations.txt`` (file, class, box).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch

from camtool.fit import training
from camtool.fit.training import Bytes, Longs

MEAN = (0.480, 0.448, 0.398)
STD = (0.276, 0.268, 0.282)
"""Per-channel statistics of the training pictures, in units of full scale."""


@dataclass(frozen=True)
class Split:
    """One split in memory.

    Attributes:
        images: uint8 RGB ``[N, 64, 64, 3]``.
        labels: int64 class indices ``[N]``, in the order of ``wnids.txt``.
    """

    images: Bytes
    labels: Longs

    def every(self, stride: int) -> Split:
        """Return every ``stride``-th picture."""
        return Split(self.images[::stride], self.labels[::stride])


def find_root(folder: Path) -> Path:
    """Return the folder of the standard layout: ``folder`` itself or one just below it.

    Raises:
        FileNotFoundError: If there is none.
    """
    for candidate in (folder, *sorted(p for p in folder.iterdir() if p.is_dir())):
        if (candidate / "wnids.txt").is_file():
            return candidate
    raise FileNotFoundError(f"no wnids.txt in {folder} or in a folder directly inside it")


def read_classes(root: Path) -> tuple[list[str], list[str]]:
    """Read the synset of every class and its label from ``words.txt``."""
    wnids = (root / "wnids.txt").read_text(encoding="utf-8").split()
    lines = (root / "words.txt").read_text(encoding="utf-8").splitlines()
    words = dict(line.split("\t", 1) for line in lines if line)
    return wnids, [words[wnid] for wnid in wnids]


def read_rgb(path: Path) -> Bytes:
    """Decode one picture to uint8 RGB ``[H, W, 3]``.

    Raises:
        OSError: If it is not a readable picture.
    """
    image = cv2.imread(str(path), cv2.IMREAD_COLOR_RGB)
    if image is None:
        raise OSError(f"cannot read {path}")
    return image.astype(np.uint8, copy=False)


def load_train(root: Path, cache: Path) -> Split:
    """Read the training split, from ``cache`` (.npy) where an earlier call left it."""
    wnids, _ = read_classes(root)
    folders = [sorted((root / "train" / wnid / "images").glob("*.JPEG")) for wnid in wnids]
    labels = np.repeat(np.arange(len(wnids)), [len(files) for files in folders])
    if not cache.is_file():
        cache.parent.mkdir(parents=True, exist_ok=True)
        np.save(cache, np.stack([read_rgb(path) for files in folders for path in files]))
    images = np.load(cache)
    if len(images) != len(labels):
        raise ValueError(f"{cache} holds {len(images)} pictures, {root} {len(labels)}: delete it")
    return Split(images, labels)


def load_val(root: Path) -> Split:
    """Read the validation split."""
    index = {wnid: i for i, wnid in enumerate(read_classes(root)[0])}
    text = (root / "val" / "val_annotations.txt").read_text(encoding="utf-8")
    rows = [line.split("\t") for line in text.splitlines() if line]
    images = np.stack([read_rgb(root / "val" / "images" / row[0]) for row in rows])
    return Split(images, np.array([index[row[1]] for row in rows], np.int64))


def to_input(images: Bytes, device: torch.device | str = "cpu") -> torch.Tensor:
    """Normalise uint8 ``[N, H, W, 3]`` to float32 ``[N, 3, H, W]``, channels last in memory."""
    return training.to_input(images, MEAN, STD, device)


def resize(image: Bytes, size: int) -> Bytes:
    """Resize uint8 ``[H, W, 3]`` to ``[size, size, 3]``: area mean down, bilinear up."""
    shrink = min(image.shape[:2]) > size
    method = cv2.INTER_AREA if shrink else cv2.INTER_LINEAR
    return cv2.resize(image, (size, size), interpolation=method).astype(np.uint8, copy=False)


def random_crop(
    image: Bytes, size: int, scale: tuple[float, float], rng: np.random.Generator
) -> Bytes:
    """Cut a random part of a picture, resize it to a square and flip it half of the time.

    Args:
        image: uint8 ``[H, W, 3]``.
        size: Side of the result in pixels.
        scale: Range of the crop's area relative to the picture's. Above 1 the picture is first
            extended by reflection, so that the object becomes small and moves off the centre.
        rng: Source of randomness.

    Returns:
        uint8 ``[size, size, 3]``.
    """
    side = image.shape[0]
    root = float(np.sqrt(rng.uniform(*scale)))
    stretch = float(np.exp(rng.uniform(-0.5, 0.5) * np.log(4 / 3)))
    height, width = round(side * root * stretch), round(side * root / stretch)
    margin = max(0, height - side, width - side)
    if margin:
        image = cv2.copyMakeBorder(
            image, margin, margin, margin, margin, cv2.BORDER_REFLECT_101
        ).astype(np.uint8, copy=False)
        y, x = (
            rng.integers(2 * margin + side - height + 1),
            rng.integers(2 * margin + side - width + 1),
        )
    else:
        y, x = rng.integers(side - height + 1), rng.integers(side - width + 1)
    crop = image[y : y + height, x : x + width]
    return resize(crop[:, ::-1] if rng.random() < 0.5 else crop, size)
