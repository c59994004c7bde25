"""`camtool evaluate` as people run it."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from camtool.accelerate import memory
from camtool.cli import app
from camtool.evaluate.figures import TITLES


@pytest.fixture
def data(boxed) -> Path:
    return boxed(6)


@pytest.fixture
def run(data, tiny):
    def invoke(*words):
        arguments = ["evaluate", str(data), *map(str, words)]
        if "--format" not in words:
            arguments += ["--format", "csv"]
        if "-m" not in words:
            arguments += ["-m", str(tiny)]
        done = CliRunner().invoke(app, arguments)
        assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
        return done

    return invoke


def test_numbers_curves_and_cases_are_written_and_the_table_is_printed(run, tmp_path):
    out = tmp_path / "out"
    done = run("-o", out)
    assert done.exit_code == 0, done.output
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["images"] == 6
    assert len(metrics["problems"]) == 1
    assert len(metrics["metrics"]["max_box_acc"]["network"]["curve"]) == len(metrics["thresholds"])
    assert Image.open(out / "curves.png").width > 300
    assert "Worst boxes" in (out / "cases.html").read_text()
    assert f"metrics.json, cases.html and curves.png are in {out}" in done.stdout
    assert "gone.jpg: the picture is missing" in done.stderr


def test_a_redirected_table_is_cut_nowhere(run, monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    done = run("--limit", 2)
    for name, title in TITLES.items():
        if name != "pxap":
            assert re.search(rf"│ {re.escape(title)} +│", done.stdout), title
    assert "network (95 % interval)" in done.stdout
    assert "…" not in done.stdout


def test_the_document_on_stdout_is_that_of_the_file(run, tmp_path):
    done = run("--json", "-o", tmp_path / "out")
    document = json.loads(done.stdout)
    assert document == json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert (document["mode"], document["fit"], document["format"]) == ("plain", "whole", "csv")


def test_reference_mode_squashes(run):
    found = json.loads(run("--json", "--mode", "reference").stdout)
    assert (found["mode"], found["fit"], found["model"]["fit"]) == ("reference", "squash", "squash")


def test_without_matplotlib_one_line_says_how_to_get_the_curves(run, tmp_path, monkeypatch):
    monkeypatch.delitem(sys.modules, "camtool.evaluate.curves", raising=False)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setitem(sys.modules, "matplotlib.axes", None)
    done = run("-o", tmp_path / "out")
    assert done.exit_code == 0
    assert (tmp_path / "out" / "cases.html").exists()
    lines = [line for line in done.stderr.splitlines() if "curves.png" in line]
    assert lines == ["camtool: curves.png needs matplotlib: pip install 'camtool[plot]'"]
    assert "curves.png" not in done.stdout


def test_kept_maps_are_measured_again_without_naming_the_network(run, tmp_path):
    maps = tmp_path / "maps"
    first = run("--json", "--maps", maps)
    again = run("--json", "--maps", maps, "-m", "auto")
    assert again.exit_code == 0, again.stderr
    assert json.loads(again.stdout) == json.loads(first.stdout)
    strict = run("--json", "--maps", maps, "-m", "auto", "--threshold", "0.6")
    assert json.loads(strict.stdout)["metrics"]["gt_known"]["network"]["threshold"] == 0.6
    for words in (["-m", "auto", "--fit", "crop"], ["--size", "32"]):
        refused = run("--maps", maps, *words)
        assert refused.exit_code == 2
        assert str(maps) in refused.stderr


def test_freed_memory_is_kept_where_a_network_runs(run, tmp_path, monkeypatch):
    kept = []
    monkeypatch.setattr(memory, "keep_freed_memory", lambda: kept.append(True))
    for network in ([], ["-m", "auto"]):
        assert run("--json", "--maps", tmp_path / "maps", *network).exit_code == 0
        assert kept == [True]


@pytest.mark.slow
@pytest.mark.parametrize("alias", ["-j", "--workers", "--num-workers"])
def test_threads_and_batches_change_no_metric(run, alias):
    plain, other = run("--json"), run("--json", alias, "1", "-b", "2")
    assert other.exit_code == 0, other.stderr
    one, two = (json.loads(done.stdout)["metrics"] for done in (plain, other))
    for name in one:
        values = [figures[name]["network"]["value"] for figures in (one, two)]
        assert values[0] == pytest.approx(values[1], abs=0.1)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--format", "nonsense"], "'tiny-imagenet'"),
        (["--format", "coco"], "0 files"),
        (["--mode", "exact"], "'reference'"),
        (["--fit", "stretch"], "'squash'"),
        (["--mode", "reference", "--fit", "crop"], "use --fit squash or whole"),
        (["--labels", "nowhere.txt"], "nowhere.txt"),
    ],
)
def test_wrong_usage_says_what_is_possible(run, data, words, said):
    done = run(*words)
    assert done.exit_code in (2, 3)
    assert said in done.stderr
    assert done.stderr.count(str(data)) <= 1
    assert "Traceback" not in done.output


def test_help_lists_the_choices():
    text = CliRunner().invoke(app, ["evaluate", "--help"]).stdout
    for choices in ("csv|imagenet|cub|pets|tiny-imagenet|coco|wsol|folder", "plain|reference"):
        assert choices in text.replace("\n", "").replace(" ", "")


def test_a_folder_that_can_not_be_written_is_told_before_anything_is_computed(run, tmp_path):
    (tmp_path / "taken").write_text("a file")
    for words in (["-o", tmp_path / "taken"], ["--maps", tmp_path / "taken"]):
        done = run(*words)
        assert done.exit_code == 2
        assert done.stderr.startswith(f"camtool: {tmp_path / 'taken'}")
        assert len(done.stderr.splitlines()) == 1
        assert done.stdout == ""


def test_what_was_measured_is_printed_even_where_it_can_not_be_written(run, tmp_path):
    out = tmp_path / "out"
    (out / "metrics.json").mkdir(parents=True)
    done = run("-o", out)
    assert done.exit_code == 1
    assert "MaxBoxAcc" in done.stdout
    assert f"{out}: can't be written (Is a directory)" in done.stderr


def test_a_file_that_a_format_needs_is_named_alone(run, data):
    (data / "boxes.csv").unlink()
    done = run()
    assert done.exit_code == 2
    assert done.stderr == f"camtool: {data / 'boxes.csv'}: No such file or directory\n"


def test_pictures_without_evidence_are_measured_too(run, data):
    Image.fromarray(np.zeros((64, 64, 3), np.uint8)).save(data / "cat" / "0.jpg")
    assert run().exit_code == 0
