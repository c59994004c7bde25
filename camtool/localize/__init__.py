"""Boxes and masks from class activation maps, and how well they locate objects."""
