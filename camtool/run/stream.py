"""Pictures in, results out in their order; a bad picture is a result too."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, TypeAlias

from camtool.images import MAX_PIXELS
from camtool.run.pipeline import FOR_A_FEW, Failed, Job, Pipeline, Workers

if TYPE_CHECKING:
    from camtool.explainer import CamModel, Explanation
    from camtool.explainer.model import Targets
    from camtool.images.read import ImageSource

Result: TypeAlias = "tuple[ImageSource, Explanation | Failed]"

__all__ = ["Failed", "Result", "explain_stream"]


def explain_stream(
    model: CamModel,
    sources: Iterable[ImageSource],
    targets: Targets = None,
    topk: int = 1,
    batch_size: int = 8,
    max_pixels: int = MAX_PIXELS,
    workers: Workers = FOR_A_FEW,
) -> Iterator[Result]:
    """Explain pictures a few batches at a time, so that memory does not grow with their number.

    Args:
        model: The model.
        sources: Pictures, each as for `CamModel.explain`.
        targets: Classes by index or label; None for the `topk` best of each picture.
        topk: How many, where `targets` is None.
        batch_size: Most pictures to a forward pass.
        max_pixels: Refuse larger pictures.
        workers: How many threads do what.

    Yields:
        Each source with its explanation, or with why there is none, in the order given.

    Raises:
        TargetError: A target matches no class, or several; before anything is read.
    """

    def finish(job: Job, explanation: Explanation, _milliseconds: float) -> Result:
        return job.source, explanation

    def fail(job: Job, failed: Failed) -> Result:
        return job.source, failed

    pipeline = Pipeline(
        model,
        finish,
        fail,
        indices=model.resolve(targets),
        topk=topk,
        batch_size=batch_size,
        max_pixels=max_pixels,
        workers=workers,
    )
    jobs = (Job(number, source) for number, source in enumerate(sources))
    for results in pipeline.run(jobs):
        yield from results
