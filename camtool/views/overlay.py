"""Class activation maps painted on the picture."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
from numpy.typing import NDArray

from camtool.choices import Colormap, Normalize
from camtool.images import LARGE, Geometry
from camtool.opencv import cv2
from camtool.views.colormaps import DIVERGING, POSITIVE_DEFAULT, SIGNED_DEFAULT, table

if TYPE_CHECKING:
    from camtool.explanation import Explanation

# The end of the scale, in logits, of a map that holds no evidence: rounding noise stays invisible.
NO_EVIDENCE = 1e-6

# Even, so that a signed scale has an entry for zero.
_STEPS = 1024
# Few enough for the working copies to stay in a core's own cache.
_PIXELS_AT_ONCE = 1 << 15
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
        smooth: Paint maps by bicubic rather than bilinear interpolation between their cells. All
            numbers, boxes and scales stay those of the bilinear map.

    Raises:
        ValueError: A field is out of its range.
    """

    signed: bool = False
    colormap: Colormap | None = None
    opacity: float = 0.6
    normalize: Normalize = "image"
    full_scale: float = 30.0
    smooth: bool = False

    def __post_init__(self) -> None:
        if not 0.0 <= self.opacity <= 1.0:
            raise ValueError(f"opacity must lie between 0 and 1, not {self.opacity}")
        if self.normalize not in get_args(Normalize):
            known = ", ".join(get_args(Normalize))
            raise ValueError(f"normalize must be one of {known}, not {self.normalize!r}")
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


def scale_of(heats: Iterable[NDArray[np.float32]], look: Look) -> NDArray[np.float32]:
    """Return the upper end of each map's scale; the lower one is 0, or its negative if signed.

    Args:
        heats: K of float32 [H, W], logits. Values that are not finite are ignored.
        look: The display; "none" takes `look.full_scale` for every map.

    Returns:
        float32 [K], logits, positive.
    """
    if look.normalize == "none":
        return np.array([look.full_scale for _ in heats], dtype=np.float32)
    peaks = np.array([_peak(heat, look.signed) for heat in heats], dtype=np.float32)
    if look.normalize == "shared" and len(peaks):
        peaks[:] = peaks.max()
    return np.maximum(peaks, np.float32(NO_EVIDENCE))


def scale_of_maps(maps: NDArray[np.float32], geometry: Geometry, look: Look) -> NDArray[np.float32]:
    """`scale_of` maps at feature resolution, one of them on the picture at a time.

    Args:
        maps: float32 [K, h, w], logits.
        geometry: Where they lie on the original picture.
        look: The display.

    Returns:
        float32 [K], logits, positive.
    """
    from camtool.images.resample import measured

    return scale_of((measured(heat, geometry) for heat in maps), look)


def _peak(heat: NDArray[np.float32], signed: bool) -> float:
    # Unlike min and max, these two pass over NaN.
    lowest, highest = float(np.fmin.reduce(heat, axis=None)), float(np.fmax.reduce(heat, axis=None))
    if not np.isfinite(lowest + highest):
        heat = np.nan_to_num(heat, nan=0.0, posinf=0.0, neginf=0.0)
        lowest, highest = float(heat.min()), float(heat.max())
    return max(highest, -lowest) if signed else highest


