"""Figures that can stand beside published tables: the choices of Choe et al. 2020's code.

"Evaluating Weakly Supervised Object Localization Methods Right" (CVPR 2020) published its
evaluation along with the metrics. These functions give its numbers digit for digit, roundings
included: maps are resized with a cubic filter to 224 x 224, stretched to [0, 1] and cut down to
256 levels; true boxes are scaled to 224 x 224 and truncated; found boxes end beyond their last
pixel (but not on the map's border), while the IoU counts both end pixels; the contours of
holes count as objects where all contours do; no contour is the box of the first pixel.

`metrics` measures the same without the roundings and is the default.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from camtool.evaluate.figures import Floats
from camtool.evaluate.iou import box_iou
from camtool.opencv import cv2

REFERENCE_SIDE = 224
REFERENCE_STEP = 0.001
_TOP = 255


def reference_map(cam: npt.NDArray[Any]) -> Floats:
    """A map as the reference evaluates it.

    Args:
        cam: [h, w], any real type, at feature resolution.

    Returns:
        [224, 224], float64: resized with a cubic filter, then min-max normalised; all zeros for
        a constant map or one that holds NaN.
    """
    side = (REFERENCE_SIDE, REFERENCE_SIDE)
    resized = cv2.resize(cam.astype(np.float64), side, interpolation=cv2.INTER_CUBIC)
    if np.isnan(resized).any() or resized.min() == resized.max():
        return np.zeros_like(resized)
    resized = resized - resized.min()
    return np.asarray(resized / resized.max())


def reference_thresholds(step: float = REFERENCE_STEP) -> Floats:
    """Thresholds from 0 up to, not including, 1."""
    return np.arange(0, 1, step)


def reference_true_boxes(
    boxes: npt.ArrayLike, size: tuple[int, int], side: int = REFERENCE_SIDE
) -> npt.NDArray[np.int64]:
    """True boxes scaled to the square map and truncated.

    Args:
        boxes: [M, 4], integers (x0, y0, x1, y1) in pixels of the image.
        size: (width, height) of the image.
        side: Side of the map.

    Raises:
        ValueError: If a box has a negative coordinate or an end before its start.
    """
    values = np.asarray(boxes, dtype=np.float64).reshape(-1, 4)
    if (values < 0).any() or (values[:, 2:] < values[:, :2]).any():
        raise ValueError(f"not boxes (x0, y0, x1, y1) from 0 on: {values.tolist()}")
    scale = np.array([*size, *size], dtype=np.float64)
    # Multiplied before it is divided, or the truncation may come out one lower.
    return (values * side / scale).astype(np.int64)


def _contours(
    scoremap: Floats, thresholds: Floats
) -> tuple[list[tuple[npt.NDArray[np.int64], int]], npt.NDArray[np.intp]]:
    """The boxes [N, 4] of all contours with the number of the greatest, once for equal masks.

    Also the place in that list that belongs to each threshold.
    """
    image = _image(scoremap)
    used = np.unique(image)
    cuts = (np.asarray(thresholds, dtype=np.float64) * int(image.max())).astype(np.int64)
    # Between two values that occur, every cut keeps the same pixels.
    kept = np.searchsorted(used, cuts, side="right")
    _, first, at = np.unique(kept, return_index=True, return_inverse=True)
    return [_contour_boxes(image, int(cuts[i])) for i in first], at


def _image(scoremap: Floats) -> npt.NDArray[np.uint8]:
    values = np.asarray(scoremap, dtype=np.float64)
    if values.ndim != 2 or not ((values >= 0) & (values <= 1)).all():
        raise ValueError("a reference map has two dimensions and lies in [0, 1] throughout")
    return (values * _TOP).astype(np.uint8)


def _contour_boxes(image: npt.NDArray[np.uint8], cut: int) -> tuple[npt.NDArray[np.int64], int]:
    _, binary = cv2.threshold(image, cut, _TOP, cv2.THRESH_BINARY)
    contours = cv2.findContours(binary, cv2.RETR_TREE, cv2.CHAIN_APPROX_SIMPLE)[-2]
    if len(contours) == 0:
        return np.zeros((1, 4), dtype=np.int64), 0
    areas = [cv2.contourArea(contour) for contour in contours]
    boxes = np.array([cv2.boundingRect(contour) for contour in contours], dtype=np.int64)
    boxes[:, 2:] += boxes[:, :2]
    height, width = image.shape
    boxes[:, 2:] = np.minimum(boxes[:, 2:], [width - 1, height - 1])
    return boxes, areas.index(max(areas))


def reference_ious(
    scoremap: Floats, boxes: npt.ArrayLike, size: tuple[int, int], thresholds: Floats
) -> tuple[Floats, Floats]:
    """Best IoU with any true box at every threshold, for `metrics.BoxAccuracy`.

    Args:
        scoremap: [224, 224], as `reference_map` returns it.
        boxes: [M, 4], true boxes in pixels of the image.
        size: (width, height) of the image.
        thresholds: [T], `reference_thresholds()` for published figures.

    Returns:
        [T] and [T], in [0, 1]: of the contour of greatest area, for MaxBoxAcc, and of any
        contour, for MaxBoxAccV2.

    Raises:
        ValueError: If there is no true box, or one that is none.
    """
    true = reference_true_boxes(boxes, size)
    if len(true) == 0:
        raise ValueError("an image without true boxes has no box accuracy")
    found, at = _contours(scoremap, thresholds)
    ious = box_iou(np.concatenate([each for each, _ in found]), true, closed=True).max(axis=1)
    starts = np.cumsum([0, *(len(each) for each, _ in found[:-1])])
    largest = ious[starts + [greatest for _, greatest in found]]
    return largest[at], np.maximum.reduceat(ious, starts)[at]


class ReferencePxAP:
    """Pixel average precision with the published bins.

    Args:
        thresholds: [T], ascending from 0; by default steps of 0.001.
    """

    def __init__(self, thresholds: Floats | None = None) -> None:
        self.thresholds = reference_thresholds() if thresholds is None else thresholds
        self._edges = np.append(self.thresholds, [1.0, 2.0, 3.0])
        self._object = np.zeros(len(self._edges) - 1)
        self._rest = np.zeros(len(self._edges) - 1)

    def update(self, scoremap: Floats, mask: npt.NDArray[np.uint8]) -> None:
        """Add an image.

        Args:
            scoremap: [H, W], float64, in [0, 1].
            mask: [H, W], 1 in the object, 0 outside, 255 where neither counts.

        Raises:
            ValueError: If the shapes differ or the map leaves [0, 1].
        """
        values = np.asarray(scoremap, dtype=np.float64)
        if values.shape != mask.shape or not ((values >= 0) & (values <= 1)).all():
            raise ValueError("map and mask must agree in shape, and the map lie in [0, 1]")
        self._object += np.histogram(values[mask == 1], bins=self._edges)[0]
        self._rest += np.histogram(values[mask == 0], bins=self._edges)[0]

    def curve(self) -> tuple[Floats, Floats]:
        """Precision and recall, from the highest threshold to the lowest; NaN without pixels."""
        true, false = self._object[::-1].cumsum(), self._rest[::-1].cumsum()
        with np.errstate(invalid="ignore", divide="ignore"):
            return true / (true + false), true / self._object.sum()

    def result(self) -> float:
        """PxAP in percent: the sum of precision times gain in recall (Choe et al. 2020, 3.3).

        Raises:
            ValueError: If no pixel of any object was seen.
        """
        if self._object.sum() <= 0:
            raise ValueError("no pixel of an object was evaluated")
        precision, recall = self.curve()
        gains = precision[1:] * np.diff(recall)
        return float(gains[~np.isnan(precision[1:])].sum() * 100)
