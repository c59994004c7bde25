"""Reading, forward passes and writing, all busy at once, in bounded memory."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic

import torch

from camtool.engines.engine import Failed, J, R, Request, Work, never
from camtool.engines.steps import BATCHES_IN_CHUNK, Ready, Steps

if TYPE_CHECKING:
    from camtool.model import CamModel


WAITING = 8
"""Threads of a kind for one, where an answer takes longer than the work."""


@dataclass(frozen=True)
class Workers:
    """How many threads do what.

    Attributes:
        readers: Threads that read, decode and resize.
        lanes: Forward passes at once.
        writers: Threads that take the results.
        torch_threads: Threads within one forward pass; None leaves torch's own choice.
    """

    readers: int
    lanes: int
    writers: int
    torch_threads: int | None

    @classmethod
    def for_folder(
        cls, device: torch.device, workers: int | None = None, distant: bool = False
    ) -> Workers:
        """One forward pass for each core on a CPU; two, fed by many readers, elsewhere.

        Where reading and writing mostly wait, `WAITING` times as many threads do.

        On a CPU, passes that share no threads need no barriers, and were measured to be faster
        than one pass on all cores. On other devices one makes results of its maps while the
        other computes.
        """
        cores, times = available_cores(), WAITING if distant else 1
        if device.type == "cpu":
            lanes = workers or cores
            return cls(times * lanes, lanes, times * lanes, 1)
        return cls(times * (workers or cores), 2, times * (workers or max(2, cores // 2)), 1)

    def quiet_torch(self) -> None:
        """Have torch use so many threads for what the present one asks of it."""
        if self.torch_threads is not None:
            torch.set_num_threads(self.torch_threads)

    @property
    def ahead(self) -> int:
        """Chunks being read, and chunks being explained: two batches for each lane."""
        return max(2, -(-2 * self.lanes // BATCHES_IN_CHUNK))


FOR_A_FEW = Workers(readers=1, lanes=1, writers=1, torch_threads=None)


def available_cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@dataclass(frozen=True)
class ThreadEngine:
    """Threads of this process: readers, forward lanes, writers, with bounded queues between.

    Attributes:
        model: The model.
        request: What is asked of every picture.
        workers: How many threads do what.
        warn: Told once a run when a batch had to be halved for lack of memory.
    """

    model: CamModel
    request: Request
    workers: Workers = FOR_A_FEW
    warn: Callable[[str], None] = print

    def run(
        self, jobs: Iterable[J], work: Work[J, R], stopping: Callable[[], bool] = never
    ) -> Generator[list[R], None, None]:
        """Explain pictures; see `Engine.run`. Threads end with the generator."""
        ahead = self.workers.ahead
        waiting = self.request.batch_size * BATCHES_IN_CHUNK * 2 * ahead
        steps = Steps(self.model, self.request, self.warn, waiting)
        reading: deque[_Reading[J]] = deque()
        running: deque[_Running[R]] = deque()
        with self.model.running(), threads_of(steps, work, self.workers) as pools:
            for chunk in steps.chunks(jobs, stopping):
                reading.append(pools.read(chunk))
                if len(reading) == ahead:
                    running.append(pools.forward(reading.popleft()))
                if len(running) == ahead:
                    yield running.popleft().results()
            running.extend(pools.forward(chunk) for chunk in reading)
            while running:
                yield running.popleft().results()


@contextmanager
def threads_of(steps: Steps, work: Work[J, R], workers: Workers) -> Iterator[Pools[J, R]]:
    """The threads of one run; what they have not begun when it is left is cancelled."""
    counts = {"read": workers.readers, "forward": workers.lanes, "write": workers.writers}
    with ExitStack() as stack:
        if workers.torch_threads is not None:
            # What one thread sets is what all those begin with that are started later.
            stack.callback(torch.set_num_threads, torch.get_num_threads())
        pools = [
            stack.enter_context(ThreadPoolExecutor(count, f"camtool-{name}", workers.quiet_torch))
            for name, count in counts.items()
        ]
        for pool in pools:
            stack.callback(pool.shutdown, wait=False, cancel_futures=True)
        yield Pools(steps, work, *pools)


@dataclass(frozen=True)
class Pools(Generic[J, R]):
    """The threads of a run, and the way of a chunk through them."""

    steps: Steps
    work: Work[J, R]
    readers: ThreadPoolExecutor
    lanes: ThreadPoolExecutor
    writers: ThreadPoolExecutor

    def read(self, chunk: list[J]) -> _Reading[J]:
        """Start reading the unfinished pictures of a chunk."""
        wanted = [job for job in chunk if job.shape is None]
        return _Reading(chunk, {j.number: self.readers.submit(self.steps.read, j) for j in wanted})

    def forward(self, chunk: _Reading[J]) -> _Running[R]:
        """Form the batches of a chunk, and start those that hold an unfinished picture."""
        found = {number: read.result() for number, read in chunk.reads.items()}
        running: _Running[R] = _Running(
            {
                job.number: self.writers.submit(self.work.fail, job, failed)
                for job in chunk.jobs
                if isinstance(failed := found.get(job.number), Failed)
            },
            [],
        )
        for batch in self.steps.batches(chunk.jobs, found):
            again = {
                job.number: self.readers.submit(self.steps.read, job)
                for job in batch
                if job.number not in found
            }
            found |= {number: read.result() for number, read in again.items()}
            ready = [item for job in batch if isinstance(item := found[job.number], Ready)]
            running.batches.append(self.lanes.submit(self._explain, ready))
        return running

    def _explain(self, batch: list[Ready[J]]) -> dict[int, Future[R]]:
        """One forward pass, in a lane's thread; the results go on to the writers."""
        return {
            seen.job.number: self.writers.submit(self.steps.finish, seen, self.work)
            for seen in self.steps.explain(batch)
        }


@dataclass(frozen=True)
class _Reading(Generic[J]):
    """A chunk whose unfinished pictures are being read."""

    jobs: list[J]
    reads: dict[int, Future[Ready[J] | Failed]]


@dataclass(frozen=True)
class _Running(Generic[R]):
    """A chunk whose batches are on their way through the network."""

    failed: dict[int, Future[R]]
    batches: list[Future[dict[int, Future[R]]]]

    def results(self) -> list[R]:
        """The results of the chunk, in the order of the jobs, when they are there."""
        done = dict(self.failed)
        for batch in self.batches:
            done |= batch.result()
        return [done[number].result() for number in sorted(done)]
