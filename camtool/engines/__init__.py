"""Many pictures through the one forward path, whoever does the work.

A new engine is one new file beside `threads.py` and one line in `ENGINES`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from camtool.engines.engine import Engine, Request
    from camtool.model import CamModel

    Factory: TypeAlias = Callable[
        [CamModel, Request, int | None, Callable[[str], None]],
        Engine,
    ]


def _auto(
    model: CamModel, request: Request, workers: int | None, warn: Callable[[str], None]
) -> Engine:
    from camtool.engines.processes import AutoEngine

    return AutoEngine(model, request, workers, warn)


def _threads(
    model: CamModel, request: Request, workers: int | None, warn: Callable[[str], None]
) -> Engine:
    from camtool.engines.threads import ThreadEngine, Workers

    threads = Workers.for_folder(model.device, workers, request.distant)
    return ThreadEngine(model, request, threads, warn)


def _processes(
    model: CamModel, request: Request, workers: int | None, warn: Callable[[str], None]
) -> Engine:
    from camtool.engines.processes import ProcessEngine

    return ProcessEngine(model, request, workers, warn)


def ray_at(address: str | None) -> Factory:
    """What makes the engine "ray", for the cluster at an address; see `RayEngine`."""

    def make(
        model: CamModel, request: Request, workers: int | None, warn: Callable[[str], None]
    ) -> Engine:
        from camtool.engines.cluster import RayEngine

        return RayEngine(model, request, workers, warn, address)

    return make


ENGINES: dict[str, Factory] = {
    "auto": _auto,
    "threads": _threads,
    "processes": _processes,
    "ray": ray_at(None),
}
"""From a name to what makes the engine, of a model, of what is asked of every picture, of the
number of workers (None for what suits the machine), and of whom to tell what people should know."""
