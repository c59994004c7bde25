"""Runs that are killed, and end as one that was not."""

from __future__ import annotations

import os
import random
import shutil
import signal
import time
from contextlib import suppress

import pytest

PICTURES = 160
OPTIONS = (
    *("--save", "overlay,npz", "--results", "parquet,csv,jsonl", "--coco", "-k", "2"),
    *("--batch-size", "2"),
)


@pytest.fixture(scope="module")
def source(tmp_path_factory, make_pictures):
    folder = make_pictures(tmp_path_factory.mktemp("killed") / "photos", PICTURES)
    (folder / "broken.jpg").write_bytes(b"\xff\xd8\xff broken")
    (folder / "0050a.jpg").write_bytes(b"")
    return folder


@pytest.fixture(scope="module")
def whole(source, tiny, server, tree, tmp_path_factory):
    """Files of a run that nobody disturbed."""
    output = tmp_path_factory.mktemp("killed") / "out"
    server.start(output.with_name("log"), "batch", source, "-o", output, "-m", tiny, *OPTIONS)
    assert server.wait() == 1
    return tree(output)


def kill(pid):
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


@pytest.mark.slow
def test_killed_at_ten_random_moments(
    source, whole, tiny, server, tree, journal_lines, wait_until, tmp_path
):
    """Each time after some more work, so that it does not depend on the speed of the machine."""
    output = tmp_path / "out"
    arguments = ("batch", source, "-o", output, "-m", tiny, *OPTIONS)
    moments = random.Random(0)
    in_the_middle = 0
    for _ in range(10):
        before = journal_lines(output)
        if before >= PICTURES:
            break
        pid = server.start(tmp_path / "log", *arguments)
        wait_until(lambda before=before: journal_lines(output) > before)
        time.sleep(moments.uniform(0, 0.05))
        kill(pid)
        server.wait()
        in_the_middle += 0 < journal_lines(output) < PICTURES
    assert in_the_middle >= 5
    server.start(tmp_path / "log", *arguments)
    assert server.wait() == 1
    assert "Traceback" not in (tmp_path / "log").read_text()
    assert tree(output) == whole


@pytest.mark.slow
def test_killed_as_soon_as_anything_was_noted(
    source, whole, tiny, server, tree, journal_lines, wait_until, tmp_path
):
    output = tmp_path / "out"
    arguments = ("batch", source, "-o", output, "-m", tiny, *OPTIONS)
    for _ in range(3):
        before = journal_lines(output)
        pid = server.start(tmp_path / "log", *arguments)
        wait_until(lambda before=before: journal_lines(output) > before)
        kill(pid)
        server.wait()
    server.start(tmp_path / "log", *arguments)
    assert server.wait() == 1
    assert tree(output) == whole


@pytest.mark.slow
def test_killed_while_the_results_are_written(
    source, whole, tiny, server, tree, wait_until, tmp_path
):
    output = tmp_path / "out"
    arguments = ("batch", source, "-o", output, "-m", tiny, *OPTIONS)
    pid = server.start(tmp_path / "log", *arguments)
    wait_until(lambda: any(output.glob("results.*")) or any(output.glob(".camtool-*.part")))
    kill(pid)
    server.wait()
    server.start(tmp_path / "log", *arguments)
    assert server.wait() == 1
    assert tree(output) == whole


@pytest.mark.slow
def test_a_lost_and_a_cut_file_are_made_again(source, whole, tiny, batch, tree, tmp_path):
    output = tmp_path / "out"
    assert batch(source, output, *OPTIONS).exit_code == 1
    (output / "0003.jpg.overlay-1.jpg").unlink()
    (output / "0004.jpg.cam.npz").write_bytes(b"cut")
    shutil.rmtree(output / "report")
    assert batch(source, output, *OPTIONS).exit_code == 1
    assert tree(output) == whole


@pytest.mark.slow
def test_a_finished_run_has_nothing_more_to_do(source, batch, tree, tmp_path):
    output = tmp_path / "out"
    batch(source, output, *OPTIONS)
    before = tree(output)
    times = {path: path.stat().st_mtime_ns for path in output.glob("*.npz")}
    assert ", 0 now," in batch(source, output, *OPTIONS).output
    assert tree(output) == before
    assert times == {path: path.stat().st_mtime_ns for path in output.glob("*.npz")}


def test_a_mended_and_a_changed_picture_are_done_again(
    make_pictures, make_picture, batch, tmp_path
):
    source, output = make_pictures(tmp_path / "photos", 12), tmp_path / "out"
    (source / "0005.jpg").write_bytes(b"")
    assert batch(source, output, "--results", "csv").exit_code == 1
    (source / "0005.jpg").write_bytes(make_picture(5))
    (source / "0007.jpg").write_bytes(make_picture(99))
    again = batch(source, output, "--results", "csv")
    assert again.exit_code == 0
    assert "12 of 12 pictures explained, " in again.output
    assert (output / "failed.csv").read_text() == "path,reason\n"
    fresh = tmp_path / "fresh"
    batch(source, fresh, "--results", "csv")
    ours, theirs = (folder / "results.csv" for folder in (output, fresh))
    assert ours.read_text().count("\n") == theirs.read_text().count("\n") == 13
    row = next(line for line in ours.read_text().splitlines() if line.startswith("0007.jpg"))
    assert row.split(",")[2] in theirs.read_text()
