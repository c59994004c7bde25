"""Memory does not grow with the folder; benchmarks/memory.py measures it on 20,000 pictures."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import pytest

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "memory.py"


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_thousand_further_pictures_cost_no_memory(tmp_path):
    benchmark = runpy.run_path(str(BENCHMARK))
    benchmark["make_pictures"](tmp_path / "photos", 2000)
    found = benchmark["measure"](tmp_path / "photos", tmp_path / "out", "none")
    assert found[2000] - found[1000] < 15e6
    assert found[-1] - found[1000] < 50e6
