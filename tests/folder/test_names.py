"""No two files of a run claim one path, whatever the pictures are called."""

from __future__ import annotations

import os
from pathlib import Path, PurePosixPath
from types import SimpleNamespace
from typing import cast, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from camtool.choices import Kind
from camtool.explanation import Explanation
from camtool.folder.names import HIDDEN, RESULTS, output_names, shown_in, thumbnail_of
from camtool.views.overlay import Look
from camtool.views.save import Views, files_of

VIEWS = [Views(get_args(Kind), Look(), picture=picture) for picture in (".jpg", ".png", ".webp")]
# Of an explanation, only how many classes it has makes names.
SEEN = cast(Explanation, SimpleNamespace(labels=("a", "b")))

PARTS = st.sampled_from(
    (
        *("a", "A", "b", "a.jpg", "A.JPG", "a~2", "report", "Thumbs", "thumbs", "thumbs.jpg"),
        *("results.csv", "results.csv~2", "RUN.json", HIDDEN, f"{HIDDEN}-1.part", "report.html"),
        *("a.overlay-1.jpg", "a.jpg.overlay-1.jpg", "a.cam.png", "a.jpg.jpg", "\u00e9", "e\u0301"),
        *("x" * 240, "x" * 240 + ".overlay-1.jpg", "ü" * 120, "ü" * 127, "x" * 254, "x" * 255),
    )
)
KEYS = st.lists(st.lists(PARTS, min_size=1, max_size=4).map("/".join), unique=True, max_size=14)


def named(keys, sources=(), output="out"):
    return output_names(keys, [Path(source) for source in sources], Path(output))


def files(name):
    """Every file that may be written for a picture."""
    views = {path.as_posix() for views in VIEWS for _, path in files_of(SEEN, Path(name), views)}
    return views | {thumbnail_of(name)}


def alike(path):
    """Case folding and canonical composition, as disks of other systems compare names."""
    import unicodedata

    return unicodedata.normalize("NFC", path).casefold()


@settings(max_examples=300)
@given(KEYS)
def test_every_file_has_a_path_of_its_own(keys):
    claimed = {*RESULTS}
    for name in named(keys):
        mine = {alike(path) for path in files(name)}
        assert len(mine) == len(files(name))
        assert not mine & claimed
        claimed |= mine
    folders = {alike(str(folder)) for path in claimed for folder in PurePosixPath(path).parents}
    assert not folders & claimed
    parts = {part for folder in folders for part in folder.split("/")}
    assert HIDDEN not in parts
    assert not any(part.startswith(f"{HIDDEN}-") and part.endswith(".part") for part in parts)


@given(KEYS)
def test_no_name_is_too_long_for_a_disk_that_takes_255_bytes(keys):
    for name in named(keys):
        for path in files(name):
            assert all(len(os.fsencode(part)) <= 255 for part in path.split("/"))


@given(KEYS)
def test_names_follow_from_the_list(keys):
    assert named(keys) == named(keys)


def test_nothing_is_renamed_without_need():
    keys = ["a.jpg", "a.png", "a/b.jpg", "report/x.jpg", "thumbs/results.csv", "results/csv.jpg"]
    assert named(keys) == keys


@pytest.mark.parametrize(
    ("keys", "wanted"),
    [
        (["results.csv/a.jpg"], ["results.csv~2/a.jpg"]),
        (["x/results.csv/a.jpg"], ["x/results.csv/a.jpg"]),
        (["report/thumbs/a.jpg", "report/a.jpg"], ["report/thumbs~2/a.jpg", "report/a.jpg"]),
        ([".camtool/lock"], [".camtool~2/lock"]),
        (["results.csv/a", "results.csv~2/a"], ["results.csv~2/a", "results.csv~2/a~2"]),
        (["a", "a.overlay-1.jpg/x"], ["a~2", "a.overlay-1.jpg/x"]),
        (["a", "a.jpg/x"], ["a~2", "a.jpg/x"]),
        (["A.jpg", "a.jpg"], ["A.jpg", "a.jpg~2"]),
    ],
)
def test_what_is_in_the_way_is_passed(keys, wanted):
    assert named(keys) == wanted


def test_pictures_of_the_source_that_lie_in_the_output_are_not_written_over():
    listed = ["out/a.overlay-1.jpg", "out/report/thumbs/b.jpg", "elsewhere/c.cam.png"]
    assert named(["a", "b", "c"], listed) == ["a~2", "b~2", "c"]


def test_a_name_of_a_view_tells_what_it_shows():
    for views in VIEWS:
        for kind, path in files_of(SEEN, Path("folder/picture\n.jpg"), views):
            assert shown_in(path.name) == "picture\n.jpg", kind
    for other in ("a.jpg", "cam.png", ".cam.png", "a.cam.jpg", "a.overlay.jpg", "a.overlay-1.gif"):
        assert shown_in(other) == ""
