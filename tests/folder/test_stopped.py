"""Runs that are stopped by a user, a full disk or a lost folder, and runs that are refused."""

from __future__ import annotations

import csv
import errno
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from camtool.folder.entry import Explained
from camtool.folder.journal import read_entries

fcntl = pytest.importorskip("fcntl", reason="locks and signals of POSIX systems")

OPTIONS = ("--results", "csv", "--save", "overlay,npz")


@pytest.fixture(scope="module")
def many(tmp_path_factory, make_pictures):
    """Pictures for some seconds of work."""
    return make_pictures(tmp_path_factory.mktemp("stopped") / "photos", 250)


@pytest.fixture
def few(tmp_path, make_pictures):
    return make_pictures(tmp_path / "photos", 5)


@pytest.fixture
def begun(many, tiny, server, journal_lines, wait_until, tmp_path):
    """A run in a process of its own that has noted some pictures: (pid, output, log)."""
    output, log = tmp_path / "out", tmp_path / "log"
    pid = server.start(log, "batch", many, "-o", output, "-m", tiny, *OPTIONS)
    wait_until(lambda: journal_lines(output) > 0)
    return pid, output, log


def paths(output):
    with (output / "results.csv").open(newline="") as stream:
        return [row["path"] for row in csv.DictReader(stream)]


@pytest.mark.slow
@pytest.mark.skipif(
    signal.getsignal(signal.SIGHUP) is signal.SIG_IGN,
    reason="hang-ups are ignored here, as by nohup",
)
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_ctrl_c_once_finishes_what_is_in_flight(begun, server, many, batch, name):
    pid, output, log = begun
    os.kill(pid, getattr(signal, name))
    assert server.wait() == 130
    said = log.read_text()
    assert "Ctrl-C again stops at once" in said
    assert "Stopped (interrupted): the same command continues." in said
    assert "Traceback" not in said
    done = paths(output)
    assert 0 < len(done) < 250
    assert len(done) % 32 == 0
    assert batch(many, output, *OPTIONS).exit_code == 0
    assert len(paths(output)) == 250


@pytest.mark.slow
def test_ctrl_c_twice_stops_at_once(begun, server):
    pid, output, log = begun
    os.kill(pid, signal.SIGINT)
    time.sleep(0.05)
    os.kill(pid, signal.SIGINT)
    assert server.wait() == 130
    assert not (output / "results.csv").exists()
    assert "Traceback" not in log.read_text()


@pytest.mark.slow
def test_a_lost_source_stops_the_run_and_fails_no_picture(begun, server, many, batch):
    _, output, log = begun
    away = many.with_name("away")
    many.rename(away)
    try:
        assert server.wait() == 1
    finally:
        away.rename(many)
    assert f"Stopped ({many} is gone): the same command continues." in log.read_text()
    assert (output / "failed.csv").read_text() == "path,reason\n"
    assert 0 < len(paths(output)) < 250
    assert batch(many, output, *OPTIONS).exit_code == 0
    assert len(paths(output)) == 250


@pytest.mark.slow
def test_an_empty_folder_in_place_of_the_source_is_no_source(begun, server, many):
    _, output, log = begun
    away = many.with_name("away")
    many.rename(away)
    many.mkdir()
    try:
        assert server.wait() == 1
    finally:
        many.rmdir()
        away.rename(many)
    assert "is gone" in log.read_text()
    assert (output / "failed.csv").read_text() == "path,reason\n"


@pytest.mark.slow
def test_a_lost_output_stops_the_run(begun, server):
    _, output, log = begun
    output.rename(output.with_name("elsewhere"))
    assert server.wait() == 1
    assert f"Stopped ({output}: is gone)" in log.read_text()
    assert not output.exists()
    assert "Traceback" not in log.read_text()


@pytest.fixture
def small_disk(tmp_path):
    if os.geteuid() != 0:
        pytest.skip("only root may mount a small disk")
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1600k", "none", str(disk)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting is not allowed here")
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


