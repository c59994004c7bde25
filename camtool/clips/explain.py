"""A video explained: one class, one scale, from its first frame to its last."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from camtool.clips.frames import count, frames
from camtool.clips.write import writing
from camtool.engines.engine import Failed
from camtool.engines.stream import explain_stream
from camtool.files import make_folders, replacing
from camtool.folder.results import cell
from camtool.images import ImageError
from camtool.views import text
from camtool.views.overlay import overlays_of, scale_of_maps
from camtool.views.panel import draw_boxes

if TYPE_CHECKING:
    from camtool.explanation import Explanation
    from camtool.model import CamModel
    from camtool.targets import Target
    from camtool.views.save import Views

LOOKED_AT = 64
"""Frames, evenly spaced, whose mean probabilities choose the class where none is named."""
_COLUMNS = (
    *("frame", "seconds", "label", "versus", "logit", "probability", "residual", "peak"),
    *("x0", "y0", "x1", "y1"),
)


@dataclass(frozen=True, eq=False)
class Moment:
    """What was found in one frame.

    Attributes:
        seconds: When it is shown.
        explanation: Of the class, without the picture.
    """

    seconds: float
    explanation: Explanation


@dataclass(frozen=True, eq=False)
class Clip:
    """A video that was explained.

    Attributes:
        path: Of the new video.
        table: Of the CSV file with a row a frame.
        size: (width, height) of the frames, in pixels.
        scale: Logits at which colours end, the same in all frames.
        moments: One for each frame, in order.
    """

    path: Path
    table: Path
    size: tuple[int, int]
    scale: float
    moments: list[Moment]


def explain_clip(
    model: CamModel,
    source: Path,
    base: Path,
    views: Views,
    target: Target | None = None,
    *,
    batch_size: int = 8,
    warn: Callable[[str], None] = print,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Clip:
    """Write a video with the map of one class on it, and a table with a row a frame.

    The video is read twice, so that only small maps are kept: once for the maps, of which the
    largest value ends the scale, and once to paint. Sound is copied.

    Args:
        model: The model.
        source: The video.
        base: Path of the new files without ending: ".cam.mp4" and ".cam.csv" are added.
        views: How maps look, and whether and where boxes are cut. With a scale that is not each
            map's own the look's is kept.
        target: The class, or a contrast; None for the one that is likeliest on average.
        batch_size: Most frames to a forward pass.
        warn: Told what is left out.
        progress: Told how many frames of how many are done; each counts twice.

    Raises:
        ImageError: The video can't be read.
        OSError: The files can't be written.
        TargetError: The target matches no class.
        ImportError: PyAV is missing.
    """
    total = count(source)
    # Before the work: a folder that can't be made is no reason to lose it.
    make_folders(base.parent)
    if target is None:
        target = likeliest(model, source, max(1, total // LOOKED_AT), batch_size)
    moments = []
    for moment in _moments(model, source, target, batch_size, warn):
        moments.append(moment)
        progress(len(moments), 2 * total)
    scale = _scale(moments, views)
    clip = Path(f"{base}.cam.mp4")
    painted = replace(views, look=replace(views.look, normalize="none", full_scale=scale))
    size = (0, 0)
    with writing(clip, source, warn) as write:
        for number, (frame, moment) in enumerate(zip(frames(source), moments, strict=False), 1):
            size = frame.image.shape[1], frame.image.shape[0]
            write(_painted(frame.image, moment, painted), frame)
            progress(len(moments) + number, 2 * len(moments))
    table = Path(f"{base}.cam.csv")
    _write_table(table, moments, views)
    return Clip(clip, table, size, scale, moments)


def likeliest(model: CamModel, source: Path, step: int, batch_size: int) -> int:
    """The class whose probability is the highest on average, over every `step`-th frame."""
    images = (frame.image for n, frame in enumerate(frames(source)) if n % step == 0)
    logits = [found.all_logits for found in _explained(model, source, images, None, batch_size)]
    odds = np.exp(logits - np.max(logits, axis=1, keepdims=True))
    return int((odds / odds.sum(1, keepdims=True)).mean(0).argmax())


def _moments(
    model: CamModel, source: Path, target: Target, batch_size: int, warn: Callable[[str], None]
) -> Iterator[Moment]:
    times: list[float] = []

    def images() -> Iterator[NDArray[np.uint8]]:
        for frame in frames(source, warn):
            times.append(frame.seconds)
            yield frame.image

    found = _explained(model, source, images(), [target], batch_size)
    for number, explanation in enumerate(found):
        # Neither its picture nor what other classes have are wanted of a thousand frames at once.
        light = replace(
            explanation, image=np.empty((0, 0, 3), np.uint8), all_logits=explanation.logits
        )
        yield Moment(times[number], light)


def _explained(
    model: CamModel,
    source: Path,
    images: Iterator[NDArray[np.uint8]],
    targets: Sequence[Target] | None,
    batch_size: int,
) -> Iterator[Explanation]:
    with closing(explain_stream(model, images, targets, 1, batch_size)) as stream:
        for _, result in stream:
            if isinstance(result, Failed):
                raise ImageError(str(source), result.reason)
            yield result


def _scale(moments: Sequence[Moment], views: Views) -> float:
    if views.look.normalize == "none":
        return views.look.full_scale
    return max(
        float(scale_of_maps(one.explanation.maps, one.explanation.geometry, views.look)[0])
        for one in moments
    )


def _painted(image: NDArray[np.uint8], moment: Moment, views: Views) -> NDArray[np.uint8]:
    """A frame with its map and the largest box, and below it a line that says of what."""
    explanation = replace(moment.explanation, image=image)
    drawn = next(overlays_of(explanation, views.look)[0])
    box = _box(moment, views) if views.boxes else None
    below = np.asarray(_caption(moment, views.look.full_scale, image.shape[1]))
    return np.concatenate([draw_boxes(drawn, [box]) if box else drawn, below])


def _caption(moment: Moment, scale: float, width: int) -> Image.Image:
    found, size = moment.explanation, max(11, round(width / 40))
    name = found.titles[0]
    likely = found.probability(0)
    facts = [] if likely is None else [text.percent(likely)]
    facts += [f"{found.logits[0]:.2f} logits", f"scale to {text.number(scale)}"]
    spans = [(text.clean(name), text.INK), (" · ".join(facts), text.GREY)]
    indent = size // 2
    line = text.line(spans, size, max(1, width - 2 * indent))
    strip = Image.new("RGB", (width, line.height), text.WHITE)
    strip.paste(line, (indent, 0))
    return strip


def _write_table(path: Path, moments: Sequence[Moment], views: Views) -> None:
    with replacing(path) as stream:
        table = csv.writer(stream, lineterminator="\n")
        table.writerow(_COLUMNS)
        for number, moment in enumerate(moments):
            found = moment.explanation
            box = _box(moment, views) or ("",) * 4
            table.writerow(
                (
                    *(
                        number,
                        f"{moment.seconds:.3f}",
                        cell(found.labels[0]),
                        cell(found.versus[0]),
                    ),
                    *(f"{found.logits[0]:.4f}", f"{found.probabilities[0]:.6f}"),
                    *(f"{found.residual[0]:.1e}", f"{found.maps[0].max():.3f}", *box),
                )
            )


def _box(moment: Moment, views: Views) -> tuple[int, int, int, int] | None:
    found = moment.explanation.boxes(0, threshold=views.threshold, rule=views.rule)
    return found[0] if found else None
