"""`python -m camtool`."""

from __future__ import annotations

from camtool.cli import main

main()
