"""Sources and outputs that change, vanish or fill up while a run goes on."""

from __future__ import annotations

import errno
import shutil

import pytest

from camtool.folder import discovery, work
from camtool.folder.entry import Explained
from camtool.folder.journal import read_entries
from camtool.model import CamModel
from camtool.views.save import save_views

OPTIONS = ("--results", "csv", "--save", "overlay,npz", "-b", "2")


@pytest.fixture
def source(tmp_path, make_pictures):
    return make_pictures(tmp_path / "photos", 24)


@pytest.fixture
def while_reading(monkeypatch):
    """Have something happen when the picture of a name was just read."""

    def arrange(name, happening):
        prepare = CamModel.prepare

        def noted(self, path, *arguments, **options):
            prepared = prepare(self, path, *arguments, **options)
            if path.name == name:
                happening(path)
            return prepared

        monkeypatch.setattr(CamModel, "prepare", noted)

    return arrange


@pytest.fixture
def before_writing(monkeypatch):
    """Have something happen just before the files of a picture are written."""

    def arrange(name, happening):
        def noted(explanation, base, *arguments):
            if base.name == name:
                happening(base)
            return save_views(explanation, base, *arguments)

        monkeypatch.setattr(work, "save_views", noted)

    return arrange


def entries(output):
    return {entry.key: entry for entry in read_entries(output / ".camtool" / "journal.jsonl")}


@pytest.mark.slow
def test_a_picture_that_changes_while_it_is_explained_is_done_again(
    source, batch, tree, while_reading, make_picture, monkeypatch, tmp_path
):
    output = tmp_path / "out"
    while_reading("0005.jpg", lambda path: path.write_bytes(make_picture(98)))
    first = batch(source, output, *OPTIONS)
    assert first.exit_code == 0
    assert "1 changed meanwhile: the same command does them again." in first.output
    monkeypatch.undo()
    assert "24 of 24 pictures explained, 1 now" in batch(source, output, *OPTIONS).output
    batch(source, tmp_path / "fresh", *OPTIONS)
    assert tree(output) == tree(tmp_path / "fresh")


def test_a_picture_that_changes_and_changes_back_is_done_again(
    source, batch, while_reading, tmp_path, monkeypatch
):
    """Who knows which of the two was read."""
    path, kept = source / "0005.jpg", tmp_path / "kept.jpg"
    shutil.copy2(path, kept)
    while_reading("0005.jpg", lambda path: path.write_bytes(b"for a moment"))
    monkeypatch.setattr(
        work,
        "state_of",
        lambda source: (
            (discovery.state_of(source), shutil.copy2(kept, source))[0]
            if source.name == "0005.jpg"
            else discovery.state_of(source)
        ),
    )
    assert "1 changed meanwhile" in batch(source, tmp_path / "out", *OPTIONS).output
    monkeypatch.undo()
    assert ", 1 now" in batch(source, tmp_path / "out", *OPTIONS).output


@pytest.mark.parametrize("name", ["0000.jpg", "0009.jpg"])
def test_an_output_that_is_moved_away_stays_away(
    source, batch, before_writing, monkeypatch, tmp_path, name
):
    output, elsewhere = tmp_path / "out", tmp_path / "elsewhere"
    before_writing(name, lambda _: output.rename(elsewhere))
    result = batch(source, output, *OPTIONS)
    assert result.exit_code == 1
    assert f"Stopped ({output}: is gone)" in result.output
    assert not output.exists()
    noted = entries(elsewhere)
    assert all((elsewhere / file).exists() for entry in noted.values() for file in entry.files)
    elsewhere.rename(output)
    monkeypatch.undo()
    again = batch(source, output, *OPTIONS)
    assert f"24 of 24 pictures explained, {24 - len(noted)} now" in again.output


