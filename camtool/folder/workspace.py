"""The folder of a run's results: claimed by one run at a time, and never mixed from two."""

from __future__ import annotations

import errno
import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from camtool.engines.settings import differences
from camtool.files import make_folders, write_atomically
from camtool.folder.discovery import Picture
from camtool.folder.entry import Explained
from camtool.folder.journal import Journal, read_entries
from camtool.folder.names import HIDDEN, JOURNAL, RESULTS, THUMBNAILS, YOLO, folders_of
from camtool.images import display_name

if TYPE_CHECKING:
    from camtool.folder.bucket import Bucket


class RunError(RuntimeError):
    """The run can't start; what is finished is kept."""


_NO_LOCKS = {errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS}


@contextmanager
def claimed(
    output: Path,
    settings: Mapping[str, Any],
    pictures: Sequence[Picture],
    overwrite: bool,
    bucket: Bucket | None = None,
) -> Iterator[Journal]:
    """The folder of the results, for this run alone, with settings that fit it.

    Args:
        output: The folder; made if it is missing.
        settings: Everything that the results depend on, as JSON.
        pictures: Of the run, in its order.
        overwrite: Remove what an earlier run wrote there.
        bucket: Where all of it goes, if `output` is only where it is made.

    Yields:
        The journal inside it; closed in the end.

    Raises:
        RunError: It belongs to another run, another run is writing there, or it can't be written.
    """
    hidden, place = output / HIDDEN, display_name(bucket.place if bucket else output)
    with ExitStack() as stack:
        try:
            make_folders(hidden)
            lock(stack.enter_context((hidden / "lock").open("w")), output)
            _agree(output, settings, overwrite, bucket)
            keys = [picture.key for picture in pictures]
            if bucket:
                bucket.settle()
                journal = bucket.journal(keys)
            else:
                _sweep(output, [picture.name for picture in pictures])
                journal = Journal(output / JOURNAL, keys)
        except OSError as error:
            raise RunError(f"{place}: {error.strerror or error}") from None
        try:
            yield journal
            if not bucket and not journal.is_gone():
                # What a process left that was killed while others went on.
                _sweep(output, [picture.name for picture in pictures])
        finally:
            with suppress(OSError):
                journal.close()


def _agree(
    output: Path, settings: Mapping[str, Any], overwrite: bool, bucket: Bucket | None
) -> None:
    """Refuse to mix two runs; begin anew where that is wanted."""
    path = output / HIDDEN / "settings.json"
    place = display_name(bucket.place if bucket else output)
    for name in RESULTS:
        if (output / name).is_dir():
            raise RunError(
                f"{display_name(output / name)}: is a folder where a result should go; choose "
                "another --output"
            )
    if overwrite:
        _discard(output, bucket)
    elif path.exists():
        changed = differences(_read_settings(path, place), settings)
        if changed:
            raise RunError(
                f"{place} holds another run ({'; '.join(changed)}); choose another "
                "folder, or --overwrite"
            )
    write_atomically(path, json.dumps(settings, indent=1).encode())


def _read_settings(path: Path, place: str) -> dict[str, Any]:
    with suppress(ValueError):
        settings = json.loads(path.read_text())
        if isinstance(settings, dict):
            return settings
    raise RunError(f"{place}/{HIDDEN}/{path.name}: is damaged; --overwrite begins anew")


def _sweep(output: Path, names: Iterable[str]) -> None:
    """Remove the halves of files that a crash left where this run writes."""
    folders = ["", *folders_of(names)]
    roots = ("", f"{THUMBNAILS}/", f"{YOLO}/labels/")
    for folder in (HIDDEN, YOLO, *(f"{root}{folder}" for root in roots for folder in folders)):
        # Where a name is too long for this disk, nothing was written.
        with suppress(OSError, ValueError):
            for left in (output / folder).glob(".camtool-*.part"):
                left.unlink(missing_ok=True)


def _discard(output: Path, bucket: Bucket | None) -> None:
    """Remove what an earlier run wrote, as its journal tells; other files stay."""
    entries = (entry for entry in read_entries(output / JOURNAL) if isinstance(entry, Explained))
    names = (name for entry in entries for name in entry.files)
    if bucket:
        bucket.discard([*names, *RESULTS])
    else:
        remove(output / name for name in names)
    for name in (*RESULTS, JOURNAL):
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
