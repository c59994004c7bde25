"""Memory does not grow with the folder, and what was freed is used again.

benchmarks/memory.py measures the growth on 20,000 pictures.
"""

from __future__ import annotations

import platform
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from camtool.accelerate.memory import spare_memory

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "memory.py"

PROGRAM = """
import resource, sys
from concurrent.futures import ThreadPoolExecutor
import numpy as np
from camtool.accelerate.memory import keep_freed_memory

def use():
    blocks = [np.ones(int(sys.argv[2]) << 20, np.uint8) for _ in range(4)]

if sys.argv[1] == "kept":
    keep_freed_memory()
with ThreadPoolExecutor(1) as pool:
    pool.submit(use).result()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(5):
        pool.submit(use).result()
    print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_thousand_further_pictures_cost_no_memory(tmp_path):
    benchmark = runpy.run_path(str(BENCHMARK))
    benchmark["make_pictures"](tmp_path / "photos", 2000)
    found = benchmark["measure"](tmp_path / "photos", tmp_path / "out", "none")
    assert found[2000] - found[1000] < 15e6
    assert found[-1] - found[1000] < 50e6


def page_faults(how: str, megabytes: int) -> int:
    """Pages that a thread had to be given for using four blocks five times after a first time."""
    command = [sys.executable, "-c", PROGRAM, how, str(megabytes)]
    return int(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)


NAME, VERSION = platform.libc_ver()
RELEASE = tuple(int(number) for number in VERSION.split(".")) if NAME == "glibc" else (0,)


@pytest.mark.slow
@pytest.mark.skipif(RELEASE == (0,), reason="only glibc's malloc is adjusted")
@pytest.mark.parametrize("megabytes", [16, 48])
def test_freed_memory_is_used_again(megabytes):
    if megabytes > 32 and RELEASE < (2, 35):
        pytest.skip("this glibc keeps no larger blocks than 32 MB")
    assert page_faults("kept", megabytes) < 100 < page_faults("returned", megabytes)


@pytest.mark.skipif(platform.system() != "Linux", reason="Linux tells in /proc")
def test_spare_memory_is_some_of_what_there_is():
    about = Path("/proc/meminfo").read_text().partition("MemTotal:")[2]
    assert 0 < spare_memory() < int(about.split()[0]) << 10
