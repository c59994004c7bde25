"""Finding a network, its weights and labels: one file a source."""

from __future__ import annotations

from camtool.networks.labels import resolve_target
from camtool.networks.load import (
    SOURCES,
    before_download,
    labels_for,
    load_network,
)
from camtool.networks.preprocessing import Preprocessing
from camtool.networks.source import Network, Published, Source

__all__ = [
    "SOURCES",
    "Network",
    "Preprocessing",
    "Published",
    "Source",
    "before_download",
    "labels_for",
    "load_network",
    "resolve_target",
]
