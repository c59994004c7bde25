"""Localization metrics without roundings; each sees one image at a time and keeps only sums.

Thresholds are fractions of a map's maximum, boxes have sub-pixel coordinates, maps any size:
overlaps do not change when a map and its boxes are stretched together, so everything is
measured in pixels of the map. Figures are percentages. `reference` has the published roundings.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from camtool.evaluate.bootstrap import REPLICATES, BootstrapSums, estimate
from camtool.evaluate.figures import Figure, Floats, PrecisionRecall
from camtool.evaluate.iou import box_iou
from camtool.evaluate.levelset import levels_of, relative_cuts, sweep
from camtool.opencv import cv2
from camtool.regions.boxes import FloatMap

IOUS = (0.3, 0.5, 0.7)
GUESSES = (1, 5)
POINTING_TOLERANCE = 15.0
SIZES = np.arange(1, 101) / 100
_HALF = IOUS.index(0.5)


def default_thresholds(count: int = 1000) -> Floats:
    """Evenly spaced thresholds from 0 up to, not including, 1."""
    return np.arange(count) / count


def to_map(boxes: npt.ArrayLike, size: tuple[int, int], shape: tuple[int, ...]) -> Floats:
    """Boxes [M, 4] of an image of `size` (width, height) in pixels of a map of `shape` (h, w)."""
    values = np.asarray(boxes, dtype=np.float64).reshape(-1, 4)
    return np.asarray(values * (np.array([shape[1], shape[0]] * 2) / np.array([*size, *size])))


def map_ious(heatmap: FloatMap, boxes: npt.ArrayLike, thresholds: Floats) -> tuple[Floats, Floats]:
    """Best IoU with any true box at every threshold.

    Args:
        heatmap: [H, W], float32, logits.
        boxes: [M, 4], true boxes in pixels of the map, M at least 1.
        thresholds: [T], ascending fractions of the maximum.

    Returns:
        For the box of the largest region, and for the best of the boxes of all regions: [T]
        each, 0 where nothing is kept.
    """
    regions = sweep(heatmap, relative_cuts(heatmap, thresholds))
    largest, found = regions.largest()
    iou = np.where(found, box_iou(largest, boxes).max(axis=1), 0.0)
    return iou, regions.best(box_iou(regions.boxes, boxes).max(axis=1, initial=0.0))


def centre_ious(boxes: npt.ArrayLike, size: tuple[int, int]) -> Floats:
    """Best IoU with any true box of a box in the middle of the image, for each of `SIZES`.

    The box has the image's aspect, and sides of 1 % to 100 % of the image's: the last is the
    whole image. Thresholding the centred Gaussian of Choe et al. 2020 gives the same boxes.
    """
    middle = np.array([*size, *size]) / 2
    reach = np.outer(SIZES, middle) * np.array([-1, -1, 1, 1])
    return np.asarray(box_iou(middle + reach, boxes).max(axis=1))


class BoxAccuracy:
    """Share of images whose box has a high enough IoU with a true one, for every threshold.

    Of top-k localization only the guess with the right label can count, and its map is the true
    class's. So it is GT-known localization where the label is among the k guesses.

    Args:
        thresholds: [T], what the curves run over.
        replicates: Number of bootstrap replicates.

    Attributes:
        images: How many were added.
        ranked: Whether a rank was ever given.
    """

    def __init__(self, thresholds: Floats, *, replicates: int = REPLICATES) -> None:
        self.thresholds = thresholds
        self.images, self.ranked = 0, False
        self._kinds = len(IOUS) + len(GUESSES)
        self._sums = BootstrapSums(self._kinds * len(thresholds), replicates=replicates)

    def update(self, ious: Floats, rank: int | None) -> None:
        """Add an image.

        Args:
            ious: [T], best IoU at each threshold.
            rank: Place of the true label among the network's guesses, 0 the first; None if it
                is not known or not among them.
        """
        rows = [ious >= iou for iou in IOUS]
        rows += [rows[_HALF] & (rank is not None and rank < guesses) for guesses in GUESSES]
        self._sums.add(np.concatenate(rows))
        self.images += 1
        self.ranked |= rank is not None

    def max_box_acc(self, iou: float = 0.5) -> Figure:
        """MaxBoxAcc: the accuracy at the best single threshold (Choe et al. 2020, 3.2)."""
        return self._figure(IOUS.index(iou), None)

    def max_box_acc_v2(self) -> Figure:
        """MaxBoxAccV2: mean over three IoUs of the accuracy at each one's best threshold.

        There is no single threshold; the curve is the mean of the three.
        """
        curves = self._curves(slice(len(IOUS)))
        values = estimate(curves.max(axis=2).mean(axis=1))
        return Figure(*values, None, self.thresholds, curves[0].mean(axis=0))

    def gt_known(self, threshold: float) -> Figure:
        """GT-known localization at a given threshold: the one closest to it is taken."""
        return self._figure(_HALF, threshold)

    def top_loc(self, guesses: int, threshold: float | None = None) -> Figure:
        """Top-1 or top-5 localization at the threshold closest to a given one, or at its best."""
        return self._figure(len(IOUS) + GUESSES.index(guesses), threshold)

    def _curves(self, kinds: slice) -> Floats:
        """Curves [R + 1, K, T] of some kinds, in percent."""
        sums, counts = self._sums.totals()
        chosen = sums.reshape(len(sums), self._kinds, len(self.thresholds))[:, kinds]
        return np.asarray(chosen * 100 / np.maximum(counts, 1)[:, None, None])

    def _figure(self, kind: int, threshold: float | None) -> Figure:
        curves = self._curves(slice(kind, kind + 1))[:, 0]
        if threshold is None:
            index, values = int(curves[0].argmax()), curves.max(axis=1)
        else:
            index = int(np.abs(self.thresholds - threshold).argmin())
            values = curves[:, index]
        reached = float(self.thresholds[index])
        return Figure(*estimate(values), reached, self.thresholds, curves[0])


class PixelPrecision:
    """PxAP: area under the precision-recall curve of all images' pixels together.

    A pixel's score is its evidence as a fraction of its map's maximum; pixels without positive
    evidence come last, all at once (Choe et al. 2020, 3.2).

    Args:
        thresholds: [T], ascending from 0.
        replicates: Number of bootstrap replicates.

    Attributes:
        object_pixels: How many pixels of objects were added; without any there is no figure.
    """

    def __init__(self, thresholds: Floats, *, replicates: int = REPLICATES) -> None:
        self.thresholds = thresholds
        self.object_pixels = 0
        self._bins = len(thresholds) + 1
        self._sums = BootstrapSums(2 * self._bins, replicates=replicates)

    def update(self, heatmap: FloatMap, mask: npt.NDArray[np.uint8]) -> None:
        """Add an image.

        Args:
            heatmap: [H, W], float32, logits; NaN counts as no evidence.
            mask: [H, W], 1 in the object, 0 outside, any other value where neither counts.

        Raises:
            ValueError: If the shapes differ.
        """
        if heatmap.shape != mask.shape:
            raise ValueError(f"map {heatmap.shape} and mask {mask.shape} differ in shape")
        positive = np.fmax(heatmap, np.float32(0))
        levels = levels_of(positive, relative_cuts(positive, self.thresholds))
        counts = [np.bincount(levels[mask == part], minlength=self._bins) for part in (1, 0)]
        self.object_pixels += int(counts[0].sum())
        self._sums.add(np.concatenate(counts))

    def result(self) -> PrecisionRecall:
        """The figure in percent.

        Raises:
            ValueError: If no pixel of any object was seen.
        """
        if not self.object_pixels:
            raise ValueError("no pixel of an object was evaluated")
        sums, _ = self._sums.totals()
        counts = sums.reshape(len(sums), 2, self._bins)[:, :, ::-1].cumsum(axis=2)
        true, kept = counts[:, 0], counts.sum(axis=1)
        precision = true / np.maximum(kept, 1)
        recall = true / np.maximum(true[:, -1:], 1)
        area = (precision * np.diff(recall, axis=1, prepend=0.0)).sum(axis=1)
        return PrecisionRecall(*estimate(area * 100), precision=precision[0], recall=recall[0])


class ClassMean:
    """Mean over classes of each class's mean score, in percent.

    Args:
        classes: Number of classes; 1 for the mean over images.
        replicates: Number of bootstrap replicates.
    """

    def __init__(self, classes: int, *, replicates: int = REPLICATES) -> None:
        self.classes = classes
        self._sums = BootstrapSums(2 * classes, replicates=replicates)

    def update(self, score: float, label: int = 0) -> None:
        """Add an image's score, in [0, 1], to its class."""
        row = np.zeros((2, self.classes))
        row[:, label] = score, 1
        self._sums.add(row.ravel())

    def result(self) -> Figure:
        """The figure; classes without an image are left out. Raises ValueError without any."""
        sums, _ = self._sums.totals()
        scores, counts = sums[:, : self.classes], sums[:, self.classes :]
        seen = np.maximum((counts > 0).sum(axis=1), 1)
        means = (scores / np.maximum(counts, 1)).sum(axis=1) / seen
        return Figure(*estimate(means * 100))


