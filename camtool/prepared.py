"""Pictures on their way to the network."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from camtool.images import Geometry

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Prepared:
    """A picture that is ready for the network.

    Attributes:
        name: What it is called.
        image: uint8 [H,W,3], the original.
        pixels: uint8 [h,w,3], resized to the network's input.
        geometry: How the second lies on the first.
    """

    name: str
    image: NDArray[np.uint8]
    pixels: NDArray[np.uint8]
    geometry: Geometry


def same_shape(prepared: Sequence[Prepared], batch_size: int) -> Iterator[list[int]]:
    """Numbers of pictures whose inputs have one shape, at most `batch_size` at a time."""
    shapes: dict[tuple[int, int], list[int]] = defaultdict(list)
    for number, item in enumerate(prepared):
        shapes[item.geometry.input].append(number)
    for numbers in shapes.values():
        for start in range(0, len(numbers), batch_size):
            yield numbers[start : start + batch_size]
