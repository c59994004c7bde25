"""Signals: Ctrl-C once finishes what is in flight, twice stops at once.

A request to end (SIGTERM) and a terminal that was closed (SIGHUP) are taken like Ctrl-C.
"""

from __future__ import annotations

import os
import signal
import stat
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import NoReturn

INTERRUPTED = 130
"""Exit code of a program that Ctrl-C ended: 128 and the signal's number."""

_STDOUT, _STDERR = 1, 2
_SHOW_CURSOR = b"\n\x1b[?25h"
"""The progress bar hides the cursor."""


@contextmanager
def leaving() -> Iterator[None]:
    """Where nothing is in flight, as while a model is loaded: a signal ends with one line.

    What is left is left in order: half-written files are removed. A second signal stops at once.

    Raises:
        SystemExit: With `INTERRUPTED`, at a signal.
    """

    def leave() -> NoReturn:
        raise KeyboardInterrupt

    with _taken(leave):
        try:
            yield
        except KeyboardInterrupt:
            _say(b"\ncamtool: interrupted\n")
            raise SystemExit(INTERRUPTED) from None


@contextmanager
def stoppable() -> Iterator[Callable[[], bool]]:
    """Where work is in flight: a function that tells whether a signal asked to begin no more.

    A second signal stops at once.
    """
    asked = threading.Event()

    def stop() -> None:
        asked.set()
        _say(b"\ncamtool: finishing what is in flight; Ctrl-C again stops at once\n")

    with _taken(stop):
        yield asked.is_set


@contextmanager
def _taken(first: Callable[[], None]) -> Iterator[None]:
    """Take signals inside, where they can be taken: in the main thread."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    calls = iter([first])

    def handle(number: int, _frame: FrameType | None) -> None:
        if number != signal.SIGINT:
            _let_go_of_a_lost_terminal()
        next(calls, _end)()

    before = {number: signal.signal(number, handle) for number in _signals()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _signals() -> list[signal.Signals]:
    """Those to take; not the hang-up that `nohup` has this process ignore."""
    hangup = getattr(signal, "SIGHUP", signal.SIGTERM)
    ignored = signal.getsignal(hangup) is signal.SIG_IGN
    return [signal.SIGINT, signal.SIGTERM, *([] if ignored else [hangup])]


def _end() -> NoReturn:
    _say(_SHOW_CURSOR if os.isatty(_STDERR) else b"\n")
    os._exit(INTERRUPTED)


def _say(text: bytes) -> None:
    """Write past Python's buffers, for the signal may have come in the middle of a print."""
    with suppress(OSError):
        os.write(_STDERR, text)


def _let_go_of_a_lost_terminal() -> None:
    """Have what is printed to a closed terminal go nowhere; it would end the run with an error."""
    with suppress(OSError):
        for stream in (_STDOUT, _STDERR):
            if stat.S_ISCHR(os.fstat(stream).st_mode) and not os.isatty(stream):
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream)
