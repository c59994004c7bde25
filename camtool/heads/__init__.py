"""Watching a forward pass, finding what its logits come from, and proving it by numbers."""

from __future__ import annotations

from camtool.heads.find import KINDS, evaluating, features_of, find_head, probe_input, run
from camtool.heads.head import TOLERANCE, Forward, Head, Seen, facts_of

__all__ = [
    "KINDS",
    "TOLERANCE",
    "Forward",
    "Head",
    "Seen",
    "evaluating",
    "facts_of",
    "features_of",
    "find_head",
    "probe_input",
    "run",
]
