"""All metrics of a data set at once, beside what a centred box and the whole image would get."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache
from typing import get_args

import numpy as np
import numpy.typing as npt

from camtool.evaluate import Mode, metrics, reference
from camtool.evaluate.bootstrap import REPLICATES
from camtool.evaluate.figures import TITLES, Figure, Floats, Localization, Metric
from camtool.opencv import cv2
from camtool.regions.boxes import ZHOU_THRESHOLD, FloatMap

Mask = npt.NDArray[np.uint8]
Size = tuple[int, int]

_REFERENCE = (reference.REFERENCE_SIDE, reference.REFERENCE_SIDE)
_PIXEL_THRESHOLDS = metrics.default_thresholds()
_TOLERANCES = {"pointing": 0.0, "pointing_15": metrics.POINTING_TOLERANCE}


class Evaluator:
    """Streaming evaluation of a network's maps for the true classes.

    Args:
        classes: Number of classes, for the means over classes.
        mode: "plain" without roundings, or "reference": Choe et al. 2020 to the digit. The
            baselines are measured plainly in both.
        threshold: Fraction of the maximum at which GT-known, top-1 and top-5 are reported.
        thresholds: [T], ascending, what is swept; by default steps of 0.001.
        replicates: Number of bootstrap replicates.
    """

    def __init__(
        self,
        classes: int,
        *,
        mode: Mode = "plain",
        threshold: float = ZHOU_THRESHOLD,
        thresholds: Floats | None = None,
        replicates: int = REPLICATES,
    ) -> None:
        if mode not in get_args(Mode):
            raise ValueError(f"unknown mode {mode!r}: use {' or '.join(get_args(Mode))}")
        self.mode = mode
        self.threshold = threshold
        if thresholds is None:
            thresholds = reference.reference_thresholds()
        self.thresholds = thresholds
        self.images = 0
        self._network = _Contestant(thresholds, classes, replicates)
        self._centre = _Contestant(metrics.SIZES, classes, replicates)
        self._whole = _Contestant(metrics.SIZES[-1:], classes, replicates)
        self._reference_pixels = reference.ReferencePxAP(thresholds)

    def update(
        self,
        heatmap: FloatMap,
        boxes: npt.ArrayLike,
        size: Size,
        *,
        label: int,
        rank: int | None = None,
        mask: Mask | None = None,
    ) -> float | None:
        """Add an image.

        Args:
            heatmap: [H, W], float32, logits of the true class over the whole image. Plain mode
                measures on this grid as it is; reference mode resizes it itself and wants the
                map at feature resolution.
            boxes: [M, 4], true boxes in pixels of the image; may be empty if there is a mask.
            size: (width, height) of the image.
            label: Index of the true class.
            rank: Place of the true label among the network's guesses, 0 the first.
            mask: [h, w], uint8, 1 in the object, 0 outside, 255 ignored; any size, resized to
                the grid that is measured on.

        Returns:
            IoU of the largest region's box with a true one at `threshold`; None without true
            boxes.

        Raises:
            ValueError: If there is neither a box nor a mask.
        """
        true = np.asarray(boxes, dtype=np.float64).reshape(-1, 4)
        if len(true) == 0 and mask is None:
            raise ValueError("an image needs a true box or a mask to be evaluated")
        iou = self._add_boxes(heatmap, true, size, rank) if len(true) else None
        self._add_pixels(heatmap, _with_extent(true), size, label, mask)
        self.images += 1
        return iou

    def result(self) -> Localization:
        """All figures so far.

        The network has GT-known, top-1 and top-5 localization at `threshold`. A constant box has
        no threshold: beside the network's figure stands the box at its best size.

        Raises:
            ValueError: If no image was added.
        """
        if self.images == 0:
            raise ValueError("no image was evaluated")
        network, *others = (
            dict(each.figures()) for each in (self._network, self._centre, self._whole)
        )
        network |= self._network.at(self.threshold)
        if self.mode == "reference" and "pxap" in network:
            network["pxap"] = replace(network["pxap"], value=self._reference_pixels.result())
        found = {
            name: Metric(network[name], *(figures[name] for figures in others))
            for name in TITLES
            if name in network
        }
        return Localization(self.mode, self.images, self.threshold, self.thresholds, found)

    def _add_boxes(self, heatmap: FloatMap, true: Floats, size: Size, rank: int | None) -> float:
        if self.mode == "reference":
            scoremap = reference.reference_map(heatmap)
            largest, every = reference.reference_ious(scoremap, true, size, self.thresholds)
        else:
            boxes = metrics.to_map(_with_extent(true), size, heatmap.shape)
            largest, every = metrics.map_ious(heatmap, boxes, self.thresholds)
        self._network.add_ious(largest, every, rank)
        centred = metrics.centre_ious(_with_extent(true), size)
        self._centre.add_ious(centred, centred, rank)
        self._whole.add_ious(centred[-1:], centred[-1:], rank)
        return float(largest[int(np.abs(self.thresholds - self.threshold).argmin())])

    def _add_pixels(
        self, heatmap: FloatMap, true: Floats, size: Size, label: int, mask: Mask | None
    ) -> None:
        """What is measured pixel by pixel: by the boxes where there are any, else by the mask."""
        grid = pixels = np.asarray(heatmap, dtype=np.float32)
        if self.mode == "reference":
            grid = np.asarray(cv2.resize(grid, _REFERENCE, interpolation=cv2.INTER_CUBIC))
            pixels = reference.reference_map(heatmap).astype(np.float32)
        fitted = None if mask is None else _fit(mask, grid.shape)
        centre, whole = centre_map(grid.shape), np.ones(grid.shape, dtype=np.float32)
        inside = _inside(true, size, grid.shape, fitted)
        for contestant, values, scored in (
            (self._network, grid, pixels),
            (self._centre, centre, centre),
            (self._whole, whole, whole),
        ):
            contestant.add_pointing(values, true, size, label, fitted)
            contestant.energy.update(metrics.energy_score(values, inside))
            if fitted is not None:
                contestant.pixels.update(scored, fitted)
        if self.mode == "reference" and fitted is not None:
            self._reference_pixels.update(reference.reference_map(heatmap), fitted)


class _Contestant:
    """The metrics of the network, or of one of the baselines."""

    def __init__(self, thresholds: Floats, classes: int, replicates: int) -> None:
        self.largest = metrics.BoxAccuracy(thresholds, replicates=replicates)
        self.every = metrics.BoxAccuracy(thresholds, replicates=replicates)
        self.pixels = metrics.PixelPrecision(_PIXEL_THRESHOLDS, replicates=replicates)
        self.pointing = {
            name: metrics.ClassMean(classes, replicates=replicates) for name in _TOLERANCES
        }
        self.energy = metrics.ClassMean(1, replicates=replicates)

    def add_ious(self, largest: Floats, every: Floats, rank: int | None) -> None:
        self.largest.update(largest, rank)
        self.every.update(every, rank)

    def add_pointing(
        self, values: FloatMap, true: Floats, size: Size, label: int, mask: Mask | None
    ) -> None:
        for name, tolerance in _TOLERANCES.items():
            if len(true) or mask is None:
                score = metrics.pointing_score(values, true, size, tolerance)
            else:
                score = metrics.mask_pointing_score(values, mask, size, tolerance)
            self.pointing[name].update(score, label)

    def figures(self) -> Iterator[tuple[str, Figure]]:
        """All figures by name, each at its best threshold."""
        if self.largest.images:
            yield "gt_known", (best := self.largest.max_box_acc())
            yield "max_box_acc", best
            yield "max_box_acc_v2", self.every.max_box_acc_v2()
            for iou in metrics.IOUS:
                yield f"max_box_acc_v2_{iou * 100:.0f}", self.every.max_box_acc(iou)
        for guesses in metrics.GUESSES if self.largest.ranked else ():
            yield f"top{guesses}_loc", (best := self.largest.top_loc(guesses))
            yield f"top{guesses}_loc_best", best
        if self.pixels.object_pixels:
            yield "pxap", self.pixels.result()
        for name, mean in self.pointing.items():
            yield name, mean.result()
        yield "energy", self.energy.result()

    def at(self, threshold: float) -> dict[str, Figure]:
        """The figures that are also reported at one threshold."""
        if not self.largest.images:
            return {}
        found = {"gt_known": self.largest.gt_known(threshold)}
        for guesses in metrics.GUESSES if self.largest.ranked else ():
            found[f"top{guesses}_loc"] = self.largest.top_loc(guesses, threshold)
        return found


@lru_cache(maxsize=8)
def centre_map(shape: tuple[int, ...]) -> FloatMap:
    """A map [H, W] whose level sets are the boxes in the middle of it, greatest in the centre."""
    height, width = shape
    across, along = (1 - np.abs((2 * np.arange(n) + 1) / n - 1) for n in (width, height))
    return np.asarray(np.minimum.outer(along, across), dtype=np.float32)


def _with_extent(boxes: Floats) -> Floats:
    """Boxes [M, 4] as plain metrics take them: a side of no length is the one pixel it names.

    Only data whose boxes count both ends has such sides; the reference takes them as they are.
    """
    ends = boxes[:, 2:] + (boxes[:, 2:] == boxes[:, :2])
    return np.concatenate([boxes[:, :2], ends], axis=1)


def _inside(true: Floats, size: Size, shape: tuple[int, ...], mask: Mask | None) -> Floats:
    """Share of each pixel of a map that belongs to the object."""
    if len(true) or mask is None:
        return metrics.coverage(metrics.to_map(true, size, shape), shape)
    return np.asarray(mask == 1, dtype=np.float64)


def _fit(mask: Mask, shape: tuple[int, ...]) -> Mask:
    resized = cv2.resize(mask, (shape[1], shape[0]), interpolation=cv2.INTER_NEAREST)
    return np.asarray(resized, dtype=np.uint8)
