"""Pictures on their way to the network."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from camtool.images import Geometry, Pixels

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from camtool.targets import Choice


@dataclass(frozen=True)
class Prepared:
    """A picture that is ready for the network.

    Attributes:
        name: What it is called.
        image: uint8 [H,W,3], the original; smaller where a large one was read reduced.
        pixels: [h,w,C], resized to the network's input; None where that is left to the device.
        geometry: How the second lies on the first.
    """

    name: str
    image: NDArray[np.uint8]
    pixels: Pixels | None
    geometry: Geometry


def from_tensor(name: str, values: Tensor) -> Prepared:
    """An input as a picture of its own, for what is shown with its map.

    Args:
        name: What it is called.
        values: float [C,H,W], the input with its normalisation undone, 0..1 where it was a
            picture. Of other than three channels the first is shown, in grey.
    """
    shown = values if len(values) == 3 else values[:1].expand(3, -1, -1)
    pixels = shown.clamp(0, 1).mul(255).round().byte().permute(1, 2, 0).contiguous().numpy()
    height, width = pixels.shape[:2]
    extent = (0.0, 0.0, float(width), float(height))
    return Prepared(
        name, pixels, pixels, Geometry("whole", (width, height), extent, pixels.shape[:2])
    )


def alike(pixels: Sequence[Pixels]) -> list[Pixels]:
    """Pixels of one kind: where some are levels and others are not, levels as parts of 255."""
    if len({one.dtype for one in pixels}) <= 1:
        return [*pixels]
    parts: list[Any] = [one / np.float32(255) if one.dtype == np.uint8 else one for one in pixels]
    return parts


def same_shape(
    prepared: Sequence[Prepared], choices: Sequence[Sequence[Choice]], batch_size: int
) -> Iterator[list[int]]:
    """Numbers of pictures whose inputs have one shape, at most `batch_size` at a time.

    Those that share a batch are asked for equally many classes.
    """
    groups: dict[tuple[tuple[int, int], int], list[int]] = defaultdict(list)
    for number, (item, wanted) in enumerate(zip(prepared, choices, strict=True)):
        groups[item.geometry.input, len(wanted)].append(number)
    for numbers in groups.values():
        for start in range(0, len(numbers), batch_size):
            yield numbers[start : start + batch_size]
