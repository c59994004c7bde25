"""Results in an object store, which knows neither appending nor renaming nor locks.

Files are made in a folder here and put whole. The journal is kept here too, and put in parts, which
another machine reads together to continue.
"""

from __future__ import annotations

import json
import os
import platform
import re
import secrets
import threading
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from camtool.folder.journal import Journal
from camtool.folder.names import HIDDEN, JOURNAL, YOLO
from camtool.remote import Remote, RemoteError, at_once

BEAT = 15.0
"""Seconds between two signs of life of whoever has claimed a bucket."""
LEASE = 4 * BEAT
"""Seconds without one after which another run may take over."""
_OURS: set[object] = set()
"""Tokens of the claims of this process."""
_PARTS = f"{HIDDEN}/journal/"
_SETTINGS = f"{HIDDEN}/settings.json"


@dataclass
class Bucket:
    """Where results go in an object store, and what was there when the run began.

    Attributes:
        place: The folder there.
        folder: Where files are made before they are put.
        claim: Asked before anything is noted; raises where another run has taken over.
        sizes: Bytes of each object, by name.
    """

    place: Remote
    folder: Path
    claim: Callable[[], None]
    sizes: dict[str, int] = field(default_factory=dict)

    def fetch(self) -> None:
        """Have settings and journal of an earlier run here.

        Raises:
            OSError: They can't be had.
        """
        (self.folder / HIDDEN).mkdir()
        self.sizes = {name: one.state[1] for name, one in self.place.below().items()}
        if _SETTINGS in self.sizes:
            (self.folder / _SETTINGS).write_bytes((self.place / _SETTINGS).read())
        parts = sorted(name for name in self.sizes if name.startswith(_PARTS))
        with (self.folder / JOURNAL).open("wb") as stream:
            for content in at_once(lambda name: (self.place / name).read(), parts):
                stream.write(content)

    def discard(self, names: Iterable[str]) -> None:
        """Remove what an earlier run wrote, and its journal."""
        wanted = {*names, *(name for name in self.sizes if name.startswith(_PARTS))}
        self.remove(wanted & self.sizes.keys())
        self.sizes = {}

    def remove(self, names: Iterable[str]) -> None:
        """Remove objects."""
        for _ in at_once(lambda name: (self.place / name).remove(), names):
            pass

    def publish(self) -> None:
        """Put all files that were made here but the journal, and remove them here."""
        files = [path for path in self.folder.rglob("*") if path.is_file()]
        names = {path.relative_to(self.folder).as_posix() for path in files}
        wanted = [name for name in names if not name.startswith(f"{HIDDEN}/")]
        for _ in at_once(lambda name: put(self.place, self.folder, name), wanted):
            pass
        if any(map(_is_of_yolo, names)):
            self.remove(name for name in self.sizes if _is_of_yolo(name) and name not in names)

    def settle(self) -> None:
        """Put the settings, after which the place belongs to their run."""
        (self.place / _SETTINGS).upload(self.folder / _SETTINGS)

    def journal(self, keys: Sequence[str]) -> Journal:
        """The journal, with what was noted before."""
        parts = filter(None, map(re.compile(rf"{_PARTS}(\d+)-").match, self.sizes))
        return _PartedJournal(self, keys, 1 + max((int(part[1]) for part in parts), default=0))


class _PartedJournal(Journal):
    """A journal that is put in parts: one whenever it would be written through to the disk."""

    def __init__(self, bucket: Bucket, keys: Sequence[str], number: int) -> None:
        super().__init__(bucket.folder / JOURNAL, keys)
        self._bucket, self._number = bucket, number
        self._put = self._stream.tell()

    def sync(self) -> None:
        super().sync()
        if self._stream.tell() == self._put:
            return
        with self._path.open("rb") as stream:
            stream.seek(self._put)
            part = stream.read()
        # No two runs have the same token, should both believe that the place is theirs.
        name = f"{_PARTS}{self._number:09d}-{secrets.token_hex(4)}.jsonl"
        (self._bucket.place / name).write(part)
        self._number += 1
        self._put += len(part)

    def is_gone(self) -> bool:
        """Never; but another run may have taken over.

        Raises:
            RemoteError: It has.
        """
        self._bucket.claim()
        return False


