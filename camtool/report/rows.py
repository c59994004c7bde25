"""One row of the report, and how it becomes a record of the page."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from urllib.parse import quote

import numpy as np
import numpy.typing as npt

from camtool.report.aggregate import Floats, overlap
from camtool.report.schema import ClassMap, Picture, Region
from camtool.views.text import display_text

THUMBNAIL_SIDE = 320
"""Longest side, in pixels, at which thumbnails look sharp in the report's grid."""

MAP_SIDE = 24
"""Longest side of a map kept in the report; larger maps are averaged down to it."""


@dataclass(frozen=True)
class ReportRow:
    """One picture and one class. The rows of one picture follow each other.

    Files are named relative to the folder of the report, with ``/`` between folders, as they are
    called on disk; quoting for the browser is done here.

    Attributes:
        path: name of the picture as the user knows it; any text, undecodable bytes as surrogates.
        label: name of the class.
        index: number of the class.
        probability: softmax probability of the class, in [0, 1].
        logit: score of the class.
        peak: largest value of the map, in logits.
        share: part of the positive evidence that lies inside ``box``, in [0, 1]; NaN if unknown.
        entropy: entropy of the map, in the caller's unit; NaN if unknown.
        box: (x0, y0, x1, y1) in picture pixels, end-exclusive, or None.
        width: width of the picture in pixels.
        height: height of the picture in pixels.
        rank: 0 for the class that the class page counts the picture under.
        thumb: thumbnail file of the whole picture, without the map, or "".
        map: float32 [h, w], signed, in logits; NaN where the network saw nothing.
        region: (x0, y0, x1, y1) in picture pixels that the map covers; None for the whole picture.
        picture: file of the picture itself for the large view, or "".
        overlay: file of the written overlay, or "".
        target: what the list of pictures calls it, or "".
        residual: what map and bias leave of the logit; NaN if unknown.
        truth: number and label of the class that the picture is known to show, if it is known.
        predicted: number and label of the class with the greatest logit; None for this row's.
        versus: number and label of the class that this row's is contrasted with, if it is.
    """

    path: str
    label: str
    index: int
    probability: float
    logit: float
    peak: float
    share: float
    entropy: float
    box: tuple[float, float, float, float] | None
    width: int
    height: int
    rank: int
    thumb: str
    map: npt.NDArray[np.float32]
    region: Region | None = None
    picture: str = ""
    overlay: str = ""
    target: str = ""
    residual: float = math.nan
    truth: tuple[int, str] | None = None
    predicted: tuple[int, str] | None = None
    versus: tuple[int, str] | None = None


def file_url(path: str) -> str:
    """URL of a relative path; "" stays "". The leading "./" keeps "a:b" from being a scheme."""
    if path.startswith(("http://", "https://")):
        return quote(path, safe="/:%")
    return "./" + quote(os.fsencode(path)) if path else ""


def shrink(heatmap: npt.ArrayLike) -> Floats:
    """Map [h, w] as float64, averaged over equal areas to at most MAP_SIDE cells a side.

    NaN becomes 0: the network saw nothing there, so there is no evidence. Infinity becomes the
    largest float32.

    Raises:
        ValueError: the map is empty or has not two dimensions.
    """
    values = np.nan_to_num(np.asarray(heatmap, dtype=np.float32)).astype(np.float64)
    if values.ndim != 2 or not values.size:
        raise ValueError(f"a map has two dimensions and no empty one, not shape {values.shape}")
    scale = MAP_SIDE / max(values.shape)
    if scale >= 1.0:
        return values
    for axis, cells in enumerate(values.shape):
        side = max(1, round(cells * scale))
        averaging = overlap(cells, 0.0, 1.0, side) * (side / cells)
        values = averaging @ values if axis == 0 else values @ averaging.T
    return values


def pack_map(heatmap: npt.ArrayLike) -> npt.NDArray[np.int8]:
    """A shrunk map as int8 [h, w], within half a level; 127 is its largest magnitude."""
    values = shrink(heatmap)
    # Divided first: 127 over the magnitude of a subnormal map is beyond every number.
    levels: npt.NDArray[np.int8] = np.rint(127 * (values / (np.abs(values).max() or 1.0)))
    return levels.astype(np.int8)


def to_class_map(row: ReportRow, position: int, versus: int | None = None) -> ClassMap:
    """The part of a row that belongs to its class.

    Args:
        row: One class of one picture.
        position: Place of its class in the class list.
        versus: Place of the class that it is contrasted with.
    """
    levels = pack_map(row.map)
    return ClassMap(
        position=position,
        rank=row.rank,
        versus=versus,
        probability=row.probability,
        logit=row.logit,
        peak=row.peak,
        share=row.share,
        entropy=row.entropy,
        residual=row.residual,
        box=row.box,
        region=row.region or (0, 0, row.width, row.height),
        rows=levels.shape[0],
        columns=levels.shape[1],
        levels=levels,
    )


def to_picture(
    row: ReportRow, classes: list[ClassMap], truth: int | None, predicted: int
) -> Picture:
    """The part of a row that the rows of its picture share.

    Args:
        row: One of them.
        classes: What each of them says of its class.
        truth: Place in the class list of what the picture is known to show.
        predicted: Place of the class with the greatest logit.
    """
    return Picture(
        path=display_text(row.path),
        width=row.width,
        height=row.height,
        thumb=file_url(row.thumb),
        original=file_url(row.picture),
        overlay=file_url(row.overlay),
        target=display_text(row.target),
        truth=truth,
        predicted=predicted,
        classes=classes,
    )
