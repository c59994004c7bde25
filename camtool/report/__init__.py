"""The report of a folder run: one HTML file that opens from disk, without a network.

Example:
    >>> from camtool.report import write_report
    >>> write_report(out, rows, {"Model": "resnet50"}, failed)  # doctest: +SKIP
"""

from __future__ import annotations

from camtool.report.page import write_report
from camtool.report.rows import THUMBNAIL_SIDE, ReportRow
from camtool.views.text import display_text

__all__ = ["THUMBNAIL_SIDE", "ReportRow", "display_text", "write_report"]
