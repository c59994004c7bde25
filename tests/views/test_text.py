from __future__ import annotations

import io
import os

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from camtool.views import text

SIZES = st.integers(10, 30)


@given(words=st.text(max_size=200), size=SIZES, width=st.integers(30, 600), middle=st.booleans())
def test_any_text_fits_and_is_whole_if_it_can_be(words, size, width, middle):
    shown = text.elide(words, size, width, middle=middle)
    assert text.width_of(shown, size) <= width
    whole = text.clean(words)
    if text.width_of(whole, size) <= width:
        assert shown == whole
    else:
        assert "…" in shown


def test_ellipsis_stands_at_the_end_or_in_the_middle():
    path = "/data/pictures/" + "folder/" * 40 + "goldfish.jpeg"
    assert text.elide(path, 20, 300).startswith("/data/pictures/")
    assert text.elide(path, 20, 300).endswith("…")
    middle = text.elide(path, 20, 300, middle=True)
    assert middle.startswith("/data")
    assert middle.endswith("fish.jpeg")
    assert "…" in middle


@given(words=st.text(max_size=300), width=st.integers(40, 400))
def test_wrapped_lines_fit(words, width):
    lines = text.wrap(words, 14, width)
    assert all(text.width_of(line, 14) <= width for line in lines)


def test_wrapping_keeps_every_word_in_order():
    words = "mean of map + bias = logit, whatever the width of the sheet may be"
    assert " ".join(text.wrap(words, 14, 120)) == words
    assert len(text.wrap(words, 14, 120)) > 2


@given(spans=st.lists(st.text(max_size=40), max_size=4), size=SIZES, width=st.integers(40, 400))
def test_a_line_has_its_width_and_one_height_whatever_it_says(spans, size, width):
    image = text.line([(span, text.INK) for span in spans], size, width)
    assert image.size == (width, text.line([], size, width).height)


def test_letters_do_not_leave_their_line():
    image = np.asarray(text.line([("Åjgpqy|(){}_", text.INK)], 20, 300))
    assert image.min() < 100
    assert np.all(image[[0, -1]] == 255)


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        ("a\nb\t c", "a b c"),
        ("224 × 304", "224 x 304"),
        ("−3", "-3"),
        ("bad\udcff.jpg", "bad?.jpg"),
        ("…", "…"),
    ],
)
def test_what_is_no_letter_is_written_plainly(raw, shown):
    assert text.clean(raw) == shown


@pytest.fixture
def faces(monkeypatch):
    """Takes the faces that a machine has."""

    def have(*names):
        monkeypatch.setattr(text, "FACES", names)
        for known in (text.face_of, text._faces):
            known.cache_clear()

    yield have
    monkeypatch.undo()
    for known in (text.face_of, text._faces):
        known.cache_clear()


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        ("crème brûlée", "creme brulee"),
        ("Spaß", "Spass"),
        ("犬 and cat", r"\u72ac and cat"),
    ],
)
def test_what_no_face_has_is_written_with_what_there_is(faces, raw, shown):
    faces("no-such-face.ttf")
    assert text.clean(raw) == shown


def test_a_face_of_the_machine_is_taken_for_what_pillows_lacks(faces, tmp_path, monkeypatch):
    face = tmp_path / "mine.ttf"
    face.write_bytes(_face_with("猫é"))
    faces()
    monkeypatch.setenv(text.FONT, str(face))
    text._faces.cache_clear()
    assert text.face_of("猫é") == str(face)
    assert text.clean("猫é") == "猫é"
    assert text.face_of("cat") == ""
    drawn, missing = (
        np.asarray(text.line([(word, text.INK)], 40, 200)) for word in ("猫é", "\U0010fffe")
    )
    assert not np.array_equal(drawn, missing)


def _face_with(letters):
    """A font file in which some letters, and those of ASCII, are a triangle."""
    from fontTools.fontBuilder import FontBuilder
    from fontTools.pens.ttGlyphPen import TTGlyphPen

    def shape(height):
        pen = TTGlyphPen(None)
        pen.moveTo((0, 0))
        pen.lineTo((600, 0))
        pen.lineTo((300, height))
        pen.closePath()
        return pen.glyph()

    builder = FontBuilder(1000, isTTF=True)
    builder.setupGlyphOrder([".notdef", "letter"])
    builder.setupCharacterMap(dict.fromkeys([*range(32, 127), *map(ord, letters)], "letter"))
    builder.setupGlyf({".notdef": shape(200), "letter": shape(700)})
    builder.setupHorizontalMetrics({".notdef": (600, 0), "letter": (600, 0)})
    builder.setupHorizontalHeader(ascent=800, descent=-200)
    builder.setupNameTable({"familyName": "Mine", "styleName": "Regular"})
    builder.setupOS2(sTypoAscender=800)
    builder.setupPost()
    stream = io.BytesIO()
    builder.save(stream)
    return stream.getvalue()


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (0.0, "0"),
        (245.136, "245"),
        (57.44, "57.4"),
        (-160.2, "-160"),
        (12345.6, "12346"),
        (3.2e7, "3.2e+07"),
        (0.000123456, "0.000123"),
    ],
)
def test_numbers(value, written):
    assert text.number(value) == written


@pytest.mark.parametrize(
    ("probability", "written"),
    [
        (0.0, "0.0 %"),
        (1e-9, "< 0.1 %"),
        (0.0005, "0.1 %"),
        (0.8312, "83.1 %"),
        (0.99949, "99.9 %"),
        (0.9999, "> 99.9 %"),
        (1.0, "100.0 %"),
    ],
)
def test_probabilities(probability, written):
    assert text.percent(probability) == written


names = st.binary(min_size=1, max_size=30).map(os.fsdecode)


@given(names | st.text(st.characters(categories=["Cs", "Cc", "Cf", "L"])))
def test_displayed_text_is_printable(name):
    assert text.display_text(name).isprintable()


@given(st.text(st.characters(categories=["L", "N", "P"])))
def test_printable_text_is_displayed_as_it_is(shown):
    assert text.display_text(shown) == shown


def test_line_breaks_bytes_and_direction_marks_are_shown():
    assert text.display_text("a\nb\udcff\u202egpj.exe") == "a\\nb\\xff\\u202egpj.exe"
