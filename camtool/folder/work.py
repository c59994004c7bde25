"""What a folder run makes of each picture: its files, and an entry for the journal."""

from __future__ import annotations

import base64
import errno
import platform
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from camtool.engines.engine import Failed
from camtool.engines.steps import milliseconds_since, one_line
from camtool.files import make_folders, write_atomically
from camtool.folder.bucket import put
from camtool.folder.discovery import Picture, identity, is_directory, state_of
from camtool.folder.entry import Entry, Explained, Unexplained, predicted_by, rows_of
from camtool.folder.names import HIDDEN, thumbnail_of
from camtool.folder.truth import beside_truth
from camtool.folder.workspace import remove, remove_strays
from camtool.images import display_name, encode
from camtool.opencv import cv2
from camtool.remote import Remote, RemoteError
from camtool.views.save import Views, files_of, save_views

if TYPE_CHECKING:
    from camtool.explanation import Explanation

_FATAL = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.ESTALE, errno.ENODEV}


@dataclass(frozen=True)
class Fatal:
    """What every further picture would meet as well: a disk that is full or gone.

    Attributes:
        reason: Names the disk, in one line.
    """

    reason: str


Noted: TypeAlias = "tuple[int, Entry] | Fatal"


@dataclass(frozen=True)
class WriteFiles:
    """Writes the files of each picture; its entry tells that they are in place.

    Attributes:
        output: Folder of the results, claimed.
        views: Which files.
        thumbnails: Whether the report needs one of each picture.
        labels: Of all classes.
        source: Folder that the pictures lie in.
        folders: What tells the output's hidden folder, and the source's, from others that took
            their place.
        place: Where the files are put, if `output` is only where they are made.
    """

    output: Path
    views: Views
    thumbnails: bool
    labels: Sequence[str]
    source: Path | Remote
    folders: tuple[object, object]
    place: Remote | None = None

    @classmethod
    def into(
        cls,
        output: Path,
        views: Views,
        thumbnails: bool,
        labels: Sequence[str],
        source: Path | Remote,
        place: Remote | None = None,
    ) -> WriteFiles:
        """For the output and the source that are there now."""
        if place:
            make_folders(output / HIDDEN)
        folder = None if isinstance(source, Remote) else identity(source)
        folders = identity(output / HIDDEN), folder
        return cls(output, views, thumbnails, labels, source, folders, place)

    def __reduce__(self) -> tuple[object, ...]:
        """On another machine the same folders have other numbers, which are read there."""
        return WriteFiles.into, (
            *(self.output, self.views, self.thumbnails, self.labels, self.source, self.place),
        )

    def finish(self, picture: Picture, explanation: Explanation, milliseconds: float) -> Noted:
        """Write the files of a picture; where that fails, none of them is left."""
        if picture.truth is not None and picture.target is not None:
            explanation = beside_truth(explanation, picture.truth)
        gone = Fatal(f"{display_name(self.output)}: {self._lost(self.folders[0])}")
        if self._is_gone():
            return gone
        result = self._attempt(picture, explanation, milliseconds)
        if self._is_gone():
            remove_strays(self._files(picture, explanation), self.output)
            return gone
        if not isinstance(result, Explained):
            remove(self._files(picture, explanation))
        return result if isinstance(result, Fatal) else (picture.number, result)

    def fail(self, picture: Picture, failed: Failed) -> Noted:
        """Note why there is nothing to write, unless nothing is left of the source at all."""
        if lost := self._lost_source():
            return Fatal(lost)
        if isinstance(picture.source, Path) and is_directory(picture.source):
            failed = replace(failed, reason="is a folder that can't be read")
        return picture.number, Unexplained(picture.key, failed.reason)

    def _lost_source(self) -> str:
        """Why nothing is left of the source; "" where something is."""
        name = display_name(self.source)
        if isinstance(self.source, Remote):
            why = self.source.complaint()
            return why and f"{name}: {why}"
        folder = self.folders[1]
        there = folder is not None and identity(self.source) == folder
        return "" if there else f"{name} {self._lost(folder)}"

    def _is_gone(self) -> bool:
        return self.folders[0] is None or identity(self.output / HIDDEN) != self.folders[0]

    def _lost(self, folder: object) -> str:
        """What became of a folder: a cluster's machine may never have had it."""
        return "is gone" if folder is not None else f"is not there on {platform.node()}"

    def _files(self, picture: Picture, explanation: Explanation) -> list[Path]:
        base = self.output / picture.name
        files = [path for _, path in files_of(explanation, base, self.views)]
        return [*files, self.output / thumbnail_of(picture.name)] if self.thumbnails else files

    def _attempt(
        self, picture: Picture, explanation: Explanation, milliseconds: float
    ) -> Entry | Fatal:
        try:
            return self._write(picture, explanation, milliseconds)
        except RemoteError as error:
            if not error.is_of_name:
                return Fatal(f"{display_name(self.place)}: {error}")
            reason = f"its files can't be written ({error})"
        except OSError as error:
            if error.errno in _FATAL:
                return Fatal(f"{display_name(self.output)}: {error.strerror}")
            reason = f"its files can't be written ({error.strerror or error})"
        except Exception as error:
            # An encoder may refuse a picture by any error; the others are not to suffer for it.
            reason = f"its files can't be made ({one_line(error)})"
        return Unexplained(picture.key, reason)

    def _write(self, picture: Picture, explanation: Explanation, milliseconds: float) -> Explained:
        start = time.perf_counter()
        if not np.isfinite(explanation.all_logits).all():
            raise ArithmeticError("the network's answer is no number; try --dtype float32")
        save_views(explanation, self.output / picture.name, self.views)
        if self.thumbnails:
            write_atomically(self.output / thumbnail_of(picture.name), _thumbnail(explanation))
        files = self._files(picture, explanation)
        views = self.views
        rows = rows_of(picture, explanation, self.labels, views.threshold, views.rule)
        maps = explanation.maps[: len(rows)]
        sizes = {path.relative_to(self.output).as_posix(): path.stat().st_size for path in files}
        if self.place:
            for name in sizes:
                put(self.place, self.output, name)
        return Explained(
            key=picture.key,
            name=picture.name,
            state=picture.state,
            changed=picture.state != state_of(picture.source),
            input=list(explanation.geometry.input),
            region=list(explanation.geometry.region),
            rows=rows,
            shape=list(maps.shape),
            maps=base64.b64encode(maps.tobytes()).decode(),
            files=sizes,
            milliseconds=round(milliseconds + milliseconds_since(start), 3),
            predicted=predicted_by(explanation),
            truth=picture.truth,
        )


def _thumbnail(explanation: Explanation) -> bytes:
    from camtool.report import THUMBNAIL_SIDE

    height, width = explanation.image.shape[:2]
    scale = min(1.0, THUMBNAIL_SIDE / max(height, width))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    # Down to a half, the four nearest pixels hold all there is, at a quarter of the cost of areas.
    near = cv2.INTER_LINEAR if scale >= 0.5 else cv2.INTER_AREA
    small = cv2.resize(explanation.image, size, interpolation=near)
    return encode(np.asarray(small), ".jpg", quality=80)
