"""From maps to regions: components, boxes, masks, and how evidence is spread."""
