"""Ctrl-C once finishes what is in flight; twice stops at once."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

INTERRUPTED = 130
"""Exit code of a program that Ctrl-C ended: 128 and the signal's number."""

_STDERR = 2
_SHOW_CURSOR = b"\n\x1b[?25h"
"""The progress bar hides the cursor."""


class Stop:
    """Whether the run was asked to stop."""

    def __init__(self) -> None:
        self.asked = False

    def __call__(self, _signal: int, _frame: FrameType | None) -> None:
        """Note the first signal; at the second leave at once."""
        # Written past Python's buffers: the signal may have come in the middle of a print.
        if self.asked:
            os.write(_STDERR, _SHOW_CURSOR if os.isatty(_STDERR) else b"\n")
            os._exit(INTERRUPTED)
        self.asked = True
        os.write(_STDERR, b"\ncamtool: finishing what is in flight; Ctrl-C again stops at once\n")


@contextmanager
def stoppable() -> Iterator[Stop]:
    """Take SIGINT and SIGTERM inside, where signals can be taken: in the main thread."""
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
