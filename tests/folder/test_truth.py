from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import camtool
from camtool.folder.discovery import discover
from camtool.folder.lists import SourceError
from camtool.folder.truth import beside_truth, wilson, with_truth
from camtool.targets import Ranked

LABELS = ("ape", "bee", "wild cat, cat", "crane", "crane")
MODEL: Any = SimpleNamespace(
    labels=LABELS, network=SimpleNamespace(synsets=("n0", "n1", "n2", "n3", "n4"))
)
CLASSES = ("ape", "bee", "cat", "dog", "elk")


def tree(root: Path, *names: str) -> str:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / f"{name}.jpg").touch()
    return str(root)


def truths(source, kind="auto", warn=lambda line: None):
    pictures = discover(source).pictures
    return [picture.truth for picture in with_truth(pictures, MODEL, kind, 1, warn)]


@pytest.mark.parametrize(
    ("folders", "found"),
    [
        (("Ape", "bee", "other"), [0, 1, None]),
        (("n0", "n4"), [0, 4]),
        (("wild-cat", "x"), [None, None]),
        (("cat", "wild_cat/deeper"), [2, 2]),
        (("crane", "x"), [None, None]),
        (("x", "y"), [None, None]),
        (("0", "1"), [None, None]),
    ],
)
def test_folders_are_the_truth_where_most_are_called_like_a_class(tmp_path, folders, found):
    source = tree(tmp_path, *(f"{folder}/{n}" for n, folder in enumerate(folders)))
    assert truths(source) == found


def test_truth_can_be_forced_and_switched_off(tmp_path):
    source = tree(tmp_path, "ape/1", "x/2", "y/3", "loose")
    told: list[str] = []
    assert truths(source, "auto") == [None] * 4
    assert truths(source, "folder", told.append) == [0, None, None, None]
    assert told[0].startswith("1 of 3 sub-folders are called like classes (not x, y)")
    assert truths(tree(tmp_path, "bee/4", "cat/5"), "none") == [None] * 6
    with pytest.raises(SourceError, match="no sub-folder is called like a class"):
        truths(tree(tmp_path / "x"), "folder")


def test_a_list_is_the_truth_of_what_it_names(tmp_path):
    tree(tmp_path, "ape/1", "bee/2")
    (tmp_path / "list.csv").write_text(
        "path,target\nape/1.jpg,n1\nape/1.jpg,1\nbee/2.jpg,\nbee/2.jpg,?\n"
    )
    assert truths(str(tmp_path / "list.csv")) == [1, 1, None, None]
    assert truths(str(tmp_path / "list.csv"), "folder") == [1, 1, 1, None]


def test_the_best_classes_are_explained_and_then_the_truth(tmp_path):
    pictures = discover(tree(tmp_path, "ape/1", "bee/2")).pictures
    first, second = with_truth(pictures, MODEL, "auto", 2, lambda line: None)
    assert first.target == [Ranked(0), Ranked(1), 0]
    assert second.target == [Ranked(0), Ranked(1), 1]
    assert with_truth(pictures, MODEL, "auto", 0, lambda line: None)[0].target is None


@pytest.fixture(scope="module")
def model(tiny):
    return camtool.load(tiny, device="cpu")


@pytest.mark.parametrize("classes", [1, 2, 5])
def test_each_class_once_and_the_contrast_that_adds_up(model, make_picture, classes):
    for truth in range(5):
        targets = [*map(Ranked, range(classes)), truth]
        found = beside_truth(model.explain(make_picture(3), targets), truth)
        best = int(found.all_logits.argmax())
        order = np.argsort(-found.all_logits)[:classes].tolist()
        alone = order if truth in order else [*order, truth]
        assert found.indices.tolist() == alone + [best] * (best != truth)
        assert found.versus[: len(alone)] == ("",) * len(alone)
        if best != truth:
            assert (found.labels[-1], found.versus[-1]) == (CLASSES[best], CLASSES[truth])
            pair = model.explain(make_picture(3), [(best, truth)])
            np.testing.assert_allclose(found.maps[-1], pair.maps[0], atol=1e-5)
            np.testing.assert_allclose(
                found.logits[-1], found.all_logits[best] - found.all_logits[truth], atol=1e-5
            )
        np.testing.assert_allclose(
            found.maps.mean((1, 2)) + found.bias + found.residual, found.logits, atol=1e-5
        )


@given(st.integers(1, 10**6), st.data())
def test_the_interval_holds_the_share_and_solves_its_equation(pictures, data):
    right = data.draw(st.integers(0, pictures))
    low, high = wilson(right, pictures)
    share = right / pictures
    assert 0 <= low <= share + 1e-12
    assert share - 1e-12 <= high <= 1
    for end in (low, high):
        if 0 < end < 1:
            error = (share - end) ** 2 * pictures
            assert error == pytest.approx(1.959964**2 * end * (1 - end), rel=1e-4, abs=1e-9)


@pytest.fixture
def sorted_folder(tmp_path, make_pictures):
    for first, name in enumerate(("ape", "bee", "cat", "elk")):
        make_pictures(tmp_path / "photos" / name, 4, first=10 * first)
    return tmp_path / "photos"


