"""Masks in COCO's compressed run-length encoding.

Runs alternate between background and object, background first, in column-major order. Each
run length, from the fourth on as a difference to the one two before, is written in base 32,
least significant digit first: five bits a character with a continuation bit, sign-extended,
offset by 48 (the format of the COCO API's masks).
"""

from __future__ import annotations

from itertools import pairwise
from typing import TypedDict

import numpy as np
import numpy.typing as npt

_DIGIT = 0x1F
_SIGN = 0x10
_MORE = 0x20
_OFFSET = 48


class Rle(TypedDict):
    """A mask as COCO's JSON holds it: `size` is [height, width]."""

    size: list[int]
    counts: str


def rle_encode(mask: npt.NDArray[np.bool_]) -> Rle:
    """Encode a mask.

    Args:
        mask: [H, W], bool; true inside the object.

    Raises:
        ValueError: If the mask is not two-dimensional.
    """
    if mask.ndim != 2:
        raise ValueError(f"a mask has two dimensions, got shape {mask.shape}")
    flat = np.asarray(mask, dtype=bool).ravel(order="F")
    changes = np.flatnonzero(np.diff(flat, prepend=False))
    runs = [b - a for a, b in pairwise([0, *changes.tolist(), flat.size])]
    deltas = runs[:3] + [run - runs[i + 1] for i, run in enumerate(runs[3:])]
    height, width = mask.shape
    return {"size": [height, width], "counts": "".join(map(_write, deltas))}


def rle_decode(rle: Rle) -> npt.NDArray[np.bool_]:
    """The mask [H, W], bool, of an encoding.

    Raises:
        ValueError: If the runs do not fill the size exactly, or the text is not of this format.
    """
    runs: list[int] = []
    for delta in _read(rle["counts"]):
        runs.append(delta + runs[-2] if len(runs) > 2 else delta)
    height, width = rle["size"]
    if min(runs, default=0) < 0 or sum(runs) != height * width:
        raise ValueError(f"runs add up to {sum(runs)} pixels, not to {height} x {width}")
    values = np.arange(len(runs)) % 2 == 1
    flat: npt.NDArray[np.bool_] = np.repeat(values, runs)
    return flat.reshape((height, width), order="F")


def _write(value: int) -> str:
    text = ""
    while True:
        digit, value = value & _DIGIT, value >> 5
        if value == (-1 if digit & _SIGN else 0):
            return text + chr(digit + _OFFSET)
        text += chr((digit | _MORE) + _OFFSET)


def _read(text: str) -> list[int]:
    numbers: list[int] = []
    value, shift = 0, 0
    for character in text:
        code = ord(character) - _OFFSET
        if not 0 <= code < 64:
            raise ValueError(f"character {character!r} does not occur in run-length counts")
        value |= (code & _DIGIT) << shift
        shift += 5
        if not code & _MORE:
            numbers.append(value - (1 << shift) if code & _SIGN else value)
            value, shift = 0, 0
    if shift:
        raise ValueError("run-length counts end inside a number")
    return numbers
