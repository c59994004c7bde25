"""Pictures in, explanations out in their order; a bad picture is a result too."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Sequence
from contextlib import closing
from typing import TYPE_CHECKING, Any, TypeAlias

from camtool.engines.engine import Engine, Failed, J, Job, Request
from camtool.engines.threads import FOR_A_FEW, ThreadEngine, Workers
from camtool.images import MAX_PIXELS

if TYPE_CHECKING:
    from camtool.explanation import Explanation
    from camtool.images.read import ImageSource
    from camtool.model import CamModel
    from camtool.targets import Target

Pair: TypeAlias = "tuple[J, Explanation | Failed]"
Result: TypeAlias = "tuple[ImageSource, Explanation | Failed]"


class Pairs:
    """Work that adds nothing: each job with its explanation, or with why there is none."""

    def finish(self, job: J, explanation: Explanation, _milliseconds: float) -> Pair[J]:
        """The explanation as it is."""
        return job, explanation

    def fail(self, job: J, failed: Failed) -> Pair[J]:
        """The failure as it is."""
        return job, failed


def explain_jobs(engine: Engine, jobs: Iterable[J]) -> Generator[Pair[J], None, None]:
    """Each job with its explanation, or with why there is none, in the order given."""
    # Closed with this one: some versions of Python keep what a closed generator held.
    with closing(engine.run(jobs, Pairs())) as chunks:
        for results in chunks:
            yield from results


def explain_stream(
    model: CamModel,
    sources: Iterable[ImageSource],
    targets: Target | Sequence[Target] | None = None,
    topk: int = 1,
    batch_size: int = 8,
    max_pixels: int = MAX_PIXELS,
    workers: Workers = FOR_A_FEW,
    reduced: bool = False,
) -> Generator[Result, None, None]:
    """Explain pictures a few batches at a time, so that memory does not grow with their number.

    Args:
        model: The model.
        sources: Pictures, each as for `CamModel.explain`.
        targets: Classes by index or label; None for the `topk` best of each picture.
        topk: How many, where `targets` is None.
        batch_size: Most pictures to a forward pass.
        max_pixels: Refuse larger pictures.
        workers: How many threads do what.
        reduced: Read very large pictures only as large as a panel needs them.

    Returns:
        Each source with its explanation, or with why there is none, in the order given.

    Raises:
        TargetError: A target matches no class, or several; before anything is read.
    """
    request = Request(tuple(model.resolve(targets)), topk, batch_size, max_pixels, reduced)
    jobs = (Job(number, source) for number, source in enumerate(sources))
    return explain_sources(ThreadEngine(model, request, workers), jobs)


def explain_sources(
    engine: Engine, jobs: Iterable[Job]
) -> Generator[tuple[Any, Explanation | Failed], None, None]:
    """Each job's source with its explanation, or with why there is none, in the order given."""
    with closing(explain_jobs(engine, jobs)) as results:
        for job, result in results:
            yield job.source, result
