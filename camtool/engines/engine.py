"""What an engine is: it takes jobs and gives results, and knows nothing of folders."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeAlias, TypeVar

from camtool.images import MAX_PIXELS

if TYPE_CHECKING:
    from camtool.explanation import Explanation
    from camtool.images.read import ImageSource
    from camtool.model import CamModel
    from camtool.prepared import Prepared
    from camtool.targets import Choice, Target

Shape: TypeAlias = tuple[int, int]
J = TypeVar("J", bound="Job")
R = TypeVar("R")
J_contra = TypeVar("J_contra", bound="Job", contravariant=True)
R_co = TypeVar("R_co", covariant=True)


@dataclass(frozen=True)
class Failed:
    """A picture that could not be explained.

    Attributes:
        name: What the picture is called, printable.
        reason: Why, in one line.
    """

    name: str
    reason: str

    def __str__(self) -> str:
        return f"{self.name}: {self.reason}"


@dataclass(frozen=True, slots=True)
class Job:
    """One picture to explain; whoever needs to know more of it adds fields in a subclass.

    Attributes:
        number: Its place in the run.
        source: The picture, as for `CamModel.explain`.
        target: The class to explain, or several, as for `CamModel.explain`; None for the run's own
            choice. Those of one run are of one number.
        shape: The input shape that an earlier run found, if that run finished the picture.
    """

    number: int
    source: ImageSource
    target: Target | Sequence[Target] | None = None
    shape: Shape | None = None

    def prepared(self, model: CamModel, request: Request) -> Prepared:
        """Read the picture and resize it for the network; a subclass may change it on the way.

        Raises:
            ImageError: The picture can't be read.
        """
        return model.prepare(self.source, request.max_pixels, request.reduced)


@dataclass(frozen=True)
class Request:
    """What is asked of every picture.

    Attributes:
        indices: Classes to explain; empty for the `topk` best of each picture.
        topk: How many, where no class is named.
        batch_size: Most pictures to a forward pass.
        max_pixels: Refuse larger pictures.
        reduced: Read very large pictures only as large as a panel needs them.
        distant: Reading and writing mostly wait for an answer.
    """

    indices: tuple[Choice, ...] = ()
    topk: int = 1
    batch_size: int = 8
    max_pixels: int = MAX_PIXELS
    reduced: bool = False
    distant: bool = False


class Work(Protocol[J_contra, R_co]):
    """What is made of each picture: picklable, for an engine may send it to other processes."""

    def finish(self, job: J_contra, explanation: Explanation, milliseconds: float, /) -> R_co:
        """Make the result of a picture that was explained; called by any worker.

        Args:
            job: The picture.
            explanation: What was found.
            milliseconds: Work that it took so far.
        """

    def fail(self, job: J_contra, failed: Failed, /) -> R_co:
        """Make the result of a picture that could not be explained."""


def never() -> bool:
    """Whether to stop: no."""
    return False


class Engine(Protocol):
    """Explains pictures, a chunk of a few batches at a time."""

    def run(
        self, jobs: Iterable[J], work: Work[J, R], stopping: Callable[[], bool] = never
    ) -> Generator[list[R], None, None]:
        """Explain pictures.

        Args:
            jobs: The pictures. Those that carry a shape are finished and have no result; they
                are read only where they share a batch with one that is not.
            work: What is made of each of the others.
            stopping: Asked before each chunk whether to begin no more; those begun are finished.

        Yields:
            Results of one chunk at a time, in the order of the jobs.
        """
