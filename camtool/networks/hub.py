"""Published weights: fetched once, kept in torch's hub cache, and verified every time."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import sys
from contextlib import suppress
from functools import lru_cache
from http.client import HTTPException
from pathlib import Path
from typing import IO
from urllib.error import URLError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

from camtool.errors import ModelError
from camtool.files import replacing

MIRROR = "CAMTOOL_HUB"
"""Environment variable: a server to ask instead of the published one, path by path."""

OFFLINE = "CAMTOOL_OFFLINE"
"""Environment variable: anything but empty, 0, false and no forbids every download."""

TIMEOUT = 20
"""Seconds without a connection or a byte after which a server is given up; one that is alive was
never seen to pause for longer, and a silent one would be waited on for ever."""

CHUNK = 1 << 20


def is_offline(wanted: bool) -> bool:
    """Whether downloads are forbidden: as a caller wants it, or by `CAMTOOL_OFFLINE`."""
    return wanted or os.environ.get(OFFLINE, "").lower() not in ("", "0", "false", "no")


def cached_path(url: str) -> Path:
    """Where torch's hub keeps the file of a URL, whether it is there or not."""
    from torch import hub

    return Path(hub.get_dir()) / "checkpoints" / Path(urlsplit(url).path).name


def cached(url: str) -> Path | None:
    """The file of a URL in torch's hub cache; None if it is not there."""
    path = cached_path(url)
    return path if path.is_file() else None


def fetch(url: str, name: str, offline: bool = False) -> Path:
    """The file of a URL, from the cache or downloaded with a progress bar on stderr.

    Its name carries the first digits of its SHA-256 (torch's convention); they are checked for a
    file in the cache as for a new one.

    Args:
        url: The published address.
        name: What it is, for messages.
        offline: Download nothing.

    Raises:
        ModelError: It can't be downloaded, or is damaged; or is not here, and `offline`.
    """
    path = cached_path(url)
    if not path.exists():
        refuse_offline(offline, name, f"put the file of {url} at {path}")
        _download(url, path, name)
    verify(path)
    return path


def refuse_offline(offline: bool, name: str, remedy: str) -> None:
    """Say what would help where a download would come next and is forbidden.

    Raises:
        ModelError: `offline`, or `CAMTOOL_OFFLINE` is set.
    """
    if is_offline(offline):
        raise ModelError(
            f"the weights of {name} are not on this machine, and offline nothing is downloaded; "
            f"{remedy}, or go online once: camtool weights get"
        )


def verify(path: Path, wanted: str | None = None) -> str:
    """The SHA-256 of a file, checked against its first digits (None: those in its name, if any).

    Raises:
        ModelError: They differ.
    """
    digest = sha256(path)
    wanted = digits(path.name) if wanted is None else wanted
    if not digest.startswith(wanted):
        raise ModelError(
            f"{path}: is damaged (SHA-256 begins {digest[: len(wanted)]}, should be {wanted}); "
            "delete it and fetch it again"
        )
    return digest


