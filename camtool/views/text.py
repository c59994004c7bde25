"""Text that can be shown: in a page, or as an image.

The typeface is the one that Pillow carries, which has little beyond ASCII; a text that needs more
is set in the face of the machine that has most of it.
"""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Sequence
from functools import cache, lru_cache

from PIL import Image, ImageDraw, ImageFont

Colour = tuple[int, int, int]

WHITE: Colour = (255, 255, 255)
INK: Colour = (28, 28, 30)
GREY: Colour = (110, 110, 116)

_ELLIPSIS = "…"
_LINE_HEIGHT = 1.4
_BASELINE = 1.05
_SPAN_GAP = 0.5

# Written in ASCII, so that our own words look the same on every machine.
_SIGNS = str.maketrans({"×": "x", "−": "-", "–": "-", "—": "-", "→": "->", "≥": ">=", "≤": "<="})
# What no Unicode decomposition turns into ASCII.
_LETTERS = {"ß": "ss", "ø": "o", "Ø": "O"}


FONT = "CAMTOOL_FONT"
"""Environment variable: a font file to set what Pillow's own face lacks."""

FACES = (
    *("DejaVuSans.ttf", "NotoSans-Regular.ttf", "LiberationSans-Regular.ttf", "Arial.ttf"),
    *("segoeui.ttf", "NotoSansCJK-Regular.ttc", "NotoSansCJKsc-Regular.otf", "wqy-zenhei.ttc"),
    *("DroidSansFallbackFull.ttf", "Arial Unicode.ttf", "Hiragino Sans GB.ttc", "PingFang.ttc"),
    *("msyh.ttc", "msgothic.ttc", "malgun.ttf"),
)
"""Faces with more letters that systems have, in the order in which they are tried."""


@cache
def font(size: int, face: str = "") -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """A typeface at a size in pixels; Pillow's own if none is named."""
    return ImageFont.truetype(face, size) if face else ImageFont.load_default(size=size)


@lru_cache(maxsize=4096)
def face_of(text: str) -> str:
    """The first face that has the most characters of a text; "" is Pillow's own."""
    if _lacking(text, "") == 0:
        return ""
    return min(("", *_faces()), key=lambda face: _lacking(text, face))


def _lacking(text: str, face: str) -> int:
    return sum(not _has_glyph(character, face) for character in text)


@cache
def _faces() -> tuple[str, ...]:
    named = os.environ.get(FONT)
    return tuple(face for face in ([named] if named else []) + [*FACES] if _is_here(face))


def _is_here(face: str) -> bool:
    try:
        font(16, face)
    except OSError:
        return False
    return True


def clean(text: str) -> str:
    r"""Make a text fit for one line.

    Control characters become spaces, and a few signs are written in ASCII. Of what its face lacks,
    accents are dropped, and what remains is written as its number: \u732b.
    """
    text = text.translate(_SIGNS)
    text = "".join(" " if unicodedata.category(c) == "Cc" else c for c in text)
    # Lone halves of a pair (undecodable bytes of file names) are no characters.
    text = " ".join(re.sub("[\ud800-\udfff]", "?", text).split())
    face = face_of(text)
    return "".join(_settable(character, face) for character in text)


def width_of(text: str, size: int) -> float:
    """Return the advance of a cleaned text in pixels."""
    return font(size, face_of(text)).getlength(text)


def elide(text: str, size: int, width: float, *, middle: bool = False) -> str:
    """Shorten a text with an ellipsis until it fits.

    Args:
        text: Any text; it is cleaned first.
        size: Size of the typeface in pixels.
        width: Room in pixels.
        middle: Cut in the middle, so that both ends stay, and not at the end.

    Returns:
        The cleaned text, whole if it fits, else its longest cut that does; at least the ellipsis.
    """
    text = clean(text)
    if width_of(text, size) <= width:
        return text
    fits, fails = 0, len(text)
    while fails - fits > 1:
        kept = (fits + fails) // 2
        if width_of(_cut(text, kept, middle), size) <= width:
            fits = kept
        else:
            fails = kept
    return _cut(text, fits, middle)


def wrap(text: str, size: int, width: float) -> list[str]:
    """Break a text between words into lines that fit; a word that is too long is elided."""
    lines: list[str] = []
    for word in clean(text).split():
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and width_of(longer, size) <= width:
            lines[-1] = longer
        else:
            lines.append(elide(word, size, width))
    return lines


def line(spans: Sequence[tuple[str, Colour]], size: int, width: int) -> Image.Image:
    """Set one line on white.

    Args:
        spans: Texts and their sRGB colours, set one after the other.
        size: Size of the typeface in pixels.
        width: Width of the image; what does not fit is elided.

    Returns:
        RGB image, `width` wide and one line high.
    """
    image = Image.new("RGB", (width, round(size * _LINE_HEIGHT)), WHITE)
    draw = ImageDraw.Draw(image)
    x = 0.0
    for text, colour in spans:
        shown = elide(text, size, width - x)
        if x + width_of(shown, size) > width:
            break
        draw.text(
            (x, round(size * _BASELINE)),
            shown,
            fill=colour,
            font=font(size, face_of(shown)),
            anchor="ls",
        )
        x += width_of(shown, size) + _SPAN_GAP * size
    return image


def number(value: float) -> str:
    """Write a number with three significant digits, in full below a million."""
    return f"{value:.0f}" if 100 <= abs(value) < 1e6 else f"{value:.3g}"


def percent(probability: float) -> str:
    """Write a probability in percent; one that is not exactly 0 or 1 never reads so."""
    if 0.0 < probability < 0.0005:
        return "< 0.1 %"
    if 0.9995 <= probability < 1.0:
        return "> 99.9 %"
    return f"{100 * probability:.1f} %"


@lru_cache(maxsize=4096)
def _settable(character: str, face: str) -> str:
    if _has_glyph(character, face):
        return character
    plain = unicodedata.normalize("NFKD", character).encode("ascii", "ignore").decode()
    return plain or _LETTERS.get(character) or character.encode("unicode_escape").decode()


@lru_cache(maxsize=4096)
def _has_glyph(character: str, face: str = "") -> bool:
    # No face has a glyph for a noncharacter, so its image is the one of what is missing.
    missing = bytes(font(16, face).getmask("\U0010ffff"))
    return character.isascii() or bytes(font(16, face).getmask(character)) != missing


def _cut(text: str, kept: int, middle: bool) -> str:
    head = (kept + 1) // 2 if middle else kept
    tail = kept - head
    return text[:head].rstrip() + _ELLIPSIS + (text[-tail:].lstrip() if tail else "")


def display_text(text: str) -> str:
    r"""Text that shows every character: undecodable bytes as ``\xff``, a line break as ``\n``.

    Direction marks are shown too, so that no name can pose as another.

    Example:
        >>> display_text("a\nb\udcff")
        'a\\nb\\xff'
    """
    return "".join(c if c.isprintable() else _escape(c) for c in text)


def _escape(character: str) -> str:
    byte = ord(character) - 0xDC00
    # Python decodes an undecodable byte of a file name to 0xDC00 plus the byte (PEP 383).
    return f"\\x{byte:02x}" if 0x80 <= byte <= 0xFF else character.encode("unicode_escape").decode()
