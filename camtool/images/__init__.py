"""Reading any picture safely, and how it lies under the network's input."""

from __future__ import annotations

from camtool.images.geometry import FITS, Geometry, geometry_of, prepare
from camtool.images.read import MAX_PIXELS, ImageError, display_name, read_image
from camtool.images.write import encode

__all__ = [
    "FITS",
    "MAX_PIXELS",
    "Geometry",
    "ImageError",
    "display_name",
    "encode",
    "geometry_of",
    "prepare",
    "read_image",
]
