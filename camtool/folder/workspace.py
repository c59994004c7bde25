"""The folder of a run's results: claimed by one run at a time, and never mixed from two."""

from __future__ import annotations

import errno
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from camtool.engines.settings import differences
from camtool.files import write_atomically
from camtool.folder.entry import Explained
from camtool.folder.journal import Journal, read_entries
from camtool.folder.results import FORMATS

HIDDEN = ".camtool"
JOURNAL = "journal.jsonl"
_RESULTS = (
    *(f"results.{form}" for form in FORMATS),
    *("failed.csv", "timings.csv", "coco.json", "run.json", "report.html"),
)


class RunError(RuntimeError):
    """The run can't start; what is finished is kept."""


_NO_LOCKS = {errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS}


@contextmanager
def claimed(
    output: Path, settings: Mapping[str, Any], keys: Sequence[str], overwrite: bool
) -> Iterator[Journal]:
    """The folder of the results, for this run alone, with settings that fit it.

    Args:
        output: The folder; made if it is missing.
        settings: Everything that the results depend on, as JSON.
        keys: The pictures of the run, in its order.
        overwrite: Remove what an earlier run wrote there.

    Yields:
        The journal inside it; closed in the end.

    Raises:
        RunError: It belongs to another run, another run is writing there, or it can't be written.
    """
    hidden = output / HIDDEN
    with ExitStack() as stack:
        try:
            hidden.mkdir(parents=True, exist_ok=True)
            _lock(stack.enter_context((hidden / "lock").open("w")), output)
            _agree(hidden, settings, overwrite)
            journal = Journal(hidden / JOURNAL, keys)
        except OSError as error:
            raise RunError(f"{output}: {error.strerror or error}") from None
        try:
            yield journal
        finally:
            with suppress(OSError):
                journal.close()


def _agree(hidden: Path, settings: Mapping[str, Any], overwrite: bool) -> None:
    """Refuse to mix two runs; begin anew where that is wanted."""
    path = hidden / "settings.json"
    if overwrite:
        _discard(hidden)
    elif path.exists():
        changed = differences(_read_settings(path), settings)
        if changed:
            raise RunError(
                f"{hidden.parent} holds another run ({'; '.join(changed)}); choose another "
                "folder, or --overwrite"
            )
    for left in hidden.parent.rglob(".camtool-*.part"):
        left.unlink(missing_ok=True)
    write_atomically(path, json.dumps(settings, indent=1).encode())


def _read_settings(path: Path) -> dict[str, Any]:
    try:
        settings: dict[str, Any] = json.loads(path.read_text())
    except ValueError:
        raise RunError(f"{path}: is damaged; --overwrite begins anew") from None
    return settings


def _discard(hidden: Path) -> None:
    """Remove what an earlier run wrote, as its journal tells; other files stay."""
    output = hidden.parent
    for entry in read_entries(hidden / JOURNAL):
        for name in entry.files if isinstance(entry, Explained) else ():
            with suppress(OSError):
                (output / name).unlink()
    for name in (*_RESULTS, f"{HIDDEN}/{JOURNAL}"):
        (output / name).unlink(missing_ok=True)


def _lock(stream: io.TextIOWrapper, output: Path) -> None:
    """Let no two runs write to one folder; the lock goes with the process, however it ends."""
    try:
        import fcntl
    except ImportError:
        return
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise RunError(f"{output}: another run is writing there") from None
    except OSError as error:
        # Some network file systems have no locks; a run there is better than none.
        if error.errno not in _NO_LOCKS:
            raise
