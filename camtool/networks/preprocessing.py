"""What a network expects of its input: the one fact that reading and models share."""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import SupportsIndex

INTERPOLATIONS = ("nearest", "bilinear", "bicubic", "lanczos")

MAX_SIZE = 8192
"""Largest side of an input, in pixels: it alone takes 0.8 GB there in float32, and the feature
maps of an ordinary network some hundred times as much. What is asked for beyond is a slip."""

_USUAL = 256 / 224
"""Short side before the cut, of the side that is cut, in nearly all published evaluations."""


@dataclass(frozen=True)
class Preprocessing:
    """What a network expects of its input.

    Attributes:
        size: Side of the square input that the network was evaluated on, in pixels (S).
        resize: Short side to which `crop` resizes before it cuts the centre, in pixels; 0, the
            default, stands for the usual 256/224 of `size`.
        mean: One mean a channel, of values in 0..1.
        std: One standard deviation a channel, of values in 0..1.
        interpolation: One of nearest, bilinear, bicubic, lanczos; always antialiased.

    Raises:
        ValueError: A value is of the wrong kind, or they don't fit together.
    """

    size: int = 224
    resize: int = 0
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)
    interpolation: str = "bilinear"

    def __post_init__(self) -> None:
        # What a caller gave as lists or numpy numbers is kept as what the annotations say.
        size = _whole("size", self.size, 1, MAX_SIZE)
        object.__setattr__(self, "size", size)
        resize = _whole("resize", self.resize, 0, 2 * MAX_SIZE) or round(size * _USUAL)
        object.__setattr__(self, "resize", resize)
        for name in ("mean", "std"):
            object.__setattr__(self, name, _numbers(name, getattr(self, name)))
        if len(self.mean) != len(self.std):
            raise ValueError(f"mean has {len(self.mean)} channels, std {len(self.std)}")
        if min(self.std) <= 0:
            raise ValueError(f"std must be above 0 in every channel, not {self.std}")
        if self.interpolation not in INTERPOLATIONS:
            known = ", ".join(INTERPOLATIONS)
            raise ValueError(f"interpolation must be one of {known}, not {self.interpolation!r}")

    def at(self, size: int) -> Preprocessing:
        """The same for another input size; the share that `crop` cuts away stays."""
        return replace(self, size=size, resize=round(self.resize * size / self.size))

    def for_channels(self, channels: int) -> Preprocessing:
        """The same for another number of channels.

        Which channel means what isn't known then, so each gets the average of the means and of
        the deviations that there are: 0.449 and 0.226 of ImageNet's.
        """
        if channels == len(self.mean):
            return self
        mean, std = (round(sum(part) / len(part), 6) for part in (self.mean, self.std))
        return replace(self, mean=(mean,) * channels, std=(std,) * channels)


def _whole(name: str, value: SupportsIndex, least: int, most: int) -> int:
    try:
        number = operator.index(value)
    except TypeError:
        raise ValueError(f"{name} must be a whole number of pixels, not {value!r}") from None
    if not least <= number <= most:
        raise ValueError(f"{name} must be {least} to {most} pixels, not {number}")
    return number


def _numbers(name: str, values: Sequence[float]) -> tuple[float, ...]:
    try:
        numbers = tuple(float(value) for value in values)
    except (TypeError, ValueError):
        raise ValueError(f"{name} must be one number a channel, not {values!r}") from None
    if not numbers or not all(math.isfinite(number) for number in numbers):
        raise ValueError(f"{name} must be finite numbers, one a channel, not {values!r}")
    return numbers