def sha256(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal; remembered while the file stays the same.

    Raises:
        ModelError: The file can't be read, or is a pipe or a device.
    """
    if path.exists() and not path.is_file():
        raise ModelError(f"{path}: is no regular file; remove what is there")
    try:
        status = path.stat()
        return _digest(path, status.st_mtime_ns, status.st_size)
    except OSError as error:
        raise ModelError(f"{path}: can't be read ({error.strerror})") from None


@lru_cache(maxsize=64)
def _digest(path: Path, _modified: int, _size: int) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def digits(name: str) -> str:
    """The digits of a SHA-256 in a file's name or address; empty if there are none."""
    match = re.search(r"-([0-9a-f]{8,64})\.[^/]*$", name)
    return match.group(1) if match else ""


def _download(url: str, path: Path, name: str) -> None:
    mirror = os.environ.get(MIRROR)
    address = mirror.rstrip("/") + urlsplit(url).path if mirror else url
    print(f"camtool: fetching the weights of {name} from {address}", file=sys.stderr)
    try:
        request = Request(address, headers={"User-Agent": "camtool"})
        with urlopen(request, timeout=TIMEOUT) as answer, replacing(path, "wb") as stream:
            length = int(answer.headers.get("Content-Length") or 0)
            _check_room(path, length)
            found = _copy(answer, stream, length)
            if not found.startswith(digits(path.name)):
                raise ModelError(f"{address}: the download is damaged (its SHA-256 is {found})")
    except (URLError, HTTPException, OSError, ValueError) as error:
        reason = getattr(error, "reason", None) or error
        raise ModelError(
            f"the weights of {name} can't be downloaded ({reason}); put the file of {url} at "
            f"{path}, or name a file with --weights"
        ) from None


def _check_room(path: Path, length: int) -> None:
    free = shutil.disk_usage(path.parent).free
    if length > free:
        raise OSError(f"{length / 1e6:,.0f} MB do not fit into the {free / 1e6:,.0f} MB left")


def _copy(answer: IO[bytes], stream: IO[bytes], length: int) -> str:
    """Write what a server sends, with a progress bar; its SHA-256."""
    from rich.console import Console
    from rich.progress import DownloadColumn, Progress, TransferSpeedColumn

    digest = hashlib.sha256()
    columns = (*Progress.get_default_columns(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task("", total=length or None)
        while chunk := answer.read(CHUNK):
            stream.write(chunk)
            digest.update(chunk)
            progress.advance(task, len(chunk))
    return digest.hexdigest()


def cached_on_hugging_face(repository: str, *files: str) -> Path | None:
    """The first of some files of a repository that the Hugging Face hub's cache holds."""
    found = (_in_cache(repository, file) for file in files)
    return next((Path(path) for path in found if isinstance(path, str)), None)


def _in_cache(repository: str, file: str) -> object:
    """Its path; None if nothing is known of it; something else if the repository lacks it."""
    from huggingface_hub import try_to_load_from_cache

    name, _, revision = repository.partition("@")
    try:
        return try_to_load_from_cache(name, file, revision=revision or None)
    except ValueError:
        # No name that the hub would give; it will say so itself.
        return None


def fetch_from_hugging_face(
    repository: str, *files: str, name: str, offline: bool = False
) -> Path | None:
    """The first of some files of a repository, from the Hugging Face hub or from its cache.

    Args:
        repository: "OWNER/NAME", or "OWNER/NAME@REVISION".
        *files: Their paths there; any of them will do.
        name: What it is, for messages.
        offline: Download nothing.

    Returns:
        The file in the hub's cache; None where the repository holds none of them.

    Raises:
        ModelError: It can't be had; or is not here, and `offline`.
    """
    if found := cached_on_hugging_face(repository, *files):
        return found
    unknown = [file for file in files if _in_cache(repository, file) is None]
    if unknown:
        refuse_offline(offline, name, f"put {files[0]} of {repository} into the hub's cache")
    fetched = (_from_hugging_face(repository, file, name) for file in unknown)
    return next((path for path in fetched if path), None)


def _from_hugging_face(repository: str, file: str, name: str) -> Path | None:
    from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url
    from huggingface_hub.errors import EntryNotFoundError

    where, _, revision = repository.partition("@")
    endpoint = os.environ.get("HF_ENDPOINT")
    try:
        # The download itself asks a silent server again and again for minutes; this asks once.
        url = hf_hub_url(where, file, revision=revision or None, endpoint=endpoint)
        with suppress(EntryNotFoundError):
            get_hf_file_metadata(url, timeout=TIMEOUT)
        return Path(hf_hub_download(where, file, revision=revision or None, endpoint=endpoint))
    except EntryNotFoundError:
        return None
    except Exception as error:
        # Hub clients raise their own kinds, of packages that need not be installed.
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise ModelError(f"{file} of {name} can't be downloaded ({first})") from None
