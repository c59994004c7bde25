"""From a file's first bytes to the decoder that reads it."""

from __future__ import annotations

import struct
from typing import BinaryIO

from PIL import Image

from camtool.images.errors import ImageError


def open_picture(stream: BinaryIO, name: str) -> Image.Image:
    """The picture in a stream, recognised by content and not yet decoded.

    `Image.open` without the check of Pillow's own pixel limit, which is one for the whole process
    and can't be raised for one call: the caller checks the size, before any pixel is decoded.

    Raises:
        ImageError: No decoder knows it.
        Exception: Whatever a decoder raises on a file of its format that is broken.
    """
    prefix, tried = stream.read(16), set[str]()
    for register in (Image.preinit, Image.init):
        register()
        for form in [form for form in Image.ID if form not in tried]:
            tried.add(form)
            image = _open_as(form, stream, prefix)
            if image is not None:
                return image
    raise ImageError(name, "is not a picture in a format that Pillow reads")


def _open_as(form: str, stream: BinaryIO, prefix: bytes) -> Image.Image | None:
    factory, accept = Image.OPEN[form]
    try:
        accepted = accept is None or accept(prefix)
        # Text says why Pillow, as it was built, lacks this format.
        if not accepted or isinstance(accepted, str):
            return None
        stream.seek(0)
        return factory(stream, "")
    except (SyntaxError, IndexError, TypeError, struct.error):
        # What decoders raise for files that are not theirs.
        return None
