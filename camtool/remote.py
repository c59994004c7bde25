"""Objects behind an address (s3://, gs://, az://, hf://, http://): read and written whole.

fsspec, an optional part, speaks with whatever is there. What goes wrong is a `RemoteError` of one
line, in which no address shows a password or a token.
"""

from __future__ import annotations

import errno
import io
import logging
import os
import posixpath
import re
import time
import zlib
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, Protocol, TypeVar, runtime_checkable

S = TypeVar("S")
T = TypeVar("T")

WEB = ("http", "https")
READ_ONLY = (*WEB, "hf")
_PACKAGES = {
    "s3": "s3fs",
    "gs": "gcsfs",
    "az": "adlfs",
    "hf": "huggingface_hub",
    "http": "aiohttp",
    "https": "aiohttp",
}
_PATIENT = ("gs",)
"""Whose libraries try again, whatever went wrong; that of S3 does until an answer begins."""
_LOGGERS = ("azure", "gcsfs", "google")
"""Of libraries that log, with a traceback, what they raise as well."""
WAITS = (0.5, 1.0, 2.0, 4.0)
"""Seconds before each further try of ours."""
SECONDS = 30
"""After which a silent web server is given up."""
AT_ONCE = 16
"""Requests."""
BLOCK = 8 << 20
"""Bytes to a request where a file is gone through."""
MOST_BYTES = 1 << 30
"""Of an object that is read whole, where a listing told its size."""
_OF_GCSFS = re.compile(r"(Forbidden|Bad Request): ")
_MARKS = ("ETag", "etag", "md5Hash", "blob_id", "LastModified", "last_modified", "mtime", "updated")


class RemoteError(OSError):
    """An object that can't be had or put; the message is one line without the address."""

    @property
    def is_missing(self) -> bool:
        """Whether there is no such object, or bucket."""
        return isinstance(self.__cause__, FileNotFoundError)

    @property
    def is_of_name(self) -> bool:
        """Whether no object can have the name; others can be put."""
        long = getattr(self.__cause__, "errno", None) == errno.ENAMETOOLONG
        return long or isinstance(self.__cause__, UnicodeError)


@runtime_checkable
class Stored(Protocol):
    """A picture that is no file of its own.

    Attributes:
        name: For people.
        state: What tells that it was changed, as far as a listing does.
    """

    @property
    def name(self) -> str:
        """See above."""

    @property
    def state(self) -> tuple[int, ...]:
        """See above."""

    def read(self) -> bytes:
        """All of it.

        Raises:
            OSError: It can't be had.
        """


