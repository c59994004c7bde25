"""Colour tables: 256 sRGB colours for a scalar, from low to high."""

from __future__ import annotations

from functools import cache
from typing import get_args

import numpy as np
from numpy.typing import NDArray

from camtool.choices import Colormap

POSITIVE_DEFAULT: Colormap = "inferno"
SIGNED_DEFAULT: Colormap = "blue-red"

DIVERGING = frozenset({SIGNED_DEFAULT})
COLORMAPS: tuple[str, ...] = get_args(Colormap)

# Both arms share lightness and chroma, so that only the hue tells the sign; blue and red lie
# on opposite sides of the axis that every common colour-vision deficiency keeps.
_CENTRE_LIGHTNESS = 0.90
_END_LIGHTNESS = 0.595
_END_CHROMA = 0.20
# Below 1, so that weak evidence has a hue and not only a veil.
_CHROMA_EXPONENT = 0.65
_LOW_HUE_DEGREES = 262.0
_HIGH_HUE_DEGREES = 33.0

# OKLab to cube roots of LMS, and LMS to linear sRGB: Ottosson, "A perceptual color space for
# image processing" (2020), section "Converting from linear sRGB to Oklab".
_LAB_TO_ROOTS = np.array(
    [
        [1.0, 0.3963377774, 0.2158037573],
        [1.0, -0.1055613458, -0.0638541728],
        [1.0, -0.0894841775, -1.2914855480],
    ]
)
_LMS_TO_RGB = np.array(
    [
        [4.0767416621, -3.3077115913, 0.2309699292],
        [-1.2684380046, 2.6097574011, -0.3413193965],
        [-0.0041960863, -0.7034186147, 1.7076147010],
    ]
)


@cache
def table(name: str) -> NDArray[np.uint8]:
    """Return a colour table.

    Args:
        name: One of `COLORMAPS`.

    Returns:
        uint8 [256, 3], sRGB, read-only, from the low to the high end.

    Raises:
        ValueError: The name is not one of `COLORMAPS`.
    """
    if name not in COLORMAPS:
        raise ValueError(f"unknown colour map {name!r}: choose from {', '.join(COLORMAPS)}")
    colours = _diverging() if name in DIVERGING else _opencv(name)
    colours.setflags(write=False)
    return colours


def _opencv(name: str) -> NDArray[np.uint8]:
    from camtool.opencv import cv2

    ramp = np.arange(256, dtype=np.uint8)[:, None]
    bgr = cv2.applyColorMap(ramp, getattr(cv2, f"COLORMAP_{name.upper()}"))
    return np.ascontiguousarray(bgr[:, 0, ::-1], dtype=np.uint8)


def _diverging() -> NDArray[np.uint8]:
    signed = np.linspace(-1.0, 1.0, 256)
    strength = np.abs(signed)
    hue = np.deg2rad(np.where(signed < 0, _LOW_HUE_DEGREES, _HIGH_HUE_DEGREES))
    lightness = _CENTRE_LIGHTNESS + (_END_LIGHTNESS - _CENTRE_LIGHTNESS) * strength
    chroma = _END_CHROMA * strength**_CHROMA_EXPONENT
    lab = np.stack([lightness, chroma * np.cos(hue), chroma * np.sin(hue)], axis=-1)
    return _oklab_to_srgb(lab)


def _oklab_to_srgb(lab: NDArray[np.float64]) -> NDArray[np.uint8]:
    linear = ((lab @ _LAB_TO_ROOTS.T) ** 3 @ _LMS_TO_RGB.T).clip(0.0, 1.0)
    # The transfer function of IEC 61966-2-1.
    encoded = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    colours: NDArray[np.uint8] = np.rint(255.0 * encoded).astype(np.uint8)
    return colours
