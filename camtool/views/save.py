"""The files of one explanation: which there are, what they are called, and writing them."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias, get_args

import numpy as np

from camtool.explanation import Explanation, encode
from camtool.files import write_atomically

if TYPE_CHECKING:
    from camtool.views.overlay import Look

Kind: TypeAlias = Literal["panel", "overlay", "heatmap", "boxes", "npz", "json"]
KINDS: tuple[Kind, ...] = get_args(Kind)
PER_CLASS = ("overlay", "heatmap", "boxes")


@dataclass(frozen=True)
class Views:
    """What is written for each picture, and how it looks.

    Attributes:
        kinds: Which files. "overlay" is the picture with a map on it, "heatmap" the map alone,
            "boxes" the picture with a map's largest box: one for each class.
        look: Colours and scale of panel, overlays and heatmaps.
        boxes: Draw boxes, and list them in the JSON record.
        threshold: Of the boxes, relative to the map's maximum.
        picture: Ending of overlays and heatmaps.
    """

    kinds: tuple[Kind, ...]
    look: Look
    boxes: bool = True
    threshold: float = 0.2
    picture: str = ".png"


@dataclass
class Places:
    """Where the files of each picture go: beside it, or under one folder; never twice the same.

    Attributes:
        folder: None for beside the picture.
    """

    folder: Path | None
    _taken: set[Path] = field(default_factory=set)

    def base(self, source: Path) -> Path:
        """The path, without ending, of one picture's files."""
        folder = source.parent if self.folder is None else self.folder
        names = [source.stem, source.name, *(f"{source.name}-{n}" for n in range(2, 10_000))]
        base = next(folder / name for name in names if folder / name not in self._taken)
        self._taken.add(base)
        return base


def fitting(key: str) -> str:
    """A picture's name in a run, shortened where its files' endings would make it too long.

    File systems take 255 bytes for a name; what is cut off is told apart by a hash.
    """
    folder, slash, name = key.rpartition("/")
    encoded = os.fsencode(name)
    if len(encoded) <= _LONGEST_NAME:
        return key
    digest = hashlib.sha256(encoded).hexdigest()[:12]
    return f"{folder}{slash}{encoded[: _LONGEST_NAME - 16].decode('utf-8', 'ignore')}~{digest}"


_LONGEST_NAME = 255 - len(".overlay-10000.jpeg.jpg")


def files_of(explanation: Explanation, base: Path, views: Views) -> Iterator[tuple[str, Path]]:
    """The kinds and paths that `save_views` writes: one, or one a class."""
    for kind in views.kinds:
        if kind == "panel":
            yield kind, base.with_name(f"{base.name}.cam.png")
        elif kind in ("npz", "json"):
            yield kind, base.with_name(f"{base.name}.cam.{kind}")
        else:
            for k in range(len(explanation.labels)):
                yield kind, base.with_name(f"{base.name}.{kind}-{k + 1}{views.picture}")


def save_views(
    explanation: Explanation, base: Path, views: Views, panel: Path | None = None
) -> dict[str, str | list[str]]:
    """Write the files of one explanation, each whole or not at all.

    Args:
        explanation: What to write.
        base: Path without ending, as from `Places`.
        views: Which files, and how they look.
        panel: The panel's own path where the user named one.

    Returns:
        Path of each kind; a list for overlays and heatmaps, one for each class.

    Raises:
        OSError: A file can't be written.
        ValueError: The panel's ending names no picture format.
    """
    written: dict[str, str | list[str]] = {}
    for kind in views.kinds:
        paths = [path for of, path in files_of(explanation, base, views) if of == kind]
        if kind == "panel" and panel is not None:
            paths = [panel]
        for path, content in zip(
            paths, _contents(explanation, kind, views, paths[0].suffix), strict=True
        ):
            write_atomically(path, content)
        names = [str(path) for path in paths]
        written[kind] = names if kind in PER_CLASS else names[0]
    return written


def _contents(explanation: Explanation, kind: Kind, views: Views, suffix: str) -> Iterator[bytes]:
    if kind == "panel":
        panel = explanation.panel(views.look, boxes=views.boxes, threshold=views.threshold)
        yield encode(panel, suffix)
    elif kind == "npz":
        yield explanation.to_npz()
    elif kind == "json":
        record = explanation.to_dict(views.threshold, views.boxes)
        yield json.dumps(record, indent=1).encode()
    elif kind == "boxes":
        yield from _box_contents(explanation, views, suffix)
    elif kind == "heatmap":
        # The map alone is the map painted, fully opaque, on black.
        black = replace(explanation, image=np.zeros_like(explanation.image))
        for picture in black.overlays(replace(views.look, opacity=1.0))[0]:
            yield encode(picture, suffix)
    else:
        yield from _overlay_contents(explanation, views, suffix)


def _overlay_contents(explanation: Explanation, views: Views, suffix: str) -> Iterator[bytes]:
    from camtool.views.panel import draw_boxes

    for k, picture in enumerate(explanation.overlays(views.look)[0]):
        boxes = explanation.boxes(k, views.threshold)[:1] if views.boxes else []
        yield encode(draw_boxes(picture, boxes) if boxes else picture, suffix)


def _box_contents(explanation: Explanation, views: Views, suffix: str) -> Iterator[bytes]:
    from camtool.views.panel import draw_boxes

    for k in range(len(explanation.labels)):
        yield encode(
            draw_boxes(explanation.image, explanation.boxes(k, views.threshold)[:1]), suffix
        )