@dataclass(frozen=True, slots=True)
class Remote:
    """An object, or a folder of objects, behind an address; pickled as no more than that.

    Attributes:
        address: As it was given; one of the web may hold a password or a token.
        state: What a listing said of it.
    """

    address: str
    state: tuple[int, ...] = ()

    @classmethod
    def at(cls, address: str) -> Remote:
        """What an address means.

        Raises:
            RemoteError: It can mean nothing here.
        """
        scheme, _, rest = address.partition("://")
        if scheme not in _PACKAGES:
            raise RemoteError(f"an address begins with one of {', '.join(_PACKAGES)}, and ://")
        if not rest.strip("/"):
            raise RemoteError("names no bucket")
        if scheme not in WEB and "@" in rest.partition("/")[0]:
            raise RemoteError("credentials belong in the environment, not in the address")
        return cls(address.rstrip("/"))

    @property
    def scheme(self) -> str:
        """What the address begins with."""
        return self.address.partition("://")[0]

    @property
    def name(self) -> str:
        """The address for people, and for what is written, without passwords and tokens."""
        return shown(self.address)

    @property
    def bucket(self) -> str:
        """Address of the bucket, or of the server."""
        return "/".join(self.address.split("/")[:3])

    def beside(self, name: str) -> Remote:
        """What a path in it means, from where it lies; ".." ends at the bucket."""
        whole = re.split(r"[?#]", self.address)[0] if self.scheme in WEB else self.address
        folder = whole[len(self.bucket) :].rpartition("/")[0]
        return Remote(self.bucket + posixpath.normpath(f"/{folder}/{name}").replace("//", "/"))

    def __truediv__(self, name: str) -> Remote:
        """What lies below."""
        return Remote(f"{self.address}/{name}")

    def read(self, start: int | None = None, end: int | None = None) -> bytes:
        """Its bytes, or those from a first to before a last one, with one request."""
        if start is not None and start == end:
            return b""
        if start is None and self.state and self.state[1] > MOST_BYTES:
            raise RemoteError(f"has more than {MOST_BYTES >> 20:,} MB")
        content: bytes = self._ask(lambda fs: fs.cat_file(self.address, start=start, end=end))
        if end is not None and start is not None and len(content) != end - start:
            raise RemoteError("the server gives no parts of a file")
        return content

    def write(self, content: bytes, *, new: bool = False) -> bool:
        """Put it whole; with `new` only if nothing is there, or else say False."""
        mode = {"mode": "create"} if new else {}
        try:
            self._ask(lambda fs: fs.pipe_file(self.address, content, **mode))
        except FileExistsError:
            return False
        except RemoteError as error:
            # Some stores know no such condition.
            if not new or getattr(error.__cause__, "errno", None) != errno.ENOSYS:
                raise
            return not self.exists() and self.write(content)
        return True

    def upload(self, file: Path) -> None:
        """Put a file's content there, whole."""
        self._ask(lambda fs: fs.put_file(str(file), self.address))

    def remove(self) -> None:
        """Have it there no more; one that is not there is no error."""
        try:
            self._ask(lambda fs: fs.rm_file(self.address))
        except RemoteError as error:
            if not error.is_missing:
                raise

    def exists(self) -> bool:
        """Whether something is there, as far as can be known."""
        try:
            return bool(self._ask(lambda fs: fs.exists(self.address)))
        except RemoteError:
            return False

    def complaint(self) -> str:
        """Why nothing can be had from there; "" where somebody answers, and from the web."""
        if self.scheme not in WEB:
            try:
                self._ask(lambda fs: fs.info(self.address))
            except RemoteError as error:
                return "" if error.is_missing else str(error)
        return ""

    def below(self) -> dict[str, Remote]:
        """All objects below, by their names relative to it; one listing."""
        return self._listed(lambda fs: fs.find(self.address, detail=True), self.address)

    def matching(self) -> dict[str, Remote]:
        """All objects that it matches as a pattern, by their names in the bucket."""
        return self._listed(lambda fs: fs.glob(self.address, detail=True), self.bucket)

    def _listed(self, ask: Callable[[Any], Any], base: str) -> dict[str, Remote]:
        def listing(fs: Any) -> tuple[dict[str, Any], str]:
            fs.invalidate_cache()
            found = ask(fs)
            fs.invalidate_cache()
            return found, fs._strip_protocol(base)

        found, start = self._ask(listing)
        return {
            (name := path[len(start) + 1 :]): Remote(f"{base}/{name}", _state(info))
            for path, info in found.items()
            if info.get("type") == "file" and path.startswith(f"{start}/")
        }

    def opened(self) -> BinaryIO:
        """To go through it from the begin, reading ahead.

        Raises:
            RemoteError: It is not there, or the server tells no size.
        """
        size = self._ask(lambda fs: fs.info(self.address)["size"])
        if size is None:
            raise RemoteError("the server tells no size")
        return io.BufferedReader(_Ranges(self, size), BLOCK)

    def _ask(self, ask: Callable[[Any], T]) -> T:
        waits = () if self.scheme in _PATIENT else WAITS
        with _told():
            self._check_name()
            for wait in waits:
                try:
                    return ask(_filesystem(self.scheme))
                except Exception as error:
                    if not _may_pass(error):
                        raise
                time.sleep(wait)
            return ask(_filesystem(self.scheme))

    def _check_name(self) -> None:
        """Refuse a name that adlfs would take for another's: it parses addresses as URLs."""
        if self.scheme == "az":
            container, key, _ = _filesystem("az").split_path(self.address)
            if "\\" in key or f"az://{container}/{key}".rstrip("/") != self.address:
                raise RemoteError("adlfs can't take this name") from UnicodeError()


class _Ranges(io.RawIOBase):
    """An object as a file of which each reading is a request."""

    def __init__(self, place: Remote, size: int) -> None:
        self._place, self._size, self._at = place, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        self._at = start + offset
        return self._at

    def readinto(self, buffer: Any) -> int:
        end = min(self._at + len(buffer), self._size)
        if end <= self._at:
            return 0
        content = self._place.read(self._at, end)
        buffer[: len(content)] = content
        self._at = end
        return len(content)


def at_once(do: Callable[[S], T], items: Iterable[S]) -> Iterator[T]:
    """What a function gives for each item, in their order; `AT_ONCE` wait at the same time."""
    items = iter(items)
    with ThreadPoolExecutor(AT_ONCE, "camtool-remote") as pool:
        while some := list(islice(items, 64 * AT_ONCE)):
            yield from pool.map(do, some)


