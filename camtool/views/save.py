"""The files of one explanation: which there are, what they are called, and writing them."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from camtool.choices import Kind, Rule
from camtool.files import write_atomically
from camtool.images.write import encode
from camtool.views.explorer import explorer_of
from camtool.views.overlay import Look, overlays_of
from camtool.views.panel import draw_boxes, panel_of
from camtool.views.record import archive_of, record_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from camtool.explanation import Explanation

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
        rule: What the threshold is a share of.
    """

    kinds: tuple[Kind, ...]
    look: Look
    boxes: bool = True
    threshold: float = 0.2
    picture: str = ".png"
    rule: Rule = "max"


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
        bases = (folder / fitting(name) for name in names)
        base = next(base for base in bases if base not in self._taken)
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
        elif kind in ("npz", "json", "html"):
            yield kind, base.with_name(f"{base.name}.cam.{kind}")
        else:
            for k in range(len(explanation.labels)):
                yield kind, base.with_name(f"{base.name}.{kind}-{k + 1}{views.picture}")


def save_views(
    explanation: Explanation,
    base: Path,
    views: Views,
    named: Path | None = None,
    explored: Explanation | None = None,
) -> dict[str, str | list[str]]:
    """Write the files of one explanation, each whole or not at all.

    Args:
        explanation: What to write.
        base: Path without ending, as from `Places`.
        views: Which files, and how they look.
        named: The path of panel or explorer where the user named one.
        explored: What the explorer holds, where that is more.

    Returns:
        Path of each kind; a list for overlays and heatmaps, one for each class.

    Raises:
        OSError: A file can't be written.
        ValueError: The panel's ending names no picture format.
    """
    written: dict[str, str | list[str]] = {}
    for kind in views.kinds:
        paths = [path for of, path in files_of(explanation, base, views) if of == kind]
        if named is not None:
            paths = [named]
        contents = _contents(explanation, kind, views, paths[0].suffix)
        if explored and kind == "html":
            contents = iter([explorer_of(explored, len(explanation.labels)).encode()])
        for path, content in zip(paths, contents, strict=True):
            write_atomically(path, content)
        names = [str(path) for path in paths]
        written[kind] = names if kind in PER_CLASS else names[0]
    return written


def _contents(explanation: Explanation, kind: Kind, views: Views, suffix: str) -> Iterator[bytes]:
    if kind == "panel":
        yield encode(
            panel_of(
                explanation,
                views.look,
                boxes=views.boxes,
                threshold=views.threshold,
                rule=views.rule,
            ),
            suffix,
        )
    elif kind == "npz":
        yield archive_of(explanation)
    elif kind == "json":
        record = record_of(explanation, views.threshold, views.boxes, views.rule)
        yield json.dumps(record, indent=1).encode()
    elif kind == "html":
        yield explorer_of(explanation).encode()
    elif kind == "boxes":
        for k in range(len(explanation.labels)):
            yield encode(_with_box(explanation.image, explanation, k, views), suffix)
    elif kind == "heatmap":
        # The map alone is the map painted, fully opaque, on black.
        black = replace(explanation, image=np.zeros_like(explanation.image))
        for picture in overlays_of(black, replace(views.look, opacity=1.0))[0]:
            yield encode(picture, suffix)
    else:
        for k, picture in enumerate(overlays_of(explanation, views.look)[0]):
            shown = _with_box(picture, explanation, k, views) if views.boxes else picture
            yield encode(shown, suffix)


def _with_box(
    picture: NDArray[np.uint8], explanation: Explanation, k: int, views: Views
) -> NDArray[np.uint8]:
    """A picture with the largest box of a map."""
    boxes = explanation.boxes(k, views.threshold, views.rule)[:1]
    return draw_boxes(picture, boxes) if boxes else picture


def save(explanation: Explanation, path: Path) -> Path:
    """Save one file by its ending: .npz maps, .json the record, .html the explorer, else the panel.

    Raises:
        ValueError: Pillow knows no format of that ending.
        OSError: The file can't be written.
    """
    kinds: dict[str, Kind] = {".npz": "npz", ".json": "json", ".html": "html"}
    kind, views = kinds.get(path.suffix, "panel"), Views((), Look())
    write_atomically(path, next(_contents(explanation, kind, views, path.suffix)))
    return path


def panel_png(explanation: Explanation) -> bytes:
    """The panel as a PNG file."""
    return next(_contents(explanation, "panel", Views((), Look()), ".png"))
