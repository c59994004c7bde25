"""Accuracy and localization of a network on the validation split."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional

from camtool.networks.gapnet import GapNet
from tinyimagenet import Longs, Split, resize, to_input

Floats = npt.NDArray[np.float32]
Flags = npt.NDArray[np.bool_]
THRESHOLDS = np.arange(0.0, 1.0, 0.02)


@dataclass(frozen=True)
class Localization:
    """Shares, 0..1, of pictures whose box has an IoU of 0.5 or more with the true box.

    Attributes:
        known: Box from the true class's map, at the best threshold for the whole split.
        threshold: That threshold, relative to the min-max normalised map.
        top1: As ``known``, and the first guess is the true class.
        centre: A centred box of the best single size, the same for every picture.
    """

    known: float
    threshold: float
    top1: float
    centre: float


def _inputs(data: Split, start: int, batch: int, size: int) -> torch.Tensor:
    pictures = data.images[start : start + batch]
    return to_input(np.stack([resize(picture, size) for picture in pictures]))


@torch.inference_mode()
def accuracy(model: GapNet, data: Split, size: int, batch: int = 100) -> tuple[float, float]:
    """Return top-1 and top-5 accuracy, 0..1, with pictures resized to ``size`` pixels."""
    model.eval()
    hits = np.zeros(2)
    for i in range(0, len(data.labels), batch):
        logits = model(_inputs(data, i, batch, size).to(model.fc.weight.device))
        match = logits.topk(5).indices.cpu().numpy() == data.labels[i : i + batch, None]
        hits += match[:, 0].sum(), match.sum()
    return float(hits[0] / len(data.labels)), float(hits[1] / len(data.labels))


@torch.inference_mode()
def true_maps(model: GapNet, data: Split, size: int, batch: int = 100) -> tuple[Floats, Flags]:
    """Compute the true class's map of every picture (Zhou et al. 2016, equation 2).

    Returns:
        Maps float32 ``[N, H, W]`` at the pictures' own size, min-max normalised, and whether the
        first guess was right, ``[N]``.
    """
    model.eval()
    maps, right = [], []
    for i in range(0, len(data.labels), batch):
        labels = torch.from_numpy(data.labels[i : i + batch]).to(model.fc.weight.device)
        features = model.features(_inputs(data, i, batch, size).to(labels.device))
        cams = torch.einsum("nchw,nc->nhw", features, model.fc.weight[labels])
        large = functional.interpolate(cams[:, None], data.images.shape[1:3], mode="bilinear")[:, 0]
        low, high = large.amin((1, 2), keepdim=True), large.amax((1, 2), keepdim=True)
        maps.append(((large - low) / (high - low).clamp_min(1e-7)).cpu().numpy())
        right.append((model.fc(features.mean((2, 3))).argmax(1) == labels).cpu().numpy())
    return np.concatenate(maps), np.concatenate(right)


def largest_box(mask: Flags) -> Longs:
    """Return the box (x0, y0, x1, y1), end-exclusive, of the largest 8-connected component.

    A mask without any pixel gives zeros.
    """
    count, _, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8))
    if count == 1:
        return np.zeros(4, np.int64)
    x, y, width, height = stats[1 + stats[1:, cv2.CC_STAT_AREA].argmax(), :4]
    return np.array([x, y, x + width, y + height], np.int64)


def iou(a: Longs, b: Longs) -> npt.NDArray[np.float64]:
    """Return the intersection over union of boxes ``[N, 4]``, pair by pair; 0 for empty ones."""
    sides = np.minimum(a[:, 2:], b[:, 2:]) - np.maximum(a[:, :2], b[:, :2])
    shared = sides.clip(0).prod(1)
    total = (a[:, 2:] - a[:, :2]).prod(1) + (b[:, 2:] - b[:, :2]).prod(1) - shared
    return np.asarray(shared / np.maximum(total, 1), np.float64)


def centre_baseline(boxes: Longs, side: int) -> float:
    """Return the best share that one centred square gets, over all its sizes."""
    shares = []
    for margin in range(side // 2):
        box = np.array([margin, margin, side - margin, side - margin], np.int64)
        shares.append(float((iou(np.broadcast_to(box, boxes.shape), boxes) >= 0.5).mean()))
    return max(shares)


def localization(model: GapNet, data: Split, size: int) -> Localization:
    """Measure localization by class activation maps at one input size."""
    maps, right = true_maps(model, data, size)
    hits = []
    for threshold in THRESHOLDS:
        found = np.stack([largest_box(image > threshold) for image in maps])
        hits.append(iou(found, data.boxes) >= 0.5)
    best = int(np.argmax([hit.mean() for hit in hits]))
    return Localization(
        known=float(hits[best].mean()),
        threshold=float(THRESHOLDS[best]),
        top1=max(float((hit & right).mean()) for hit in hits),
        centre=centre_baseline(data.boxes, data.images.shape[1]),
    )
