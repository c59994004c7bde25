"""Published weights: fetched once, kept in torch's hub cache, and verified every time."""

from __future__ import annotations

import hashlib
import os
import re
import sys
from functools import lru_cache
from http.client import HTTPException
from pathlib import Path
from urllib.error import URLError
from urllib.parse import urlsplit

from camtool.errors import ModelError

MIRROR = "CAMTOOL_HUB"
"""Environment variable: a server to ask instead of the published one, path by path."""


def cached_path(url: str) -> Path:
    """Where torch's hub keeps the file of a URL, whether it is there or not."""
    from torch import hub

    return Path(hub.get_dir()) / "checkpoints" / Path(urlsplit(url).path).name


def fetch(url: str, name: str) -> Path:
    """The file of a URL, from the cache or downloaded with a progress bar on stderr.

    Its name carries the first digits of its SHA-256 (torch's convention); they are checked for a
    file in the cache as for a new one.

    Args:
        url: The published address.
        name: What it is, for messages.

    Raises:
        ModelError: It can't be downloaded, or is damaged.
    """
    path = cached_path(url)
    if not path.exists():
        _download(url, path, name)
    verify(path)
    return path


def verify(path: Path) -> str:
    """The SHA-256 of a file, checked against the digits in its name if there are any.

    Raises:
        ModelError: They differ.
    """
    digest = sha256(path)
    wanted = _digits(path.name)
    if wanted and not digest.startswith(wanted):
        raise ModelError(
            f"{path}: is damaged (SHA-256 begins {digest[: len(wanted)]}, should be {wanted}); "
            "delete it and fetch it again"
        )
    return digest


def sha256(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal; remembered while the file stays the same.

    Raises:
        ModelError: The file can't be read.
    """
    try:
        status = path.stat()
        return _digest(path, status.st_mtime_ns, status.st_size)
    except OSError as error:
        raise ModelError(f"{path}: can't be read ({error.strerror})") from None


@lru_cache(maxsize=64)
def _digest(path: Path, _modified: int, _size: int) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def _digits(name: str) -> str:
    match = re.search(r"-([0-9a-f]{8,64})\.", name)
    return match.group(1) if match else ""


def _download(url: str, path: Path, name: str) -> None:
    from torch import hub

    mirror = os.environ.get(MIRROR)
    address = mirror.rstrip("/") + urlsplit(url).path if mirror else url
    print(f"camtool: fetching the weights of {name} from {address}", file=sys.stderr)
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        hub.download_url_to_file(address, str(path), _digits(path.name) or None, progress=True)
    except RuntimeError as error:
        raise ModelError(f"{address}: the download is damaged ({error})") from None
    except (URLError, HTTPException, OSError, ValueError) as error:
        reason = getattr(error, "reason", None) or error
        raise ModelError(
            f"the weights of {name} can't be downloaded ({reason}); put the file of {url} at "
            f"{path}, or name a file with --weights"
        ) from None