def rows_of(output):
    lines = (output / "results.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def test_a_folder_sorted_by_class(sorted_folder, batch, tmp_path, model):
    output = tmp_path / "out"
    told = batch(
        sorted_folder, output, "--results", "jsonl,csv", "-k", "2", "--save", "overlay,npz"
    )
    rows = rows_of(output)
    best = [row for row in rows if row["rank"] == 1]
    assert len(best) == 16
    right = sum(row["right"] for row in best)
    assert 0 < right < 16, "a test of right and wrong needs both"
    for row in rows:
        assert row["truth"] == row["path"].partition("/")[0]
        assert row["right"] == (row["truth"] == row["predicted"])
        logits = model.explain(sorted_folder / row["path"]).all_logits
        place = int((logits > logits[row["index"]]).sum()) + 1
        assert row["rank"] == place
    for row in best:
        assert row["label"] == row["predicted"]
        labels = [other["label"] for other in rows if other["path"] == row["path"]]
        assert row["truth"] in labels
        assert len(labels) == len(set(labels)) <= 3
        with np.load(output / f"{row['path']}.cam.npz") as saved:
            assert len(saved["indices"]) == len(labels) + (not row["right"])
    record = json.loads((output / "run.json").read_text())["verdict"]
    assert (record["pictures"], record["right"]) == (16, right)
    assert record["interval"] == pytest.approx(wilson(right, 16))
    assert sum(one["pictures"] for one in record["confusions"]) == 16 - right
    first = record["confusions"][0]
    assert f"Right: {right} of 16, {right / 16:.1%} (95% interval" in told.output
    assert f"{first['pictures']} × {first['truth']} taken for {first['predicted']}" in told.output


def test_a_changed_truth_is_done_again_and_nothing_else(sorted_folder, batch, tmp_path):
    listed, output = sorted_folder / "list.csv", tmp_path / "out"
    names = [f"{name}/{first:04d}.jpg" for first, name in ((0, "ape"), (10, "bee"), (20, "cat"))]
    for truth, new in (("ape", 3), ("ape", 0), ("dog", 1)):
        lines = [f"{name},{one}" for name, one in zip(names, (truth, "bee", "cat"), strict=True)]
        listed.write_text("\n".join(["path,target", *lines, ""]))
        assert f"{new} now" in batch(listed, output, "--results", "jsonl").output
        assert {row["truth"] for row in rows_of(output)} == {truth, "bee", "cat"}
    assert "truth: auto, now none" in batch(listed, output, "--truth", "none").output


def test_without_truth_a_list_names_the_one_class_explained(sorted_folder, batch, tmp_path):
    listed, output = sorted_folder / "list.txt", tmp_path / "out"
    listed.write_text("ape/0000.jpg\tdog\n")
    batch(listed, output, "--results", "jsonl", "--truth", "none", "-k", "3")
    (row,) = rows_of(output)
    assert (row["label"], row["target"], row["truth"], row["right"]) == ("dog", "dog", None, None)
    assert "verdict" in (output / "run.json").read_text()
    assert json.loads((output / "run.json").read_text())["verdict"] is None


def test_folders_asked_for_as_the_truth(sorted_folder, batch, tmp_path):
    for name in ("w", "x", "y", "z"):
        (sorted_folder / name).mkdir()
        shutil.copy(sorted_folder / "ape" / "0000.jpg", sorted_folder / name)
    told = batch(sorted_folder, tmp_path / "auto", "--results", "jsonl").output
    assert "Right:" not in told
    told = batch(sorted_folder, tmp_path / "out", "--results", "jsonl", "--truth", "folder").output
    assert "4 of 8 sub-folders are called like classes (not w, x, y, …)" in told
    assert {row["truth"] for row in rows_of(tmp_path / "out")} == {"ape", "bee", "cat", "elk", None}
    other = batch(sorted_folder / "x", tmp_path / "none", "--truth", "folder")
    assert other.exit_code == 2
    assert "no sub-folder is called like a class" in other.output


def test_classes_asked_for_are_explained_alone_beside_the_truth(sorted_folder, batch, tmp_path):
    batch(sorted_folder, tmp_path / "out", "--results", "jsonl", "-t", "elk", "-t", "cat")
    rows = rows_of(tmp_path / "out")
    assert [row["label"] for row in rows] == ["elk", "cat"] * 16
    assert [row["rank"] for row in rows] == [1, 2] * 16
    assert {row["truth"] for row in rows} == {"ape", "bee", "cat", "elk"}


@pytest.mark.slow
def test_a_stopped_run_ends_with_the_same_bytes(sorted_folder, batch, tmp_path, tree):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    batch(sorted_folder, whole, "--results", "jsonl", "-b", "2")
    batch(sorted_folder, parts, "--results", "jsonl", "-b", "2")
    journal = parts / ".camtool" / "journal.jsonl"
    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(b"".join([*lines[:3], *lines[5:9], lines[9][:99]]))
    (parts / "results.jsonl").unlink()
    assert "9 now" in batch(sorted_folder, parts, "--results", "jsonl", "-b", "2").output
    assert tree(whole) == tree(parts)
