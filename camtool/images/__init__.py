"""Reading any picture safely, writing one, and how it lies under the network's input."""

from __future__ import annotations

from camtool.images.errors import ImageError, display_name
from camtool.images.geometry import FITS, LARGE, Geometry, enough, geometry_of, prepare
from camtool.images.pixels import Pixels, as_picture
from camtool.images.read import (
    MAX_PIXELS,
    read_image,
    read_levels,
    read_pixels,
    read_reduced,
    read_size,
)
from camtool.images.write import encode

__all__ = [
    "FITS",
    "LARGE",
    "MAX_PIXELS",
    "Geometry",
    "ImageError",
    "Pixels",
    "as_picture",
    "display_name",
    "encode",
    "enough",
    "geometry_of",
    "prepare",
    "read_image",
    "read_levels",
    "read_pixels",
    "read_reduced",
    "read_size",
]
