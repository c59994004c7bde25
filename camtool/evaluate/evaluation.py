"""All metrics of a data set at once, beside what a centred box and the whole image would get."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from camtool.evaluate import metrics, reference
from camtool.evaluate.bootstrap import REPLICATES, Floats
from camtool.opencv import cv2
from camtool.regions.boxes import ZHOU_THRESHOLD, FloatMap

Mode = Literal["plain", "reference"]
Mask = npt.NDArray[np.uint8]

TITLES = {
    "gt_known": "GT-known localization",
    "top1_loc": "Top-1 localization",
    "top5_loc": "Top-5 localization",
    "max_box_acc": "MaxBoxAcc",
    "top1_loc_best": "Top-1 localization, best threshold",
    "top5_loc_best": "Top-5 localization, best threshold",
    "max_box_acc_v2": "MaxBoxAccV2",
    "max_box_acc_v2_30": "MaxBoxAccV2 at IoU 0.3",
    "max_box_acc_v2_50": "MaxBoxAccV2 at IoU 0.5",
    "max_box_acc_v2_70": "MaxBoxAccV2 at IoU 0.7",
    "pxap": "PxAP",
    "pointing": "Pointing game",
    "pointing_15": "Pointing game, 15 px",
    "energy": "Energy pointing game",
}
_REFERENCE = (reference.REFERENCE_SIDE, reference.REFERENCE_SIDE)
_PIXEL_THRESHOLDS = metrics.default_thresholds()
_REACHES = (0.0, metrics.POINTING_TOLERANCE)
CONTESTANTS = ("network", "centre_box", "whole_image")
HEADINGS = (
    "metric, %", "network (95 % interval)", "threshold", "centre box", "whole image", "published",
)  # fmt: skip


class Evaluation:
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
        if mode not in ("plain", "reference"):
            raise ValueError(f"unknown mode {mode!r}: use 'plain' or 'reference'")
        self.mode = mode
        self.threshold = threshold
        if thresholds is None:
            thresholds = reference.reference_thresholds()
        self.thresholds = thresholds
        self.images = 0
        self._network = _Scores(thresholds, classes, replicates)
        self._centre = _Scores(metrics.SIZES, classes, replicates)
        self._whole = _Scores(metrics.SIZES[-1:], classes, replicates)
        self._reference_pixels = reference.ReferencePxAP(thresholds)

    def update(
        self,
        heatmap: FloatMap,
        boxes: npt.ArrayLike,
        size: tuple[int, int],
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
            Overlap of the largest region's box with a true one at `threshold`; None without
            true boxes.

        Raises:
            ValueError: If there is neither a box nor a mask.
        """
        true = np.asarray(boxes, dtype=np.float64).reshape(-1, 4)
        if len(true) == 0 and mask is None:
            raise ValueError("an image needs a true box or a mask to be evaluated")
        found = self._add_boxes(heatmap, true, size, rank) if len(true) else None
        self._add_pixels(heatmap, true, size, label, mask)
        self.images += 1
        return found

    def result(self) -> dict[str, Any]:
        """Everything as plain numbers and lists, ready for JSON.

        `metrics` maps a name of `TITLES` to the contestants of `CONTESTANTS`, each with `value`,
        `low`, `high` (percent, 95 % interval), `threshold` (or null; for the centred box the
        side as a fraction of the image's) and `curve`; PxAP has `precision` and `recall`
        instead of a curve. The centred box always has its best size for a metric, as the
        network has its best threshold.

        Raises:
            ValueError: If no image was added.
        """
        if self.images == 0:
            raise ValueError("no image was evaluated")
        contestants = dict(
            zip(CONTESTANTS, (self._network, self._centre, self._whole), strict=True)
        )
        found = {name: scores.figures() for name, scores in contestants.items()}
        # A constant box has no threshold: beside the network at one stands the box at its best.
        if self._network.with_boxes:
            found["network"].update(self._network.at(self.threshold))
        if self.mode == "reference" and "pxap" in found["network"]:
            found["network"]["pxap"]["value"] = self._reference_pixels.result()
        return {
            "mode": self.mode,
            "images": self.images,
            "threshold": self.threshold,
            "thresholds": self.thresholds.tolist(),
            "metrics": {
                name: {who: figures[name] for who, figures in found.items()}
                for name in TITLES
                if name in found["network"]
            },
        }

    def _add_boxes(
        self, heatmap: FloatMap, true: Floats, size: tuple[int, int], rank: int | None
    ) -> float:
        if self.mode == "reference":
            scoremap = reference.reference_map(heatmap)
            largest, every = reference.reference_overlaps(scoremap, true, size, self.thresholds)
        else:
            boxes = metrics.to_map(true, size, heatmap.shape)
            largest, every = metrics.map_overlaps(heatmap, boxes, self.thresholds)
        self._network.add_overlaps(largest, every, rank)
        centred = metrics.centre_overlaps(true, size)
        self._centre.add_overlaps(centred, centred, rank)
        self._whole.add_overlaps(centred[-1:], centred[-1:], rank)
        return float(largest[int(np.abs(self.thresholds - self.threshold).argmin())])

    def _add_pixels(
        self,
        heatmap: FloatMap,
        true: Floats,
        size: tuple[int, int],
        label: int,
        mask: Mask | None,
    ) -> None:
        """What is measured pixel by pixel: by the boxes where there are any, else by the mask."""
        grid = pixels = np.asarray(heatmap, dtype=np.float32)
        if self.mode == "reference":
            grid = np.asarray(cv2.resize(grid, _REFERENCE, interpolation=cv2.INTER_CUBIC))
            pixels = reference.reference_map(heatmap).astype(np.float32)
        fitted = None if mask is None else _fit(mask, grid.shape)
        centre, whole = centre_map(grid.shape), np.ones(grid.shape, dtype=np.float32)
        inside = _inside(true, size, grid.shape, fitted)
        for scores, values in (
            (self._network, grid),
            (self._centre, centre),
            (self._whole, whole),
        ):
            scores.add_pointing(_pointing(values, true, size, fitted), label)
            scores.energy.update(metrics.energy_score(values, inside))
        if fitted is not None:
            self._network.add_mask(pixels, fitted)
            self._centre.add_mask(centre, fitted)
            self._whole.add_mask(whole, fitted)
            if self.mode == "reference":
                self._reference_pixels.update(reference.reference_map(heatmap), fitted)


