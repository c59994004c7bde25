"""Names of pictures that are in each other's way, or in that of the run's own files."""

from __future__ import annotations

import json
import re
from urllib.parse import unquote

import pytest

OPTIONS = ("--results", "csv,jsonl", "--coco", "-b", "2")


def entries(output):
    lines = (output / ".camtool" / "journal.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def test_names_in_each_others_way(tmp_path, batch, make_picture, tree):
    source, output = tmp_path / "photos", tmp_path / "out"
    keys = (
        *("results.csv/a.jpg", "run.json/b.jpg", "report.html/c.jpg", ".camtool/journal.jsonl/d"),
        *("report/thumbs/e.jpg", "e", "e.jpg/f", "g", "g.overlay-1.jpg/h", "coco.json/a.jpg"),
        *(".camtool-0.part/i.jpg", "x" * 251 + ".jpg", "ü" * 127, "x" * 233, "x" * 255),
    )
    for seed, key in enumerate(keys):
        (source / key).parent.mkdir(parents=True, exist_ok=True)
        (source / key).write_bytes(make_picture(seed))
    # One lies in a folder that only an earlier run has, and one among its thumbnails.
    kept = len(keys) - 2
    first = batch(source, output, *OPTIONS)
    assert first.exit_code == 0, first.output
    assert f"{kept} of {kept} pictures explained" in first.output
    files = [name for entry in entries(output) for name in entry["files"]]
    assert len(files) == len(set(files)) == 2 * kept
    assert all((output / name).is_file() for name in files)
    page = (output / "report.html").read_text()
    for link in set(re.findall(r'"\./([^"]+)"', page)):
        assert (output / unquote(link)).is_file(), link
    before = tree(output)
    assert ", 0 now" in batch(source, output, *OPTIONS).output
    assert tree(output) == before
    assert batch(source, output, *OPTIONS, "--overwrite").exit_code == 0
    assert tree(output) == before


def test_a_picture_that_is_called_otherwise_now_is_done_again(tmp_path, batch, make_picture):
    """Else its files would be another's."""
    source, output = tmp_path / "photos", tmp_path / "out"
    source.mkdir()
    (source / "b").write_bytes(make_picture(0, "PNG"))
    batch(source, output, *OPTIONS)
    (source / "B").write_bytes(make_picture(1, "PNG"))
    assert "2 of 2 pictures explained, 2 now" in batch(source, output, *OPTIONS).output
    assert [entry["name"] for entry in entries(output)] == ["b", "B", "b~2"]


def test_a_folder_where_a_result_should_go_is_told_at_once(tmp_path, batch, make_pictures):
    source, output = make_pictures(tmp_path / "photos", 2), tmp_path / "out"
    (output / "run.json").mkdir(parents=True)
    result = batch(source, output, *OPTIONS)
    assert result.exit_code == 2
    assert f"{output}/run.json: is a folder where a result should go" in result.output
    assert not list(output.glob("*.jpg"))


@pytest.mark.parametrize(
    "line",
    [
        "x" * 5000,
        pytest.param("y/" * 3000 + "z.jpg", marks=pytest.mark.slow),
        "nul\0.jpg",
    ],
)
def test_a_list_with_an_absurd_line_fails_in_this_line_only(tmp_path, batch, make_pictures, line):
    make_pictures(tmp_path / "photos", 3)
    listed = tmp_path / "list.txt"
    listed.write_text(f"photos/0000.jpg\n{line}\nphotos/0002.jpg\n")
    result = batch(listed, tmp_path / "out", "--results", "csv")
    assert result.exit_code == 1
    assert "2 of 3 pictures explained" in result.output
    assert "Stopped" not in result.output


def test_halves_of_files_are_swept_away_where_the_run_writes(tmp_path, batch, make_pictures):
    source, output = tmp_path / "photos", tmp_path / "out"
    make_pictures(source / "sub", 2)
    places = [output, output / "sub", output / "report/thumbs/sub", output / ".camtool"]
    for place in places:
        place.mkdir(parents=True)
        (place / ".camtool-0123.part").write_text("half")
    (output / "mine").mkdir()
    (output / "mine" / ".camtool-0123.part").write_text("not this run's")
    assert batch(source, output, "--results", "csv").exit_code == 0
    assert [path.parent.name for path in output.rglob("*.part")] == ["mine"]


def test_control_characters_reach_no_terminal(tmp_path, batch, make_pictures):
    source = make_pictures(tmp_path / "pho\x1b[31mtos\n", 2)
    (source / "0001.jpg").write_bytes(b"")
    output = tmp_path / "o\x1bt"
    for result in (
        batch(source, output, "--results", "csv"),
        batch(source, output, "--results", "csv", "-k", "2"),
        batch(source, source),
        batch(source / "none\x1b", output),
        batch(f"{source}/none\x1b*", output),
    ):
        assert "\x1b" not in result.output
        assert "\\x1b" in result.output
