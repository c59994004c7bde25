"""The colour bar: which colour stands for how many logits."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from camtool.views import text
from camtool.views.overlay import Look, Scale, ramp

SIZE = 14
_LONGEST = 480
_BAR_HEIGHT = 14
_TICK = 4
_APART = 12.0
_BASE = _BAR_HEIGHT + _TICK + SIZE
# Colours are shown as they look on a medium grey picture.
_BACKDROP = np.float32(170)


def bar(look: Look, scale: Scale, width: int) -> Image.Image:
    """Draw a horizontal colour bar with numbers in logits.

    Args:
        look: The display that the bar explains.
        scale: Logits at both ends.
        width: Room in pixels, the unit included; a bar is not longer than is useful.

    Returns:
        RGB image, at most `width` wide.
    """
    width = min(width, _LONGEST)
    image = Image.new("RGB", (width, _BAR_HEIGHT + _TICK + round(1.4 * SIZE)), text.WHITE)
    length = max(2, width - math.ceil(text.width_of("logits", SIZE)) - 8)
    row = np.rint(colours(look, scale, length)).astype(np.uint8)
    image.paste(Image.fromarray(np.repeat(row[None], _BAR_HEIGHT, axis=0)), (0, 0))
    draw = ImageDraw.Draw(image)
    draw.text((width, _BAR_HEIGHT / 2), "logits", fill=text.GREY, font=text.font(SIZE), anchor="rm")
    for value, left, right in placed(scale, length):
        mark = min(length * _share(scale, value), length - 1)
        draw.line((mark, _BAR_HEIGHT, mark, _BAR_HEIGHT + _TICK - 1), fill=text.GREY)
        at = ((left + right) / 2, _BASE)
        draw.text(at, text.number(value), fill=text.INK, font=text.font(SIZE), anchor="ms")
    return image


def notes(look: Look) -> list[str]:
    """Say in words what the colours stand for, and what the scale was normalised by."""
    ends = {
        "image": "each map its own maximum",
        "shared": "one maximum for all maps",
        "none": f"fixed, ends at {text.number(look.full_scale)} logits",
    }
    signed = "colour: below zero against, above zero for the label"
    meaning = signed if look.signed else "colour: evidence for the label"
    return [meaning, f"scale: {ends[look.normalize]}"]


def ticks(low: float, high: float) -> list[float]:
    """Choose the numbers on a bar: both ends, zero, and multiples of 1, 2 or 5 between them.

    Args:
        low: Logits at the left end, 0 or negative.
        high: Logits at the right end, above `low`.

    Returns:
        Logits, the most important first.
    """
    raw = (high - low) / 5
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= raw * (1 - 1e-9))
    inner = [n * step for n in range(math.ceil(low / step), math.floor(high / step) + 1)]
    ends = [high, low] if low == 0 else [high, low, 0.0]
    return ends + [value for value in inner if low < value < high and value != 0]


def placed(scale: Scale, length: int) -> list[tuple[float, float, float]]:
    """Place numbers under a bar, leaving out those that would touch a more important one.

    Args:
        scale: Logits at both ends.
        length: Length of the bar in pixels.

    Returns:
        Logits, and the pixels where the room of the number begins and ends. A number has as much
        room as its negative, so that a symmetric scale is numbered symmetrically.
    """
    numbers: list[tuple[float, float, float]] = []
    # Rounding alone must not tell a number from its negative.
    apart = _APART - 1e-6
    for value in ticks(scale.low, scale.high):
        wide = text.width_of(text.number(-abs(value)), SIZE)
        left = min(max(0.0, length * _share(scale, value) - wide / 2), length - wide)
        if all(left >= end + apart or left + wide <= start - apart for _, start, end in numbers):
            numbers.append((value, left, left + wide))
    return numbers


def _share(scale: Scale, value: float) -> float:
    return (value - scale.low) / (scale.high - scale.low)


def colours(look: Look, scale: Scale, length: int) -> NDArray[np.float32]:
    """The colours of a scale from end to end: float32 [length,3], sRGB from 0 to 255."""
    rgba = ramp(look, np.linspace(scale.low / scale.high, 1.0, length))
    return _BACKDROP + (rgba[:, :3] - _BACKDROP) * rgba[:, 3:]
