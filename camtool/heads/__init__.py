"""Watching a forward pass, finding what its logits come from, and proving it by numbers."""

from __future__ import annotations

from camtool.heads.find import KINDS, evaluating, features_of, find_head, heads_at, probe_input
from camtool.heads.general import TailHead, forwards_of
from camtool.heads.head import TOLERANCE, Forward, Head, PooledHead, Seen, pooled_facts
from camtool.heads.path import integrate
from camtool.heads.watch import run

__all__ = [
    "KINDS",
    "TOLERANCE",
    "Forward",
    "Head",
    "PooledHead",
    "Seen",
    "TailHead",
    "evaluating",
    "features_of",
    "find_head",
    "forwards_of",
    "heads_at",
    "integrate",
    "pooled_facts",
    "probe_input",
    "run",
]
