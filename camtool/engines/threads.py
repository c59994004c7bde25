"""Reading, forward passes and writing, all busy at once, in bounded memory.

Pictures are taken in chunks. Within a chunk those of one input shape share batches, so which
pictures share a batch follows from the list of pictures alone, never from timing: floating-point
sums depend on the batch in their last digits, and a run that is continued has to give the bytes
of one that was not interrupted.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import TYPE_CHECKING, Generic, TypeAlias, TypeVar

import numpy as np
import torch

from camtool.errors import ModelError, TargetError
from camtool.images import MAX_PIXELS, ImageError, display_name, read_image
from camtool.images.read import printable

if TYPE_CHECKING:
    from camtool.explanation import Explanation
    from camtool.images.read import ImageSource
    from camtool.model import CamModel
    from camtool.prepared import Prepared
    from camtool.targets import Choice

BATCHES_IN_CHUNK = 4
ORIGINALS = 1 << 30
"""Bytes of original pictures on their way; one too large for its part is read again in the end."""

Shape: TypeAlias = tuple[int, int]
R = TypeVar("R")


@dataclass(frozen=True)
class Failed:
    """A picture that could not be explained.

    Attributes:
        name: What the picture is called, printable.
        reason: Why, in one line.
    """

    name: str
    reason: str

    def __str__(self) -> str:
        return f"{self.name}: {self.reason}"


@dataclass(frozen=True)
class Job:
    """One picture to explain.

    Attributes:
        number: Its place in the run.
        source: The picture, as for `CamModel.explain`.
        target: The class to explain, by index or label; None for the run's own choice.
        shape: The input shape that an earlier run found, if that run finished the picture.
    """

    number: int
    source: ImageSource
    target: int | str | None = None
    shape: Shape | None = None


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
    def for_folder(cls, device: torch.device, workers: int | None = None) -> Workers:
        """One forward pass for each core on a CPU; one alone, fed by many readers, elsewhere.

        On a CPU, passes that share no threads need no barriers, and were measured to be faster
        than one pass on all cores.
        """
        cores = available_cores()
        if device.type == "cpu":
            lanes = workers or cores
            return cls(lanes, lanes, lanes, 1)
        return cls(workers or cores, 1, workers or max(2, cores // 2), 1)


FOR_A_FEW = Workers(readers=1, lanes=1, writers=1, torch_threads=None)


def available_cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@dataclass
class Pipeline(Generic[R]):
    """The way of many pictures: readers, forward lanes, writers, with bounded queues between.

    Attributes:
        model: The model.
        finish: What is made of each explanation, in a writer's thread; told the milliseconds
            of work that the picture took so far.
        fail: What is made of each picture that failed.
        indices: Classes to explain in every picture; empty for the `topk` best of each.
        topk: How many, where no class is named.
        batch_size: Most pictures to a forward pass.
        max_pixels: Refuse larger pictures.
        workers: How many threads do what.
        warn: Told once when a batch had to be halved for lack of memory.
    """

    model: CamModel
    finish: Callable[[Job, Explanation, float], R]
    fail: Callable[[Job, Failed], R]
    indices: Sequence[Choice] = ()
    topk: int = 1
    batch_size: int = 8
    max_pixels: int = MAX_PIXELS
    workers: Workers = FOR_A_FEW
    warn: Callable[[str], None] = print
    _halved: bool = field(default=False, init=False)

    def run(
        self, jobs: Iterable[Job], stopping: Callable[[], bool] = lambda: False
    ) -> Generator[list[R], None, None]:
        """Explain pictures.

        Args:
            jobs: The pictures. Those that carry a shape are finished; they are read again only
                where they share a batch with one that is not.
            stopping: Asked before each chunk whether to begin no more; those begun are finished.

        Yields:
            Results of one chunk at a time, in the order of the jobs.
        """
        remaining = iter(jobs)
        with self.model.running(), ExitStack() as stack:
            self._readers = stack.enter_context(self._pool("read", self.workers.readers))
            self._lanes = stack.enter_context(self._pool("forward", self.workers.lanes))
            self._writers = stack.enter_context(self._pool("write", self.workers.writers))
            stack.callback(self._cancel)
            reading: deque[_Chunk] = deque()
            running: deque[_Running[R]] = deque()
            # A chunk is taken whole or not at all, for its batches depend on all of it.
            while not stopping() and (chunk := list(islice(remaining, self._chunk_size))):
                reading.append(self._read(chunk))
                if len(reading) == self._ahead:
                    running.append(self._forward(reading.popleft()))
                if len(running) == self._ahead:
                    yield self._collect(running.popleft())
            running.extend(self._forward(chunk) for chunk in reading)
            while running:
                yield self._collect(running.popleft())

    @property
    def _chunk_size(self) -> int:
        return self.batch_size * BATCHES_IN_CHUNK

    @property
    def _ahead(self) -> int:
        """Chunks being read, and chunks being explained: two batches for each lane."""
        return max(2, -(-2 * self.workers.lanes // BATCHES_IN_CHUNK))

    def _pool(self, name: str, threads: int) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(threads, f"camtool-{name}", self._quiet_torch)

    def _quiet_torch(self) -> None:
        if self.workers.torch_threads is not None:
            torch.set_num_threads(self.workers.torch_threads)

    def _cancel(self) -> None:
        for pool in (self._readers, self._lanes, self._writers):
            pool.shutdown(wait=False, cancel_futures=True)

    def _read(self, chunk: list[Job]) -> _Chunk:
        open_jobs = [job for job in chunk if job.shape is None]
        return _Chunk(chunk, {j.number: self._readers.submit(self._prepare, j) for j in open_jobs})

    def _prepare(self, job: Job) -> _Ready | Failed:
        start = time.perf_counter()
        try:
            chosen = [*self.indices] if job.target is None else self.model.resolve(job.target)
            prepared = self._without_large(job, self.model.prepare(job.source, self.max_pixels))
            return _Ready(job, prepared, chosen, _milliseconds(start))
        except ImageError as error:
            return Failed(error.name, error.reason)
        except TargetError as error:
            return Failed(display_name(job.source), str(error))
        except Exception as error:
            # Decoders meet broken files with whatever they happen to raise.
            return Failed(display_name(job.source), f"can't be decoded ({one_line(error)})")

    def _without_large(self, job: Job, prepared: Prepared) -> Prepared:
        """Let go of an original that is too large to wait in memory and can be read again."""
        waiting = self._chunk_size * 2 * self._ahead
        if prepared.image.nbytes * waiting <= ORIGINALS or not _is_path(job.source):
            return prepared
        return replace(prepared, image=np.empty((0, 0, 3), np.uint8))

    def _forward(self, chunk: _Chunk) -> _Running[R]:
        """Form the batches of a chunk, and start those that hold an unfinished picture."""
        found = {number: future.result() for number, future in chunk.reads.items()}
        running: _Running[R] = _Running()
        for job in chunk.jobs:
            result = found.get(job.number)
            if isinstance(result, Failed):
                running.failed.append((job, result))
        for batch in self._batches(chunk.jobs, found):
            if all(job.number not in found for job in batch):
                continue
            finished = [job for job in batch if job.number not in found]
            again = [(job, self._readers.submit(self._prepare, job)) for job in finished]
            found |= {job.number: future.result() for job, future in again}
            ready = [item for job in batch if isinstance(item := found[job.number], _Ready)]
            running.batches.append(self._lanes.submit(self._explain, ready))
        return running

    def _batches(
        self, jobs: Sequence[Job], found: Mapping[int, _Ready | Failed]
    ) -> Iterator[list[Job]]:
        groups: dict[tuple[Shape, bool], list[Job]] = {}
        for job in jobs:
            result = found.get(job.number)
            shape = result.prepared.geometry.input if isinstance(result, _Ready) else job.shape
            if shape is not None:
                groups.setdefault((shape, job.target is None), []).append(job)
        for group in groups.values():
            for start in range(0, len(group), self.batch_size):
                yield group[start : start + self.batch_size]

    def _explain(self, batch: list[_Ready]) -> list[Future[tuple[int, R]]]:
        """One forward pass, in a lane's thread; the results go on to the writers."""
        indices = [ready.indices for ready in batch] if batch and batch[0].indices else None
        start = time.perf_counter()
        try:
            results = self.model.explain_indices([r.prepared for r in batch], indices, self.topk)
        except torch.OutOfMemoryError:
            # Halved below, where the error no longer holds the tensors of the pass that failed.
            results = None
        except ModelError as error:
            return self._give_up(batch, str(error))
        if results is None:
            return self._halve(batch)
        share = _milliseconds(start) / len(batch)
        return [
            self._writers.submit(self._finish, ready, result, share)
            for ready, result in zip(batch, results, strict=True)
        ]

    def _halve(self, batch: list[_Ready]) -> list[Future[tuple[int, R]]]:
        if len(batch) == 1:
            return self._give_up(batch, "the device's memory does not suffice for one picture")
        if not self._halved:
            self._halved = True
            self.warn(f"the device's memory does not hold {len(batch)} pictures; halving batches")
        torch.cuda.empty_cache()
        middle = len(batch) // 2
        return self._explain(batch[:middle]) + self._explain(batch[middle:])

    def _give_up(self, batch: list[_Ready], reason: str) -> list[Future[tuple[int, R]]]:
        return [
            self._writers.submit(self._fail, ready.job, Failed(ready.prepared.name, reason))
            for ready in batch
        ]

    def _finish(self, ready: _Ready, explanation: Explanation, share: float) -> tuple[int, R]:
        job = ready.job
        if not explanation.image.size:
            try:
                image = read_image(job.source, max_pixels=self.max_pixels)
            except ImageError as error:
                return self._fail(job, Failed(error.name, error.reason))
            explanation = replace(explanation, image=image)
        return job.number, self.finish(job, explanation, ready.milliseconds + share)

    def _fail(self, job: Job, failed: Failed) -> tuple[int, R]:
        return job.number, self.fail(job, failed)

    def _collect(self, running: _Running[R]) -> list[R]:
        done = [self._fail(job, failed) for job, failed in running.failed]
        for batch in running.batches:
            done += [future.result() for future in batch.result()]
        return [result for _, result in sorted(done, key=lambda pair: pair[0])]


@dataclass(frozen=True)
class _Ready:
    """A job whose picture is read and whose classes are resolved."""

    job: Job
    prepared: Prepared
    indices: list[Choice]
    milliseconds: float


@dataclass(frozen=True)
class _Chunk:
    """A chunk whose unfinished pictures are being read."""

    jobs: list[Job]
    reads: dict[int, Future[_Ready | Failed]]


@dataclass
class _Running(Generic[R]):
    """A chunk whose batches are on their way through the network."""

    failed: list[tuple[Job, Failed]] = field(default_factory=list)
    batches: list[Future[list[Future[tuple[int, R]]]]] = field(default_factory=list)


def one_line(error: Exception) -> str:
    """What went wrong, in one line, for an error whose message was not written for users."""
    first = (str(error).splitlines() or [""])[0]
    return printable(f"{type(error).__name__}: {first}" if first else type(error).__name__)


def _is_path(source: ImageSource) -> bool:
    return isinstance(source, (str, os.PathLike))


def _milliseconds(start: float) -> float:
    return (time.perf_counter() - start) * 1000
