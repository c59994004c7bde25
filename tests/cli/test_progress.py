"""What takes long says how far it is."""

from __future__ import annotations

import io
import json
import sys

from typer.testing import CliRunner

from camtool.cli import app, progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def terminal(monkeypatch) -> Terminal:
    """In the test itself: between its phases pytest puts its own streams back."""
    found = Terminal()
    monkeypatch.setattr(sys, "stderr", found)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    return found


def test_a_terminal_shows_how_many_at_what_rate(monkeypatch):
    stream = terminal(monkeypatch)
    with progress.counting("pictures") as count:
        count(1, 3)
        count(3, 3)
    shown = stream.getvalue()
    assert "pictures" in shown
    assert "3/3" in shown
    assert "/s" in shown


def test_a_terminal_shows_what_is_waited_for(monkeypatch):
    stream = terminal(monkeypatch)
    with progress.waiting("finding the cuts"):
        pass
    assert "finding the cuts" in stream.getvalue()


def test_a_log_has_no_signs_of_waiting(capsys):
    with progress.waiting("finding the cuts"):
        pass
    assert capsys.readouterr().err == ""


def test_a_document_of_several_pictures_says_how_far_it_is(
    tiny, make_pictures, monkeypatch, tmp_path
):
    monkeypatch.setattr(progress, "LINE_SECONDS", -1.0)
    folder = make_pictures(tmp_path / "photos", 3)
    words = ["explain", str(folder), "-m", str(tiny), "--save", "none", "--json"]
    done = CliRunner().invoke(app, words)
    assert len(json.loads(done.stdout)["images"]) == 3
    assert "camtool: 2 of 3 pictures, " in done.stderr
    assert " a second, " in done.stderr
    one = CliRunner().invoke(app, ["explain", str(folder / "0000.jpg"), *words[2:]])
    assert " a second" not in one.stderr
