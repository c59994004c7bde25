"""The page of a fit: what it says, that nothing gets in from outside, and that it stays small."""

from __future__ import annotations

import base64
import io
import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

import camtool
from camtool.engines.engine import Request
from camtool.engines.threads import ThreadEngine
from camtool.fit.look import ClassLook, explained, look_at_classes
from camtool.fit.outcome import Answer, Problem
from camtool.fit.page import LISTED, MOST_BYTES, PICTURE_BYTES, WORST, short, write_page
from camtool.report.aggregate import ClassAggregator, evidence
from camtool.report.schema import Flag

HOSTILE = "<img src=x onerror=alert(1)>\"'&amp;{{ style }}{% raw %}</title></svg><script>\n\u202e"
EMPTY = {"meta", "img", "line", "rect", "circle", "polyline", "input"}


@pytest.fixture(scope="module")
def cam(tiny):
    return camtool.load(tiny, device="cpu")


@pytest.fixture(scope="module")
def engine(cam):
    return ThreadEngine(cam, Request())


@pytest.fixture(scope="module")
def photos(tmp_path_factory, make_pictures):
    return make_pictures(tmp_path_factory.mktemp("fit") / "photos", 24)


@pytest.fixture(scope="module")
def answers(answered, photos):
    return answered(3, 24, classes=5, name=f"{photos}/{{:04d}}.jpg")


def look_of(position, flag=None, typical=(), seed=0):
    """Where a class lies whose evidence is noise."""
    classes = ClassAggregator()
    classes.update(
        position, evidence(np.random.default_rng(seed).random((7, 7)), (0, 0, 7, 7), (7, 7))
    )
    summary = classes.summary(position)._replace(flags=[flag] if flag else [])
    return ClassLook(summary, tuple(typical))


FLAG = Flag("lower right", (0.625, 0.625, 1.0, 1.0), 0.61, 0.12, 0.004)


@pytest.fixture
def written(engine, tmp_path):
    """Writes a page: from an outcome and looks to its HTML."""

    def write(outcome, looks=()):
        path = tmp_path / "mine.html"
        write_page(path, outcome, engine, looks)
        return path.read_text("utf-8")

    return write


class Elements(HTMLParser):
    """Every element with its attributes and the elements around it, and the text."""

    def __init__(self, page):
        super().__init__()
        self.found, self.text, self.open = [], [], []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))
        if tag not in EMPTY:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag not in EMPTY:
            assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)

    def all(self, tag, **wanted):
        wanted = {name.strip("_"): value for name, value in wanted.items()}
        return [a for t, a in self.found if t == tag and wanted.items() <= a.items()]

    @property
    def words(self):
        return " ".join(" ".join(self.text).split())


def test_the_page_says_how_good_the_network_is(written, cam, answers, outcome_of):
    outcome = outcome_of(
        answers,
        labels=cam.labels,
        duplicates=(("a.jpg", "b.jpg"),),
        problems=(Problem("lonely", "holds one picture"),),
    )
    page = Elements(written(outcome, [look_of(2, FLAG, [answers[0].path]), look_of(0)]))
    assert page.open == []
    assert "71.2 % right of 24 pictures that were held out" in page.words
    assert (
        "95 % interval 60.1 to 80.3 %; the most frequent answer alone would reach 25.0 %"
        in page.words
    )
    assert "Twice the pictures would give about" in page.words
    assert "Look at cat (lower right): 61% of its evidence lies there" in page.words
    assert "Lower right: 61 % of its evidence, 12 % of the others'." in page.words
    assert "a.jpg , b.jpg" in page.words
    assert "lonely : holds one picture" in page.words
    assert len(page.all("article", class_="place flagged")) == 1
    assert len(page.all("svg", role="img")) == 3
    # Every class has a row in the table, and its row and column in the matrix.
    rows = re.findall(
        r'<tr><th scope="row"><span class="n">(\d)</span> <bdi>(\w+)', written(outcome)
    )
    assert rows == [(str(n + 1), label) for n, label in enumerate(cam.labels)]


def test_mistakes_show_answer_truth_and_their_contrast(written, cam, answers, outcome_of):
    gone = replace(answers[0], path="gone.jpg", truth=(int(answers[0].probabilities.argmin()),))
    outcome = outcome_of((gone, *answers), labels=cam.labels)
    wrong = [a for a in outcome.answers if a.probabilities.argmax() != a.truth[0]]
    worst = sorted(wrong, key=lambda a: (a.probabilities[a.truth[0]], a.path))[:WORST]
    html = written(outcome)
    cards = re.findall(r'<article class="mistake"><p class="path" title="([^"]+)', html)
    assert cards == [one.path for one in worst]
    assert (
        html.count("It can&#39;t be read any more") + html.count("It can't be read any more") == 1
    )
    cases = html.split('<article class="mistake">')[1:]
    for case, one in zip(cases, worst, strict=True):
        if one is gone:
            continue
        said, missed = int(one.probabilities.argmax()), one.truth[0]
        pictures = re.findall(r'src="data:image/jpeg;base64,([^"]+)', case)
        shown = cam.explain(one.path, targets=[said, missed, (said, missed)])
        assert len(pictures) == 3
        for k, encoded in enumerate(pictures):
            found = np.asarray(Image.open(io.BytesIO(base64.b64decode(encoded))), float)
            expected = np.asarray(shown.overlay(k, signed=k == 2), float)
            assert np.abs(found - expected).mean() < 4
        text = Elements(case.partition("</article>")[0]).words
        assert f"taken for {cam.labels[said]}" in text
        assert f"shows {cam.labels[missed]}" in text


