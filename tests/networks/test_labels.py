"""Labels: from every kind of file, and which class a user means."""

from __future__ import annotations

import contextlib
import json
import os
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from camtool.errors import ModelError, TargetError
from camtool.networks import resolve_target
from camtool.networks.labels import MAX_TEXT, read_labels

BIRDS = ("robin", "tabby, tabby cat", "house cat", "crane", "crane", "T-shirt", "fire_screen")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.txt", "cat\ndog\ncow\n"),
        ("a.txt", "\ufeffcat\r\ndog\r\ncow"),
        ("a.txt", "  cat \ndog\ncow\n\n\n"),
        ("a.json", '["cat", "dog", "cow"]'),
        ("a.json", '{"0": "cat", "1": "dog", "2": "cow"}'),
        ("a.json", '{"2": "cow", "0": "cat", "1": "dog"}'),
        ("a.json", '{"cow": 2, "cat": 0, "dog": 1}'),
        ("a.json", '{"0": ["n1", "cat"], "1": ["n2", "dog"], "2": ["n3", "cow"]}'),
        ("a.JSON", '[["n1", "cat"], ["n2", "dog"], ["n3", "cow"]]'),
    ],
)
def test_files(tmp_path: Path, name: str, text: str) -> None:
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    assert read_labels(path, 3) == ("cat", "dog", "cow")


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a.txt", b"cat\ndog\n", "has 2 labels, the network has 3 classes"),
        ("a.txt", b"", "has 0 labels"),
        ("a.txt", b"caf\xe9\n" * 3, "is no text in UTF-8"),
        ("a.json", b"[1, 2", "is not JSON"),
        ("a.json", b'"cat"', "must hold a list"),
        ("a.json", b'{"0": "a", "2": "b", "3": "c"}', "without gaps"),
        ("a.json", b'{"cat": "a", "dog": "b", "cow": "c"}', "class indices"),
        ("a.json", b"[[], [], []]", "must hold a list"),
        ("a.json", b"[" * 200_000, "is not JSON"),
        ("a.json", b'{"a":' * 200_000, "is not JSON"),
        ("a.json", b"[[[1]], 2, 3]", "must hold a list"),
        ("a.json", b'{"0": {"a": 1}, "1": "b", "2": "c"}', "must hold a list"),
        ("a.json", b'["a", {}, "c"]', "must hold a list"),
        ("a.json", b"[" + b"9" * 5000 + b", 1, 2]", "is not JSON"),
        ("a.json", b'{"' + b"9" * 5000 + b'": "a"}', "class indices"),
        ("a.txt", b"a" * (MAX_TEXT + 1), "is larger than 16 MiB"),
    ],
)
def test_bad_files(tmp_path: Path, name: str, content: bytes, reason: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(ModelError) as caught:
        read_labels(path, 3)
    assert reason in str(caught.value)
    assert str(caught.value).startswith(str(path))


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no such file"):
        read_labels(tmp_path / "none.txt", 3)


def test_a_folder_says_how_its_names_become_labels(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"is a folder; labels are a file .* ls .* > labels\.txt"):
        read_labels(tmp_path, 3)


def test_what_never_ends_is_not_read(tmp_path: Path) -> None:
    pipe = tmp_path / "labels.txt"
    os.mkfifo(pipe)
    for path in (pipe, Path("/dev/zero")):
        with pytest.raises(ModelError, match="is no regular file"):
            read_labels(path, 3)


@pytest.mark.parametrize(
    ("target", "index"),
    [
        (0, 0),
        ("4", 4),
        (" 4 ", 4),
        ("robin", 0),
        ("ROBIN", 0),
        ("tabby", 1),
        ("Tabby Cat", 1),
        ("house", 2),
        ("t shirt", 5),
        ("fire screen", 6),
        ("fire-screen", 6),
    ],
)
def test_targets(target: int | str, index: int) -> None:
    assert resolve_target(target, BIRDS) == index


@pytest.mark.parametrize("target", ["crane", "cat"])
def test_several_matches_list_them(target: str) -> None:
    with pytest.raises(TargetError, match="matches 2 classes"):
        resolve_target(target, BIRDS)


def test_no_match_lists_the_nearest() -> None:
    with pytest.raises(
        TargetError, match=r"no class is called 'robbin'; the nearest are 0 'robin'"
    ):
        resolve_target("robbin", BIRDS)


@pytest.mark.parametrize(
    "target",
    ["9" * 5000, "-" + "9" * 5000, "0" * 4999 + "5", 10**5000, -(10**5000)],
    ids=["nines", "below zero", "zeros", "a number", "a number below zero"],
)
def test_an_index_of_thousands_of_digits_is_none(target: int | str) -> None:
    with pytest.raises(TargetError, match=r"is not in 0\.\.6") as caught:
        resolve_target(target, BIRDS)
    assert len(str(caught.value)) < 200


def test_a_target_of_a_megabyte_is_looked_up_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    # A pattern of it would take seconds, and matches no label.
    monkeypatch.setattr(re, "escape", None)
    with pytest.raises(TargetError, match="no class is called 'aaaa") as caught:
        resolve_target("a" * 1_000_000, [f"label {n}" for n in range(1000)])
    assert len(str(caught.value)) < 500


def test_a_label_longer_than_what_is_repeated_is_found() -> None:
    labels = [f"{'a' * 300} {n}" for n in range(3)]
    assert [resolve_target(label, labels) for label in labels] == [0, 1, 2]


@pytest.mark.parametrize("target", [7, -1, "7", "-1", 10**12])
def test_an_index_outside_is_an_error(target: int | str) -> None:
    with pytest.raises(TargetError, match=r"is not in 0\.\.6"):
        resolve_target(target, BIRDS)


def test_labels_that_are_numbers_win_over_indices_given_as_text() -> None:
    digits = ("7", "3", "1")
    assert resolve_target("3", digits) == 1
    assert resolve_target(2, digits) == 2


@given(st.text(max_size=12), st.lists(st.text(max_size=8), min_size=1, max_size=6))
def test_any_text_gives_a_class_or_a_target_error(target: str, labels: list[str]) -> None:
    with contextlib.suppress(TargetError):
        assert 0 <= resolve_target(target, labels) < len(labels)


@given(
    st.lists(st.text("abcdefg ", min_size=1), min_size=1, unique_by=lambda s: " ".join(s.split()))
)
def test_every_distinct_label_is_found_by_itself(labels: list[str]) -> None:
    labels = [label for label in labels if label.strip()]
    for index, label in enumerate(labels):
        assert resolve_target(label, labels) == index


def test_json_written_by_python_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "labels.json"
    path.write_text(json.dumps(["Käse", "猫", "a\\b"]))
    assert read_labels(path, 3) == ("Käse", "猫", "a\\b")


def test_labels_with_a_word_spelled_alike_come_first() -> None:
    labels = ["catamaran", "Persian cat", "cart", "Egyptian cat", "cats, moggies", "chat, bird"]
    with pytest.raises(TargetError, match="nearest are 1 'Persian cat', 3 'Egyptian cat'"):
        resolve_target("catt", labels)
    with pytest.raises(TargetError, match="nearest are 0 'catamaran'"):
        resolve_target("qqq", labels[:1])
