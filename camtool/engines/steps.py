"""The steps from a job to its result, and which jobs share a batch; the same in every engine.

Pictures are taken in chunks. Within a chunk those of one input shape share batches, so which
pictures share a batch follows from the list of pictures alone, never from timing: floating-point
sums depend on the batch in their last digits, and a run that is continued has to give the bytes
of one that was not interrupted.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import islice
from typing import TYPE_CHECKING, Generic, TypeAlias

import numpy as np
import torch

from camtool.accelerate.memory import spare_memory
from camtool.engines.engine import Failed, J, R, Request, Shape, Work
from camtool.errors import ModelError, TargetError
from camtool.images import ImageError, display_name, read_image
from camtool.images.read import printable
from camtool.remote import Stored

if TYPE_CHECKING:
    from camtool.explanation import Explanation
    from camtool.images.read import ImageSource
    from camtool.model import CamModel
    from camtool.prepared import Prepared
    from camtool.targets import Choice

BATCHES_IN_CHUNK = 4
ORIGINALS = 1 << 30
"""Bytes of original pictures on their way; one too large for its part is read again in the end.
Batches for a GPU are large, and so is the memory beside it: a quarter of that, if it is more."""


@dataclass(frozen=True)
class Ready(Generic[J]):
    """A job whose picture is read and whose classes are resolved."""

    job: J
    prepared: Prepared
    indices: list[Choice]
    milliseconds: float


Found: TypeAlias = "Mapping[int, Ready[J] | Failed]"


@dataclass(frozen=True)
class Seen(Generic[J]):
    """A job after its forward pass, with the milliseconds of work so far."""

    job: J
    result: Explanation | Failed
    milliseconds: float


@dataclass
class Steps:
    """What an engine does with its jobs, one step after the other, in threads as it likes.

    Attributes:
        model: The model.
        request: What is asked of every picture.
        warn: Told once when a batch had to be halved for lack of memory.
        waiting: Most pictures between `read` and `finish` at once.
    """

    model: CamModel
    request: Request
    warn: Callable[[str], None] = print
    waiting: int = 1
    _halved: bool = field(default=False, init=False)

    def chunks(self, jobs: Iterable[J], stopping: Callable[[], bool]) -> Iterator[list[J]]:
        """Jobs as many at a time as may share batches, until `stopping`.

        A chunk is taken whole or not at all, for its batches depend on all of it.
        """
        remaining, size = iter(jobs), self.request.batch_size * BATCHES_IN_CHUNK
        while not stopping() and (chunk := list(islice(remaining, size))):
            yield chunk

    def read(self, job: J) -> Ready[J] | Failed:
        """Read a picture and resolve its target."""
        start = time.perf_counter()
        try:
            chosen = self.request.indices if job.target is None else self.model.resolve(job.target)
            prepared = job.prepared(self.model, self.request)
            return Ready(
                job, self._without_large(job, prepared), list(chosen), milliseconds_since(start)
            )
        except ImageError as error:
            return Failed(error.name, error.reason)
        except TargetError as error:
            return Failed(display_name(job.source), str(error))
        except Exception as error:
            # Decoders meet broken files with whatever they happen to raise.
            return Failed(display_name(job.source), f"can't be decoded ({one_line(error)})")

    @cached_property
    def _room(self) -> int:
        """Bytes for original pictures on their way."""
        large = self.model.device.type != "cpu"
        return max(ORIGINALS, spare_memory() // 4) if large else ORIGINALS

    def _without_large(self, job: J, prepared: Prepared) -> Prepared:
        """Let go of an original that is too large to wait in memory and can be read again."""
        fits = prepared.image.nbytes * self.waiting <= self._room
        if fits or not _is_kept(job.source) or self.model.network.channels != 3:
            return prepared
        pixels, nothing = self.model.pixels_of(prepared), np.empty((0, 0, 3), np.uint8)
        return replace(prepared, pixels=pixels, image=nothing)

    def batches(self, chunk: Sequence[J], found: Found[J]) -> list[list[J]]:
        """The batches of a chunk that hold an unfinished picture.

        Args:
            chunk: Jobs as from `chunks`.
            found: By number, what `read` gave for the unfinished ones.
        """
        groups: dict[tuple[Shape, bool], list[J]] = {}
        for job in chunk:
            result = found.get(job.number)
            shape = result.prepared.geometry.input if isinstance(result, Ready) else job.shape
            if shape is not None:
                groups.setdefault((shape, job.target is None), []).append(job)
        size = self.request.batch_size
        batches = [
            group[start : start + size]
            for group in groups.values()
            for start in range(0, len(group), size)
        ]
        return [batch for batch in batches if any(job.number in found for job in batch)]

    def explain(self, batch: Sequence[Ready[J]]) -> list[Seen[J]]:
        """One forward pass, or more where memory does not suffice; finished pictures left out."""
        indices = [ready.indices for ready in batch] if batch[0].indices else None
        start = time.perf_counter()
        results: Sequence[Explanation | Failed] | None
        try:
            results = self.model.explain_indices(
                [ready.prepared for ready in batch], indices, self.request.topk
            )
        except torch.OutOfMemoryError:
            # Halved below, where the error no longer holds the tensors of the pass that failed.
            results = None
        except ModelError as error:
            results = [Failed(ready.prepared.name, str(error)) for ready in batch]
        if results is None and len(batch) > 1:
            return self._halve(batch)
        if results is None:
            reason = "the device's memory does not suffice for one picture"
            results = [Failed(batch[0].prepared.name, reason)]
        share = milliseconds_since(start) / len(batch)
        return [
            Seen(ready.job, result, ready.milliseconds + share)
            for ready, result in zip(batch, results, strict=True)
            if ready.job.shape is None
        ]

    def _halve(self, batch: Sequence[Ready[J]]) -> list[Seen[J]]:
        if not self._halved:
            self._halved = True
            self.warn(f"the device's memory does not hold {len(batch)} pictures; halving batches")
        torch.cuda.empty_cache()
        middle = len(batch) // 2
        return self.explain(batch[:middle]) + self.explain(batch[middle:])

    def finish(self, seen: Seen[J], work: Work[J, R]) -> R:
        """Make the result of a picture, after reading again an original that was let go."""
        job, result = seen.job, seen.result
        if isinstance(result, Failed):
            return work.fail(job, result)
        if not result.image.size:
            try:
                image = read_image(job.source, max_pixels=self.request.max_pixels)
            except ImageError as error:
                return work.fail(job, Failed(error.name, error.reason))
            result = replace(result, image=image)
        return work.finish(job, result, seen.milliseconds)


def one_line(error: BaseException) -> str:
    """What went wrong, in one line, for an error whose message was not written for users."""
    first = (str(error).splitlines() or [""])[0]
    return printable(f"{type(error).__name__}: {first}" if first else type(error).__name__)


def milliseconds_since(start: float) -> float:
    """Milliseconds since a reading of `time.perf_counter`."""
    return (time.perf_counter() - start) * 1000


def _is_kept(source: ImageSource) -> bool:
    """Whether a source can be read again."""
    return isinstance(source, (str, os.PathLike, Stored))
