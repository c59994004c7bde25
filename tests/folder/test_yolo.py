"""The boxes in the text format of YOLO: those of the COCO file, each where programs look for it."""

from __future__ import annotations

import json
import unicodedata

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from camtool.folder.yolo import label_files

OPTIONS = ("--coco", "--yolo", "-k", "2", "--save", "none", "--no-report", "--results", "csv")


@pytest.fixture
def source(tmp_path, make_pictures):
    folder = make_pictures(tmp_path / "photos", 4)
    make_pictures(folder / "yolo" / "labels", 2)
    make_pictures(folder / "v1.2", 2)
    (folder / "broken.jpg").write_bytes(b"")
    return folder


def test_boxes_are_those_of_the_coco_file(source, batch, tmp_path):
    output = tmp_path / "out"
    assert batch(source, output, *OPTIONS).exit_code == 1
    coco = json.loads((output / "coco.json").read_text())
    names = {image["id"]: image for image in coco["images"]}
    assert len(coco["annotations"]) > len(names) == 8
    found = []
    for image in coco["images"]:
        file = output / "yolo" / "labels" / image["file_name"].replace(".jpg", ".txt")
        found += [[float(word) for word in line.split()] for line in file.open()]
    assert len(list((output / "yolo" / "labels").rglob("*.txt"))) == 8
    for annotation, (index, *box) in zip(coco["annotations"], found, strict=True):
        image, (x, y, width, height) = names[annotation["image_id"]], annotation["bbox"]
        whole = [image["width"], image["height"]] * 2
        expected = [x + width / 2, y + height / 2, width, height]
        assert index == annotation["category_id"]
        assert [a * b for a, b in zip(box, whole, strict=True)] == pytest.approx(expected, 1e-6)


def test_classes_are_named_to_both_kinds_of_programs(photos_of, batch, tmp_path):
    labels = ["no", '- "a": b', "ünï", "tab\there", "#"]
    names = tmp_path / "names.txt"
    names.write_text("\n".join(labels), encoding="utf-8")
    output = tmp_path / "out"
    assert batch(photos_of(1), output, *OPTIONS, "--labels", names).exit_code == 0
    data = yaml.safe_load((output / "yolo" / "data.yaml").read_text("utf-8"))
    shown = [label.replace("\t", "\\t") for label in labels]
    assert data == {"train": "images", "val": "images", "names": dict(enumerate(shown))}
    assert (output / "yolo" / "classes.txt").read_text("utf-8").splitlines() == shown


@pytest.fixture
def photos_of(tmp_path, make_pictures):
    return lambda count: make_pictures(tmp_path / "some", count)


def test_a_run_that_goes_on_ends_with_the_same_files(source, batch, tmp_path, tree):
    output, whole = tmp_path / "out", tmp_path / "whole"
    assert batch(source, output, *(word for word in OPTIONS if word != "--yolo")).exit_code == 1
    assert not (output / "yolo").exists()
    (output / "yolo" / "labels" / "v1.2").mkdir(parents=True)
    for folder in (output / "yolo", output / "yolo" / "labels" / "v1.2"):
        (folder / ".camtool-0123.part").write_text("half")
    assert ", 0 now" in batch(source, output, *OPTIONS).output
    batch(source, whole, *OPTIONS)
    assert tree(output) == tree(whole)


def test_a_picture_that_broke_has_no_boxes_any_more(photos_of, batch, tmp_path):
    photos, output = photos_of(2), tmp_path / "out"
    batch(photos, output, *OPTIONS)
    (photos / "0001.jpg").write_bytes(b"")
    assert batch(photos, output, *OPTIONS).exit_code == 1
    assert [path.name for path in (output / "yolo" / "labels").iterdir()] == ["0000.txt"]


def test_pictures_that_differ_in_the_ending_are_told(photos_of, batch, tmp_path):
    photos = photos_of(2)
    (photos / "0000.png").write_bytes((photos / "0001.jpg").read_bytes())
    done = batch(photos, tmp_path / "out", *OPTIONS)
    assert "1 pictures differ from others in their ending alone" in done.output
    labels = tmp_path / "out" / "yolo" / "labels"
    assert {path.name for path in labels.iterdir()} == {"0000.txt", "0000.png.txt", "0001.txt"}
    assert (labels / "0000.png.txt").read_bytes() == (labels / "0001.txt").read_bytes()


def test_names_that_no_file_can_have_cost_nothing(photos_of, batch, tmp_path):
    photos_of(1)
    listed = tmp_path / "list.txt"
    listed.write_text("some/0000.jpg\nnul\0.jpg\n" + "y/" * 2500 + "z.jpg\n")
    result = batch(listed, tmp_path / "out", *OPTIONS)
    assert "1 of 3 pictures explained" in result.output
    assert "Stopped" not in result.output


PARTS = st.sampled_from(
    (
        *("a.jpg", "a.png", "A.JPG", "a", "a.txt", "a.jpg.txt", "a.png~2", "a.jpg.png", ".jpg"),
        *("b.c.jpg", "b", "x" * 251 + ".jpg", "x" * 255, "é.jpg", "e\u0301.png"),
    )
)


@given(st.lists(st.lists(PARTS, min_size=1, max_size=3).map("/".join), unique=True, max_size=12))
def test_no_two_files_have_one_name(keys):
    names = label_files(keys)
    alike = [unicodedata.normalize("NFC", name).casefold() for name in names]
    folders = {name.rpartition("/")[0] for name in alike}
    assert len(set(alike)) == len(keys)
    assert not folders & set(alike)
    assert all(len(part.encode()) <= 255 for name in names for part in name.split("/"))
    assert all(name.endswith(".txt") for name in names)