class _Scores:
    """The metrics of one contestant."""

    def __init__(self, thresholds: Floats, classes: int, replicates: int) -> None:
        self.largest = metrics.BoxAccuracy(thresholds, replicates=replicates)
        self.every = metrics.BoxAccuracy(thresholds, replicates=replicates)
        self.pixels = metrics.PixelPrecision(_PIXEL_THRESHOLDS, replicates=replicates)
        self.pointing = metrics.ClassMean(classes, replicates=replicates)
        self.pointing_15 = metrics.ClassMean(classes, replicates=replicates)
        self.energy = metrics.Mean(replicates=replicates)
        self.with_boxes = self.with_masks = self.ranked = False

    def add_overlaps(self, largest: Floats, every: Floats, rank: int | None) -> None:
        self.largest.update(largest, rank)
        self.every.update(every, rank)
        self.with_boxes = True
        self.ranked |= rank is not None

    def add_pointing(self, scores: tuple[float, float], label: int) -> None:
        for mean, score in zip((self.pointing, self.pointing_15), scores, strict=True):
            mean.update(score, label)

    def add_mask(self, values: FloatMap, mask: Mask) -> None:
        self.pixels.update(values, mask)
        self.with_masks = True

    def figures(self) -> dict[str, dict[str, Any]]:
        found = dict(self._best()) if self.with_boxes else {}
        if self.with_masks:
            pixels = self.pixels.result()
            found["pxap"] = {
                **pixels.estimate._asdict(),
                "threshold": None,
                "precision": pixels.precision.tolist(),
                "recall": pixels.recall.tolist(),
            }
        found["pointing"] = _plain(self.pointing.result())
        found["pointing_15"] = _plain(self.pointing_15.result())
        found["energy"] = _plain(self.energy.result())
        return found

    def at(self, threshold: float) -> dict[str, dict[str, Any]]:
        found = {"gt_known": _plain(self.largest.gt_known(threshold))}
        if self.ranked:
            for guesses in metrics.GUESSES:
                figure = self.largest.top_loc_at(guesses, threshold)
                found[f"top{guesses}_loc"] = _plain(figure)
        return found

    def _best(self) -> Iterator[tuple[str, dict[str, Any]]]:
        best = _plain(self.largest.max_box_acc())
        yield "gt_known", best
        yield "max_box_acc", best
        yield "max_box_acc_v2", _plain(self.every.max_box_acc_v2())
        for iou in metrics.IOUS:
            yield f"max_box_acc_v2_{iou * 100:.0f}", _plain(self.every.max_box_acc(iou))
        if self.ranked:
            for guesses in metrics.GUESSES:
                figure = _plain(self.largest.top_loc(guesses))
                yield f"top{guesses}_loc", figure
                yield f"top{guesses}_loc_best", figure


