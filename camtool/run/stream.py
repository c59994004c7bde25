"""Pictures in, results out in their order; a bad picture is a result too."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, TypeAlias

from camtool.images import MAX_PIXELS, ImageError, display_name
from camtool.models import ModelError

if TYPE_CHECKING:
    from camtool.explainer import CamModel, Explanation
    from camtool.explainer.model import Prepared, Targets
    from camtool.images.read import ImageSource

CHUNK = 4
"""Batches read ahead, so that pictures of one shape find each other."""


@dataclass(frozen=True)
class Failed:
    """A picture that could not be explained.

    Attributes:
        name: What it is called, printable.
        reason: Why, in one line.
    """

    name: str
    reason: str

    def __str__(self) -> str:
        return f"{self.name}: {self.reason}"


Result: TypeAlias = "tuple[ImageSource, Explanation | Failed]"


def explain_stream(
    model: CamModel,
    sources: Iterable[ImageSource],
    targets: Targets = None,
    topk: int = 1,
    batch_size: int = 8,
    max_pixels: int = MAX_PIXELS,
) -> Iterator[Result]:
    """Explain pictures a few batches at a time, so that memory does not grow with their number.

    Args:
        model: The model.
        sources: Pictures, each as for `CamModel.explain`.
        targets: Classes by index or label; None for the `topk` best of each picture.
        topk: How many, where `targets` is None.
        batch_size: Most pictures to a forward pass.
        max_pixels: Refuse larger pictures.

    Yields:
        Each source with its explanation, or with why there is none, in the order given.

    Raises:
        TargetError: A target matches no class, or several; before anything is read.
    """
    chosen = model.resolve(targets)
    remaining = iter(sources)
    while chunk := list(islice(remaining, batch_size * CHUNK)):
        yield from _explain_chunk(model, chunk, chosen, topk, batch_size, max_pixels)


def _explain_chunk(
    model: CamModel,
    chunk: Sequence[ImageSource],
    chosen: Sequence[int],
    topk: int,
    batch_size: int,
    max_pixels: int,
) -> Iterator[Result]:
    from camtool.explainer.model import same_shape

    results: dict[int, Explanation | Failed] = {}
    prepared: dict[int, Prepared] = {}
    for number, source in enumerate(chunk):
        try:
            prepared[number] = model.prepare(source, max_pixels)
        except ImageError as error:
            results[number] = Failed(error.name, error.reason)
    order = list(prepared)
    for batch in same_shape(list(prepared.values()), batch_size):
        numbers = [order[position] for position in batch]
        indices = [chosen] * len(numbers) if chosen else None
        try:
            explained: list[Explanation | Failed] = [
                *model.explain_indices([prepared[n] for n in numbers], indices, topk)
            ]
        except ModelError as error:
            explained = [Failed(display_name(chunk[n]), str(error)) for n in numbers]
        results |= zip(numbers, explained, strict=True)
    yield from ((source, results[number]) for number, source in enumerate(chunk))
