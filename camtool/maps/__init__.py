"""The mathematics of class activation maps: pure functions on tensors."""

from __future__ import annotations

from camtool.maps.cam import class_activation_map
from camtool.maps.resample import resample, upsample

__all__ = ["class_activation_map", "resample", "upsample"]
