"""Processes of this machine: each holds the model, and works on whole chunks.

What Python itself does for a picture, it does for one at a time in a process. Beside a GPU that
takes ten thousand pictures a second, threads of one process spend their time waiting for each
other; processes don't. Which pictures share a batch follows from the chunk alone, so the bytes are
those of the threads.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import chain, islice
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, Generic

import torch

from camtool.engines.engine import J, R, Request, Work, never
from camtool.engines.order import from_unfinished, in_order
from camtool.engines.pool import Pool, held
from camtool.engines.steps import Steps, one_line
from camtool.engines.threads import ThreadEngine, Workers, available_cores
from camtool.engines.worker import Worker, versions_here
from camtool.errors import EngineError

if TYPE_CHECKING:
    from camtool.model import CamModel

CONTEXT = 1 << 30
"""Bytes of a GPU's memory that a process takes before it holds anything: CUDA's context, the code
of the kernels and cuDNN's workspaces."""

FEW = 2000
"""Pictures that threads have explained before processes have begun."""

CORES = 4
"""With fewer, threads keep them as busy."""

WINDOW = 3
"""Chunks for each process between those whose results come next and the latest given out."""


@dataclass(frozen=True)
class ProcessEngine:
    """Processes of this machine, each with the model.

    Attributes:
        model: The model.
        request: What is asked of every picture.
        workers: How many processes; None for one a core, or as many as the GPU's memory holds.
        warn: Told what people should know, each thing once.
    """

    model: CamModel
    request: Request
    workers: int | None = None
    warn: Callable[[str], None] = print

    def run(
        self, jobs: Iterable[J], work: Work[J, R], stopping: Callable[[], bool] = never
    ) -> Generator[list[R], None, None]:
        """Explain pictures; see `Engine.run`. Processes end with the generator.

        Raises:
            EngineError: The model can't be sent to another process, or a process died.
        """
        chunks = from_unfinished(Steps(self.model, self.request).chunks(jobs, stopping))
        if chunks is None:
            return
        count = self.workers or self._fitting()
        with self._processes(count, work) as processes:
            yield from in_order(chunks, processes, WINDOW * count)

    def _fitting(self) -> int:
        """A process for each core, as far as the GPU's memory goes."""
        cores, device = available_cores(), self.model.device
        if device.type != "cuda":
            return cores
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
        try:
            self.model.try_batch(self.request.batch_size)
        except torch.OutOfMemoryError:
            # One process, which halves its batches.
            return 1
        needed = torch.cuda.max_memory_reserved(device) + CONTEXT
        torch.cuda.empty_cache()
        free, _ = torch.cuda.mem_get_info(device)
        return max(1, min(cores, free // needed))

    @contextmanager
    def _processes(self, count: int, work: Work[J, R]) -> Iterator[_Processes[J, R]]:
        threads = max(1, available_cores() // count)
        arguments = self.model, self.request, work, str(Path.cwd()), versions_here(), threads
        try:
            sent = pickle.dumps(arguments)
        except Exception as error:
            # A network may hold what can't be sent to another process.
            raise EngineError(
                f"{self.model.network.name} can't be sent to other processes ({one_line(error)})"
            ) from None
        pool = Pool(count, sent)
        try:
            yield _Processes(pool, self.warn)
        finally:
            pool.shutdown(cancel_futures=True)


class AutoEngine(ProcessEngine):
    """Processes where a GPU has much to do; else threads, which keep a CPU as busy."""

    def run(
        self, jobs: Iterable[J], work: Work[J, R], stopping: Callable[[], bool] = never
    ) -> Generator[list[R], None, None]:
        """Explain pictures; see `Engine.run`."""
        remaining = iter(jobs)
        first = [*islice(remaining, FEW)] if self.model.device.type == "cuda" else []
        run = self._of_threads().run if self._is_for_threads(len(first)) else super().run
        with closing(run(chain(first, remaining), work, stopping)) as chunks:
            yield from chunks

    def _is_for_threads(self, pictures: int) -> bool:
        return pictures < FEW or available_cores() < CORES or not _can_be_sent(self.model)

    def _of_threads(self) -> ThreadEngine:
        threads = Workers.for_folder(self.model.device, self.workers, self.request.distant)
        return ThreadEngine(self.model, self.request, threads, self.warn)


def _can_be_sent(model: CamModel) -> bool:
    """Whether a model can be sent to other processes: a network may hold what can't."""
    try:
        pickle.dumps(model)
    except Exception:
        return False
    return True


@dataclass(eq=False)
class _Processes(Generic[J, R]):
    """The processes of a run, and their chunks; see `Takers`."""

    pool: Pool
    warn: Callable[[str], None]
    _answers: SimpleQueue[tuple[int, Future[Any]]] = field(default_factory=SimpleQueue)
    _told: set[str] = field(default_factory=set)

    def give(self, number: int, chunk: list[J]) -> None:
        """Have a chunk worked on, as soon as a process is free."""
        with _told_in_a_line():
            future = self.pool.submit(_explain, chunk)
        future.add_done_callback(lambda done: self._answers.put((number, done)))

    def take(self) -> dict[int, list[R]]:
        """Wait for a chunk; its results, by its number."""
        number, future = self._answers.get()
        with _told_in_a_line():
            results, warnings = future.result()
        for warning in warnings:
            if warning not in self._told:
                self._told.add(warning)
                self.warn(warning)
        return {number: results}


@contextmanager
def _told_in_a_line() -> Iterator[None]:
    try:
        yield
    except BrokenProcessPool:
        raise EngineError("a process that explained pictures was killed") from None


@lru_cache(maxsize=1)
def _worker() -> Worker:
    """Made where a chunk waits for it, so that what goes wrong is that chunk's error."""
    worker = Worker()
    worker.load(*held())
    return worker


def _explain(chunk: list[Any]) -> tuple[list[Any], list[str]]:
    return _worker().explain(chunk)
