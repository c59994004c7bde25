"""Two hundred good pictures among two hundred that are broken, strange or hostile."""

from __future__ import annotations

import csv
import json
import os

import pytest

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def outcome(hostile, tiny, server, tmp_path_factory):
    """The folder of the results, the exit code and what was printed, of one run."""
    output = tmp_path_factory.mktemp("hostile") / "out"
    log = output.with_name("log")
    options = ("--results", "parquet,csv,jsonl", "--coco", "--save", "overlay,npz")
    server.start(log, "batch", hostile[0], "-o", output, "-m", tiny, *options)
    return output, server.wait(), log.read_text()


def escaped(name):
    return name.encode("utf-8", "backslashreplace").decode()


def column(path, name):
    with path.open(newline="", encoding="utf-8") as stream:
        return [row[name].removeprefix("'") for row in csv.DictReader(stream)]


def test_every_good_picture_is_done(outcome, hostile):
    output, _, log = outcome
    _, good, _ = hostile
    assert len(good) == 200
    assert sorted(column(output / "results.csv", "path")) == sorted(map(escaped, good)), log


def test_every_bad_picture_is_named_with_its_reason(outcome, hostile):
    output, *_ = outcome
    _, _, bad = hostile
    assert len(bad) >= 190
    assert sorted(column(output / "failed.csv", "path")) == sorted(map(escaped, bad))
    for reason in column(output / "failed.csv", "reason"):
        assert reason
        assert reason.isprintable()


def test_the_exit_code_says_so_without_a_traceback(outcome):
    _, code, log = outcome
    assert code == 1
    assert "Traceback" not in log
    assert "Warning" not in log
    assert "200 of" in log


def test_every_file_of_a_good_picture_is_there(outcome):
    output, *_ = outcome
    journal = (output / ".camtool" / "journal.jsonl").read_text().splitlines()
    entries = [json.loads(line) for line in journal]
    files = [name for entry in entries for name in entry.get("files", ())]
    assert len(files) == len(set(files)) == 600
    assert all((output / name).stat().st_size for name in files)
    assert all(os.path.realpath(output / name).startswith(str(output)) for name in files)


def test_nothing_half_written_is_left(outcome):
    output, *_ = outcome
    assert list(output.rglob("*.part")) == []


def test_reports_and_lists_hold_every_picture(outcome):
    output, *_ = outcome
    lines = (output / "results.jsonl").read_text(encoding="utf-8").split("\n")
    assert len(lines) == 201
    assert len(json.loads((output / "coco.json").read_text())["images"]) == 200
    page = (output / "report.html").read_text()
    assert "<b>html" not in page
    assert json.loads((output / "run.json").read_text())["done"] == 200
