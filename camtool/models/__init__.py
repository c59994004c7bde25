"""Finding a network, its weights and labels; splitting it into body and head; proving the head."""

from __future__ import annotations

from camtool.models.errors import HeadError, ModelError
from camtool.models.head import TOLERANCE, Head, evaluating, features_of, find_head, probe_input
from camtool.models.labels import TargetError, resolve_target
from camtool.models.load import Network, labels_for, load_network

__all__ = [
    "TOLERANCE",
    "Head",
    "HeadError",
    "ModelError",
    "Network",
    "TargetError",
    "evaluating",
    "features_of",
    "find_head",
    "labels_for",
    "load_network",
    "probe_input",
    "resolve_target",
]
