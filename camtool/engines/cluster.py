"""Ray: the same chunks, worked on by actors on one machine or on many.

An actor holds the model and takes whole chunks, which it also reads and finishes: so no step waits
for a place that another step holds, and little travels but names of files and entries. Whatever
is lost, an actor or a machine, its chunks are done again elsewhere; as which pictures share a batch
follows from the chunk alone, the bytes are the same.
"""

from __future__ import annotations

import logging
import os
import secrets
import signal
import socket
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, Generic

from camtool.engines.engine import Failed, J, R, Request, Work, never
from camtool.engines.order import from_unfinished, in_order
from camtool.engines.steps import Steps, one_line
from camtool.engines.threads import available_cores
from camtool.engines.worker import AT_ONCE, Worker, versions_here
from camtool.errors import EngineError
from camtool.images import display_name

if TYPE_CHECKING:
    from camtool.model import CamModel

PATIENCE = 30.0
"""Seconds to wait for a place on the cluster while no actor has one."""

DEATHS = 3
"""An actor that dies so often of one chunk, with no other in it, would die of it for ever."""

STARTS = 3
"""So many actors that die before they have the model, one after the other, are enough."""

WINDOW = 2 * AT_ONCE
"""Chunks for each actor between those whose results come next and the latest given out."""


_QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}
_LOCAL = {**_QUIET, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
"""What Ray is told by the environment, where the user has not told it otherwise.

Its servers listen on every network of the machine and run what they are sent: without a token that
only this process and its children know, whoever reaches the port could have his own code run."""


@dataclass(frozen=True)
class RayEngine:
    """Actors of a Ray cluster.

    Attributes:
        model: The model.
        request: What is asked of every picture.
        workers: How many actors; None for one on each CPU of the cluster, or on each GPU where
            the model is on one.
        warn: Told what people should know, each thing once.
        address: Of the cluster; None for the environment's RAY_ADDRESS, or else for a cluster on
            this machine that ends with the run.
    """

    model: CamModel
    request: Request
    workers: int | None = None
    warn: Callable[[str], None] = print
    address: str | None = None

    def run(
        self, jobs: Iterable[J], work: Work[J, R], stopping: Callable[[], bool] = never
    ) -> Generator[list[R], None, None]:
        """Explain pictures; see `Engine.run`. Actors end with the generator.

        Raises:
            EngineError: There is no cluster at the address, it has no place for an actor, or
                none of its actors is left.
        """
        chunks = from_unfinished(Steps(self.model, self.request).chunks(jobs, stopping))
        if chunks is None:
            return
        with _connected(self.address, self.workers) as ray, self._actors(ray, work) as actors:
            yield from in_order(chunks, actors, WINDOW * actors.wanted)

    @contextmanager
    def _actors(self, ray: Any, work: Work[J, R]) -> Iterator[Actors[J, R]]:
        kind = "GPU" if self.model.device.type == "cuda" else "CPU"
        there = int(ray.cluster_resources().get(kind, 0))
        if not there:
            raise EngineError(f"the Ray cluster has no {kind}")
        try:
            model = ray.put(self.model)
        except Exception as error:
            # A network may hold what can't be sent to another process.
            raise EngineError(
                f"{self.model.network.name} can't be sent to other processes ({one_line(error)})"
            ) from None
        arguments = model, self.request, work, str(Path.cwd()), versions_here()
        actors = Actors(ray, kind, arguments, work, self.workers or there, self.warn)
        try:
            yield actors
        finally:
            actors.end()


@dataclass(eq=False)
class _Task(Generic[J]):
    """A chunk, and whether it may be what killed its actor.

    Attributes:
        number: Its place among the chunks.
        jobs: Of the chunk.
        suspect: Whether its actor died; from then on it is alone in one.
        deaths: Of actors that had no other chunk.
    """

    number: int
    jobs: list[J]
    suspect: bool = False
    deaths: int = 0


@dataclass(eq=False)
class _Actor(Generic[J]):
    """An actor as the driver sees it.

    Attributes:
        handle: Ray's.
        placed: Whether its process is there.
        loaded: Whether it has the model.
        tasks: That it works on.
    """

    handle: Any
    placed: bool = False
    loaded: bool = False
    tasks: list[_Task[J]] = field(default_factory=list)

    @property
    def has_room(self) -> bool:
        """Whether it may take another chunk."""
        return len(self.tasks) < AT_ONCE and not any(task.suspect for task in self.tasks)


@dataclass
class Actors(Generic[J, R]):
    """The actors of a run, and their chunks; see `Takers`.

    Attributes:
        ray: The module, connected.
        kind: What an actor needs one of, "CPU" or "GPU".
        arguments: Of `Worker.load`.
        work: What is made of each picture.
        wanted: How many actors.
        warn: Told what people should know.
    """

    ray: Any
    kind: str
    arguments: tuple[Any, ...]
    work: Work[J, R]
    wanted: int
    warn: Callable[[str], None]
    _actors: dict[_Actor[J], None] = field(default_factory=dict)
    _hungry: dict[_Actor[J], None] = field(default_factory=dict)
    _queue: deque[_Task[J]] = field(default_factory=deque)
    _suspects: deque[_Task[J]] = field(default_factory=deque)
    _answers: SimpleQueue[Callable[[], dict[int, list[R]]]] = field(default_factory=SimpleQueue)
    _failures: int = 0
    _told: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        options = {"max_restarts": 0, "max_task_retries": 0, "max_concurrency": AT_ONCE}
        needs = {"num_cpus": 1, "num_gpus": int(self.kind == "GPU")}
        self._worker = self.ray.remote(**needs, **options, scheduling_strategy="SPREAD")(Worker)
        for _ in range(self.wanted):
            self._start()

    def end(self) -> None:
        """End all actors."""
        for actor in self._actors:
            self.ray.kill(actor.handle)

    def give(self, number: int, chunk: list[J]) -> None:
        """Have a chunk worked on, as soon as an actor has room."""
        self._queue.append(_Task(number, chunk))

    def take(self) -> dict[int, list[R]]:
        """Wait for an actor to answer; the results of chunks that are done, by number.

        Raises:
            EngineError: No actor has a place, or none is left.
        """
        self._serve()
        try:
            patient = any(actor.placed for actor in self._actors)
            answer = self._answers.get(timeout=None if patient else PATIENCE)
        except Empty:
            raise EngineError(
                f"no {self.kind} of the Ray cluster was free for a worker within {PATIENCE:.0f} s"
            ) from None
        return answer()

    def _start(self) -> None:
        actor: _Actor[J] = _Actor(self._worker.remote())
        self._actors[actor] = None
        self._ask(actor, actor.handle.place.remote(), lambda _: self._placed(actor))

    def _ask(self, actor: _Actor[J], reference: Any, then: Callable[[Any], Any]) -> None:
        """Have an answer of an actor, or its death, seen to when `take` is called."""

        def answered(future: Future[Any]) -> None:
            self._answers.put(lambda: self._answered(actor, future, then))

        reference.future().add_done_callback(answered)

    def _answered(
        self, actor: _Actor[J], future: Future[Any], then: Callable[[Any], Any]
    ) -> dict[int, list[R]]:
        error = future.exception()
        if actor not in self._actors:
            return {}
        if error is None:
            return then(future.result()) or {}
        cause = getattr(error, "cause", None)
        if actor.loaded and isinstance(error, self.ray.exceptions.RayTaskError):
            raise cause or error
        return self._died(actor, cause or error)

    def _placed(self, actor: _Actor[J]) -> None:
        actor.placed = True
        reference = actor.handle.load.remote(*self.arguments)
        self._ask(actor, reference, lambda _: self._loaded(actor))

    def _loaded(self, actor: _Actor[J]) -> None:
        actor.loaded, self._failures = True, 0
        self._hungry[actor] = None

    def _serve(self) -> None:
        """Give out what there is room for."""
        for actor in [*self._hungry]:
            if not (self._queue or self._suspects):
                return
            while (task := self._next_for(actor)) is not None:
                self._send(actor, task)
            if not actor.has_room:
                del self._hungry[actor]

    def _next_for(self, actor: _Actor[J]) -> _Task[J] | None:
        """What an actor may take now: while there are suspects it has to become empty for one."""
        if self._suspects:
            return None if actor.tasks else self._suspects.popleft()
        return self._queue.popleft() if self._queue and actor.has_room else None

    def _send(self, actor: _Actor[J], task: _Task[J]) -> None:
        actor.tasks.append(task)
        reference = actor.handle.explain.remote(task.jobs)
        self._ask(actor, reference, lambda answer: self._done(actor, task, answer))

    def _done(
        self, actor: _Actor[J], task: _Task[J], answer: tuple[list[R], list[str]]
    ) -> dict[int, list[R]]:
        results, warnings = answer
        for warning in warnings:
            if warning not in self._told:
                self._told.add(warning)
                self.warn(warning)
        actor.tasks.remove(task)
        self._hungry[actor] = None
        return {task.number: results}

    def _died(self, actor: _Actor[J], error: BaseException) -> dict[int, list[R]]:
        """Have the chunks of a lost actor done again, by others and another one in its place."""
        del self._actors[actor]
        self._hungry.pop(actor, None)
        self.ray.kill(actor.handle)
        self._failures += not actor.loaded
        if self._failures < STARTS:
            self._start()
        elif not self._actors:
            raise EngineError(f"no worker can be started ({_reason(error)})")
        results = {}
        for task in actor.tasks:
            task.suspect = True
            task.deaths += len(actor.tasks) == 1
            if task.deaths < DEATHS:
                self._suspects.append(task)
            else:
                results[task.number] = self._given_up(task)
        return results

    def _given_up(self, task: _Task[J]) -> list[R]:
        reason = f"the process that worked on its {len(task.jobs)} pictures died {DEATHS} times"
        return [
            self.work.fail(job, Failed(display_name(job.source), reason))
            for job in task.jobs
            if job.shape is None
        ]


def _reason(error: BaseException) -> str:
    """Why an actor could not start, in one line."""
    return str(error) if isinstance(error, EngineError) else one_line(error)


@contextmanager
def _connected(address: str | None, workers: int | None) -> Iterator[Any]:
    """Ray, connected to a cluster; to the one that the process is connected to already, if so.

    Raises:
        EngineError: There is no cluster at the address.
    """
    where = address or os.environ.get("RAY_ADDRESS") or "local"
    local = {"num_cpus": workers or available_cores(), "include_dashboard": False}
    with _told(_LOCAL if where == "local" else _QUIET):
        import ray

        if ray.is_initialized():
            yield ray
            return
        # Its notes of how it was set up are for those who run clusters.
        logging.getLogger("ray").setLevel(logging.ERROR)
        with _keeping_signals():
            try:
                _knock(where)
                ray.init(
                    where,
                    **(local if where == "local" else {}),
                    configure_logging=False,
                    logging_level=logging.ERROR,
                    log_to_driver=False,
                )
            except Exception as error:
                reason = f"no Ray cluster answers at {where} ({one_line(error)})"
                raise EngineError(reason) from None
        try:
            yield ray
        finally:
            ray.shutdown()


@contextmanager
def _told(settings: dict[str, str]) -> Iterator[None]:
    """Environment variables inside, but for those that are set already."""
    new = {name: value for name, value in settings.items() if name not in os.environ}
    os.environ.update(new)
    try:
        yield
    finally:
        for name in new:
            os.environ.pop(name, None)


def _knock(address: str) -> None:
    """See whether anybody listens at an address with a port; Ray itself tries for minutes.

    Raises:
        OSError: Nobody does.
    """
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if port.isdigit():
        socket.create_connection((host.strip("[]"), int(port)), timeout=5).close()


@contextmanager
def _keeping_signals() -> Iterator[None]:
    """What a request to end means stays as it was: Ray takes the signal for itself."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