def test_an_output_that_is_removed_leaves_nothing_and_no_file_is_named(
    source, batch, before_writing, tmp_path
):
    (source / "0003.jpg").write_bytes(b"")
    output = tmp_path / "out"
    before_writing("0021.jpg", lambda _: shutil.rmtree(output))
    # One writer: nobody else puts a file into a folder that is being removed.
    result = batch(source, output, *OPTIONS, "-j", "1")
    assert result.exit_code == 1
    assert "is gone" in result.output
    assert "says why" not in result.output
    assert "Look at" not in result.output
    assert not output.exists()


def test_halves_that_a_killed_process_left_meanwhile_are_gone_in_the_end(
    source, batch, before_writing, tmp_path
):
    output = tmp_path / "out"

    def killed(_):
        for folder in (output, output / "report" / "thumbs"):
            folder.mkdir(parents=True, exist_ok=True)
            (folder / ".camtool-0123456789abcdef.part").write_bytes(b"half")

    before_writing("0008.jpg", killed)
    assert batch(source, output, *OPTIONS).exit_code == 0
    assert not [*output.rglob("*.part")]


def test_a_folder_that_another_run_claimed_meanwhile_is_left_alone(
    source, batch, before_writing, tmp_path
):
    output, other = tmp_path / "out", tmp_path / "other"
    names = [f"{number:04d}.jpg.overlay-1.jpg" for number in (0, 8, 9)]
    (other / ".camtool").mkdir(parents=True)
    for name in names:
        (other / name).write_text("another run's")

    def replaced(_):
        output.rename(tmp_path / "elsewhere")
        # Whole at once: this run removes a folder that is empty.
        other.rename(output)

    before_writing("0008.jpg", replaced)
    # One after the other, so that none is in the middle of its own removal just then.
    assert "is gone" in batch(source, output, *OPTIONS, "-j", "1").output
    assert not (output / "results.csv").exists()
    # That of the picture whose files are just being written is written over, and stays.
    first, written, last = ((output / name).read_bytes() for name in names)
    assert first == last == b"another run's"
    assert written


def test_what_is_in_flight_when_a_disk_is_full_is_noted(source, batch, before_writing, tmp_path):
    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    output = tmp_path / "out"
    before_writing("0004.jpg", full)
    result = batch(source, output, *OPTIONS)
    assert result.exit_code == 1
    assert f"Stopped ({output}: No space left on device)" in result.output
    noted = entries(output)
    assert all(isinstance(entry, Explained) for entry in noted.values())
    # The chunk of eight pictures that met it, but for the one, and all that was begun behind it.
    assert {f"{number:04d}.jpg" for number in (0, 1, 2, 3, 5, 6, 7)} < noted.keys()
    written = {path.name for path in output.glob("*.overlay-1.jpg")}
    assert written == {f"{key}.overlay-1.jpg" for key in noted}


def test_a_picture_whose_files_can_not_be_written_leaves_none(source, batch, monkeypatch, tmp_path):
    def half(explanation, base, views):
        save_views(explanation, base, views)
        if base.name == "0004.jpg":
            raise OSError(errno.EFBIG, "File too large")

    monkeypatch.setattr(work, "save_views", half)
    result = batch(source, tmp_path / "out", *OPTIONS)
    assert result.exit_code == 1
    failed = (tmp_path / "out" / "failed.csv").read_text().splitlines()
    assert failed[1:] == ["0004.jpg,its files can't be written (File too large)"]
    assert not list((tmp_path / "out").rglob("0004.jpg*"))


@pytest.mark.slow
def test_a_finished_picture_is_not_written_again_for_its_neighbours(source, batch, tmp_path):
    output = tmp_path / "out"
    batch(source, output, *OPTIONS)
    (output / "0003.jpg.overlay-1.jpg").unlink()
    times = {path: path.stat().st_mtime_ns for path in output.glob("*.npz")}
    assert ", 1 now" in batch(source, output, *OPTIONS).output
    rewritten = {path.name for path in times if path.stat().st_mtime_ns != times[path]}
    assert rewritten == {"0003.jpg.cam.npz"}
