"""What a picture is called, and that it can't be read."""

from __future__ import annotations

import os

from PIL import Image


class ImageError(ValueError):
    """A picture that can't be read; the message is one line: its name, then the reason.

    Attributes:
        name: What the picture is called, safe to print.
        reason: Why it can't be read and, where there is one, the way out.
    """

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"{name}: {reason}")
        self.name = name
        self.reason = reason

    def __reduce__(self) -> tuple[type[ImageError], tuple[str, str]]:
        return type(self), (self.name, self.reason)


def display_name(source: object) -> str:
    """A printable one-line name: control characters and undecodable bytes are escaped."""
    if isinstance(source, (str, os.PathLike)):
        return printable(os.fsdecode(source))
    if isinstance(source, Image.Image):
        return printable(str(getattr(source, "filename", "") or "<PIL image>"))
    if isinstance(source, (bytes, bytearray, memoryview)):
        return "<bytes>"
    if hasattr(source, "read"):
        name = getattr(source, "name", None)
        return printable(name) if isinstance(name, str) else "<file object>"
    return "<array>"


def printable(text: str) -> str:
    """`text` on one line, safe for any UTF-8 terminal: what can't be shown is escaped."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
