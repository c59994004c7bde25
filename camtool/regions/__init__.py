"""From maps to regions: components, boxes, masks, and how evidence is spread."""

from __future__ import annotations

from camtool.regions.boxes import Component, components_from_map, components_of, mask_from_map

__all__ = ["Component", "components_from_map", "components_of", "mask_from_map"]
