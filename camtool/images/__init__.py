"""Reading any picture safely, writing one, and how it lies under the network's input."""

from __future__ import annotations

from camtool.images.errors import ImageError, display_name
from camtool.images.geometry import FITS, Fit, Geometry, geometry_of, prepare
from camtool.images.read import MAX_PIXELS, read_image
from camtool.images.write import encode

__all__ = [
    "FITS",
    "MAX_PIXELS",
    "Fit",
    "Geometry",
    "ImageError",
    "display_name",
    "encode",
    "geometry_of",
    "prepare",
    "read_image",
]
