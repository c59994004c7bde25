"""Watching a forward pass, finding what its logits come from, and proving it by numbers."""

from __future__ import annotations

from camtool.heads.head import TOLERANCE, Head, evaluating, features_of, find_head, probe_input

__all__ = ["TOLERANCE", "Head", "evaluating", "features_of", "find_head", "probe_input"]
