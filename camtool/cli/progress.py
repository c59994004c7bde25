"""How a run is going: a bar on a terminal, plain lines in a log."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from camtool.folder.run import Summary

LINE_SECONDS = 10.0


@contextmanager
def progress() -> Iterator[Callable[[Summary], None]]:
    """A function that shows a summary on stderr, as suits where stderr goes."""
    if sys.stderr.isatty():
        with _bar() as show:
            yield show
    else:
        yield _Lines()


class _Lines:
    """A line now and then, as logs like it."""

    def __init__(self) -> None:
        self._last = time.monotonic()

    def __call__(self, summary: Summary) -> None:
        now = time.monotonic()
        if now - self._last < LINE_SECONDS:
            return
        self._last = now
        gone = summary.done + summary.failed
        left = (summary.total - gone) / summary.rate if summary.rate else 0
        print(
            f"camtool: {gone:,} of {summary.total:,} pictures, {summary.rate:.1f} a second, "
            f"{summary.failed:,} failed, {_duration(left)} left",
            file=sys.stderr,
            flush=True,
        )


@contextmanager
def _bar() -> Iterator[Callable[[Summary], None]]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    columns = (
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]:.1f}/s"),
        TextColumn("{task.fields[left]} left"),
        TextColumn("{task.fields[failed]} failed"),
    )
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("", total=None, rate=0.0, left="-", failed=0)

        def show(summary: Summary) -> None:
            gone = summary.done + summary.failed
            left = (summary.total - gone) / summary.rate if summary.rate else 0
            bar.update(
                task,
                total=summary.total,
                completed=gone,
                rate=summary.rate,
                left=_duration(left),
                failed=summary.failed,
            )

        yield show


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


@contextmanager
def counting(what: str) -> Iterator[Callable[[int, int], None]]:
    """A function that shows how many of how many are done, on stderr."""
    start = time.monotonic()
    if not sys.stderr.isatty():
        last = start

        def lines(done: int, total: int) -> None:
            nonlocal last
            now = time.monotonic()
            if now - last > LINE_SECONDS:
                last = now
                rate = done / (now - start)
                told = f"{rate:.1f} a second, {_duration((total - done) / rate)} left"
                print(f"camtool: {done:,} of {total:,} {what}, {told}", file=sys.stderr, flush=True)

        yield lines
        return
    from rich.console import Console
    from rich.progress import MofNCompleteColumn, Progress, TextColumn

    columns = (
        *Progress.get_default_columns(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]:.1f}/s"),
    )
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(what, total=None, rate=0.0)

        def show(done: int, total: int) -> None:
            rate = done / max(time.monotonic() - start, 1e-9)
            bar.update(task, completed=done, total=total, rate=rate)

        yield show


@contextmanager
def waiting(what: str) -> Iterator[None]:
    """Say on a terminal that something without countable parts is being done."""
    if not sys.stderr.isatty():
        yield
        return
    from rich.console import Console

    with Console(stderr=True).status(what):
        yield


@contextmanager
def stages() -> Iterator[Callable[[str], None]]:
    """A function that shows what is being done now, on stderr: a line for each in a log."""
    if not sys.stderr.isatty():
        yield lambda what: print(f"camtool: {what}", file=sys.stderr, flush=True)
        return
    from rich.console import Console

    with Console(stderr=True).status("") as status:
        yield status.update
