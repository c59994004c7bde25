from __future__ import annotations

import base64
import hashlib
import io
import re
import shutil
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from camtool.evaluate.cases import Card, Section, render

HOSTILE = (
    "<img src=x onerror=alert(1)>\"'&amp;{{ style }}{% raw %}</title></svg><script>\n\udcff\u202e"
)
SHOWN = (
    r"""<img src=x onerror=alert(1)>"'&amp;{{ style }}{% raw %}</title></svg><script>\n\xff\u202e"""
)


def case(**fields):
    plain = Card(
        path="val/a.png",
        picture=np.full((40, 60, 3), (200, 30, 90), np.uint8),
        label="cat",
        guess="cat",
        probability=0.875,
        iou=0.25,
        true=((1.5, 2, 30, 38.25),),
        found=((0, 0, 60, 40),),
    )
    return replace(plain, **fields)


class Elements(HTMLParser):
    """Every element with its attributes, and the text of the page."""

    def __init__(self, page):
        super().__init__()
        self.found, self.text = [], []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text.append(data)

    def all(self, tag, **wanted):
        return [a for t, a in self.found if t == tag and wanted.items() <= a.items()]


def page_of(*cases, title="Cats", facts=None, table=()):
    sections = [Section("Best", "Largest overlap.", cases)]
    return render(title=title, facts=facts or {}, sections=sections, table=table)


def picture_part(page):
    """The page without its legend, which has boxes of its own."""
    return page[page.index("<section") :]


def test_the_picture_is_inside_the_page():
    random = np.random.default_rng(0).integers(0, 256, (8, 12, 3), dtype=np.uint8)
    picture = np.asarray(Image.fromarray(random).resize((96, 64), Image.Resampling.BILINEAR))
    image = Elements(page_of(case(picture=picture))).all("image")[0]
    kind, data = image["href"].split(",")
    assert kind == "data:image/jpeg;base64"
    decoded = np.asarray(Image.open(io.BytesIO(base64.b64decode(data))))
    assert decoded.shape == (64, 96, 3)
    assert np.abs(decoded.astype(int) - picture).mean() < 3
    assert (image["width"], image["height"]) == ("96", "64")


def test_boxes_lie_where_they_are_in_pixels_of_the_picture():
    elements = Elements(picture_part(page_of(case())))
    assert elements.all("svg", **{"class": "picture"})[0]["viewbox"] == "0 0 60 40"
    corners = [
        tuple(float(r[key]) for key in ("x", "y", "width", "height"))
        for r in elements.all("rect")
        if "x" in r
    ]
    assert corners == [(1.5, 2, 28.5, 36.25)] * 2 + [(0, 0, 60, 40)] * 2
    kinds = [a["class"] for a in elements.all("g")]
    assert kinds == ["true", "found"]


@pytest.mark.parametrize(("true", "found"), [(0, 0), (3, 0), (0, 2), (2, 5)])
def test_every_box_is_drawn(true, found):
    box = (0.0, 0.0, 5.0, 5.0)
    page = picture_part(page_of(case(true=(box,) * true, found=(box,) * found)))
    assert page.count('class="true"') == true
    assert page.count('class="found"') == found


def test_true_and_found_boxes_differ_in_line_and_colour():
    page = page_of(case())
    rules = dict(re.findall(r"^(\.\w+ rect(?: \+ rect)?) \{(.*)\}$", page, re.MULTILINE))
    assert "dasharray" in rules[".found rect"]
    assert "dasharray" not in rules[".true rect + rect"]
    assert "var(--true)" in rules[".true rect + rect"]
    assert "var(--found)" in rules[".found rect + rect"]


@pytest.mark.parametrize(
    ("fields", "said", "unsaid"),
    [
        ({}, ["IoU 0.25", "guessed right", "87.5 %"], ["taken for"]),
        ({"guess": "dog"}, ["taken for dog"], ["guessed right"]),
        ({"iou": None}, ["no true box"], ["IoU"]),
        ({"probability": 0.99999}, ["> 99.9 %"], ["100"]),
    ],
)
def test_what_a_case_says(fields, said, unsaid):
    text = "".join(Elements(picture_part(page_of(case(**fields)))).text)
    assert all(part in text for part in said)
    assert not any(part in text for part in unsaid)


def test_facts_and_table_keep_their_order():
    table = [("metric", "network", "centre"), ("MaxBoxAcc", "61.0", "37.5"), ("V2", "55.1", "")]
    page = page_of(facts={"Model": "gapnet", "Fit": "whole"}, table=table)
    text = " ".join(Elements(page).text)
    order = ["Model", "gapnet", "Fit", "whole", "metric", "centre", "MaxBoxAcc", "61.0", "55.1"]
    assert [text.index(f" {part} ") for part in order] == sorted(
        text.index(f" {part} ") for part in order
    )
    assert len(Elements(page).all("td")) == 4
    assert not Elements(page_of()).all("table")