def pointing_score(
    heatmap: FloatMap, boxes: npt.ArrayLike, size: tuple[int, int], tolerance: float = 0.0
) -> float:
    """Pointing game (Zhang et al. 2016): whether the map's maximum lies on the object.

    Args:
        heatmap: [H, W], float32, over the whole image; NaN where the network saw nothing.
        boxes: [M, 4], true boxes in pixels of the image.
        size: (width, height) of the image.
        tolerance: Greatest distance from a box that still counts, in pixels of the image
            (TorchRay: 15).

    Returns:
        1 or 0; if several pixels share the maximum, the part of them that hits. 0 for a map that
        is NaN throughout.
    """
    if np.isnan(heatmap).all():
        return 0.0
    rows, columns = np.nonzero(heatmap == np.nanmax(heatmap))
    height, width = heatmap.shape
    x = (np.arange(width)[:, None] + 0.5) * size[0] / width
    y = (np.arange(height)[:, None] + 0.5) * size[1] / height
    x0, y0, x1, y1 = np.asarray(boxes, dtype=np.float64).reshape(-1, 4).T
    across = np.maximum(np.maximum(x0 - x, x - x1), 0) ** 2
    along = np.maximum(np.maximum(y0 - y, y - y1), 0) ** 2
    return float((across[columns] + along[rows] <= tolerance**2).any(axis=1).mean())


