from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from camtool.accelerate.environment import SETTINGS

ROOT = Path(__file__).parents[2]
PROGRAM = """
import os, sys
from camtool.cli import main
sys.argv = ["camtool", "--version"]
try:
    main()
finally:
    print("torch" in sys.modules, *(os.environ.get(name) for name in sys.stdin.read().split()))
"""


@pytest.mark.parametrize("given", [{}, {"OMP_WAIT_POLICY": "active"}])
def test_the_command_line_sets_what_the_user_has_not_set_before_torch_is_there(given):
    others = {name: value for name, value in os.environ.items() if name not in SETTINGS}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env={**others, **given, "PYTHONPATH": str(ROOT)},
        input=" ".join(SETTINGS),
        capture_output=True,
        text=True,
        check=True,
    )
    *_, torch, wait, pages = done.stdout.split()
    assert torch == "False"
    assert (wait, pages) == (given.get("OMP_WAIT_POLICY", "passive"), "1")
