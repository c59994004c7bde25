"""Signals: while a model is loaded, while a run goes on, and from a terminal that was closed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading

import pytest

from camtool.cli.stop import INTERRUPTED, leaving, stoppable
from camtool.model import CamModel

pytestmark = pytest.mark.skipif(os.name == "nt", reason="signals of POSIX systems")

SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP")


@pytest.fixture
def send():
    """Send a signal to this process; what the process does with signals is as before in the end."""
    numbers = [getattr(signal, name) for name in SIGNALS]
    before = {number: signal.getsignal(number) for number in numbers}
    for number in numbers:
        signal.signal(number, signal.SIG_DFL)
    yield lambda name: os.kill(os.getpid(), getattr(signal, name))
    left = {number: signal.getsignal(number) for number in numbers}
    for number, handler in before.items():
        signal.signal(number, handler)
    assert set(left.values()) <= {signal.SIG_DFL, signal.SIG_IGN}


@pytest.mark.parametrize("name", SIGNALS)
def test_a_signal_while_the_model_is_loaded(
    send, name, make_pictures, batch, monkeypatch, capfd, tmp_path
):
    def load(*_arguments, **_options):
        send(name)
        pytest.fail("the signal was not taken")

    monkeypatch.setattr(CamModel, "__init__", load)
    source = make_pictures(tmp_path / "photos", 1)
    result = batch(source, tmp_path / "out")
    assert result.exit_code == INTERRUPTED == 130
    assert capfd.readouterr().err == "\ncamtool: interrupted\n"
    assert not (tmp_path / "out").exists()


def test_what_is_left_is_left_in_order(send, tmp_path):
    def write():
        try:
            (tmp_path / "half").touch()
            send("SIGTERM")
        finally:
            (tmp_path / "half").unlink()

    with pytest.raises(SystemExit, match="130"), leaving():
        write()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", SIGNALS)
def test_a_run_is_told_to_stop(send, name, capfd):
    with stoppable() as stopping:
        assert not stopping()
        send(name)
        assert stopping()
    assert "finishing what is in flight" in capfd.readouterr().err


def test_a_run_inside_what_may_be_left_is_told_and_not_broken(send):
    with leaving():
        with stoppable() as stopping:
            send("SIGHUP")
        assert stopping()


@pytest.mark.parametrize("context", [leaving, stoppable])
def test_a_hang_up_that_nohup_ignores_stays_ignored(send, context):
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with context() as stopping:
        send("SIGHUP")
        assert not (stopping and stopping())
    assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN


def test_other_threads_take_no_signals():
    found = []

    def run():
        with leaving(), stoppable() as stopping:
            found.append(stopping())

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert found == [False]


IN_A_TERMINAL = """
import os, signal, sys, time
signal.signal(signal.SIGHUP, signal.SIG_DFL)
terminal = os.open(sys.argv[1], os.O_RDWR)  # of a leader of a session: it is its terminal now
for stream in (0, 1, 2):
    os.dup2(terminal, stream)
from camtool.cli.stop import stoppable
with stoppable() as stopping:
    print("running", flush=True)
    while not stopping():
        time.sleep(0.01)
    print("printed to nobody", flush=True)
    print("nor is this", file=sys.stderr, flush=True)
    open(sys.argv[2], "w").close()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="terminals of Linux")
def test_a_run_ends_in_order_when_its_terminal_is_closed(tmp_path):
    master, slave = os.openpty()
    command = [sys.executable, "-c", IN_A_TERMINAL, os.ttyname(slave), str(tmp_path / "done")]
    process = subprocess.Popen(command, start_new_session=True)
    shown = b""
    while b"running" not in shown:
        shown += os.read(master, 100)
    os.close(slave)
    os.close(master)
    assert process.wait(60) == 0
    assert (tmp_path / "done").exists()
