"""Processes: the bytes of the threads; one line where one dies; none is left behind."""

from __future__ import annotations

import os
import signal
import threading
from contextlib import suppress
from pathlib import Path

import pytest
import torch

import camtool
from camtool.engines import processes
from camtool.engines.engine import Job, Request
from camtool.engines.processes import ProcessEngine
from camtool.engines.stream import Pairs
from camtool.engines.threads import ThreadEngine
from camtool.errors import EngineError

PICTURES = 150
OPTIONS = (
    *("--save", "overlay,npz", "--results", "csv,jsonl", "--coco", "-k", "2"),
    *("--batch-size", "2"),
)
ENGINE = ("--engine", "processes", "-j", "2")


@pytest.fixture(scope="module")
def source(tmp_path_factory, make_pictures):
    folder = make_pictures(tmp_path_factory.mktemp("processes") / "photos", PICTURES)
    (folder / "0050a.jpg").write_bytes(b"\xff\xd8\xff broken")
    return folder


@pytest.fixture(scope="module")
def whole(source, tiny, server, tree, tmp_path_factory):
    """Files of a run by threads that nobody disturbed."""
    output = tmp_path_factory.mktemp("processes") / "out"
    server.start(output.with_name("log"), "batch", source, "-o", output, "-m", tiny, *OPTIONS)
    assert server.wait() == 1
    return tree(output)


@pytest.fixture
def begin(source, tiny, server, journal_lines, wait_until, tmp_path):
    """Begins a run by processes, or goes on with it, and waits until it noted more pictures."""

    def start():
        if not Path("/proc/self/stat").exists():
            pytest.skip("needs /proc")
        output = tmp_path / "out"
        before = journal_lines(output)
        arguments = ("batch", source, "-o", output, "-m", tiny, *OPTIONS, *ENGINE)
        pid = server.start(tmp_path / "log", *arguments)
        wait_until(lambda: journal_lines(output) > before, seconds=180)
        assert journal_lines(output) < PICTURES
        return pid, output

    return start


def workers(pid):
    """Processes of a run that explain pictures."""
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            of = (folder / "stat").read_text().rpartition(")")[2].split()[1]
            if of == str(pid) and b"spawn_main" in (folder / "cmdline").read_bytes():
                yield int(folder.name)


def are_gone(pids):
    return not any(Path(f"/proc/{pid}").exists() for pid in pids)


@pytest.mark.slow
def test_killed_workers_and_killed_runs_change_no_byte(
    begin, server, batch, source, whole, tree, wait_until, tmp_path
):
    pid, output = begin()
    killed, other = workers(pid)
    os.kill(killed, signal.SIGKILL)
    assert server.wait() == 1
    reason = "a process that explained pictures was killed"
    said = (tmp_path / "log").read_text()
    assert f"Stopped ({reason}): the same command continues." in said
    assert "Traceback" not in said
    assert are_gone([other])
    pid, _ = begin()
    left = [*workers(pid)]
    os.kill(pid, signal.SIGKILL)
    server.wait()
    wait_until(lambda: are_gone(left))
    pid, _ = begin()
    left = [*workers(pid)]
    # As a terminal sends it: to all of them.
    for one in (pid, *left):
        os.kill(one, signal.SIGINT)
    assert server.wait() == 130
    assert are_gone(left)
    assert "Traceback" not in (tmp_path / "log").read_text()
    assert batch(source, output, *OPTIONS, *ENGINE).exit_code == 1
    assert tree(output) == whole


def test_a_network_that_can_not_be_sent_is_one_line(tiny):
    model = camtool.load(tiny, device="cpu")
    vars(model.network.module)["lock"] = threading.Lock()
    with pytest.raises(EngineError, match=r"can't be sent to other processes \(TypeError: "):
        next(ProcessEngine(model, Request(), 1).run([Job(0, "x.jpg")], Pairs()))


def test_where_all_is_finished_no_process_is_begun(tiny, monkeypatch):
    monkeypatch.setattr(processes, "Pool", None)
    engine = ProcessEngine(camtool.load(tiny, device="cpu"), Request())
    assert list(engine.run([Job(n, "x.jpg", shape=(64, 64)) for n in range(99)], Pairs())) == []


def taken(name):
    """The `run` of an engine that says which one it is, and how many jobs it was given."""

    def run(_self, jobs, _work, _stopping):
        yield [name, sum(1 for _ in jobs)]

    return run


@pytest.mark.parametrize(
    ("device", "pictures", "cores", "sendable", "expected"),
    [
        ("cpu", 10, 8, True, "Threads"),
        ("cuda", 9, 8, True, "Threads"),
        ("cuda", 10, 3, True, "Threads"),
        ("cuda", 10, 8, False, "Threads"),
        ("cuda", 10, 8, True, "Processes"),
        ("cuda", 25, 8, True, "Processes"),
    ],
)
def test_what_divides_the_work_where_nobody_says(
    device, pictures, cores, sendable, expected, tiny, monkeypatch
):
    monkeypatch.setattr(processes, "FEW", 10)
    monkeypatch.setattr(processes, "available_cores", lambda: cores)
    monkeypatch.setattr(ThreadEngine, "run", taken("Threads"))
    monkeypatch.setattr(ProcessEngine, "run", taken("Processes"))
    model = camtool.load(tiny, device="cpu")
    model.device = torch.device(device)
    if not sendable:
        vars(model.network.module)["lock"] = threading.Lock()
    jobs = (Job(number, "x.jpg") for number in range(pictures))
    assert list(processes.AutoEngine(model, Request()).run(jobs, Pairs())) == [[expected, pictures]]


@pytest.mark.slow
def test_what_no_process_can_load_is_one_line(source, batch, monkeypatch, tmp_path):
    monkeypatch.setattr("camtool.__version__", "0.0.1")
    result = batch(source, tmp_path / "out", *ENGINE)
    assert result.exit_code == 2
    assert "here is camtool 0.0.1, torch " in result.output
