"""From pictures to the page in a browser: a class that a mark gives away is said everywhere."""

from __future__ import annotations

import json
import re

import pytest
from typer.testing import CliRunner

from camtool.cli import app

pytestmark = [pytest.mark.slow, pytest.mark.browser]


@pytest.fixture
def fitted(tmp_path):
    """`camtool fit` on a folder: what it printed."""

    def fit(*words):
        words = ("fit", str(tmp_path / "photos"), "-o", str(tmp_path / "mine.safetensors"), *words)
        done = CliRunner().invoke(app, words)
        assert done.exit_code == 0, done.output
        return done.stdout

    return fit


@pytest.mark.parametrize(("seed", "corner"), [(0, "lower right"), (4, "upper left")])
def test_a_marked_class_is_flagged_and_no_other(
    open_page, drawn_by_class, fitted, tmp_path, seed, corner
):
    drawn_by_class(tmp_path / "photos", seed, corner)
    told = fitted()
    assert re.findall(r"⚑ look at (.+) \((.+)\)", told) == [("stamped", corner)]
    # Features are there, so that the same again is a matter of seconds.
    found = json.loads(fitted("--json"))
    assert found["accuracy"]["value"] > 90
    assert [(one["label"], one["where"]) for one in found["suspicious"]] == [("stamped", corner)]
    assert found["suspicious"][0]["share"] > found["suspicious"][0]["others"] + 0.1
    page = open_page(tmp_path / "mine.html")
    assert page.texts(".place.flagged h3") == ["⚑ stamped"]
    assert page.js("document.querySelectorAll('.place.flagged .strip img').length") == 6
    assert page.text(".warning").startswith(f"⚑ Look at stamped ({corner})")
    page.close()


def test_without_a_mark_nothing_is_flagged_and_the_page_is_read_on_any_screen(
    open_page, emulated, drawn_by_class, fitted, tmp_path
):
    drawn_by_class(tmp_path / "photos", 1)
    assert "⚑" not in fitted()
    page = open_page(tmp_path / "mine.html")
    assert page.texts(".flagged") == page.texts(".warning") == []
    for width in (320, 1400):
        for theme in ("light", "dark"):
            emulated(width, theme=theme)
            page.settle()
            wide = page.js("document.documentElement.scrollWidth")
            assert wide <= width
            texts = page.js("getComputedStyle(document.body).color")
            assert (min(map(int, re.findall(r"\d+", texts))) > 128) == (theme == "dark")
    broken = "[...document.images].filter(one => !one.complete || !one.naturalWidth).length"
    assert page.js(broken) == 0
    page.close()


def test_no_page_where_none_is_wanted(drawn_by_class, fitted, tmp_path):
    drawn_by_class(tmp_path / "photos", 1, each=4)
    assert "Look at" not in fitted("--no-report")
    assert not (tmp_path / "mine.html").exists()
