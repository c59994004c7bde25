from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch

from camtool.engines.threads import Workers
from camtool.evaluate.lanes import lanes_of
from camtool.evaluate.predictions import EvaluationError

TWO = Workers.for_folder(torch.device("cpu"), 2)


def times(factor: int, number: int) -> tuple[int, int]:
    return factor * number, os.getpid()


def killed(_: int, number: int) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def no_twos(factor: int, number: int) -> int:
    if number == 2:
        raise ValueError("no twos")
    return factor * number


class Elsewhere:
    """What can be pickled, but not made again in a process that is no test's."""

    def __reduce__(self):
        return made_here, (os.getpid(),)


def made_here(home: int) -> Elsewhere:
    if os.getpid() != home:
        raise ImportError("not here")
    return Elsewhere()


def where(_: object, number: int) -> int:
    return os.getpid()


def results(tool, task, items, processes=True):
    with lanes_of(tool, TWO, processes) as lanes:
        return [result for _, result in lanes.mapped(task, items)]


def is_alone():
    """Whether no process is left; two threads that wait for one may see it end one by one."""
    return not multiprocessing.active_children()


@pytest.mark.parametrize("processes", [False, True])
def test_results_come_in_order_from_where_they_should(processes, wait_until):
    found = results(3, times, range(20), processes)
    assert [number for number, _ in found] == [3 * n for n in range(20)]
    assert ({pid for _, pid in found} == {os.getpid()}) is not processes
    wait_until(is_alone)


@pytest.mark.parametrize("tool", [lambda: 0, threading.Lock(), Elsewhere()])
def test_what_processes_cannot_have_is_for_threads(tool, capfd, wait_until):
    assert set(results(tool, where, range(4))) == {os.getpid()}
    wait_until(is_alone)
    assert capfd.readouterr() == ("", "")


def test_one_worker_is_no_other_process():
    with lanes_of(3, Workers.for_folder(torch.device("cpu"), 1), True) as lanes:
        assert {pid for _, (_, pid) in lanes.mapped(times, range(3))} == {os.getpid()}


@pytest.mark.parametrize("processes", [False, True])
def test_errors_of_a_task_are_those_of_the_caller(processes, wait_until):
    with pytest.raises(ValueError, match="no twos"):
        results(3, no_twos, range(4), processes)
    wait_until(is_alone)


def test_a_killed_process_is_told_in_one_line(wait_until):
    with pytest.raises(EvaluationError, match=r"ended from outside.*--workers") as error:
        results(3, killed, range(9))
    assert len(str(error.value).splitlines()) == 1
    wait_until(is_alone)


SCRIPT = """
import os
import signal
import time
import torch
from camtool.engines.threads import Workers
from camtool.evaluate.lanes import lanes_of

def nap(tool, number):
    # In one piece, for two processes write there.
    os.write(1, b"begun %d\\n" % number)
    time.sleep(60)

def main():
    with lanes_of(0, Workers.for_folder(torch.device("cpu"), 2), True) as lanes:
        list(lanes.mapped(nap, range(4)))

if __name__ == "__main__":
    # Shells have what they begin in the background ignore it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        main()
    except KeyboardInterrupt:
        print("interrupted", flush=True)
"""


@pytest.fixture
def napping(tmp_path):
    """A script whose processes are in the middle of their work, leader of its own group."""
    (tmp_path / "script.py").write_text(SCRIPT)
    process = subprocess.Popen(
        [sys.executable, tmp_path / "script.py"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    assert sorted(process.stdout.readline() for _ in range(2)) == ["begun 0\n", "begun 1\n"]
    yield process
    process.kill()
    process.wait()


def of_group(group: int) -> list[Path]:
    """Processes of a group that still run."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, number = stat.read_text().rpartition(")")[2].split()[:3]
        except OSError:
            continue
        if int(number) == group and state != "Z":
            found.append(stat)
    return found


def wait_until_none(group: int) -> bool:
    for _ in range(600):
        if not of_group(group):
            return True
        time.sleep(0.05)
    return False


needs_proc = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")


@pytest.mark.slow
@needs_proc
def test_ctrl_c_ends_processes_without_tracebacks(napping):
    os.killpg(napping.pid, signal.SIGINT)
    out, err = napping.communicate(timeout=40)
    assert out == "interrupted\n"
    assert err == ""
    assert wait_until_none(napping.pid)


@pytest.mark.slow
@needs_proc
def test_processes_end_with_the_one_that_began_them(napping):
    napping.kill()
    assert wait_until_none(napping.pid)
