"""What a folder run makes of each picture: its files, and an entry for the journal."""

from __future__ import annotations

import errno
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from camtool.engines.engine import Failed
from camtool.engines.steps import milliseconds_since, one_line
from camtool.files import write_atomically
from camtool.folder.discovery import Picture, identity, is_directory
from camtool.folder.entry import Entry, Explained, Unexplained, entry_of
from camtool.images import encode
from camtool.opencv import cv2
from camtool.views.save import Views, files_of, fitting, save_views

if TYPE_CHECKING:
    from camtool.explanation import Explanation

THUMBNAILS = Path("report", "thumbs")

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
        output: Folder of the results.
        views: Which files.
        thumbnails: Whether the report needs one of each picture.
        root: Folder of the source.
        there: What tells `root` from another folder that took its place.
    """

    output: Path
    views: Views
    thumbnails: bool
    root: Path
    there: tuple[int, int] | None

    def finish(self, picture: Picture, explanation: Explanation, milliseconds: float) -> Noted:
        """Write the files of a picture."""
        try:
            return picture.number, self._write(picture, explanation, milliseconds)
        except OSError as error:
            if error.errno in _FATAL:
                return Fatal(f"{self.output}: {error.strerror}")
            reason = f"its files can't be written ({error.strerror or error})"
        except Exception as error:
            # An encoder may refuse a picture by any error; the others are not to suffer for it.
            reason = f"its files can't be made ({one_line(error)})"
        return picture.number, Unexplained(picture.key, reason)

    def fail(self, picture: Picture, failed: Failed) -> Noted:
        """Note why there is nothing to write, unless nothing is left of the source at all."""
        if identity(self.root) != self.there:
            return Fatal(f"{self.root} is gone")
        if is_directory(picture.source):
            failed = replace(failed, reason="is a folder that can't be read")
        return picture.number, Unexplained(picture.key, failed.reason)

    def _write(self, picture: Picture, explanation: Explanation, milliseconds: float) -> Explained:
        start = time.perf_counter()
        if not np.isfinite(explanation.all_logits).all():
            raise ArithmeticError("the network's answer is no number; try --dtype float32")
        base = self.output / fitting(picture.key)
        save_views(explanation, base, self.views)
        files = [path for _, path in files_of(explanation, base, self.views)]
        if self.thumbnails:
            files.append(self.output / thumbnail_of(picture))
            write_atomically(files[-1], _thumbnail(explanation))
        spent = milliseconds + milliseconds_since(start)
        return entry_of(picture, explanation, self.views.threshold, files, self.output, spent)


def thumbnail_of(picture: Picture) -> Path:
    """Where a picture's thumbnail lies, relative to the results."""
    return THUMBNAILS / f"{fitting(picture.key)}.jpg"


def _thumbnail(explanation: Explanation) -> bytes:
    from camtool.report import THUMBNAIL_SIDE

    height, width = explanation.image.shape[:2]
    scale = min(1.0, THUMBNAIL_SIDE / max(height, width))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    small = cv2.resize(explanation.image, size, interpolation=cv2.INTER_AREA)
    return encode(np.asarray(small), ".jpg", quality=80)
