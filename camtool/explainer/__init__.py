"""From pictures to explanations: the one forward path."""

from __future__ import annotations

from camtool.explainer.explanation import Explanation
from camtool.explainer.model import CamModel, load

__all__ = ["CamModel", "Explanation", "load"]
