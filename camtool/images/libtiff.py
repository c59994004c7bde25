"""What libtiff has to say of a picture, kept for the one who reads that picture.

libtiff prints its messages to the terminal, and they name no file. It has one pair of handlers
for the whole process; ours are set once, when this module is imported, and know by the thread
which read they belong to. What others read is still printed as before.
"""

from __future__ import annotations

import ctypes
import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from PIL import _imaging

# TIFFErrorHandler of tiffio.h: module, format and a va_list, which is a pointer on every platform
# or is passed as one.
_Handler = ctypes.CFUNCTYPE(None, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_void_p)
_LONGEST = 300


@dataclass
class Complaints:
    """What was said of one picture: the first message, and how many there were."""

    first: str = ""
    count: int = 0

    def add(self, message: str) -> None:
        """Take in a message."""
        self.first = self.first or message.rstrip(". \n")
        self.count += 1

    def __str__(self) -> str:
        more = f", and {self.count - 1:,} more" if self.count > 1 else ""
        return f"{self.first}{more}"


class _Listener(threading.local):
    complaints: Complaints | None = None


_listener = _Listener()


@contextmanager
def heard() -> Iterator[Complaints]:
    """The errors that libtiff and Pillow's TIFF reader report meanwhile, in this thread alone.

    Nothing is printed; mere warnings are dropped. Where libtiff can't be reached, it prints.
    """
    outer, _listener.complaints = _listener.complaints, Complaints()
    try:
        yield _listener.complaints
    finally:
        _listener.complaints = outer


def _listen() -> list[object]:
    """Set the handlers; what must live as long as they do."""
    try:
        # Symbols of the libraries that Pillow is linked with are found through Pillow's own.
        library, libc = ctypes.CDLL(_imaging.__file__), ctypes.CDLL(None)
        return [
            _install(library.TIFFSetErrorHandler, libc, keep=True),
            _install(library.TIFFSetWarningHandler, libc, keep=False),
        ]
    except (AttributeError, OSError, TypeError):
        return []


def _install(setter: Callable[..., int | None], libc: ctypes.CDLL, *, keep: bool) -> object:
    def handle(module: bytes | None, form: bytes, arguments: int | None) -> None:
        complaints = _listener.complaints
        if complaints is None:
            if before:
                before(module, form, arguments)
        elif keep:
            text = ctypes.create_string_buffer(_LONGEST)
            libc.vsnprintf(text, ctypes.c_size_t(_LONGEST), form, ctypes.c_void_p(arguments))
            complaints.add(f"libtiff: {text.value.decode(errors='replace')}")

    setter.restype = ctypes.c_void_p  # type: ignore[attr-defined]
    handler = _Handler(handle)
    address = setter(handler)
    before = _Handler(address) if address else None
    return handler


def _take_record(record: logging.LogRecord) -> bool:
    if _listener.complaints is None or record.levelno < logging.WARNING:
        return True
    _listener.complaints.add(record.getMessage())
    return False


HANDLERS = _listen()
"""Empty where libtiff can't be reached."""

logging.getLogger("PIL.TiffImagePlugin").addFilter(_take_record)
