"""Rooms import downwards, in no circle: the contracts of pyproject.toml, and that they see."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
COMMAND = "from importlinter.cli import lint_imports_command; lint_imports_command()"

WRONG = {
    "images/read.py": "camtool.networks.preprocessing",
    "methods/cam.py": "camtool.images",
    "views/overlay.py": "camtool.model",
    "model.py": "camtool.regions",
    "engines/threads.py": "camtool.report",
    "evaluate/run.py": "camtool.folder",
    "evaluate/metrics.py": "camtool.report",
    "errors.py": "camtool.files",
    "files.py": "camtool.cli",
}
"""An import against the arrows for a file of several rooms."""


def lint(folder: Path) -> subprocess.CompletedProcess[str]:
    """What import-linter says of the package in a folder."""
    return subprocess.run(
        [sys.executable, "-c", COMMAND, "--no-cache"],
        cwd=folder,
        env={**os.environ, "COLUMNS": "200", "PYTHONIOENCODING": "utf-8"},
        capture_output=True,
        encoding="utf-8",
        check=False,
    )


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    """The package and its contracts, to be changed."""
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    leave = shutil.ignore_patterns("__pycache__", "*.safetensors")
    shutil.copytree(ROOT / "camtool", tmp_path / "camtool", ignore=leave)
    return tmp_path


def test_rooms_import_downwards() -> None:
    done = lint(ROOT)
    assert done.returncode == 0, done.stdout + done.stderr


def test_imports_against_the_arrows_are_seen(copied: Path) -> None:
    for name, module in WRONG.items():
        with (copied / "camtool" / name).open("a", encoding="utf-8") as stream:
            stream.write(f"\n\ndef _wrong():\n    import {module}\n")
    said = lint(copied)
    assert said.returncode == 1, said.stderr
    for name, module in WRONG.items():
        importer = name.removesuffix(".py").replace("/", ".")
        assert f"camtool.{importer} -> {module} (l." in said.stdout


def test_a_circle_within_a_room_is_seen(copied: Path) -> None:
    room = copied / "camtool" / "images"
    (room / "one.py").write_text("import camtool.images.two\n")
    (room / "two.py").write_text("import camtool.images.one\n")
    said = lint(copied)
    assert said.returncode == 1, said.stderr
    assert "No cycles are allowed in camtool.images" in said.stdout


def test_a_new_room_has_to_be_given_its_place(copied: Path) -> None:
    (copied / "camtool" / "attic.py").write_text("")
    said = lint(copied)
    assert said.returncode == 1
    assert "attic" in said.stdout + said.stderr