@pytest.mark.parametrize("form", ["softmax", "sigmoid"])
def test_texts_from_outside_stay_texts(written, answers, outcome_of, form):
    bad = Answer(HOSTILE, (0,), np.array([0.1, 0.9, 0, 0, 0], np.float32))
    outcome = outcome_of(
        (bad, *answers),
        form=form,
        labels=tuple(f"{n}{HOSTILE}" for n in range(5)),
        base=HOSTILE,
        duplicates=((HOSTILE, HOSTILE),),
        problems=(Problem(HOSTILE, HOSTILE),),
    )
    html = written(outcome, [look_of(1, FLAG, [HOSTILE, answers[0].path])])
    page = Elements(html)
    assert page.open == []
    assert page.all("script") == []
    assert not [a for _, attrs in page.found for a in attrs if a.startswith("on") or a == "style"]
    assert {a["src"][:11] for a in page.all("img")} == {"data:image/"}
    assert "\u202e" not in html
    assert short(HOSTILE) in page.words
    links = [a["href"] for a in page.all("a")]
    names = {attrs.get("id") for _, attrs in page.found}
    assert all(link.startswith("#") and link[1:] in names for link in links)


def test_several_classes_in_a_picture_are_not_confused(written, cam, answered, photos, outcome_of):
    several = answered(1, 24, "sigmoid", 5, f"{photos}/{{:04d}}.jpg")
    page = Elements(written(outcome_of(several, "sigmoid", labels=cam.labels)))
    assert "none is taken for another" in page.words
    assert "any number a picture" in page.words
    assert page.all("table", class_="matrix") == []
    assert len(page.all("article", class_="mistake")) == WORST
    # What is claimed alone, or missed alone, has one map.
    assert WORST < len(page.all("figure", class_="map")) <= 3 * WORST


def test_nothing_held_out_leaves_a_page(written, cam, outcome_of):
    page = Elements(written(outcome_of((), labels=cam.labels, curve=(), penalties=())))
    assert "No picture was held out" in page.words
    assert "Too few pictures" in page.words
    assert "nan" not in page.words


@pytest.mark.slow
def test_the_page_stays_small_whatever_it_is_made_of(tmp_path, engine, outcome_of):
    """Thousands of classes, long texts, and pictures that no JPEG makes small."""
    random = np.random.default_rng(0)
    paths = []
    for n in range(40):
        paths.append(str(tmp_path / f"{n}.png"))
        Image.fromarray(random.integers(0, 256, (500, 500, 3), np.uint8)).save(paths[-1])
    labels = tuple(f"{n}" + "<&\u202e" * 400 for n in range(3000))
    wrong = np.eye(3000, dtype=np.float32)[[4] * 3000]
    answers = tuple(Answer(paths[n % 40], (n % 5,), row) for n, row in enumerate(wrong))
    long = "&" * 5000
    outcome = outcome_of(
        answers,
        labels=labels,
        duplicates=((long,) * 300,) * 3000,
        problems=(Problem(long, long),) * 10_000,
    )
    looks = [look_of(n, FLAG, paths[:6], n) for n in range(5)]
    looks += [look_of(n, FLAG, (), n) for n in range(5, 1000)]
    write_page(tmp_path / "mine.html", outcome, engine, looks)
    html = (tmp_path / "mine.html").read_bytes()
    assert MOST_BYTES / 4 < len(html) <= MOST_BYTES
    for encoded in re.findall(rb"base64,([^\"]+)", html):
        assert len(base64.b64decode(encoded)) <= PICTURE_BYTES
    page = Elements(html.decode())
    assert f"The first {LISTED} are listed." in page.words
    assert "2,500 more are left out." in page.words
    assert "and 296 more" in page.words
    assert "880 more are left out." in page.words


def test_pictures_of_each_class_are_looked_at_evenly(cam, engine, photos, monkeypatch):
    paths = [str(photos / f"{n:04d}.jpg") for n in range(24)]
    told, asked = [], []

    def noted(engine, targets):
        asked.extend(targets)
        return explained(engine, targets)

    monkeypatch.setattr("camtool.fit.look.explained", noted)
    monkeypatch.setattr("camtool.fit.look.PER_CLASS", 4)
    # The one class of the tiny network that has evidence, and two others.
    best = int(cam.explain(paths[0]).indices[0])
    other, absent = [k for k in range(5) if k != best][:2]
    shown = [(path, (other if n % 2 else best,)) for n, path in enumerate(paths)]
    looks = look_at_classes(engine, [*shown, ("gone.jpg", (absent,))], 5, lambda *c: told.append(c))
    wanted = {best: (0, 8, 14, 22), other: (1, 9, 15, 23)}
    expected = [(paths[n], [k]) for k, some in wanted.items() for n in some]
    expected.append(("gone.jpg", [absent]))
    assert asked == sorted(expected, key=lambda one: one[1])
    assert told == [(n, 9) for n in range(1, 10)]
    found = {look.summary.position: look.summary for look in looks}
    assert list(found) == sorted(wanted)
    assert [one.pictures for one in found.values()] == [4, 4]
    maps = [cam.explain(paths[n], targets=best) for n in wanted[best]]
    grids = [evidence(e.maps[0], e.geometry.region, e.geometry.size).grid for e in maps]
    mean = np.mean([grid for grid in grids if grid is not None], 0)
    np.testing.assert_allclose(found[best].mean, 255 * mean / mean.max(), atol=0.51)
    assert found[best].silent == sum(grid is None for grid in grids)