def report_rows(result: dict[str, Any]) -> list[tuple[str, ...]]:
    """A table of `Evaluation.result()` as text, headings first.

    Args:
        result: May also hold `published`, a text for some of the metrics.

    Returns:
        For each metric its title, the network's figure with its 95 % interval, the threshold
        that gave it, and the figures of the centred box and of the whole image, in percent;
        with `published`, what stands there.
    """
    published = result.get("published", {})
    rows: list[tuple[str, ...]] = [HEADINGS]
    for name, figures in result["metrics"].items():
        network, centre, whole = (figures[who] for who in CONTESTANTS)
        threshold = network["threshold"]
        rows.append(
            (
                TITLES[name],
                f"{network['value']:.1f} ({network['low']:.1f} to {network['high']:.1f})",
                "" if threshold is None else f"{threshold:.3f}",
                f"{centre['value']:.1f}",
                f"{whole['value']:.1f}",
                published.get(name, ""),
            )
        )
    return rows if published else [row[:-1] for row in rows]


@lru_cache(maxsize=8)
def centre_map(shape: tuple[int, ...]) -> FloatMap:
    """A map [H, W] whose level sets are the boxes in the middle of it, greatest in the centre."""
    height, width = shape
    across, along = (1 - np.abs((2 * np.arange(n) + 1) / n - 1) for n in (width, height))
    return np.asarray(np.minimum.outer(along, across), dtype=np.float32)


def _pointing(
    values: FloatMap, true: Floats, size: tuple[int, int], mask: Mask | None
) -> tuple[float, float]:
    """Pointing game without and with tolerance, by the boxes where there are any."""
    if len(true) or mask is None:
        exact, near = (metrics.pointing_score(values, true, size, reach) for reach in _REACHES)
    else:
        exact, near = (metrics.mask_pointing_score(values, mask, size, reach) for reach in _REACHES)
    return exact, near


def _inside(
    true: Floats, size: tuple[int, int], shape: tuple[int, ...], mask: Mask | None
) -> Floats:
    """Share of each pixel of a map that belongs to the object."""
    if len(true) or mask is None:
        return metrics.coverage(metrics.to_map(true, size, shape), shape)
    return np.asarray(mask == 1, dtype=np.float64)


def _plain(figure: metrics.Figure) -> dict[str, Any]:
    return {
        **figure.estimate._asdict(),
        "threshold": figure.threshold,
        "curve": figure.curve.tolist(),
    }


def _fit(mask: Mask, shape: tuple[int, ...]) -> Mask:
    resized = cv2.resize(mask, (shape[1], shape[0]), interpolation=cv2.INTER_NEAREST)
    return np.asarray(resized, dtype=np.uint8)
