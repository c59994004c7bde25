"""From a file's first bytes to the decoder that reads it, or to a hint what the file is."""

from __future__ import annotations

import importlib
import re
import struct
from typing import BinaryIO, NamedTuple

from PIL import Image

from camtool.images.errors import ImageError

_HEAD = 4096


class _Known(NamedTuple):
    """A format that Pillow alone does not read, what helps, and the plugin that reads it."""

    pattern: re.Pattern[bytes]
    what: str
    help: str
    plugin: str = ""


def _known(pattern: bytes, what: str, helping: str, plugin: str = "") -> _Known:
    return _Known(re.compile(pattern, re.DOTALL | re.IGNORECASE), what, helping, plugin)


def _video(kind: str, pattern: bytes) -> _Known:
    way = "take pictures from it first (ffmpeg -i VIDEO -vf fps=1 frame-%04d.png)"
    return _known(pattern, f"a video ({kind})", way)


_KNOWN = (
    # The brands of HEIF are those of ISO/IEC 23008-12, annexes B and E.
    _known(
        rb"....ftyp(hei[cxms]|hev[cxms]|mif1|msf1)",
        "a HEIC picture",
        "pip install pillow-heif, and it is read",
        "pillow_heif.HeifImagePlugin",
    ),
    _known(
        rb"\xff\x0a|\0\0\0\x0cJXL \r\n\x87\n",
        "a JPEG XL picture",
        "pip install pillow-jxl-plugin, and it is read",
        "pillow_jxl",
    ),
    _known(
        rb"....ftypavi[fs]",
        "an AVIF picture, and broken, or this Pillow was built without AVIF",
        "Pillow 11.3 and later read it",
    ),
    _known(
        rb"(\xef\xbb\xbf)?\s*(?=<(\?xml|!--|!doctype svg|svg)).*?<svg[\s>]",
        "an SVG drawing",
        "convert it first (pip install cairosvg; cairosvg DRAWING -o picture.png)",
    ),
    _known(
        rb".{0,1024}?%PDF-",
        "a PDF document",
        "convert its pages first (pdftoppm -png -r 150 DOCUMENT page)",
    ),
    _video("MP4 or QuickTime", rb"....(ftyp(?!crx )|moov|mdat)"),
    _video("Matroska or WebM", rb"\x1a\x45\xdf\xa3"),
    _video("AVI", rb"RIFF....AVI "),
    _video("MPEG", rb"\0\0\x01[\xba\xb3]"),
    _video("Windows Media", rb"\x30\x26\xb2\x75\x8e\x66\xcf\x11"),
    _video("Flash", rb"FLV\x01"),
)


def open_picture(stream: BinaryIO, name: str) -> Image.Image:
    """The picture in a stream, recognised by content and not yet decoded.

    `Image.open` without the check of Pillow's own pixel limit, which is one for the whole process
    and can't be raised for one call: the caller checks the size, before any pixel is decoded. The
    plugins of formats that Pillow lacks are used where they are installed.

    Raises:
        ImageError: No decoder knows it; where the format is known all the same, with a hint.
        Exception: Whatever a decoder raises on a file of its format that is broken.
    """
    image = _recognised(stream)
    if image is not None:
        return image
    stream.seek(0)
    head = stream.read(_HEAD)
    known = next((known for known in _KNOWN if known.pattern.match(head)), None)
    if known is None:
        raise ImageError(name, "is not a picture in a format that Pillow reads")
    if not _plugged_in(known.plugin):
        raise ImageError(name, f"is {known.what}; {known.help}")
    image = _recognised(stream)
    if image is None:
        raise ImageError(name, f"is {known.what}, and broken")
    return image


def _recognised(stream: BinaryIO) -> Image.Image | None:
    stream.seek(0)
    prefix, tried = stream.read(16), set[str]()
    for register in (Image.preinit, Image.init):
        register()
        for form in [form for form in Image.ID if form not in tried]:
            tried.add(form)
            image = _open_as(form, stream, prefix)
            if image is not None:
                return image
    return None


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


def _plugged_in(plugin: str) -> bool:
    """Whether a plugin is installed; importing it adds its format to Pillow's."""
    try:
        importlib.import_module(plugin)
    except (ImportError, ValueError):
        return False
    return True