@pytest.mark.slow
def test_a_full_disk_stops_the_run_which_continues_when_there_is_room(
    small_disk, make_pictures, batch, tmp_path
):
    source, output = make_pictures(tmp_path / "photos", 150), small_disk / "out"
    stopped = batch(source, output, *OPTIONS)
    assert stopped.exit_code == 1
    assert "Stopped (" in stopped.output
    assert "No space left on device" in stopped.output
    noted = list(read_entries(output / ".camtool" / "journal.jsonl"))
    assert 0 < len(noted) < 150
    assert all(isinstance(entry, Explained) for entry in noted)
    subprocess.run(["mount", "-o", "remount,size=9m", str(small_disk)], check=True)
    again = batch(source, output, *OPTIONS)
    assert again.exit_code == 0
    assert f"150 of 150 pictures explained, {150 - len(noted)} now" in again.output
    assert list(output.rglob("*.part")) == []


def test_files_that_can_not_be_written_are_one_line(few, batch, tmp_path):
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (64, before[1]))
    try:
        result = batch(few, tmp_path / "out", *OPTIONS)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert result.exit_code == 2
    assert "File too large" in result.output


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("-k", "2"), "topk: 1, now 2"),
        (("--save", "npz"), "views.kinds"),
        (("-t", "cat"), "targets: [], now ['cat']"),
        (("--fit", "squash"), "fit: whole, now squash"),
        (("--threshold", "0.5"), "views.threshold: 0.2, now 0.5"),
        (("-m", "squeezenet1_1", "-w", "random"), "name: gapnet, now squeezenet1_1"),
    ],
)
def test_another_run_is_refused_and_named(few, batch, tmp_path, options, told):
    output = tmp_path / "out"
    assert batch(few, output, "--results", "csv").exit_code == 0
    before = (output / "results.csv").read_bytes()
    refused = batch(few, output, "--results", "csv", *options)
    assert refused.exit_code == 2
    assert told in refused.output
    assert "--overwrite" in refused.output
    assert (output / "results.csv").read_bytes() == before


def test_other_labels_are_another_run(few, batch, tmp_path):
    (tmp_path / "labels.txt").write_text("A\nB\nC\nD\nE\n")
    batch(few, tmp_path / "out")
    refused = batch(few, tmp_path / "out", "--labels", tmp_path / "labels.txt")
    assert refused.exit_code == 2
    assert "labels: " in refused.output


def test_overwrite_begins_anew_and_leaves_other_files(few, batch, tmp_path):
    output = tmp_path / "out"
    batch(few, output, "--results", "csv", "--coco")
    (output / "mine.txt").write_text("kept")
    again = batch(few, output, "--results", "jsonl", "--save", "npz", "-k", "2", "--overwrite")
    assert again.exit_code == 0
    assert "5 now" in again.output
    names = {path.name for path in output.iterdir()}
    assert "mine.txt" in names
    assert "results.jsonl" in names
    assert not names & {"results.csv", "coco.json", "0000.jpg.overlay-1.jpg"}


def test_two_runs_at_once_are_refused(few, batch, tmp_path):
    output = tmp_path / "out"
    batch(few, output)
    with (output / ".camtool" / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        refused = batch(few, output)
    assert refused.exit_code == 2
    assert "another run is writing there" in refused.output
    assert batch(few, output).exit_code == 0


def test_damaged_settings_are_told(few, batch, tmp_path):
    batch(few, tmp_path / "out")
    (tmp_path / "out" / ".camtool" / "settings.json").write_text("")
    refused = batch(few, tmp_path / "out")
    assert refused.exit_code == 2
    assert "damaged" in refused.output


def test_an_output_that_can_not_be_made_is_one_line(few, batch, tmp_path):
    (tmp_path / "file").write_text("")
    refused = batch(few, tmp_path / "file" / "out")
    assert refused.exit_code == 2
    assert "Not a directory" in refused.output


def test_a_moved_checkpoint_is_still_the_same_model(few, tiny, batch, tmp_path):
    batch(few, tmp_path / "out")
    moved = tmp_path / "moved.safetensors"
    moved.write_bytes(tiny.read_bytes())
    assert batch(few, tmp_path / "out", "-m", moved).exit_code == 0


def test_a_folder_that_gives_no_names_fails_alone(make_pictures, batch, monkeypatch, tmp_path):
    photos = make_pictures(tmp_path / "photos", 2)
    (photos / "worn").mkdir()
    listing = os.scandir

    def worn(path):
        if Path(path).name == "worn":
            raise OSError(errno.EIO, "Input/output error")
        return listing(path)

    monkeypatch.setattr(os, "scandir", worn)
    assert batch(photos, tmp_path / "out").exit_code == 1
    failed = (tmp_path / "out" / "failed.csv").read_text()
    assert failed == "path,reason\nworn,is a folder that can't be read\n"
