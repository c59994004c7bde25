"""Masks in files: one picture an object, or a trimap."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from camtool.images import read_levels
from camtool.opencv import cv2

Mask = npt.NDArray[np.uint8]

OBJECT, IGNORED = 1, 255
_TRIMAP_OBJECT, _TRIMAP_UNSURE = 1, 3


class MaskFiles(NamedTuple):
    """Where the mask of a picture is.

    Attributes:
        objects: Pictures that are not black inside an object; the mask is all of them together.
        ignore: A picture that is not black where pixels don't count, unless in an object.
        trimap: Whether the only picture is a trimap: 1 object, 2 background, 3 unsure.
    """

    objects: tuple[Path, ...]
    ignore: Path | None = None
    trimap: bool = False

    def files(self) -> tuple[Path, ...]:
        """All files."""
        return self.objects if self.ignore is None else (*self.objects, self.ignore)


def load_mask(files: MaskFiles, side: int | None = None) -> Mask:
    """Read a mask.

    Args:
        files: Its files.
        side: Resize each file to side x side, nearest neighbour, before they are put together
            (Choe et al. 2020 use 224); by default all take the size of the first.

    Returns:
        [h, w], uint8: 1 in the object, 0 outside, 255 where neither counts.

    Raises:
        ImageError: A file can't be read as a picture.
    """
    pictures = [read_levels(path) for path in files.objects]
    height, width = (side, side) if side is not None else pictures[0].shape
    pictures = [_resize(picture, width, height) for picture in pictures]
    if files.trimap:
        table = np.zeros(256, dtype=np.uint8)
        table[_TRIMAP_OBJECT], table[_TRIMAP_UNSURE] = OBJECT, IGNORED
        return np.asarray(table[pictures[0]], dtype=np.uint8)
    inside = np.any([picture > 0 for picture in pictures], axis=0)
    mask: Mask = np.asarray(inside, dtype=np.uint8)
    if files.ignore is not None:
        ignored = _resize(read_levels(files.ignore), width, height) > 0
        mask[ignored & ~inside] = IGNORED
    return mask


def _resize(picture: Mask, width: int, height: int) -> Mask:
    resized = cv2.resize(picture, (width, height), interpolation=cv2.INTER_NEAREST)
    return np.asarray(resized, dtype=np.uint8)
