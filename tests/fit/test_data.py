"""Bad data: each thing is named, nothing is silently dropped."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from camtool.fit.data import DataError, classes_of, known_alone, read_labelled

NOWHERE = Path("/nowhere")


def told(found) -> dict[str, str]:
    return {Path(problem.path).name: problem.reason for problem in found.problems}


def write_list(path: Path, *rows: str) -> Path:
    path.write_text("path,label\n" + "".join(f"{row}\n" for row in rows))
    return path


def test_a_folder_with_all_that_can_be_wrong(coloured) -> None:
    data = coloured(3)
    (data / "grey").mkdir()
    shutil.copy(data / "red" / "0.png", data / "blue" / "again.png")
    (data / "RED").mkdir()
    shutil.copy(data / "red" / "1.png", data / "RED" / "other.png")
    shutil.copy(data / "red" / "2.png", data / "stray.png")
    (data / "green" / "notes.txt").write_text("x")
    (data / "green" / "gone.png").symlink_to(data / "nowhere.png")
    found = read_labelled(str(data), "softmax", NOWHERE)
    said = told(found)
    assert said["grey"] == "holds no pictures; the class is left out"
    assert "again.png" in said["0.png"]
    assert "labelled blue; both are left out" in said["0.png"]
    assert "labelled red; both are left out" in said["again.png"]
    assert said["RED"] == "differs from 'red' in case alone; taken for the same class"
    assert said["stray.png"] == "lies in no class's folder; left out"
    assert said["data"] == "files that are no pictures, left out: 1"
    assert "can't be read" in said["gone.png"]
    assert found.failed == 1
    kept = {(picture.path.name, picture.names) for picture in found.pictures}
    assert kept == {
        *((f"{n}.png", ("blue",)) for n in range(3)),
        *((f"{n}.png", ("green",)) for n in range(3)),
        *((f"{n}.png", ("red",)) for n in (1, 2)),
        ("other.png", ("red",)),
    }
    assert classes_of(found.pictures, "softmax", "data").names == ("blue", "green", "red")


def test_a_list_with_several_labels(coloured, tmp_path) -> None:
    data = coloured(2)
    shutil.copy(data / "red" / "0.png", data / "copy.png")
    rows = ("red/0.png,warm; loud", "blue/0.png,", "green/0.png,Loud", "copy.png,loud;warm;old")
    source = write_list(data / "list.csv", *rows)
    found = read_labelled(str(source), "sigmoid", NOWHERE)
    names = {picture.path.name: set(picture.names) for picture in found.pictures[:1]}
    assert names == {"0.png": {"warm", "loud", "old"}}
    assert [set(picture.names) for picture in found.pictures[1:]] == [
        set(),
        {"loud"},
        {"warm", "loud", "old"},
    ]
    assert "it is taken for all of them" in told(found)["copy.png"]
    assert told(found)["Loud"] == "differs from 'loud' in case alone; taken for the same class"
    assert classes_of(found.pictures, "sigmoid", "list").names == ("loud", "old", "warm")


def test_a_list_that_forgets_a_label(coloured) -> None:
    data = coloured(2)
    source = write_list(data / "list.csv", "red/0.png,a", "red/1.png,", "blue/0.png,b")
    found = read_labelled(str(source), "softmax", NOWHERE)
    assert told(found) == {"1.png": "the list names no label for it; left out"}
    assert len(found.pictures) == 2


@pytest.mark.parametrize(
    ("rows", "form", "reason"),
    [
        (("red/0.png,a", "blue/0.png,a"), "softmax", "one class alone, 'a'; put pictures without"),
        (("red/0.png,a", "blue/0.png,a"), "sigmoid", "every picture shows 'a'"),
        (("red/0.png,", "blue/0.png,"), "sigmoid", "no picture has a label"),
        (("red/0.png,", "blue/0.png,"), "softmax", "names no picture with a label"),
        (("red/9.png,a", "blue/9.png,b"), "softmax", "no picture that can be used"),
    ],
)
def test_nothing_to_tell_apart(coloured, rows, form, reason) -> None:
    source = str(write_list(coloured(1) / "list.csv", *rows))
    with pytest.raises(DataError, match=reason):
        classes_of(read_labelled(source, form, NOWHERE).pictures, form, source)


def test_what_is_no_data_at_all(tmp_path, make_pictures) -> None:
    with pytest.raises(DataError, match="is no folder by class"):
        read_labelled(str(tmp_path / "gone"), "softmax", NOWHERE)
    flat = make_pictures(tmp_path / "flat", 2)
    with pytest.raises(DataError, match="into a folder of its own"):
        read_labelled(str(flat), "softmax", NOWHERE)
    with pytest.raises(DataError, match="--multi-label takes a CSV"):
        read_labelled(str(flat), "sigmoid", NOWHERE)


def test_other_classes_are_named(coloured) -> None:
    found = read_labelled(str(coloured(1)), "softmax", NOWHERE)
    classes = classes_of(found.pictures, "softmax", "data")
    other = read_labelled(str(coloured(1)), "softmax", NOWHERE)
    known_alone(other, classes._replace(names=("RED", "blue")))
    assert [picture.names for picture in other.pictures] == [("blue",), ("RED",)]
    assert told(other) == {"0.png": "no class is called 'green'; left out"}


def test_synsets_are_called_as_imagenet_calls_them(tmp_path, make_pictures) -> None:
    for number, name in enumerate(("n02123045", "n02085620")):
        make_pictures(tmp_path / "data" / name, 1, number)
    found = read_labelled(str(tmp_path / "data"), "softmax", NOWHERE)
    classes = classes_of(found.pictures, "softmax", "data")
    assert classes.synsets == classes.names == ("n02085620", "n02123045")
    assert [label.split(",")[0] for label in classes.labels] == ["Chihuahua", "tabby"]
