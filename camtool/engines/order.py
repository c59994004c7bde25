"""Chunks given out as there is room, and their results in the order in which they were given."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator
from itertools import chain, islice
from typing import Protocol

from camtool.engines.engine import J, Job, R


class Takers(Protocol[J, R]):
    """Those who work on chunks, in no order."""

    def give(self, number: int, chunk: list[J], /) -> None:
        """Have a chunk worked on, as soon as somebody is free."""

    def take(self) -> dict[int, list[R]]:
        """Wait for something to happen; the results of chunks that are done, by number."""


def unfinished(chunk: Iterable[Job]) -> bool:
    """Whether a chunk holds a job that is to be done."""
    return any(job.shape is None for job in chunk)


def from_unfinished(chunks: Iterator[list[J]]) -> Iterator[list[J]] | None:
    """Chunks from the first on that holds a job to be done; None where all are finished."""
    first = next(filter(unfinished, chunks), None)
    return None if first is None else chain([first], chunks)


def in_order(
    chunks: Iterable[list[J]], takers: Takers[J, R], window: int
) -> Generator[list[R], None, None]:
    """Results of one chunk at a time, in the order of the chunks.

    Args:
        chunks: Taken as results are; those of finished jobs alone are worked on by nobody.
        takers: Those who work on them.
        window: Most chunks between the one whose results come next and the last that was taken.
    """
    done: dict[int, list[R]] = {}
    numbered, taken, first = enumerate(chunks), 0, 0
    while True:
        for number, chunk in islice(numbered, window - (taken - first)):
            taken = number + 1
            if unfinished(chunk):
                takers.give(number, chunk)
            else:
                done[number] = []
        if first == taken:
            return
        if first not in done:
            done |= takers.take()
        while first in done:
            yield done.pop(first)
            first += 1