def _is_of_yolo(name: str) -> bool:
    return name.startswith(f"{YOLO}/labels/")


def put(place: Remote, folder: Path, name: str) -> None:
    """Put a file that was made in a folder, and remove it there."""
    (place / name).upload(folder / name)
    (folder / name).unlink()


@contextmanager
def bucket_at(place: Remote, warn: Callable[[str], None]) -> Iterator[Bucket]:
    """A place for results, for this run alone as far as an object store lets that be known.

    Raises:
        RemoteError: Another run is writing there, or it can't be reached.
    """
    with ExitStack() as stack:
        scratch = TemporaryDirectory(prefix="camtool-", ignore_cleanup_errors=True)
        folder = Path(stack.enter_context(scratch))
        claim = _Claim(place / f"{HIDDEN}/lock")
        stack.callback(claim.release)
        claim.take(warn)
        bucket = Bucket(place, folder, claim.check)
        bucket.fetch()
        yield bucket


class _Claim:
    """An object that says whose a place is; its owner changes it every `BEAT` seconds."""

    def __init__(self, lock: Remote) -> None:
        self._lock = lock
        self._beats = 0
        self._who = {"token": secrets.token_hex(8), "host": _host(), "pid": os.getpid()}
        self._lost = self._taken = False
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="camtool-claim", daemon=True)

    def take(self, warn: Callable[[str], None]) -> None:
        """Claim the place.

        Raises:
            RemoteError: Another run has it, or it can't be reached.
        """
        # A try whose answer was lost may have been the one that wrote it.
        if not self._lock.write(self._content(), new=True) and not self._is_ours():
            self._wait_for_other(warn)
            self._lock.write(self._content())
            if not self._is_ours():
                raise RemoteError("another run is writing there")
        self._taken = True
        _OURS.add(self._who["token"])
        self._thread.start()

    def check(self) -> None:
        """Raise where another run has taken over."""
        if self._lost:
            raise RemoteError("another run has taken over")

    def release(self) -> None:
        """Let others have it."""
        if self._taken:
            _OURS.discard(self._who["token"])
            self._over.set()
            self._thread.join(BEAT)
            with suppress(OSError):
                if not self._thread.is_alive() and self._is_ours():
                    self._lock.remove()

    def _wait_for_other(self, warn: Callable[[str], None]) -> None:
        """Return as soon as whoever has it shows no life."""
        before = self._read()
        if before.get("host") == _host() and not _lives(before):
            return
        warn(f"{self._lock.name} is another run's: waiting {LEASE:.0f} s for a sign of life")
        for _ in range(round(LEASE / BEAT)):
            self._over.wait(BEAT)
            if (now := self._read()) and now != before:
                raise RemoteError("another run is writing there")

    def _beat(self) -> None:
        while not self._over.wait(BEAT):
            # Where nobody answers now, what the run itself puts tells whether that lasts.
            with suppress(OSError):
                if not self._is_ours():
                    self._lost = True
                    return
                self._lock.write(self._content())

    def _content(self) -> bytes:
        self._beats += 1
        return json.dumps({**self._who, "beats": self._beats}).encode()

    def _is_ours(self) -> bool:
        return self._read().get("token") == self._who["token"]

    def _read(self) -> dict[str, Any]:
        try:
            found = json.loads(self._lock.read())
        except (ValueError, RemoteError) as error:
            if isinstance(error, RemoteError) and not error.is_missing:
                raise
            return {}
        return found if isinstance(found, dict) else {}


def _host() -> str:
    """Of this machine, or this container."""
    return f"{platform.node()}/{uuid.getnode():x}"


def _lives(owner: dict[str, Any]) -> bool:
    """Whether the process that has a claim, of this machine, still runs."""
    pid = int(owner.get("pid", 0))
    if pid == os.getpid():
        # A container that begins again has the same number.
        return owner.get("token") in _OURS
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True
