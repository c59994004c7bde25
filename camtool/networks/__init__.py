"""Finding a network, its weights and labels: one file a source."""

from __future__ import annotations

from camtool.networks.labels import resolve_target
from camtool.networks.load import Network, labels_for, load_network
from camtool.networks.preprocessing import Preprocessing

__all__ = ["Network", "Preprocessing", "labels_for", "load_network", "resolve_target"]
