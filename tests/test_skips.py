"""Under CI a test that skips for want of what could be installed is a failure."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TESTS = """
import pytest

def test_program():
    pytest.skip("no chromium on the path")

def test_gpu():
    pytest.skip("no CUDA device on this machine")

@pytest.mark.xfail(strict=True)
def test_known():
    assert False

def test_page(browser):
    pass

@pytest.fixture
def browser():
    pass
"""


def outcome(folder: Path, *words: str, ci: str) -> str:
    """The closing line of pytest for `TESTS` and a module that can't be imported."""
    shutil.copy(ROOT / "tests" / "conftest.py", folder)
    (folder / "pytest.ini").write_text("[pytest]\nmarkers = browser: opens a page\n")
    (folder / "test_some.py").write_text(TESTS)
    (folder / "test_module.py").write_text("import pytest\npytest.importorskip('no_such_thing')\n")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *words]
    env = {**os.environ, "CI": ci, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False)
    return done.stdout.splitlines()[-1].partition(" in ")[0]


@pytest.mark.slow
def test_only_what_no_script_can_install_is_skipped_under_ci(tmp_path: Path) -> None:
    assert outcome(tmp_path, ci="") == "1 passed, 3 skipped, 1 xfailed"
    words = ("--continue-on-collection-errors",)
    failed = "1 failed, 1 passed, 1 skipped, 1 xfailed, 1 error"
    assert outcome(tmp_path, *words, ci="true") == failed


@pytest.mark.slow
def test_a_test_that_takes_the_browser_is_marked(tmp_path: Path) -> None:
    words = ("-m", "browser")
    assert outcome(tmp_path, *words, ci="") == "1 passed, 1 skipped, 3 deselected"