def mask_pointing_score(
    heatmap: FloatMap, mask: npt.NDArray[np.uint8], size: tuple[int, int], tolerance: float = 0.0
) -> float:
    """`pointing_score` for an object given as a mask [H, W], 1 inside.

    The tolerance is exact if the map has the image's proportions.
    """
    if np.isnan(heatmap).all():
        return 0.0
    peaks = heatmap == np.nanmax(heatmap)
    outside = (mask != 1).astype(np.uint8)
    if outside.all():
        return 0.0
    distance = cv2.distanceTransform(outside, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    scale = np.sqrt(size[0] * size[1] / heatmap.size)
    return float((distance[peaks] * scale <= tolerance).mean())


def energy_score(heatmap: FloatMap, inside: npt.NDArray[Any]) -> float:
    """Energy pointing game (Wang et al. 2020, Score-CAM, 4.3): positive evidence on the object.

    Args:
        heatmap: [H, W], float32, logits; NaN counts as no evidence.
        inside: [H, W], share of each pixel that belongs to the object, in [0, 1].

    Returns:
        Share of the map's positive evidence, in [0, 1]; 0 if it has none.
    """
    positive = np.fmax(heatmap, 0).astype(np.float64)
    total = float(positive.sum())
    return float((positive * inside).sum()) / total if total > 0 else 0.0


def coverage(boxes: npt.ArrayLike, shape: tuple[int, ...]) -> Floats:
    """Share of each pixel of a map that lies in any box.

    Args:
        boxes: [M, 4], in pixels of the map.
        shape: (H, W) of the map.

    Returns:
        [H, W], float64; where boxes share a pixel in part, that of the greater part.
    """
    result = np.zeros(shape)
    for x0, y0, x1, y1 in np.asarray(boxes, dtype=np.float64).reshape(-1, 4):
        across = _covered(x0, x1, shape[1])
        along = _covered(y0, y1, shape[0])
        np.maximum(result, np.outer(along, across), out=result)
    return result


def _covered(start: float, end: float, length: int) -> Floats:
    pixels = np.arange(length)
    shared = np.minimum(pixels + 1, end) - np.maximum(pixels, start)
    return np.asarray(np.clip(shared, 0, 1))
