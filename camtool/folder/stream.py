"""A folder's explanations for a program, one after the other, with nothing written."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from camtool.engines.engine import Failed, Request
from camtool.engines.stream import explain_sources
from camtool.engines.threads import ThreadEngine, Workers
from camtool.folder.discovery import discover
from camtool.folder.shards import Origin
from camtool.images import MAX_PIXELS
from camtool.remote import Remote

if TYPE_CHECKING:
    from camtool.explanation import Explanation
    from camtool.model import CamModel
    from camtool.targets import Target


def explain_folder(
    model: CamModel,
    source: str,
    targets: Target | Sequence[Target] | None = None,
    topk: int = 1,
    batch_size: int | None = None,
    max_pixels: int = MAX_PIXELS,
    recursive: bool = True,
    workers: int | None = None,
) -> Iterator[tuple[Origin, Explanation | Failed]]:
    """Explain every picture of a folder, pattern or list; see `CamModel.explain_folder`."""
    if topk < 1 or (batch_size is not None and batch_size < 1):
        raise ValueError("topk and batch_size must be 1 or more")
    indices = tuple(model.resolve(targets))
    found = discover(source, recursive=recursive)
    request = Request(indices, topk, batch_size or model.measured_batch_size(), max_pixels)
    distant = isinstance(found.root, Remote)
    engine = ThreadEngine(model, request, Workers.for_folder(model.device, workers, distant))
    return explain_sources(engine, found.pictures)
