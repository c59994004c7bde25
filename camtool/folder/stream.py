"""Pictures in, results out in their order; a bad picture is a result too."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from camtool.engines.threads import FOR_A_FEW, Failed, Job, Pipeline, Workers
from camtool.folder.discovery import discover
from camtool.images import MAX_PIXELS

if TYPE_CHECKING:
    from camtool.explanation import Explanation
    from camtool.images.read import ImageSource
    from camtool.model import CamModel
    from camtool.targets import Target

Result: TypeAlias = "tuple[ImageSource, Explanation | Failed]"

__all__ = ["Failed", "Result", "explain_folder", "explain_stream"]


def explain_stream(
    model: CamModel,
    sources: Iterable[ImageSource],
    targets: Target | Sequence[Target] | None = None,
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
    jobs = (Job(number, source) for number, source in enumerate(sources))
    for job, result in _stream(model, jobs, targets, topk, batch_size, max_pixels, workers):
        yield job.source, result


def explain_folder(
    model: CamModel,
    source: str,
    targets: Target | Sequence[Target] | None = None,
    topk: int = 1,
    batch_size: int | None = None,
    max_pixels: int = MAX_PIXELS,
    recursive: bool = True,
    workers: int | None = None,
) -> Iterator[tuple[Path, Explanation | Failed]]:
    """Explain every picture of a folder, pattern or list; see `CamModel.explain_folder`."""
    if topk < 1 or (batch_size is not None and batch_size < 1):
        raise ValueError("topk and batch_size must be 1 or more")
    items = discover(source, recursive=recursive).items
    jobs = (Job(number, item.path, item.target) for number, item in enumerate(items))
    size = batch_size or model.measured_batch_size()
    threads = Workers.for_folder(model.device, workers)
    for job, result in _stream(model, jobs, targets, topk, size, max_pixels, threads):
        yield items[job.number].path, result


def _stream(
    model: CamModel,
    jobs: Iterable[Job],
    targets: Target | Sequence[Target] | None,
    topk: int,
    batch_size: int,
    max_pixels: int,
    workers: Workers,
) -> Iterator[tuple[Job, Explanation | Failed]]:
    pipeline: Pipeline[tuple[Job, Explanation | Failed]] = Pipeline(
        model,
        lambda job, explanation, _milliseconds: (job, explanation),
        lambda job, failed: (job, failed),
        indices=model.resolve(targets),
        topk=topk,
        batch_size=batch_size,
        max_pixels=max_pixels,
        workers=workers,
    )
    for results in pipeline.run(jobs):
        yield from results
