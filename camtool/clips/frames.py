"""Frames of a video, one after the other."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from camtool.images import ImageError, display_name

ENDINGS = frozenset((".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg"))
"""Of files that are taken for video."""


@dataclass(frozen=True, eq=False)
class Frame:
    """One frame.

    Attributes:
        image: uint8 [H,W,3], as it is shown: turned as the file says.
        pts: When it is shown, in units of `base`.
        base: Of the time, in seconds.
    """

    image: NDArray[np.uint8]
    pts: int
    base: Fraction

    @property
    def seconds(self) -> float:
        """When it is shown."""
        return float(self.pts * self.base)


def is_clip(source: object) -> bool:
    """Whether a source is a file that is called like a video."""
    return isinstance(source, Path) and source.suffix.lower() in ENDINGS


def av() -> Any:
    """PyAV.

    Raises:
        ImportError: It is missing; says how to have it.
    """
    try:
        import av
    except ImportError:
        raise ImportError("to read video PyAV is needed: pip install 'camtool[video]'") from None
    return av


@contextmanager
def opened(path: Path) -> Iterator[Any]:
    """A video's container.

    Raises:
        ImageError: It can't be opened, or has no pictures in it.
        ImportError: PyAV is missing.
    """
    try:
        container = av().open(str(path))
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ImageError(display_name(path), f"can't be opened as video ({reason})") from None
    with container:
        if not container.streams.video:
            raise ImageError(display_name(path), "has no video in it")
        yield container


def count(path: Path) -> int:
    """Frames of a video, by its packets: nothing is decoded.

    Raises:
        ImageError: As for `opened`.
    """
    with opened(path) as container:
        stream = container.streams.video[0]
        return sum(1 for packet in container.demux(stream) if packet.size)


def frames(path: Path, warn: Callable[[str], None] = lambda _: None) -> Iterator[Frame]:
    """The frames of a video, in the order in which they are shown.

    Of a file that is damaged or cut off those before that are given, and `warn` is told.

    Raises:
        ImageError: It can't be opened, or holds no frame that can be decoded.
    """
    end: float | None = None
    with opened(path) as container:
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        try:
            for frame in container.decode(stream):
                if frame.pts is None:
                    continue
                end = float((frame.pts + (frame.duration or 0)) * frame.time_base)
                yield Frame(_turned(frame), frame.pts, frame.time_base)
        except (OSError, ValueError) as error:
            # PyAV's errors are both, by their kind.
            if end is None:
                raise ImageError(display_name(path), f"can't be decoded ({error})") from None
        if end is None:
            raise ImageError(display_name(path), "holds no frame")
        length = (container.duration or 0) / 1e6
        if length - end > max(1, length / 10):
            warn(
                f"{display_name(path)}: its frames end after {end:.1f} of {length:.1f} seconds; "
                "the file may be cut off"
            )


def _turned(frame: Any) -> NDArray[np.uint8]:
    image: NDArray[np.uint8] = frame.to_ndarray(format="rgb24")
    turns = round(getattr(frame, "rotation", 0) / 90) % 4
    return np.ascontiguousarray(np.rot90(image, turns)) if turns else image
