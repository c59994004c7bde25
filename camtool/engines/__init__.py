"""Many pictures through the one forward path, whoever does the work."""

from __future__ import annotations

from camtool.engines.threads import Failed

__all__ = ["Failed"]
