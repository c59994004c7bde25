"""From pictures to explanations: the one forward path."""

from __future__ import annotations

from camtool.explainer.explanation import Explanation
from camtool.explainer.loading import load
from camtool.explainer.model import CamModel

__all__ = ["CamModel", "Explanation", "load"]