def is_address(text: str) -> bool:
    """Whether a text is an address rather than a path."""
    return re.match(r"[A-Za-z][A-Za-z0-9+.-]+://", text) is not None


def place_at(text: str) -> Path | Remote:
    """The folder or file of a path, or what is behind an address.

    Raises:
        RemoteError: The address can mean nothing here.
    """
    return Remote.at(text) if is_address(text) else Path(text)


def shown(address: str) -> str:
    """An address without user, password, query and fragment; a path as it is."""
    scheme, mark, rest = address.partition("://")
    if not mark:
        return address
    if scheme in WEB:
        rest = re.split(r"[?#]", rest, maxsplit=1)[0]
    host, slash, path = rest.partition("/")
    return f"{scheme}://{host.rpartition('@')[2]}{slash}{path}"


@lru_cache
def _filesystem(scheme: str) -> Any:
    try:
        import fsspec

        # Else gcsfs asks for a bucket's kind by gRPC, for a minute where nobody answers that.
        os.environ.setdefault("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")
        made = fsspec.filesystem(scheme, skip_instance_cache=True, **_options(scheme))
        if scheme == "s3":
            # Its tries around those of botocore, and ours around these, would take half an hour.
            made.retries = 1
        if scheme == "az":
            # The library would wait for most of a minute in all; adlfs hands no such option on.
            made.service_client._config.retry_policy.total_retries = 0
        for name in _LOGGERS:
            # With a handler of any kind nothing is printed that nobody asked for.
            logging.getLogger(name).addHandler(logging.NullHandler())
        return made
    except ImportError:
        package = _PACKAGES[scheme]
        more = f" {package}" if package in ("gcsfs", "adlfs", "huggingface_hub") else ""
        need = f"{scheme}:// needs {package}: pip install 'camtool[remote]'{more}"
        raise RemoteError(need) from None


def _options(scheme: str) -> dict[str, Any]:
    if scheme in (*WEB, "gs"):
        import aiohttp

        timeout = aiohttp.ClientTimeout(total=None, sock_connect=SECONDS, sock_read=SECONDS)
        web = {"client_kwargs": {"timeout": timeout}}
        return web if scheme in WEB else {"requests_timeout": timeout}
    if scheme == "az":
        return {"connection_timeout": SECONDS, "read_timeout": SECONDS}
    # Else every reading would ask for the size first.
    return {"max_concurrency": 1} if scheme == "s3" else {}


def _state(info: dict[str, Any]) -> tuple[int, ...]:
    mark = next((info[key] for key in _MARKS if info.get(key)), "")
    return zlib.crc32(str(mark).encode()), int(info.get("size") or 0)


def _status(error: BaseException) -> int | None:
    """What a web server answered; None where it was no refusal."""
    status = getattr(error, "status", None)
    if status is None:
        status = getattr(getattr(error, "response", None), "status_code", None)
    return status if isinstance(status, int) and status >= 400 else None


def _is_slow(error: BaseException) -> bool:
    # asyncio's error is not the built-in one before Python 3.11.
    return isinstance(error, TimeoutError) or type(error).__name__.endswith("TimeoutError")


def _may_pass(error: BaseException) -> bool:
    """Whether it may go better in a moment, and the library has not tried that already."""
    status = _status(error)
    if status is not None:
        return status in (408, 429) or status >= 500
    library = type(error).__module__.partition(".")[0]
    if library == "botocore":
        return False
    cut = library in ("aiohttp", "aiobotocore", "httpx", "requests")
    # Azure's others tell of credentials.
    cut |= library == "azure" and type(error).__name__.startswith(("Service", "Incomplete"))
    return cut or _is_slow(error) or isinstance(error, ConnectionError)


@contextmanager
def _told() -> Iterator[None]:
    """Whatever a library happens to raise is a `RemoteError`."""
    try:
        yield
    except (RemoteError, FileExistsError):
        raise
    except Exception as error:
        raise RemoteError(_line(error)) from error


def _line(error: Exception) -> str:
    status = _status(error)
    told = getattr(error, "strerror" if status is None else "message", None)
    lines = str(error if told is None and status is None else told or "").splitlines() or [""]
    # gcsfs has the address before what the server says of it.
    text = next((line for line in lines if not _OF_GCSFS.match(line)), lines[0])
    if status is not None:
        return f"the server answers {status} {text}".rstrip()
    if isinstance(error, FileNotFoundError) and (" " not in text or is_address(text)):
        return "no such object"
    if not text:
        return "no answer in time" if _is_slow(error) else type(error).__name__
    return re.sub(r"\w+://[^\s'\")]+", lambda found: shown(found[0]), text)
