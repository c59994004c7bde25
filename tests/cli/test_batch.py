from __future__ import annotations

import csv
import html
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from camtool.cli import app
from camtool.engines import ENGINES
from camtool.images import formats


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("batch") / "photos"
    random = np.random.default_rng(0)
    for name in ("one.jpg", "two.png", "sub/three.jpg"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        coarse = Image.fromarray(random.integers(0, 256, (4, 6, 3), np.uint8))
        coarse.resize((90, 60)).save(folder / name)
    return folder


@pytest.fixture
def output(tmp_path):
    return tmp_path / "out"


def batch(source, output, *arguments):
    """`camtool batch` with a small seeded network in this process."""
    small = ("-m", "squeezenet1_1", "-w", "random", "--size", "64")
    words = ["batch", source, "-o", output, *small, *arguments]
    result = CliRunner().invoke(app, [os.fspath(word) for word in words])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def files(output):
    return {
        path.relative_to(output).as_posix()
        for path in output.rglob("*")
        if path.is_file() and ".camtool" not in path.parts
    }


def rows(output):
    with (output / "results.csv").open(newline="") as stream:
        return list(csv.DictReader(stream))


def test_sub_folders_are_mirrored(photos, output):
    result = batch(photos, output, "--results", "csv")
    assert result.exit_code == 0
    assert "3 of 3 pictures explained" in result.output
    assert str(output / "report.html") in result.output
    assert files(output) == {
        *("results.csv", "failed.csv", "timings.csv", "run.json", "report.html"),
        *(f"{name}.overlay-1.jpg" for name in ("one.jpg", "two.png", "sub/three.jpg")),
        *(f"report/thumbs/{name}.jpg" for name in ("one.jpg", "two.png", "sub/three.jpg")),
    }
    assert [row["path"] for row in rows(output)] == ["one.jpg", "sub/three.jpg", "two.png"]


def test_every_kind_of_file(photos, output):
    kinds = ("overlay", "panel", "heatmap", "boxes", "npz", "json")
    saved = ("--save", ",".join(kinds), "-k", "2", "--format", "png", "--no-report")
    assert batch(photos / "one.jpg", output, *saved).exit_code == 0
    names = {name.removeprefix("one.jpg.") for name in files(output) if name.startswith("one")}
    assert names == {
        *("cam.png", "cam.npz", "cam.json"),
        *(f"{kind}-{k}.png" for kind in ("overlay", "heatmap", "boxes") for k in (1, 2)),
    }
    with Image.open(output / "one.jpg.overlay-1.png") as overlay:
        assert overlay.size == (90, 60)
    with np.load(output / "one.jpg.cam.npz") as maps:
        means = maps["maps"].mean((1, 2)) + maps["bias"]
        np.testing.assert_allclose(means, maps["logits"], rtol=1e-4)


def test_nothing_but_results(photos, output):
    assert batch(photos, output, "--save", "none", "--no-report", "--coco").exit_code == 0
    assert {name.split(".")[0] for name in files(output)} == {
        *("results", "failed", "timings", "run", "coco"),
    }


def test_a_list_with_targets(photos, output):
    listed = photos.parent / "list.csv"
    listed.write_text("file,label\nphotos/one.jpg,281\nphotos/two.png,\nphotos/one.jpg,nonsense\n")
    result = batch(listed, output, "--results", "csv", "--save", "none", "-k", "2")
    assert result.exit_code == 1
    named, *others = rows(output)[2:]
    assert (named["path"], named["target"], named["index"]) == ("one.jpg", "281", "281")
    assert named["truth"] == named["label"]
    assert int(named["rank"]) > 2
    assert {row["predicted"] for row in rows(output)[:3]} == {rows(output)[0]["label"]}
    found = [(row["path"], row["rank"], row["target"], row["right"]) for row in others]
    assert found == [("two.png", "1", "", ""), ("two.png", "2", "", "")]
    assert "one.jpg~2" in (output / "failed.csv").read_text()


@pytest.mark.parametrize("rule", ["otsu", "percentile", "ivr"])
def test_the_threshold_rule_moves_the_boxes_of_tables_and_records_alike(photos, output, rule):
    cut = ("--threshold", "0.7", "--threshold-rule", rule)
    batch(photos, output, "--results", "csv", "--save", "json", "--boxes", *cut)
    said = {"otsu": "Otsu's", "percentile": "70% of the pixels", "ivr": "45th percentile"}
    assert said[rule] in html.unescape((output / "report.html").read_text())
    for row in rows(output):
        record = json.loads((output / f"{row['path']}.cam.json").read_text())
        box = record["explanations"][0]["boxes"][0]["box"]
        assert [int(row[side]) for side in ("x0", "y0", "x1", "y1")] == box


def test_a_changed_target_is_done_again(photos, output):
    listed = photos.parent / "changing.csv"
    for target in ("281", "5"):
        listed.write_text(f"path,target\nphotos/one.jpg,{target}\n")
        batch(listed, output, "--results", "csv", "--save", "none")
        assert rows(output)[-1]["index"] == target


def test_a_pattern_leaves_the_results_out(photos):
    output = photos.parent / "pattern" / "out"
    pattern = str(photos.parent / "**" / "*.jpg")
    for _ in range(2):
        assert "2 of 2" in batch(pattern, output, "--no-report").output


def test_panels_of_explain_and_an_earlier_output_are_left_out(photos, tmp_path):
    source = tmp_path / "photos"
    shutil.copytree(photos, source)
    explain = ["explain", source / "one.jpg", "-m", "squeezenet1_1", "-w", "random"]
    CliRunner().invoke(app, [os.fspath(word) for word in (*explain, "--save", "panel,overlay")])
    assert "3 of 3 pictures explained" in batch(source, source / "out").output
    result = batch(source, tmp_path / "again")
    assert "3 of 3 pictures explained" in result.output
    assert "of camtool's own were left out." in result.output


def test_a_bad_picture_is_one_row_and_exit_code_1(photos, output, tmp_path):
    bad = tmp_path / "photos"
    bad.mkdir()
    (bad / "a.jpg").write_bytes(b"")
    (bad / "b.jpg").write_bytes((photos / "one.jpg").read_bytes())
    result = batch(bad, output, "--results", "csv")
    assert result.exit_code == 1
    assert f"1 failed; {output / 'failed.csv'} says why." in result.output
    assert (output / "failed.csv").read_text() == "path,reason\na.jpg,is empty (0 bytes)\n"
    assert len(rows(output)) == 1


def test_arrays_are_explained_and_what_lacks_a_plugin_says_which(output, tmp_path, monkeypatch):
    folder = tmp_path / "photos"
    folder.mkdir()
    np.save(folder / "good.npy", np.zeros((60, 90, 3), np.uint8))
    np.save(folder / "odd.npy", np.zeros(5))
    (folder / "a.jxl").write_bytes(b"\xff\x0a" + bytes(50))
    (folder / "b.heic").write_bytes(b"\0\0\0\x18ftypheic" + bytes(50))
    monkeypatch.setattr(formats, "_plugged_in", lambda plugin: False)
    monkeypatch.setattr(Image, "ID", [form for form in Image.ID if form not in ("HEIF", "JXL")])
    assert batch(folder, output, "--results", "csv").exit_code == 1
    assert [row["path"] for row in rows(output)] == ["good.npy"]
    with (output / "failed.csv").open(newline="") as stream:
        told = {row["path"]: row["reason"] for row in csv.DictReader(stream)}
    assert list(told) == ["a.jxl", "b.heic", "odd.npy"]
    assert "pip install pillow-jxl-plugin" in told["a.jxl"]
    assert "pip install pillow-heif" in told["b.heic"]
    assert "has shape (5,)" in told["odd.npy"]


def test_nothing_but_bad_pictures(output, tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"")
    assert batch(tmp_path / "a.jpg", output, "--results", "csv,jsonl", "--coco").exit_code == 1
    assert rows(output) == []
    assert json.loads((output / "coco.json").read_text())["annotations"] == []


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--save", "pictures"), "--save takes"),
        (("--format", "bmp"), "--format"),
        (("--results", "xlsx"), "--results takes"),
        (("--fit", "stretch"), "--fit"),
        (("-t", "no such class"), "no such class"),
        (("--batch-size", "0"), "batch-size"),
    ],
)
def test_wrong_usage(photos, output, arguments, told):
    result = batch(photos, output, *arguments)
    assert result.exit_code == 2
    assert told in result.output
    assert not output.exists()


