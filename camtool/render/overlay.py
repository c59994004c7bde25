"""Class activation maps painted on the picture, on whatever device the maps are."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .colormaps import DIVERGING, POSITIVE_DEFAULT, SIGNED_DEFAULT, table

# The end of the scale, in logits, of a map that holds no evidence: rounding noise stays invisible.
NO_EVIDENCE = 1e-6

_STEPS = 512
_PIXELS_AT_ONCE = 1 << 18
# The share of the scale at which the opacity has reached its maximum.
_OPAQUE_FROM = 0.5
_UNSEEN_SATURATION = 0.25
_UNSEEN_BRIGHTNESS = 0.45
# Luma of ITU-R BT.601, section 2.5.1.
_LUMA = (0.299, 0.587, 0.114)


@dataclass(frozen=True)
class Look:
    """How maps are displayed.

    Attributes:
        signed: Show evidence against the class too, on a diverging scale.
        colormap: One of `colormaps.COLORMAPS`; None takes the default of the look.
        opacity: Largest opacity of the colours, 0 to 1.
        normalize: Where the scale ends: at each map's own maximum ("image"), at the maximum of all
            maps of the picture ("shared"), or at `full_scale` ("none").
        full_scale: End of the scale in logits when `normalize` is "none".

    Raises:
        ValueError: A field is out of its range.
    """

    signed: bool = False
    colormap: str | None = None
    opacity: float = 0.6
    normalize: Literal["image", "shared", "none"] = "image"
    full_scale: float = 30.0

    def __post_init__(self) -> None:
        if not 0.0 <= self.opacity <= 1.0:
            raise ValueError(f"opacity must lie between 0 and 1, not {self.opacity}")
        if self.normalize not in ("image", "shared", "none"):
            raise ValueError(f"normalize must be image, shared or none, not {self.normalize!r}")
        if not 0.0 < self.full_scale < float("inf"):
            raise ValueError(f"full_scale must be positive and finite, not {self.full_scale}")
        table(self.table_name)

    @property
    def table_name(self) -> str:
        """Name of the colour table in use."""
        return self.colormap or (SIGNED_DEFAULT if self.signed else POSITIVE_DEFAULT)


@dataclass(frozen=True)
class Scale:
    """Logits at both ends of a colour bar: `low` is 0 for the positive look, -`high` if signed."""

    low: float
    high: float

    @property
    def empty(self) -> bool:
        """Whether the scale belongs to a map without evidence."""
        return self.high <= NO_EVIDENCE


def scale_of(heats: Tensor, look: Look) -> Tensor:
    """Return the upper end of each map's scale; the lower one is 0, or its negative if signed.

    Args:
        heats: float32 [K, H, W], logits. Values that are not finite are ignored.
        look: The display; "none" takes `look.full_scale` for every map.

    Returns:
        float32 [K], logits, positive, on the device of `heats`.
    """
    if look.normalize == "none":
        return heats.new_full((len(heats),), look.full_scale, dtype=torch.float32)
    peaks = heats.new_zeros(len(heats), dtype=torch.float32)
    for peak, heat in zip(peaks, heats, strict=True):
        lowest, highest = heat.nan_to_num(nan=0.0, posinf=0.0, neginf=0.0).float().aminmax()
        peak.copy_(torch.maximum(highest, -lowest) if look.signed else highest)
    if look.normalize == "shared" and len(peaks):
        peaks = peaks.max().expand_as(peaks)
    return peaks.clamp_min(NO_EVIDENCE)


def paint(image: Tensor, heats: Tensor, high: Tensor, look: Look) -> Tensor:
    """Paint maps on their picture.

    The opacity rises from 0 where there is no evidence to `look.opacity`, so the picture stays
    visible; only with "jet" it is the same everywhere, as papers do it. What the network did not
    see is dimmed and drained of colour.

    Args:
        image: uint8 [H, W, 3], sRGB.
        heats: float32 [K, H, W], logits, NaN where the network saw nothing.
        high: float32 [K], logits at the upper end of each map's scale, as from `scale_of`.
        look: The display.

    Returns:
        uint8 [K, H, W, 3], on the device of `heats`.

    Raises:
        ValueError: Shapes or the type of the picture do not fit.
    """
    if image.dtype != torch.uint8 or image.shape != (*heats.shape[1:], 3):
        found = f"{image.dtype} {list(image.shape)}"
        raise ValueError(f"uint8 picture [H, W, 3] for maps {list(heats.shape)}, not {found}")
    image = image.to(heats.device)
    colours = torch.tensor(_premultiplied(look), device=heats.device)
    # With a signed look the first entry is -high, with a positive one it is 0.
    first, step = (_STEPS / 2, _STEPS / 2) if look.signed else (0.0, float(_STEPS))
    factors = (step / high.float().clamp_min(NO_EVIDENCE)).tolist()
    partly_seen = heats.amax((1, 2)).isnan().tolist()
    painted = torch.empty((*heats.shape, 3), dtype=torch.uint8, device=heats.device)
    for k, heat in enumerate(heats):
        for rows in _strips(*heat.shape):
            steps = heat[rows].float().mul(factors[k]).add_(first)
            painted[k, rows] = _blend(image[rows], steps, colours)
            if partly_seen[k]:
                unseen = heat[rows].isnan()
                painted[k, rows][unseen] = _dim(image[rows][unseen])
    return painted


def ramp(look: Look, positions: NDArray[np.float64]) -> NDArray[np.float32]:
    """Return the colours and opacities of a look.

    Args:
        look: The display.
        positions: [N], evidence as a share of the scale's upper end: 0 to 1, or -1 to 1 if signed.

    Returns:
        float32 [N, 4]: sRGB from 0 to 255, and opacity from 0 to `look.opacity`.
    """
    centred = look.signed or look.table_name in DIVERGING
    entries = 127.5 + 127.5 * positions if centred else 255.0 * positions
    colours = table(look.table_name)
    channels = [np.interp(entries, np.arange(256), colours[:, c]) for c in range(3)]
    return np.stack([*channels, look.opacity * _rise(look, positions)], -1).astype(np.float32)


def _rise(look: Look, positions: NDArray[np.float64]) -> NDArray[np.float64]:
    if look.table_name == "jet":
        return np.ones_like(positions)
    x = np.minimum(np.abs(positions) / _OPAQUE_FROM, 1.0)
    return x * x * (3.0 - 2.0 * x)


@lru_cache(maxsize=16)
def _premultiplied(look: Look) -> NDArray[np.float32]:
    """Return [steps + 1, 4]: colour times opacity plus one half, and what is left of the picture.

    The half turns the truncation to integers that follows into rounding.
    """
    rgba = ramp(look, np.linspace(-1.0 if look.signed else 0.0, 1.0, _STEPS + 1))
    colours, opacity = rgba[:, :3], rgba[:, 3:]
    return np.concatenate([colours * opacity + np.float32(0.5), 1.0 - opacity], axis=1)


def _blend(picture: Tensor, steps: Tensor, colours: Tensor) -> Tensor:
    # The second clamp is for NaN, which becomes a different integer on each kind of device.
    entries = steps.add_(0.5).clamp_(0, _STEPS).to(torch.int32).clamp_(0, _STEPS)
    mixed = colours.index_select(0, entries.flatten()).view(*steps.shape, 4)
    return torch.addcmul(mixed[..., :3], picture.float(), mixed[..., 3:]).to(torch.uint8)


def _dim(picture: Tensor) -> Tensor:
    colour = picture.float()
    grey = colour @ colour.new_tensor(_LUMA)
    drained = torch.lerp(grey[..., None].expand_as(colour), colour, _UNSEEN_SATURATION)
    return drained.mul_(_UNSEEN_BRIGHTNESS).add_(0.5).to(torch.uint8)


def _strips(height: int, width: int) -> list[slice]:
    """Cut the rows so that the working copies stay small beside a large picture."""
    rows = max(1, _PIXELS_AT_ONCE // max(1, width))
    return [slice(top, top + rows) for top in range(0, height, rows)]
