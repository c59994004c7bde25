"""Pictures measured side by side: in processes where that pays, else in threads."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import torch

from camtool.accelerate.memory import keep_freed_memory
from camtool.engines.threads import Workers
from camtool.evaluate.predictions import EvaluationError

A = TypeVar("A")
B = TypeVar("B")
T = TypeVar("T")

_KILLED = (
    "a process that measures was ended from outside, mostly for lack of memory: try fewer --workers"
)
_here: list[Any] = []
"""In a process that measures: what it measures with."""


@dataclass(frozen=True)
class Lanes(Generic[T]):
    """What measures, as often as pictures are measured at once.

    Attributes:
        tool: What every task gets, besides its item.
        pool: Threads of this process, or processes that have a tool of their own.
        ahead: How many items are begun before the first of them is wanted.
    """

    tool: T
    pool: Executor
    ahead: int

    def mapped(self, task: Callable[[T, A], B], items: Iterable[A]) -> Iterator[tuple[A, B]]:
        """Each item with what a task makes of it, in order.

        Args:
            task: A function that pickle can name, of the tool and an item.
            items: What pickle can carry.

        Raises:
            EvaluationError: A process was killed.
        """
        waiting: deque[tuple[A, Future[B]]] = deque()
        try:
            for item in items:
                waiting.append((item, self._begun(task, item)))
                if len(waiting) > self.ahead:
                    first, future = waiting.popleft()
                    yield first, future.result()
            while waiting:
                first, future = waiting.popleft()
                yield first, future.result()
        except BrokenProcessPool:
            raise EvaluationError(_KILLED) from None

    def _begun(self, task: Callable[[T, A], B], item: A) -> Future[B]:
        if isinstance(self.pool, ProcessPoolExecutor):
            with _unheard():
                return self.pool.submit(_done_here, task, item)
        return self.pool.submit(task, self.tool, item)


@contextmanager
def lanes_of(tool: T, workers: Workers, processes: bool) -> Iterator[Lanes[T]]:
    """Threads, or processes where they are wanted, worth it and possible.

    Threads share Python's lock, which many small steps take in turns: two of them were seen to use
    twice the processor time of one. What can't be pickled, or made again elsewhere, is for threads.

    Args:
        tool: What every task gets.
        workers: How many threads or processes.
        processes: Whether to start processes. Each imports the script that this one runs, which
            must not begin its work anew then (``if __name__ == "__main__"``).
    """
    before = torch.get_num_threads()
    started = _processes(tool, workers.lanes) if processes and workers.lanes > 1 else None
    pool = started or ThreadPoolExecutor(workers.lanes, "camtool-measure", workers.quiet_torch)
    try:
        yield Lanes(tool, pool, 2 * workers.lanes)
    except BaseException:
        _end(pool)
        raise
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(before)


def _processes(tool: object, count: int) -> ProcessPoolExecutor | None:
    """Processes that hold a copy of a tool; None where it can't be copied."""
    try:
        data = pickle.dumps(tool)
    except Exception:
        # What can't be pickled says so by errors of any kind.
        return None
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(count, context, _begin, (data,))
    try:
        with _unheard():
            ready = [pool.submit(_ready) for _ in range(count)]
        if ready[0].result():
            return pool
    except BrokenProcessPool:
        pool.shutdown()
        raise EvaluationError(_KILLED) from None
    except BaseException:
        _end(pool)
        raise
    pool.shutdown()
    return None


def _end(pool: Executor) -> None:
    """Begin nothing more, and end processes in the middle of their work; threads can't be."""
    processes = list((getattr(pool, "_processes", None) or {}).values())
    # First, or the pool would take the end of the processes for a crash while it tells them to go.
    pool.shutdown(wait=False, cancel_futures=True)
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


def _begin(data: bytes) -> None:
    threading.Thread(target=_end_with_parent, daemon=True).start()
    keep_freed_memory()
    torch.set_num_threads(1)
    # Such as a class of a script that is not imported here.
    with suppress(Exception):
        _here.append(pickle.loads(data))


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _ready() -> bool:
    return bool(_here)


def _done_here(task: Callable[[Any, A], B], item: A) -> B:
    return task(_here[0], item)
