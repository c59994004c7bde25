"""Pictures measured side by side: in processes where that pays, else in threads."""

from __future__ import annotations

import pickle
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import torch

from camtool.engines.pool import Pool, held
from camtool.engines.threads import Workers
from camtool.evaluate.predictions import EvaluationError

A = TypeVar("A")
B = TypeVar("B")
T = TypeVar("T")

_KILLED = (
    "a process that measures was ended from outside, mostly for lack of memory: try fewer --workers"
)


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
        if isinstance(self.pool, Pool):
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
        if started:
            started.end()
        raise
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(before)


def _processes(tool: object, count: int) -> Pool | None:
    """Processes that hold a copy of a tool; None where it can't be copied."""
    try:
        data = pickle.dumps(tool)
    except Exception:
        # What can't be pickled says so by errors of any kind.
        return None
    pool = Pool(count, data)
    try:
        ready = [pool.submit(_ready) for _ in range(count)]
        if ready[0].result():
            return pool
    except BrokenProcessPool:
        pool.shutdown()
        raise EvaluationError(_KILLED) from None
    except BaseException:
        pool.end()
        raise
    pool.shutdown()
    return None


def _ready() -> bool:
    """Whether what the processes hold can be made there, as a script's own class can't be."""
    try:
        held()
    except Exception:
        return False
    return True


def _done_here(task: Callable[[Any, A], B], item: A) -> B:
    return task(held(), item)
