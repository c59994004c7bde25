"""Files appear whole, however deep they lie."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from camtool.files import make_folders, write_atomically

DEEP = Path(*["d"] * 1100)


@pytest.fixture
def below(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A current folder that is emptied in the end, which no recursion could."""
    monkeypatch.chdir(tmp_path)
    yield
    depth = 0
    while Path("d").exists():
        os.chdir("d")
        depth += 1
    for _ in range(depth):
        Path("a.txt").unlink(missing_ok=True)
        os.chdir("..")
        Path("d").rmdir()


@pytest.mark.skipif(sys.platform != "linux", reason="other systems take no path that long")
@pytest.mark.usefixtures("below")
def test_more_folders_inside_each_other_than_calls_may_be() -> None:
    write_atomically(DEEP / "a.txt", b"whole")
    assert (DEEP / "a.txt").read_bytes() == b"whole"
    make_folders(DEEP)
    with pytest.raises(FileExistsError):
        make_folders(DEEP / "a.txt")
    with pytest.raises(NotADirectoryError):
        make_folders(DEEP / "a.txt" / "b")
    with pytest.raises(OSError, match="too long"):
        make_folders(DEEP / DEEP)
