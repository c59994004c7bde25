"""Processes of this machine that hold a copy of something, and take tasks on it."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from functools import lru_cache
from typing import Any


class Pool(ProcessPoolExecutor):
    """Processes that begin with a copy of something, which `held` makes when it is first needed.

    Each imports the script that this one runs, which must not begin its work anew then
    (``if __name__ == "__main__"``).

    Args:
        count: How many at most; they begin as they are needed.
        data: What they hold, pickled.
    """

    def __init__(self, count: int, data: bytes) -> None:
        # Forked ones would share CUDA, and locks that other threads hold.
        super().__init__(count, multiprocessing.get_context("spawn"), _begin, (data,))

    def submit(self, task: Callable[..., Any], /, *args: Any, **options: Any) -> Future[Any]:
        """Have a task done by one of the processes, of which some may begin now."""
        with _unheard():
            return super().submit(task, *args, **options)

    def end(self) -> None:
        """Begin nothing more, and end processes in the middle of their work."""
        processes = list((self._processes or {}).values())
        # First, or the pool would take their end for a crash while it tells them to go.
        self.shutdown(wait=False, cancel_futures=True)
        for process in processes:
            process.terminate()
        for process in processes:
            process.join()


@contextmanager
def _unheard() -> Iterator[None]:
    """What is started inside never hears of Ctrl-C or a closed terminal: this process ends it."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGHUP})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


_data = b""
"""In a process of a pool: what it holds, pickled."""


def _begin(data: bytes) -> None:
    global _data
    _data = data
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


@lru_cache(maxsize=1)
def held() -> Any:
    """In a process of a pool: what it holds; from then on torch uses one thread.

    Raises:
        Exception: It can't be made again here, for whatever reason.
    """
    from torch import set_num_threads

    from camtool.accelerate.memory import keep_freed_memory

    keep_freed_memory()
    set_num_threads(1)
    return pickle.loads(_data)
