"""From feature maps to class activation maps: pure functions on tensors."""

from __future__ import annotations

from camtool.methods.cam import class_activation_map

__all__ = ["class_activation_map"]
