"""Which pictures a study takes, which it holds out, and what it says of the others."""

from __future__ import annotations

import csv
import io
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from camtool.fit import study_data
from camtool.fit.study_data import Split, StudyError, read, split


def encoded(shade: int) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (40, 30), (shade, 255 - shade, 90)).save(stream, "PNG")
    return stream.getvalue()


def make(root: Path, **counts: int) -> Path:
    for name, count in counts.items():
        (root / name).mkdir(parents=True)
        for n in range(count):
            (root / name / f"{n:03d}.png").write_bytes(encoded(n))
    return root


def names(found: Split) -> tuple[set[Path], set[Path]]:
    return {s.path for s in found.training}, {s.path for s in found.validation}


def test_a_share_is_held_out_of_each_class_and_the_same_every_time(tmp_path) -> None:
    root = make(tmp_path / "data", cat=20, dog=50)
    found = split(root)
    training, validation = names(found)
    assert len(training | validation) == 70
    assert not training & validation
    assert Counter(s.label for s in found.validation) == {0: 4, 1: 10}
    assert all(found.labels[s.label] == s.path.parent.name for s in found.training)
    assert names(split(root)) == (training, validation)
    assert len(split(root, holdout=0.5).validation) == 35


def test_one_class_more_moves_no_picture_of_the_others(tmp_path) -> None:
    root = make(tmp_path / "data", cat=20, dog=20)
    before = names(split(root))
    make(root, ape=9)
    after = split(root)
    assert after.labels == ("ape", "cat", "dog")
    assert all(one <= other for one, other in zip(before, names(after), strict=True))


def test_given_validation_pictures_take_the_place_of_a_share(tmp_path) -> None:
    root, other = make(tmp_path / "a", cat=9, dog=9), make(tmp_path / "b", cat=3, dog=2)
    found = split(root, other)
    assert len(found.training) == 18
    assert {s.path.parent.parent for s in found.validation} == {other}
    both = split(root, other, holdout=1 / 3)
    assert (len(both.training), len(both.validation)) == (12, 11)


def test_limits_are_those_of_a_class(tmp_path) -> None:
    root = make(tmp_path / "data", cat=20, dog=50)
    assert Counter(s.label for s in split(root, limit=8).training) == {0: 8, 1: 8}
    few = split(root, most=10)
    assert Counter(s.label for s in few.training) == {0: 5, 1: 5}
    assert Counter(s.label for s in few.validation) == {0: 2, 1: 2}


def test_classes_of_several_folders(tmp_path) -> None:
    root = make(tmp_path / "data", tabby=4, siamese=6, pug=8, car=9)
    found = split(root, groups={"cat": ["tabby", "siamese"], "dog": ["pug"]})
    assert found.labels == ("cat", "dog")
    assert len(found.training) + len(found.validation) == 18
    with pytest.raises(StudyError, match="no folder 'wolf'"):
        split(root, groups={"a": ["wolf"], "b": ["pug"]})


def test_what_can_not_be_used_is_named(tmp_path) -> None:
    root = make(tmp_path / "data", cat=9, dog=9, ape=1, bee=0)
    (root / "loose.png").write_bytes(encoded(7))
    (root / "cat" / "003.png").write_bytes(b"no picture")
    (root / "dog" / "004.png").write_bytes(encoded(4)[:60])
    found = split(root)
    read(found.training, [32], found.problems, 2)
    read(found.validation, [32], found.problems, 2)
    told = {Path(problem.path).name: problem.reason for problem in found.problems}
    assert told.keys() == {"loose.png", "ape", "bee", "003.png", "004.png"}
    assert "to validate on" in told["ape"]
    assert "to train on" in told["bee"]
    assert found.labels == ("cat", "dog")


def test_fewer_than_two_classes_are_no_study(tmp_path) -> None:
    root = make(tmp_path / "data", cat=9, ape=1)
    with pytest.raises(StudyError, match=r"1 classes.*ape: the class is left out"):
        split(root)
    (tmp_path / "flat").mkdir()
    (tmp_path / "flat" / "0.png").write_bytes(encoded(0))
    with pytest.raises(StudyError, match=r"0 classes.*lies in no class's folder"):
        split(tmp_path / "flat")
    with pytest.raises(StudyError, match="is no folder"):
        split(tmp_path / "gone")


def test_boxes_of_a_table_are_found(tmp_path) -> None:
    root = make(tmp_path / "data", cat=3, dog=3)
    rows: list[tuple[object, ...]] = [("path", "x0", "y0", "x1", "y1")]
    rows += [(f"{name}/{n:03d}.png", n, 1, 30, 29) for name in ("cat", "dog") for n in range(3)]
    with (root / "boxes.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    found = split(root)
    assert not found.problems
    for sample in (*found.training, *found.validation):
        assert sample.boxes == ((float(sample.path.stem), 1.0, 30.0, 29.0),)


def test_tiny_imagenet_gives_training_boxes_and_its_own_validation_pictures(tmp_path) -> None:
    root = tmp_path / "tiny"
    for wnid in ("n1", "n2"):
        folder = root / "train" / wnid / "images"
        folder.mkdir(parents=True)
        for n in range(4):
            (folder / f"{wnid}_{n}.JPEG").write_bytes(encoded(n))
        lines = [f"{wnid}_{n}.JPEG\t{n}\t0\t19\t29" for n in range(3)]
        (folder.parent / f"{wnid}_boxes.txt").write_text("\n".join([*lines, "bad\tline"]))
    (root / "wnids.txt").write_text("n1\nn2\n")
    images = root / "val" / "images"
    images.mkdir(parents=True)
    (images / "val_0.JPEG").write_bytes(encoded(0))
    (images / "val_1.JPEG").write_bytes(encoded(1))
    notes = "val_0.JPEG\tn1\t1\t2\t3\t4\nval_1.JPEG\tn2\t0\t0\t9\t9\n"
    (root / "val" / "val_annotations.txt").write_text(notes)
    found = split(root)
    assert (len(found.training), len(found.validation)) == (8, 2)
    boxes = {s.path.name: s.boxes for s in (*found.training, *found.validation)}
    assert boxes["n1_2.JPEG"] == ((2, 0, 20, 30),)
    assert boxes["n1_3.JPEG"] == ()
    assert boxes["val_0.JPEG"] == ((1, 2, 4, 5),)
    assert [p.path for p in found.problems] == ["bad", "bad"]
    grouped = split(root, groups={"a": ["n2"], "b": ["n1"]}, holdout=0.25)
    assert (len(grouped.training), len(grouped.validation)) == (6, 4)


def test_pixels_are_those_of_every_side_in_the_order_of_the_pictures(tmp_path) -> None:
    root = make(tmp_path / "data", cat=9, dog=9)
    found = split(root)
    made = read(found.training, [32, 48], found.problems, 4)
    assert made.pixels[32].shape == (14, 32, 32, 3)
    assert made.pixels[48].shape == (14, 48, 48, 3)
    assert made.sizes == [(40, 30)] * 14
    shades = [int(sample.path.stem) for sample in made.samples]
    np.testing.assert_array_equal(made.pixels[32][:, 5, 5, 0], shades)
    np.testing.assert_array_equal(made.labels, [s.label for s in found.training])
    again = read(found.training[:-1], [32, 48], found.problems, 1)
    assert again.digest() != made.digest() == read(found.training, [32, 48], [], 1).digest()


def test_what_would_not_fit_is_refused_before_it_is_read(monkeypatch) -> None:
    study_data.check_memory(1 << 20)
    with pytest.raises(StudyError, match="smaller --size or --limit"):
        study_data.check_memory(1 << 60)