@pytest.mark.parametrize("source", ["missing", "missing*.jpg"])
def test_sources_without_pictures(photos, output, source):
    result = batch(photos / source, output)
    assert result.exit_code == 2
    assert "Traceback" not in result.output
    assert not output.exists()


@pytest.mark.parametrize("option", ["-j", "--workers", "--num-workers"])
def test_the_number_of_workers(photos, output, monkeypatch, option):
    asked = []
    threads = ENGINES["threads"]

    def noted(model, request, workers, warn):
        asked.append((workers, request.batch_size))
        return threads(model, request, workers, warn)

    monkeypatch.setitem(ENGINES, "auto", noted)
    batch(photos, output, "--save", "none", "--no-report", option, "3", "-b", "5")
    assert asked == [(3, 5)]


def test_help_lists_the_choices():
    shown = CliRunner().invoke(app, ["batch", "--help"], env={"COLUMNS": "200"}).output
    for choices in ("jpg|png|webp", "parquet|csv|jsonl", "--engine <auto|threads|processes|ray>"):
        assert choices in shown


def test_an_unknown_model(photos, output):
    assert batch(photos, output, "-m", "no_such_network").exit_code == 3
    assert not output.exists()


def test_relative_paths_and_a_source_inside_the_output(photos, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    Path("photos").mkdir()
    Path("photos/x.jpg").write_bytes((photos / "one.jpg").read_bytes())
    assert batch("photos", ".", "--results", "csv").exit_code == 0
    assert "1 of 1 pictures explained, 0 now" in batch("photos", ".", "--results", "csv").output
    assert batch("photos", "photos").exit_code == 2