def paint(
    image: NDArray[np.uint8], heats: NDArray[np.float32], high: NDArray[np.float32], look: Look
) -> NDArray[np.uint8]:
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
        uint8 [K, H, W, 3].

    Raises:
        ValueError: Shapes or the type of the picture do not fit.
    """
    if image.dtype != np.uint8 or image.shape != (*heats.shape[1:], 3):
        found = f"{image.dtype} {list(image.shape)}"
        raise ValueError(f"uint8 picture [H, W, 3] for maps {list(heats.shape)}, not {found}")
    painted = np.empty((*heats.shape, 3), dtype=np.uint8)
    for heat, end, result in zip(heats, high, painted, strict=True):
        _paint(image, heat, float(end), look, result)
    return painted


def paint_map(
    image: NDArray[np.uint8],
    heat: NDArray[np.float32],
    geometry: Geometry,
    high: float,
    look: Look,
) -> NDArray[np.uint8]:
    """Paint one map at feature resolution on its picture; as `paint` does it, in little memory.

    Args:
        image: uint8 [H, W, 3], sRGB: all of the original picture, at any size.
        heat: float32 [h, w], logits.
        geometry: Where the map lies on the original picture.
        high: Logits at the upper end of the scale, as from `scale_of_maps`.
        look: The display.

    Returns:
        uint8 [H, W, 3].
    """
    from camtool.images.resample import strips

    painted = np.empty(image.shape, np.uint8)
    for rows, strip in strips(heat, geometry, image.shape[:2], look.smooth):
        _paint(image[rows], strip, high, look, painted[rows])
    return painted


def _paint(
    image: NDArray[np.uint8],
    heat: NDArray[np.float32],
    high: float,
    look: Look,
    painted: NDArray[np.uint8],
) -> None:
    for rows in _strips(*heat.shape):
        painted[rows] = _blend(image[rows], heat[rows], high, look)


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
def _tables(look: Look) -> tuple[NDArray[np.uint32], NDArray[np.uint32]]:
    """Colour times opacity, and what is left of the picture from 0 to 255, at every step.

    Each entry holds four bytes, so that one look-up moves a whole pixel; the fourth is unused.
    """
    rgba = ramp(look, np.linspace(-1.0 if look.signed else 0.0, 1.0, _STEPS + 1))
    opacity = rgba[:, 3:]
    colours, kept = rgba[:, :3] * opacity, np.repeat(255.0 * (1.0 - opacity), 3, axis=1)
    return _packed(colours), _packed(kept)


def _packed(colours: NDArray[Any]) -> NDArray[np.uint32]:
    padded = np.pad(np.rint(colours).astype(np.uint8), ((0, 0), (0, 1)))
    return np.ascontiguousarray(padded).view(np.uint32).ravel()


def _blend(
    picture: NDArray[np.uint8], heat: NDArray[np.float32], high: float, look: Look
) -> NDArray[np.uint8]:
    # With a signed look the first entry is -high, with a positive one it is 0.
    first, step = (_STEPS / 2, _STEPS / 2) if look.signed else (0.0, float(_STEPS))
    steps = heat * np.float32(step / max(high, NO_EVIDENCE))
    steps += np.float32(first + 0.5)
    unseen = np.isnan(steps) if np.isnan(steps.max()) else None
    if unseen is not None:
        cv2.patchNaNs(steps, 0.0)
    entries = np.clip(steps, 0, _STEPS, out=steps).astype(np.intp)
    colours, kept = (_unpacked(table, entries) for table in _tables(look))
    mixed = cv2.multiply(picture, kept, dst=kept, scale=1 / 255)
    mixed = cv2.add(mixed, colours, dst=mixed)
    if unseen is not None:
        mixed = cv2.copyTo(cv2.transform(picture, _dimming()), unseen.view(np.uint8), mixed)
    return np.asarray(mixed, dtype=np.uint8)


def _unpacked(table: NDArray[np.uint32], entries: NDArray[np.intp]) -> NDArray[np.uint8]:
    # Clipping, which changes nothing here, spares the check of every index.
    pixels = table.take(entries, mode="clip").view(np.uint8).reshape(*entries.shape, 4)
    return np.asarray(cv2.cvtColor(pixels, cv2.COLOR_RGBA2RGB), dtype=np.uint8)


@lru_cache(maxsize=1)
def _dimming() -> NDArray[np.float32]:
    """The matrix that drains a colour and darkens it."""
    grey = np.tile(np.array(_LUMA, dtype=np.float32), (3, 1))
    drained = grey + _UNSEEN_SATURATION * (np.eye(3, dtype=np.float32) - grey)
    return np.asarray(_UNSEEN_BRIGHTNESS * drained, dtype=np.float32)


def _strips(height: int, width: int) -> list[slice]:
    """Cut the rows so that the working copies stay small."""
    rows = max(1, _PIXELS_AT_ONCE // max(1, width))
    return [slice(top, top + rows) for top in range(0, height, rows)]


def overlays_of(
    explanation: Explanation, look: Look, classes: slice = slice(None)
) -> tuple[Iterator[NDArray[np.uint8]], NDArray[np.float32]]:
    """The picture of an explanation with each map on it.

    Returns:
        One after the other uint8 [H,W,3], K of them, each made when it is asked for; and float32
        [K], the upper end of each colour scale in logits.
    """
    image, geometry, maps = explanation.image, explanation.geometry, explanation.maps[classes]
    if look.smooth or geometry.size[0] * geometry.size[1] > LARGE:
        high = scale_of_maps(maps, geometry, look)
        ends = zip(maps, high.tolist(), strict=True)
        return (paint_map(image, heat, geometry, end, look) for heat, end in ends), high
    heats = explanation.heatmaps(classes)
    high = scale_of(heats, look)
    return (paint(image, heats[[k]], high[[k]], look)[0] for k in range(len(high))), high
