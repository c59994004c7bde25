"""From feature maps and head to class activation maps: one file a family, and a registry."""

from __future__ import annotations

from camtool.methods.cam import class_activation_map
from camtool.methods.method import AUTO, METHODS, Method, find_method

__all__ = ["AUTO", "METHODS", "Method", "class_activation_map", "find_method"]
