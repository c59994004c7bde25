"""`camtool evaluate` of several methods, and of thresholds, as people run it."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

import camtool
from camtool.cli import app
from camtool.evaluate import compare, lanes

METHODS = "cam,gradcam,eigencam"


@pytest.fixture
def data(boxed) -> Path:
    return boxed(4)


@pytest.fixture
def run(data, tiny):
    def invoke(*words, form="csv"):
        arguments = ["evaluate", str(data), "--format", form, "-m", str(tiny), *map(str, words)]
        done = CliRunner().invoke(app, arguments)
        assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
        return done

    return invoke


def figures(done) -> dict[str, dict[str, float]]:
    assert done.exit_code == 0, done.stderr
    return {
        row["name"]: {name: figure["value"] for name, figure in row["figures"].items()}
        for row in json.loads(done.stdout)["methods"]
    }


@pytest.mark.slow
def test_methods_stand_beside_baselines_with_intervals_and_costs(run, tmp_path):
    done = run("--method", METHODS, "-o", tmp_path / "out")
    assert done.exit_code == 0, done.stderr
    document = json.loads((tmp_path / "out" / "methods.json").read_text())
    rows = {row["name"]: row for row in document["methods"]}
    assert list(rows) == [*METHODS.split(","), "random map", "centre blob", "edges"]
    assert document["images"] == 4
    assert [problem["path"][-8:] for problem in document["problems"]] == ["gone.jpg"]
    for row in rows.values():
        assert row["baseline"] == (row["passes"] == 0)
        for figure in row["figures"].values():
            assert figure["low"] <= figure["high"]
    assert 1 <= rows["cam"]["passes"] < 1.2
    lines = list(csv.DictReader(io.StringIO((tmp_path / "out" / "methods.csv").read_text())))
    assert len(lines) == sum(len(row["figures"]) for row in rows.values())
    assert float(lines[0]["value"]) == next(iter(rows["cam"]["figures"].values()))["value"]
    parts = (tmp_path / "out" / "methods.md").read_text().split("\n\n")
    assert len(parts) == 3
    for table in map(str.splitlines, parts):
        assert len(table) == 2 + len(rows)
        assert len({line.count("|") for line in table}) == 1
    for text in ("deletion ↓", "MaxBoxAcc ↑", "centre blob", "sane", "methods.csv", "gone.jpg"):
        assert text in done.output


@pytest.mark.slow
def test_maps_that_ignore_weights_and_class_fail_and_equal_maps_have_equal_figures(run):
    done = run("--method", METHODS, "--json")
    found = figures(done)
    rows = {row["name"]: row for row in json.loads(done.stdout)["methods"]}
    for name in ("edges", "centre blob", "random map"):
        assert [found[name][check] for check in ("weights", "class")] == pytest.approx([100, 100])
        assert rows[name]["sane"] is False
        assert "residual" not in found[name]
    assert found["eigencam"]["class"] == pytest.approx(100)
    assert rows["eigencam"]["sane"] is False
    assert found["cam"]["weights"] < 90
    # Behind pooling and one linear layer these two are one map, up to a bias.
    same = {name: value for name, value in found["cam"].items() if name != "residual"}
    assert found["gradcam"] == pytest.approx({**found["gradcam"], **same}, abs=1e-2)
    assert found["cam"]["residual"] < 1e-2 < found["gradcam"]["residual"]


@pytest.mark.slow
def test_localization_is_that_of_evaluate_alone(run):
    alone = json.loads(run("--json").stdout)["metrics"]
    compared = figures(run("--metrics", "localization", "--json"))["cam"]
    for name in ("max_box_acc", "max_box_acc_v2", "pointing", "energy", "top1_loc"):
        assert compared[name] == pytest.approx(alone[name]["network"]["value"], abs=0.1)


@pytest.mark.slow
def test_every_metric_is_asked_for_by_name(run):
    known = {"localization": "energy", "faithfulness": "road", "sanity": "weights"}
    for group, name in known.items():
        found = figures(run("--metrics", group, "--json"))["cam"]
        assert {other for other in known.values() if other in found} == {name}


def test_a_folder_of_pictures_gets_what_can_be_had(run):
    words = ("--method", "cam", "--metrics", "faithfulness,sanity", "--limit", 2, "--json")
    done = run(*words, form="folder")
    assert {"deletion", "weights", "class"} <= set(figures(done)["cam"])
    assert json.loads(done.stdout)["images"] == 2


@pytest.mark.slow
def test_processes_change_nothing_but_what_no_one_sees(run, monkeypatch):
    words = ("--method", f"{METHODS},stages", "--json", "-j")
    one = figures(run(*words, 1))
    monkeypatch.setattr(compare, "_FEW", 1)
    monkeypatch.setattr(lanes, "ThreadPoolExecutor", None)
    other = figures(run(*words, 2))
    # How weights are laid out, and sums cut into vectors, hangs on what else a process has seen.
    for name in one:
        assert one[name] == pytest.approx(other[name], rel=0, abs=1e-4)


@pytest.mark.slow
def test_the_batch_size_changes_last_digits_alone(run):
    one, other = (figures(run("--metrics", "faithfulness", "--json", "-b", n)) for n in (3, 8))
    for name in one:
        assert one[name] == pytest.approx(other[name], abs=0.05)


def test_a_picture_that_can_not_be_read_is_named_and_the_rest_is_measured(run, data):
    path = data / "cat" / "2.jpg"
    path.write_bytes(path.read_bytes()[:200])
    done = run("--metrics", "faithfulness", "--json")
    document = json.loads(done.stdout)
    assert document["images"] == 3
    assert any(problem["path"].endswith("2.jpg") for problem in document["problems"])


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--metrics", "nonsense"], "--metrics takes localization, faithfulness, sanity"),
        (["--metrics", ","], "--metrics takes"),
        (["--method", "cam,nonsense"], "--method takes"),
        (["--method", "cam,gradcam", "--maps", "x"], "one method"),
        (["--metrics", "sanity", "--mode", "reference"], "one method"),
        (["--metrics", "sanity", "--calibrate", "x.json"], "one method"),
        (["--calibrate", "x.json", "--mode", "reference"], "plain mode"),
        (["--calibrate", "x.json", "-o", "out"], "--output"),
    ],
)
def test_wrong_usage_is_one_line(run, words, said):
    done = run(*words)
    assert done.exit_code == 2
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.slow
@pytest.mark.parametrize("words", [(), ("--metrics", "localization")])
def test_a_folder_has_no_localization(run, words):
    done = run(*words, form="folder")
    assert done.exit_code == 2
    assert "boxes" in done.stderr


def test_one_method_is_taken_where_maps_are_drawn(tiny, data):
    picture = str(data / "cat" / "0.jpg")
    done = CliRunner().invoke(app, ["explain", picture, "-m", str(tiny), "--method", "cam,gradcam"])
    assert done.exit_code == 2
    assert "one method" in done.stderr


@pytest.fixture
def calibration(run, tmp_path) -> Path:
    file = tmp_path / "cut.json"
    done = run("--calibrate", file)
    assert done.exit_code == 0, done.stderr
    assert f"--calibration {file}" in done.stdout
    assert "mean over IoUs" in done.stdout
    return file


def test_a_calibration_says_what_it_is_worth_on_other_pictures(calibration, run, tmp_path):
    found = json.loads(calibration.read_text())
    assert (found["chosen_on"], found["measured_on"]) == (2, 2)
    gain = found["figures"]["gain"]
    assert gain["low"] <= gain["value"] <= gain["high"]
    assert json.loads(run("--calibrate", tmp_path / "again.json", "--json").stdout) == found


def test_explain_and_batch_cut_where_the_calibration_says(calibration, tiny, data, tmp_path):
    picture = data / "cat" / "0.jpg"
    known = json.loads(calibration.read_text())
    calibration.write_text(json.dumps({**known, "threshold_rule": "ivr", "threshold": 0.6}))
    words = ["-m", str(tiny), "--save", "none", "--calibration", str(calibration)]
    done = CliRunner().invoke(app, ["explain", str(picture), "--json", "-k", "1", *words])
    assert done.exit_code == 0, done.stderr
    boxes = json.loads(done.stdout)["images"][0]["explanations"][0]["boxes"]
    explanation = camtool.load(tiny).explain(picture)
    expected = explanation.boxes(0, 0.6, "ivr")
    assert [tuple(box["box"]) for box in boxes] == expected != explanation.boxes(0)
    assert "other maps" not in done.stderr
    out = tmp_path / "out"
    words = [*words, "-o", str(out), "--results", "csv", "--boxes"]
    assert CliRunner().invoke(app, ["batch", str(data / "cat"), *words]).exit_code == 0
    row = next(csv.DictReader((out / "results.csv").open()))
    assert [int(float(row[side])) for side in ("x0", "y0", "x1", "y1")] == list(expected[0])


def test_a_calibration_of_other_maps_is_told(calibration, tiny, data):
    words = ["-m", str(tiny), "--save", "none", "--method", "layercam", "--threshold", "0.5"]
    picture = str(data / "cat" / "0.jpg")
    done = CliRunner().invoke(app, ["explain", picture, *words, "--calibration", str(calibration)])
    assert done.exit_code == 0
    assert "was chosen for other maps" in done.stderr
    assert "--threshold has no effect with --calibration" in done.stderr


@pytest.mark.parametrize(
    "content",
    [
        None,
        "no json",
        "[]",
        '{"threshold": 0.2}',
        '{"threshold_rule": "x", "threshold": 1}',
        '{"threshold_rule": "max", "threshold": 0.2, "model": 3}',
    ],
)
def test_a_calibration_that_is_none_is_refused(tiny, data, tmp_path, content):
    file = tmp_path / "cut.json"
    if content is not None:
        file.write_text(content)
    words = ["explain", str(data / "cat" / "0.jpg"), "-m", str(tiny), "--calibration", str(file)]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 2
    assert str(file) in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.slow
def test_pictures_without_evidence_are_compared_too(run, data):
    Image.fromarray(np.zeros((64, 64, 3), np.uint8)).save(data / "cat" / "0.jpg")
    assert run("--method", METHODS).exit_code == 0


@pytest.mark.slow
def test_a_trained_networks_map_passes_and_one_that_ignores_its_weights_fails(
    tmp_path, make_pictures
):
    words = ["--format", "folder", "-m", "efficientnet_lite0", "--metrics", "sanity", "--json"]
    folder = make_pictures(tmp_path / "photos", 12)
    done = CliRunner().invoke(app, ["evaluate", str(folder), "--method", "cam", *words])
    assert done.exit_code == 0, done.stderr
    verdicts = {row["name"]: row["sane"] for row in json.loads(done.stdout)["methods"]}
    assert verdicts == {"cam": True, "random map": False, "centre blob": False, "edges": False}


@pytest.mark.slow
def test_a_narrow_terminal_gets_the_table_in_parts(run, monkeypatch):
    words = ("--limit", 1, "--metrics", "localization,faithfulness")
    titles = run(*words).stdout.count("1 pictures, fit whole")
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "100")
    narrow = run(*words)
    monkeypatch.setenv("COLUMNS", "250")
    wide = run(*words)
    assert [titles, *(one.stdout.count("1 pictures, fit whole") for one in (narrow, wide))] == [
        1,
        2,
        1,
    ]
