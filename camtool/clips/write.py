"""A video as H.264 in MP4, with the sound of another."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from camtool.clips.frames import Frame, av, opened

QUALITY = "18"
"""Constant rate factor of x264; lower is better, 18 looks like the original."""
_BT709 = 1
"""Of ITU-T H.273, tables 2 to 4: primaries, transfer, matrix."""


@contextmanager
def writing(
    path: Path, source: Path, warn: Callable[[str], None]
) -> Iterator[Callable[[NDArray[np.uint8], Frame], None]]:
    """Write frames as they come; the file takes its place when all are there.

    Args:
        path: Of the new file, .mp4.
        source: Whose sound is copied, untouched, where MP4 can hold it.
        warn: Told where it can't.

    Yields:
        What takes a picture, uint8 [H,W,3] and all of one size, and the frame whose time is its.

    Raises:
        OSError: It can't be written; nothing is left behind.
    """
    part = path.with_name(f".camtool-{path.stem}.part.mp4")
    try:
        with opened(source) as template, av().open(str(part), "w") as container:
            writer = _Writer(container, template, warn)
            yield writer.take
            writer.finish()
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


class _Writer:
    def __init__(self, container: Any, template: Any, warn: Callable[[str], None]) -> None:
        self._container, self._template = container, template
        video = template.streams.video[0]
        self._stream = container.add_stream("h264", rate=video.average_rate or 25)
        self._stream.pix_fmt = "yuv420p"
        self._stream.options = {"crf": QUALITY, "preset": "medium"}
        context = self._stream.codec_context
        context.time_base = video.time_base
        context.colorspace = context.color_primaries = context.color_trc = _BT709
        self._sound = self._copied(warn)
        self._sized = False

    def _copied(self, warn: Callable[[str], None]) -> tuple[Any, Any] | None:
        """The stream of sound and its copy."""
        if not self._template.streams.audio:
            return None
        sound = self._template.streams.audio[0]
        try:
            return sound, self._container.add_stream_from_template(sound)
        except (OSError, ValueError):
            warn(f"its sound ({sound.codec_context.name}) has no place in MP4 and is left out")
            return None

    def take(self, image: NDArray[np.uint8], frame: Frame) -> None:
        # Colours are kept for every second pixel: sides have to be even.
        image = np.pad(image, [(0, side % 2) for side in image.shape[:2]] + [(0, 0)], "edge")
        if not self._sized:
            self._stream.height, self._stream.width = image.shape[:2]
            self._sized = True
        picture = av().VideoFrame.from_ndarray(image, format="rgb24")
        picture = picture.reformat(format="yuv420p", dst_colorspace="ITU709")
        picture.pts, picture.time_base = frame.pts, frame.base
        self._container.mux(self._stream.encode(picture))

    def finish(self) -> None:
        self._container.mux(self._stream.encode(None))
        if self._sound is not None:
            sound, copy = self._sound
            for packet in self._template.demux(sound):
                # The last one is empty: it says that there are no more.
                if packet.dts is not None:
                    packet.stream = copy
                    self._container.mux(packet)