def test_sections_are_counted_linked_and_may_be_empty():
    sections = [Section("Best", "b", (case(), case())), Section("Worst", "w", ())]
    page = render(sections=sections, title="t", facts={})
    elements = Elements(page)
    targets = [a["href"].removeprefix("#") for a in elements.all("a")]
    assert targets == [a["id"] for a in elements.all("section")]
    assert len(targets) == 2
    assert page.count("<figure") == 2
    assert "None." in page


def test_nothing_from_outside_becomes_markup():
    hostile = case(path=HOSTILE, label=HOSTILE, guess=HOSTILE + "!")
    page = page_of(
        hostile,
        title=HOSTILE,
        facts={HOSTILE: HOSTILE},
        table=[(HOSTILE,) * 2, (HOSTILE,) * 2],
    )
    plain = page_of(case(guess="b"), title="t", facts={"a": "b"}, table=[("a", "b")] * 2)
    found, expected = Elements(page), Elements(plain)
    assert [tag for tag, _ in found.found] == [tag for tag, _ in expected.found]
    assert SHOWN in "".join(found.text)
    assert {SHOWN} == {a["title"] for a in found.all("p") if "title" in a}


def test_the_policy_admits_the_pages_own_style_and_nothing_else():
    page = page_of(case())
    elements = Elements(page)
    policy = next(a["content"] for a in elements.all("meta") if "http-equiv" in a)
    style = page.partition("<style>")[2].partition("</style>")[0]
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert "default-src 'none'" in policy
    assert f"style-src 'sha256-{digest}'" in policy
    assert "script" not in policy
    assert not elements.all("script")
    assert not any("style" in attributes for _, attributes in elements.found)
    assert "http:" not in page
    assert "https:" not in page
    assert all(f"{name}:" in style for name in ("--ground", "--accent", "--track"))


@given(st.text(st.characters(codec=None), max_size=30))
def test_any_text_is_written_as_utf_8(text):
    page = page_of(case(label=text), title=text, facts={text: text})
    elements = Elements(page.encode().decode())
    assert len(elements.all("figure")) == 1


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    webdriver = pytest.importorskip("selenium.webdriver", reason="browser tests need selenium")
    names = ("chromium", "chromium-browser", "google-chrome")
    program = next(filter(None, map(shutil.which, names)), None)
    driver = shutil.which("chromedriver")
    if program is None or driver is None:
        pytest.skip("no chromium with its chromedriver is on the path")
    options = webdriver.ChromeOptions()
    options.binary_location = program
    for flag in ("headless", "no-sandbox", "disable-gpu", "window-size=900,900"):
        options.add_argument(f"--{flag}")
    options.add_argument(f"--user-data-dir={tmp_path_factory.mktemp('profile')}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    browser = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    yield browser
    browser.quit()


def _color(browser, selector, name="color"):
    script = "return getComputedStyle(document.querySelector(arguments[0]))[arguments[1]]"
    return browser.execute_script(script, selector, name)


def test_the_page_in_a_browser(browser, tmp_path):
    wide = case(picture=np.zeros((320, 320, 3), np.uint8), path="long/" * 60, label="word " * 40)
    page = page_of(case(path=HOSTILE, label=HOSTILE), wide, table=[("a", "b"), ("c", "d")])
    (tmp_path / "cases.html").write_bytes(page.encode())
    browser.get_log("browser")
    browser.get((tmp_path / "cases.html").as_uri())
    assert browser.get_log("browser") == []
    find = browser.find_element
    assert find("css selector", ".name").text == SHOWN
    root = "return document.documentElement"
    assert browser.execute_script(f"{root}.scrollWidth <= {root[7:]}.clientWidth")
    boxes = browser.find_elements("css selector", ".picture .true")
    assert boxes[0].is_displayed()
    find("id", "show-true").click()
    assert not boxes[0].is_displayed()
    assert find("css selector", ".picture .found").is_displayed()


def test_colours_follow_the_choice(browser, tmp_path):
    (tmp_path / "cases.html").write_bytes(page_of(case()).encode())
    browser.get((tmp_path / "cases.html").as_uri())
    grounds = {}
    for choice in ("Light", "Dark"):
        browser.find_element("css selector", f"#scheme .{choice.lower()}").click()
        grounds[choice] = _color(browser, "body", "backgroundColor")
    assert grounds == {"Light": "rgb(247, 246, 244)", "Dark": "rgb(18, 17, 16)"}
