from __future__ import annotations

import base64

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from camtool.folder.entry import Explained, Row, Unexplained
from camtool.folder.journal import Journal, read_entries

NAMES = st.text(st.characters(exclude_categories=()), min_size=1)
"""Any text, lone surrogates too: bytes of a file name that are no Unicode."""


def entries_of(path, keys):
    journal = Journal(path, keys)
    found = list(journal.entries())
    journal.close()
    return found


@given(st.lists(NAMES, unique=True, min_size=1, max_size=8), st.data())
def test_what_was_noted_last_is_what_is_found(tmp_path_factory, keys, data):
    path = tmp_path_factory.mktemp("journal") / "journal.jsonl"
    noted = data.draw(st.lists(st.tuples(st.integers(0, len(keys) - 1), st.text()), max_size=20))
    journal = Journal(path, keys)
    for number, value in noted:
        journal.append([(number, Unexplained(keys[number], value))])
    wanted = [(n, Unexplained(keys[n], value)) for n, value in sorted(dict(noted).items())]
    assert list(journal.entries()) == wanted
    journal.close()
    assert entries_of(path, keys) == wanted


@given(st.integers(0, 400))
def test_a_torn_journal_keeps_its_whole_lines(tmp_path_factory, cut):
    path = tmp_path_factory.mktemp("journal") / "journal.jsonl"
    keys = [str(number) for number in range(20)]
    journal = Journal(path, keys)
    journal.append([(n, Unexplained(key, str(n))) for n, key in enumerate(keys)])
    journal.close()
    content = path.read_bytes()
    path.write_bytes(content[:cut])
    whole = content[:cut].count(b"\n")
    journal = Journal(path, keys)
    assert [number for number, _ in journal.entries()] == list(range(whole))
    journal.append([(n, Unexplained(keys[n], str(n))) for n in range(whole, 20)])
    journal.close()
    assert path.read_bytes() == content


@pytest.mark.parametrize(
    "rubbish", [b"\0" * 50, b"[1]\n", b'{"no":"key"}\n', b'{"key":"b"}\n', b"\xff\n"]
)
def test_what_is_no_entry_is_cut_off(tmp_path, rubbish):
    path = tmp_path / "journal.jsonl"
    line = b'{"key":"a","failed":"is empty"}\n'
    path.write_bytes(line + rubbish)
    assert entries_of(path, ["a"]) == [(0, Unexplained("a", "is empty"))]
    assert path.read_bytes() == line


def test_pictures_that_are_no_longer_in_the_run_are_passed_over(tmp_path):
    path = tmp_path / "journal.jsonl"
    path.write_bytes(
        b"".join(b'{"key":"%s","failed":"x"}\n' % key for key in (b"gone", b"b", b"a"))
    )
    assert [entry.key for _, entry in entries_of(path, ["a", "b"])] == ["a", "b"]
    assert [entry.key for entry in read_entries(path)] == ["gone", "b", "a"]


def test_no_journal_has_no_entries(tmp_path):
    assert list(read_entries(tmp_path / "journal.jsonl")) == []


def test_an_explained_picture_is_read_back_with_its_maps(tmp_path):
    row = Row(
        path="a", rank=0, label="b", index=1, probability=0.25, logit=1.5, x0=1, y0=2, x1=3, y1=4,
        share=0.5, peak=2.5, entropy=0.75, width=5, height=6, target=None,
        truth="c", predicted="b", right=False,
        residual=1e-7, exact=True, method="cam", steps=1,
    )  # fmt: skip
    maps = np.arange(12, dtype=np.float32).reshape(1, 3, 4) - 5.5
    data = base64.b64encode(maps.tobytes()).decode()
    entry = Explained(
        *("a", "a~2", (5, 6), False, [64, 96], [0, 0, 9, 9]),
        *([row], [1, 3, 4], data, {"f": 7}, 1.5, 1, 2),
    )
    journal = Journal(tmp_path / "journal.jsonl", ["a"])
    journal.append([(0, entry)])
    journal.close()
    ((_, found),) = entries_of(tmp_path / "journal.jsonl", ["a"])
    assert found == entry
    np.testing.assert_array_equal(found.heatmaps(), maps)
