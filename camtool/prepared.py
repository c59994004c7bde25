"""Pictures on their way to the network."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from camtool.choices import Fit
from camtool.device import onto
from camtool.images import (
    Geometry,
    Pixels,
    as_picture,
    display_name,
    enough,
    geometry_of,
    prepare,
    read_image,
    read_pixels,
    read_reduced,
)
from camtool.images.resize import resizable, resized

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from camtool.images.geometry import Size
    from camtool.images.read import ImageSource
    from camtool.networks import Preprocessing
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


@dataclass(frozen=True)
class Preparation:
    """How pictures become the inputs of one network.

    Attributes:
        spec: What the network expects.
        fit: How pictures meet it.
        stride: Input pixels to one cell of its last feature map.
        device: Where its inputs are wanted.
    """

    spec: Preprocessing
    fit: Fit
    stride: int
    device: torch.device

    def read(self, source: ImageSource, max_pixels: int, reduced: bool) -> Prepared:
        """Read a picture and resize it; see `CamModel.prepare`.

        Raises:
            ImageError: The picture can't be read.
        """
        name, channels = display_name(source), len(self.spec.mean)
        if channels != 3:
            values = read_pixels(source, channels, max_pixels=max_pixels)
            return Prepared(name, as_picture(values), *self._resized(values))
        if reduced:
            image, size = read_reduced(source, self._enough, max_pixels=max_pixels)
        else:
            image = read_image(source, max_pixels=max_pixels)
            size = image.shape[1], image.shape[0]
        geometry = geometry_of(size, self.spec, self.fit, self.stride)
        if self.device.type == "cuda" and resizable(image, geometry, self.spec):
            return Prepared(name, image, None, geometry)
        return Prepared(name, image, *self._resized(image, size))

    def _resized(self, image: Any, size: Size | None = None) -> tuple[Any, Geometry]:
        return prepare(image, self.spec, self.fit, self.stride, size)

    def _enough(self, size: Size) -> Size:
        return enough(size, self.spec, self.fit, self.stride)

    def pixels_of(self, item: Prepared) -> Pixels:
        """A picture's pixels [h,w,C] as the network sees them, resized here if not yet."""
        return self._resized(item.image)[0] if item.pixels is None else item.pixels

    def inputs(self, batch: Sequence[Prepared]) -> Tensor:
        """The normalised input [N,C,h,w] of pictures of one shape, float32, on the device."""
        pixels = self._stacked(batch).permute(0, 3, 1, 2)
        # Levels of 8 bits lie in 0..1 for the mean's sake; other numbers are taken as they are.
        values = pixels.float().div(255) if pixels.dtype == torch.uint8 else pixels
        return values.sub(self._mean).div(self._std)

    def undone(self, inputs: Tensor) -> Tensor:
        """Inputs [N,C,h,w] with their normalisation undone, float32."""
        return inputs.float() * self._std + self._mean

    @cached_property
    def _mean(self) -> Tensor:
        return torch.tensor(self.spec.mean, device=self.device).view(-1, 1, 1)

    @cached_property
    def _std(self) -> Tensor:
        return torch.tensor(self.spec.std, device=self.device).view(-1, 1, 1)

    def _stacked(self, batch: Sequence[Prepared]) -> Tensor:
        """Pixels [N,h,w,C] of pictures of one shape, on the device."""
        pixels = alike([item.pixels for item in batch if item.pixels is not None])
        if len(pixels) < len(batch):
            return torch.stack([self._on_device(item) for item in batch])
        if self.device.type != "cuda":
            return torch.from_numpy(np.stack(pixels)).to(self.device)
        kind = torch.uint8 if pixels[0].dtype == np.uint8 else torch.float32
        # From pinned memory the copy runs by itself, while this thread goes on.
        staged = torch.empty((len(pixels), *pixels[0].shape), dtype=kind, pin_memory=True)
        np.stack(pixels, out=staged.numpy())
        return staged.to(self.device, non_blocking=True)

    def _on_device(self, item: Prepared) -> Tensor:
        """Pixels [h,w,3] of one picture, resized where the network is if they are not yet."""
        given = np.require(item.image if item.pixels is None else item.pixels, None, "W")
        moved = onto(torch.from_numpy(given), self.device)
        if item.pixels is not None:
            return moved
        return resized(moved, item.geometry, self.spec)


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
