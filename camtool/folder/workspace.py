"""The folder of a run's results: claimed by one run at a time, and never mixed from two."""

from __future__ import annotations

import errno
import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from camtool.engines.settings import differences
from camtool.files import make_folders, write_atomically
from camtool.folder.discovery import Picture
from camtool.folder.entry import Explained
from camtool.folder.journal import Journal, read_entries
from camtool.folder.names import HIDDEN, RESULTS, THUMBNAILS, YOLO, folders_of
from camtool.images import display_name

JOURNAL = "journal.jsonl"


class RunError(RuntimeError):
    """The run can't start; what is finished is kept."""


_NO_LOCKS = {errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS}


@contextmanager
def claimed(
    output: Path, settings: Mapping[str, Any], pictures: Sequence[Picture], overwrite: bool
) -> Iterator[Journal]:
    """The folder of the results, for this run alone, with settings that fit it.

    Args:
        output: The folder; made if it is missing.
        settings: Everything that the results depend on, as JSON.
        pictures: Of the run, in its order.
        overwrite: Remove what an earlier run wrote there.

    Yields:
        The journal inside it; closed in the end.

    Raises:
        RunError: It belongs to another run, another run is writing there, or it can't be written.
    """
    hidden = output / HIDDEN
    with ExitStack() as stack:
        try:
            make_folders(hidden)
            lock(stack.enter_context((hidden / "lock").open("w")), output)
            _agree(hidden, settings, overwrite)
            _sweep(output, [picture.name for picture in pictures])
            journal = Journal(hidden / JOURNAL, [picture.key for picture in pictures])
        except OSError as error:
            raise RunError(f"{display_name(output)}: {error.strerror or error}") from None
        try:
            yield journal
        finally:
            with suppress(OSError):
                journal.close()


def _agree(hidden: Path, settings: Mapping[str, Any], overwrite: bool) -> None:
    """Refuse to mix two runs; begin anew where that is wanted."""
    output, path = hidden.parent, hidden / "settings.json"
    for name in RESULTS:
        if (output / name).is_dir():
            raise RunError(
                f"{display_name(output / name)}: is a folder where a result should go; choose "
                "another --output"
            )
    if overwrite:
        _discard(hidden)
    elif path.exists():
        changed = differences(_read_settings(path), settings)
        if changed:
            raise RunError(
                f"{display_name(output)} holds another run ({'; '.join(changed)}); choose another "
                "folder, or --overwrite"
            )
    write_atomically(path, json.dumps(settings, indent=1).encode())


def _read_settings(path: Path) -> dict[str, Any]:
    with suppress(ValueError):
        settings = json.loads(path.read_text())
        if isinstance(settings, dict):
            return settings
    raise RunError(f"{display_name(path)}: is damaged; --overwrite begins anew")


def _sweep(output: Path, names: Iterable[str]) -> None:
    """Remove the halves of files that a crash left where this run writes."""
    folders = ["", *folders_of(names)]
    roots = ("", f"{THUMBNAILS}/", f"{YOLO}/labels/")
    for folder in (HIDDEN, YOLO, *(f"{root}{folder}" for root in roots for folder in folders)):
        # Where a name is too long for this disk, nothing was written.
        with suppress(OSError, ValueError):
            for left in (output / folder).glob(".camtool-*.part"):
                left.unlink(missing_ok=True)


def _discard(hidden: Path) -> None:
    """Remove what an earlier run wrote, as its journal tells; other files stay."""
    output = hidden.parent
    for entry in read_entries(hidden / JOURNAL):
        if isinstance(entry, Explained):
            remove(output / name for name in entry.files)
    for name in (*RESULTS, f"{HIDDEN}/{JOURNAL}"):
        (output / name).unlink(missing_ok=True)


def remove(files: Iterable[Path]) -> None:
    """Remove files, as far as they are there."""
    for file in files:
        with suppress(OSError):
            file.unlink()


def remove_strays(files: Collection[Path], output: Path) -> None:
    """Remove files that were written while the output was removed, and the folders made for them.

    Nothing is touched where another run has claimed the place meanwhile.
    """
    if (output / HIDDEN).exists():
        return
    remove(files)
    for folder in sorted({folder for file in files for folder in file.parents}, reverse=True):
        if folder == output or output in folder.parents:
            with suppress(OSError):
                folder.rmdir()


def lock(stream: IO[Any], output: Path) -> None:
    """Let no two runs write to one folder; the lock goes with the process, however it ends.

    Raises:
        RunError: Another run has it.
    """
    try:
        import fcntl
    except ImportError:
        return
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise RunError(f"{display_name(output)}: another run is writing there") from None
    except OSError as error:
        # Some network file systems have no locks; a run there is better than none.
        if error.errno not in _NO_LOCKS:
            raise
