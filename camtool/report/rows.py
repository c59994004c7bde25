"""One row of the report, and how it becomes compact JSON that is safe inside HTML."""

from __future__ import annotations

import base64
import json
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import numpy as np
import numpy.typing as npt

from camtool.report.aggregate import Region, overlap

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
        target: label that the list of pictures asked for, or "".
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


def display_text(text: str) -> str:
    r"""Text that shows every character: undecodable bytes as ``\xff``, a line break as ``\n``.

    Direction marks are shown too, so that no name can pose as another.

    Example:
        >>> display_text("a\nb\udcff")
        'a\\nb\\xff'
    """
    return "".join(c if c.isprintable() else _escape(c) for c in text)


def _escape(character: str) -> str:
    byte = ord(character) - 0xDC00
    # Python decodes an undecodable byte of a file name to 0xDC00 plus the byte (PEP 383).
    return f"\\x{byte:02x}" if 0x80 <= byte <= 0xFF else character.encode("unicode_escape").decode()


def file_url(path: str) -> str:
    """Relative URL of a file; "" stays "". The leading "./" keeps "a:b" from being a scheme."""
    return "./" + quote(os.fsencode(path)) if path else ""


def json_text(value: object) -> str:
    """ASCII JSON without ``<``, ``>`` and ``&``, so that it can't end a script element.

    Raises:
        ValueError: a number is NaN or infinite.
    """
    text = json.dumps(value, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def number(value: float) -> float | None:
    """``value`` in six significant digits, or None if it is not finite."""
    return float(f"{value:.6g}") if math.isfinite(value) else None


def shrink(heatmap: npt.ArrayLike) -> npt.NDArray[np.float32]:
    """Map [h, w] as float32, averaged over equal areas to at most MAP_SIDE cells a side.

    NaN becomes 0: the network saw nothing there, so there is no evidence.

    Raises:
        ValueError: the map is empty or has not two dimensions.
    """
    values = np.nan_to_num(np.asarray(heatmap, dtype=np.float64))
    if values.ndim != 2 or not values.size:
        raise ValueError(f"a map has two dimensions and no empty one, not shape {values.shape}")
    scale = MAP_SIDE / max(values.shape)
    if scale >= 1.0:
        return values.astype(np.float32)
    for axis, cells in enumerate(values.shape):
        side = max(1, round(cells * scale))
        averaging = overlap(cells, 0.0, 1.0, side) * (side / cells)
        values = averaging @ values if axis == 0 else values @ averaging.T
    return values.astype(np.float32)


def pack_map(heatmap: npt.ArrayLike) -> tuple[int, int, float, str]:
    """(h, w, scale, base64 of int8 [h, w]) of a map; a value is ``int8 / 127 * scale`` logits.

    The error is at most ``scale / 254``, with ``scale`` the largest magnitude of the map.
    """
    values = shrink(heatmap)
    scale = float(f"{np.abs(values).max():.6g}")
    levels = np.rint(values * np.float64(127.0 / scale)) if scale > 0 else np.zeros_like(values)
    packed = np.clip(levels, -127, 127).astype(np.int8).tobytes()
    return values.shape[0], values.shape[1], scale, base64.b64encode(packed).decode()


def unpack_map(packed: Sequence[Any]) -> npt.NDArray[np.float32]:
    """Inverse of `pack_map`: float32 [h, w] in logits."""
    height, width, scale, text = packed
    levels = np.frombuffer(base64.b64decode(text), dtype=np.int8).reshape(height, width)
    return levels * np.float32(scale / 127.0)


def encode_class(row: ReportRow, position: int) -> list[object]:
    """The part of a row that belongs to its class; ``position`` is its place in the class list."""
    return [
        position,
        row.rank,
        number(row.probability),
        number(row.logit),
        number(row.peak),
        number(row.share),
        number(row.entropy),
        [number(edge) for edge in row.box] if row.box else None,
        [number(edge) for edge in row.region or (0, 0, row.width, row.height)],
        list(pack_map(row.map)),
    ]


def encode_picture(row: ReportRow, classes: list[list[object]]) -> list[object]:
    """The part of a row that its picture's rows share, with the encoded ``classes`` at the end."""
    return [
        display_text(row.path),
        row.width,
        row.height,
        file_url(row.thumb),
        file_url(row.picture),
        file_url(row.overlay),
        display_text(row.target),
        classes,
    ]
