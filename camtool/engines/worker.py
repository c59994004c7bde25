"""What another process is: a model, loaded once, and threads that take whole chunks to it.

One on a cluster is there within a second or two, for torch is imported by `load` alone: so
it is soon known whether the cluster has a place for it.
"""

from __future__ import annotations

import os
import platform
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, Any

from camtool.errors import EngineError

if TYPE_CHECKING:
    from camtool.engines.engine import Job, Request, Work
    from camtool.engines.threads import Pools
    from camtool.model import CamModel

AT_ONCE = 2
"""Chunks in an actor: one is read while the other is in the network."""


class Worker:
    """Reads, explains and finishes chunks, with the threads of one forward lane."""

    def place(self) -> None:
        """Answer as soon as there is a place for this process."""

    def load(
        self,
        model: CamModel,
        request: Request,
        work: Work[Any, Any],
        folder: str,
        versions: tuple[str, str],
        threads: int | None = None,
    ) -> None:
        """Take what all chunks need.

        Args:
            model: The model, which was made again as it arrived.
            request: What is asked of every picture.
            work: What is made of each.
            folder: In which the paths of pictures and results begin.
            versions: Of camtool and torch, where the run began.
            threads: That read, and that write; None for one on a CPU, for all cores beside a GPU.

        Raises:
            EngineError: Other versions are here, whose results would be others.
        """
        from camtool.accelerate.memory import keep_freed_memory
        from camtool.engines.steps import BATCHES_IN_CHUNK, Steps
        from camtool.engines.threads import Workers, available_cores, threads_of

        if versions != (here := versions_here()):
            raise EngineError(f"{platform.node()} has {told(here)}, here is {told(versions)}")
        # Where it is missing, paths are absolute, or their pictures fail by name.
        with suppress(OSError):
            os.chdir(folder)
        keep_freed_memory()
        chunk = request.batch_size * BATCHES_IN_CHUNK
        steps = Steps(model, request, self._warn, chunk * AT_ONCE * available_cores())
        threads = threads or (1 if model.device.type == "cpu" else None)
        entered = ExitStack()
        entered.enter_context(model.running())
        self._pools: Pools[Any, Any] = entered.enter_context(
            threads_of(steps, work, Workers.for_folder(model.device, threads, request.distant))
        )
        self._entered = entered
        self._warnings: list[str] = []

    def _warn(self, warning: str) -> None:
        self._warnings.append(warning)

    def explain(self, chunk: list[Job]) -> tuple[list[Any], list[str]]:
        """The results of a chunk in the order of its jobs, and what people should know so far."""
        return self._pools.forward(self._pools.read(chunk)).results(), self._warnings


def versions_here() -> tuple[str, str]:
    """Of camtool and of torch."""
    import torch

    from camtool import __version__

    return __version__, torch.__version__


def told(versions: tuple[str, str]) -> str:
    """Versions, in words."""
    return "camtool {}, torch {}".format(*versions)
