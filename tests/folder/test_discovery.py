from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from camtool.folder.discovery import discover
from camtool.folder.lists import SourceError


def keys(source, **options):
    return [picture.key for picture in discover(str(source), **options).pictures]


@pytest.fixture
def folder(tmp_path):
    """Empty files; discovery looks at names first."""
    root = tmp_path / "photos"
    for name in ("b.jpg", "a/z.PNG", "a/b/c.webp", "a.jpg", "notes.txt", "c/only.txt"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def test_a_folder_in_the_order_of_names(folder):
    found = discover(str(folder))
    assert [picture.key for picture in found.pictures] == [
        "a/b/c.webp",
        "a/z.PNG",
        "a.jpg",
        "b.jpg",
    ]
    assert found.skipped == 2
    assert all(picture.source == folder / picture.key for picture in found.pictures)


def test_not_recursive(folder):
    assert keys(folder, recursive=False) == ["a.jpg", "b.jpg"]


def test_the_output_inside_the_source_is_left_out(folder):
    assert keys(folder, exclude=folder / "a") == ["a.jpg", "b.jpg"]
    (folder / "link").symlink_to("a", target_is_directory=True)
    assert keys(folder, exclude=folder / "link") == ["a.jpg", "b.jpg"]


def test_the_output_can_not_be_the_source(folder):
    with pytest.raises(SourceError, match="choose another"):
        discover(str(folder), exclude=folder)


@pytest.fixture
def with_own(folder):
    """What camtool wrote beside the pictures, and two earlier runs' results among them."""
    own = (
        *("b.cam.png", "b.cam.npz", "b.jpg.overlay-1.jpg", "a/z.PNG.heatmap-12.png"),
        *("a/earlier/.camtool/lock", "a/earlier/.camtool/odd.jpg", "a/earlier/x.jpg.boxes-1.webp"),
        *("a/earlier/report/thumbs/sub/x.jpg.jpg", ".camtool/lock", "report/thumbs/b.jpg.jpg"),
    )
    others = ("a/earlier/mine.jpg", "report/mine.jpg", "c/report/thumbs/mine.jpg", "b.cam.jpg")
    for name in (*own, *others):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return ["a/b/c.webp", "a/z.PNG", "a.jpg", "b.jpg", *others]


def test_what_camtool_made_is_not_explained_again(folder, with_own):
    found = discover(str(folder))
    assert sorted(picture.key for picture in found.pictures) == sorted(with_own)
    assert (found.own, found.skipped) == (5, 2)
    found = discover(f"{folder}/**/*.*")
    assert sorted(picture.key for picture in found.pictures) == sorted(with_own)
    assert (found.own, found.skipped) == (7, 2)


def test_what_camtool_made_is_explained_where_it_is_named(folder, with_own):
    assert keys(folder / "b.cam.png") == ["b.cam.png"]
    (folder / "list.txt").write_text("b.jpg\nb.jpg.overlay-1.jpg\n")
    assert keys(folder / "list.txt") == ["b.jpg", "b.jpg.overlay-1.jpg"]


def test_nothing_but_what_camtool_made(tmp_path):
    (tmp_path / "x.cam.png").touch()
    with pytest.raises(SourceError, match="no pictures but 1 of camtool's own"):
        discover(str(tmp_path))


def test_links_are_followed_and_each_folder_is_seen_once(folder):
    (folder / "a" / "up").symlink_to("..", target_is_directory=True)
    (folder / "0").symlink_to("a", target_is_directory=True)
    (folder / "loop").symlink_to("loop")
    (folder / "link.jpg").symlink_to("b.jpg")
    assert keys(folder) == ["0/b/c.webp", "0/z.PNG", "a.jpg", "b.jpg", "link.jpg"]


def test_pictures_are_known_by_content_where_the_name_does_not_tell(folder, make_picture):
    (folder / "d.txt").write_bytes(make_picture(0))
    (folder / "e").write_bytes(make_picture(0, "PNG"))
    assert keys(folder)[-2:] == ["d.txt", "e"]


def test_no_kind_of_picture_is_passed_over_in_silence(folder):
    more = [f"e.{ending}" for ending in ("HEIC", "heif", "hif", "jxl", "npy")]
    for name in more:
        (folder / name).touch()
    assert keys(folder)[-len(more) :] == more


def test_pipes_without_the_name_of_a_picture_are_not_opened(folder):
    if not hasattr(os, "mkfifo"):
        pytest.skip("needs pipes with names")
    os.mkfifo(folder / "pipe")
    assert "pipe" not in keys(folder)


@pytest.fixture
def deep(tmp_path, monkeypatch):
    """More folders inside each other than Python's calls may be."""
    monkeypatch.chdir(tmp_path)
    for _ in range(1100):
        Path("d").mkdir()
        os.chdir("d")
    Path("x.jpg").touch()
    yield tmp_path
    Path("x.jpg").unlink()
    for _ in range(1100):
        os.chdir("..")
        Path("d").rmdir()


def test_deep_folders(deep):
    (key,) = keys(deep)
    assert key.count("/") == 1100


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse such names")
def test_names_that_are_no_unicode(tmp_path):
    (tmp_path / os.fsdecode(b"x\xff.jpg")).touch()
    (picture,) = discover(str(tmp_path)).pictures
    assert os.fsencode(picture.key) == b"x\xff.jpg"


def test_a_text_list(folder, tmp_path):
    listed = tmp_path / "list.txt"
    listed.write_text("photos/b.jpg\r\n\nphotos/a/z.PNG\tcat\nphotos/missing.jpg\n")
    found = discover(str(listed))
    assert [(picture.key, picture.target) for picture in found.pictures] == [
        ("b.jpg", None),
        ("a/z.PNG", "cat"),
        ("missing.jpg", None),
    ]
    assert found.root == folder


@pytest.mark.parametrize(("ending", "separator"), [(".csv", ","), (".tsv", "\t")])
def test_a_table(folder, ending, separator):
    listed = folder / f"list{ending}"
    rows = [
        ("id", "Label", "path"),
        ("1", "cat", "b.jpg"),
        ("2", "", '"a\n.jpg"'),
        ("3", "dog", ""),
    ]
    listed.write_text("\n".join(separator.join(row) for row in rows))
    pictures = discover(str(listed)).pictures
    assert [(picture.key, picture.target) for picture in pictures] == [
        ("b.jpg", "cat"),
        ("a\n.jpg", None),
    ]


def test_a_table_without_a_header(folder):
    (folder / "list.csv").write_text("﻿b.jpg,5\na.jpg\n", encoding="utf-8")
    pictures = discover(str(folder / "list.csv")).pictures
    assert [(picture.key, picture.target) for picture in pictures] == [
        ("b.jpg", "5"),
        ("a.jpg", None),
    ]


def test_a_picture_listed_twice_has_two_names(folder):
    (folder / "list.txt").write_text("b.jpg\nb.jpg\nb.jpg~2\nb.jpg\n")
    assert keys(folder / "list.txt") == ["b.jpg", "b.jpg~2", "b.jpg~2~2", "b.jpg~3"]


def test_no_name_of_a_list_leads_out_of_the_output(folder, tmp_path):
    other = tmp_path / "other.jpg"
    (folder / "list.txt").write_text(f"a/../b.jpg\n../other.jpg\n{other}\na/b/../../../x/y.jpg\n")
    for key in keys(folder / "list.txt"):
        assert ".." not in Path(key).parts
        assert not Path(key).is_absolute()


def test_absurd_lines_of_a_list_are_pictures_that_are_missing(folder):
    (folder / "list.txt").write_text("x" * 5000 + "\nnul\0.jpg\n" + "y/" * 3000 + "\n")
    assert len(keys(folder / "list.txt")) == 3


def test_a_list_of_the_current_folder(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(folder)
    listed = tmp_path / "elsewhere.txt"
    listed.write_text("a.jpg\n")
    (picture,) = discover(str(listed)).pictures
    assert picture.source.samefile(folder / "a.jpg")


def test_a_table_that_is_none(folder):
    (folder / "list.csv").write_text("path\n" + "x" * 200_000)
    with pytest.raises(SourceError, match="CSV"):
        discover(str(folder / "list.csv"))


def test_a_pattern(folder):
    assert keys(folder / "**" / "*") == ["a/b/c.webp", "a/z.PNG", "a.jpg", "b.jpg"]
    assert keys(folder / "*.jpg", exclude=folder / "a") == ["a.jpg", "b.jpg"]
    assert keys(f"{folder}/**/*.[jw]*", exclude=folder / "a") == ["a.jpg", "b.jpg"]


def test_a_name_that_looks_like_a_pattern(tmp_path):
    odd = tmp_path / "photos[1]"
    odd.mkdir()
    (odd / "x.jpg").touch()
    assert keys(odd) == ["x.jpg"]
    assert keys(odd / "x.jpg") == ["x.jpg"]


@pytest.mark.parametrize("source", ["nothing", "nothing*", "z" * 5000, "c"])
def test_sources_without_pictures(folder, source):
    with pytest.raises(SourceError):
        discover(str(folder / source))
