"""The explorer in a real browser, from disk: every control, and numbers equal to the API's."""

from __future__ import annotations

import os
from dataclasses import replace

import numpy as np
import pytest

if not os.environ.get("CI"):
    pytest.importorskip("selenium", reason="the browser tests need selenium")

from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.keys import Keys

pytestmark = pytest.mark.browser

WIDTH, HEIGHT = 300, 200
HELD = 90
SECOND = "#labels li:nth-child(2)"


@pytest.fixture(scope="module")
def e(explained):
    """90 of 1,000 classes, of which a part of the picture was seen."""
    return explained(HELD, 1000, extent=(30.0, 10.0, 280.0, 190.0))


@pytest.fixture(scope="module")
def path(e, tmp_path_factory):
    return e.save(tmp_path_factory.mktemp("explorer") / "cat.html")


@pytest.fixture
def page(open_page, path):
    page = open_page(path)
    yield page
    page.close()


def number(text: str) -> float:
    return float(text.split()[0].replace("−", "-").replace("+", "").rstrip("%)").replace(",", ""))


def listed(page, selector: str) -> dict[str, str]:
    """The names and values of a list of numbers."""
    names, values = (page.texts(f"{selector} {tag}") for tag in ("dt", "dd"))
    return dict(zip(names, values, strict=True))


def hover(page, x: int, y: int, then=None) -> None:
    """Move the mouse to the middle of a pixel of the picture, and from there to another."""
    box = page.js("document.getElementById('frame').getBoundingClientRect().toJSON()")
    scale = box["width"] / WIDTH

    def offset(at, side, size):
        return round((at + 0.5) * scale - box[size] / 2) + side

    frame = page.browser.find_element("id", "frame")
    actions = ActionChains(page.browser, duration=0)
    actions.move_to_element_with_offset(frame, offset(x, 0, "width"), offset(y, 0, "height"))
    if then:
        actions.click_and_hold()
        end = offset(then[0], 0, "width"), offset(then[1], 0, "height")
        actions.move_to_element_with_offset(frame, *end).release()
    actions.perform()
    page.settle()


def place(page) -> tuple[int, int]:
    x, y = page.text("#place").replace("x ", "").replace("y ", "").split(", ")
    return int(x), int(y)


def drawn(page) -> np.ndarray:
    """The map's pixels, [H,W,4]."""
    script = (
        """[...document.getElementById('map').getContext('2d').getImageData(0, 0, 300, 200).data]"""
    )
    return np.array(page.js(script), np.uint8).reshape(HEIGHT, WIDTH, 4)


def share(e, k: int, rectangle) -> float:
    """What a rectangle gives to the mean of a map: as much of each cell as lies in it."""
    (x0, y0, x1, y1), (rows, columns) = e.geometry.extent, e.maps.shape[1:]

    def covered(cells, start, end, low, high):
        edges = np.linspace(start, end, cells + 1)
        overlap = np.minimum(edges[1:], high) - np.maximum(edges[:-1], low)
        return np.maximum(overlap, 0) / (end - start)

    down = covered(rows, y0, y1, rectangle[1], rectangle[3])
    across = covered(columns, x0, x1, rectangle[0], rectangle[2])
    return float(down @ e.maps[k].astype(np.float64) @ across)


def best_of(values: np.ndarray, e) -> dict[str, float]:
    return {e.labels[k]: values[k] for k in np.argsort(-values)[:5]}


def test_numbers_are_those_of_the_api(page, e):
    assert page.text("#title") == "class 0"
    numbers = listed(page, "#numbers")
    assert number(numbers["Logit"]) == pytest.approx(float(e.logits[0]), abs=0.00501)
    assert number(numbers["Bias"]) == 0.25
    assert number(numbers["Mean of the map"]) == pytest.approx(e.maps[0].mean(), abs=0.0051)
    assert number(numbers["Missing of the sum"]) == pytest.approx(float(e.residual[0]), rel=0.5)
    assert numbers["Probability"] == f"{e.probabilities[0]:.1%}"
    assert numbers["Place"] == "1 of 1,000"
    peak = float(np.nanmax(e.heatmap(0)))
    assert number(numbers["Peak of the map"]) == pytest.approx(peak, abs=0.006)
    assert number(numbers["Maps in this file are within"]) < 0.001
    assert page.text("#held") == "90 of 1,000 classes are in this file"
    assert page.text("#summary") == "cat.jpg · net · method cam"


def test_the_pointer_reads_what_a_place_gives_to_every_class(page, e):
    heats = e.heatmaps()
    for x, y in ((150, 100), (40, 180), (270, 20)):
        hover(page, x, y)
        x, y = place(page)
        values = heats[:, y, x]
        assert number(page.text("#here")) == pytest.approx(values[0], abs=0.006)
        for selector, sign in (("#for", 1), ("#against-list", -1)):
            found = listed(page, selector)
            expected = best_of(sign * values, e)
            assert list(found) == list(expected)
            for name, value in expected.items():
                assert number(found[name]) == pytest.approx(sign * value, abs=0.006)
    hover(page, 5, 5)
    assert page.text("#here") == "not seen by the network"
    assert listed(page, "#for") == {}


def test_choose_and_search(page, e):
    page.click(f"{SECOND} .choose")
    assert page.text("#title") == "class 1"
    x, y = place(page)
    assert number(page.text("#here")) == pytest.approx(e.heatmap(1)[y, x], abs=0.006)
    page.press("/", "class 7")
    assert page.texts("#labels .name") == ["class 7", *(f"class {k}" for k in range(70, 80))]
    page.press(Keys.ENTER)
    page.press(Keys.ARROW_DOWN, Keys.ENTER)
    assert page.text("#title") == "class 70"
    page.press("/", Keys.BACKSPACE * 7, "88")
    assert page.texts("#labels .name") == ["class 88"]
    assert number(page.text("#labels .value")) == pytest.approx(float(e.logits[88]), abs=0.0051)
    page.press("nothing")
    assert page.js("document.getElementById('none').checkVisibility()")
    page.press(Keys.ESCAPE)
    assert len(page.texts("#labels .name")) == 60
    page.click("#more")
    assert page.texts("#labels .name") == list(e.labels)
    assert not page.js("document.getElementById('more').checkVisibility()")


def test_the_contrast_of_two(page, e):
    page.click(f"{SECOND} .versus")
    assert page.text("#title") == "class 0 rather than class 1"
    numbers = listed(page, "#numbers")
    difference = float(e.logits[0] - e.logits[1])
    assert number(numbers["Difference of logits"]) == pytest.approx(difference, abs=0.0051)
    assert "Probability" not in numbers
    hover(page, 100, 60)
    x, y = place(page)
    heat = e.heatmap(0)[y, x] - e.heatmap(1)[y, x]
    assert number(page.text("#here")) == pytest.approx(heat, abs=0.006)
    assert page.text("#low").startswith("−")
    page.click("#alone")
    assert page.text("#title") == "class 0"
    page.click(f"{SECOND} .versus")
    page.click(f"{SECOND} .versus")
    assert page.text("#title") == "class 0"
    page.click(f"{SECOND} .versus")
    page.press(Keys.ESCAPE)
    assert page.text("#title") == "class 0"


@pytest.mark.parametrize("percent", [1, 20, 55, 99])
def test_boxes_and_area_at_every_threshold(page, e, percent):
    slider = page.browser.find_element("id", "threshold")
    slider.send_keys(Keys.HOME, *[Keys.ARROW_RIGHT] * (percent - 1))
    page.settle()
    assert page.text("#threshold-value") == f"{percent}%"
    components = e.components(0, percent / 100)
    text = page.text("#area")
    assert text.startswith(f"{len(components)} region")
    area = 100 * e.mask(0, percent / 100).mean()
    assert number(text.split(", ")[1]) == pytest.approx(area, abs=0.1)
    found = listed(page, "#regions")
    assert len(found) == min(5, len(components))
    for (edges, part), component in zip(found.items(), components, strict=False):
        np.testing.assert_allclose(list(map(int, edges.split(", "))), component.box, atol=1)
        assert number(part) == pytest.approx(100 * component.share, abs=0.15)
    assert page.js("document.querySelectorAll('.frame .box').length") == len(found)
    page.click("label.check:has(#boxes)")
    assert page.js("document.querySelectorAll('.frame .box').length") == 0


def test_boxes_of_a_large_picture_are_within_a_pixel_of_the_grid(open_page, explained, tmp_path):
    large = explained(3, size=(2000, 1500))
    page = open_page(large.save(tmp_path / "large.html"))
    for (edges, _), component in zip(
        listed(page, "#regions").items(), large.components(0), strict=False
    ):
        np.testing.assert_allclose(list(map(int, edges.split(", "))), component.box, atol=2 * 3.2)
    page.close()


def test_the_map_is_painted_as_it_is_read(page, e):
    heat = e.heatmap(0)
    linear = drawn(page)
    assert (linear[..., 3] == 0)[np.isnan(heat)].all()
    rise = np.clip(2 * np.nan_to_num(heat) / np.nanmax(heat), 0, 1)
    np.testing.assert_allclose(linear[..., 3] / 255, rise * rise * (3 - 2 * rise), atol=0.02)
    page.choose("reading", "Smooth")
    smooth = drawn(page)
    assert (smooth != linear).mean() > 0.1
    page.choose("reading", "Cells")
    cells = drawn(page)
    assert len(np.unique(cells.reshape(-1, 4), axis=0)) <= 1 + e.maps[0].size
    hover(page, 150, 100)
    x, y = place(page)
    row, column = int((y + 0.5 - 10) / 180 * 5), int((x + 0.5 - 30) / 250 * 7)
    assert number(page.text("#here")) == pytest.approx(e.maps[0, row, column], abs=0.006)


def test_evidence_against_is_blue(page, e):
    low = np.nanargmin(e.heatmap(0))
    assert drawn(page).reshape(-1, 4)[low, 3] == 0
    page.press("a")
    red, _, blue, opacity = map(int, drawn(page).reshape(-1, 4)[low])
    top = float(np.nanmax(np.abs(e.heatmap(0))))
    rise = min(1.0, -2 * float(np.nanmin(e.heatmap(0))) / top)
    assert opacity / 255 == pytest.approx(rise * rise * (3 - 2 * rise), abs=0.02)
    assert blue > red + 40
    assert number(page.text("#high")) == pytest.approx(top, abs=0.06)
    assert number(page.text("#low")) == pytest.approx(-top, abs=0.06)
    page.click("label.check:has(#against)")
    assert page.text("#low") == "0"


def test_fade(page):
    def opacity():
        return float(page.js("getComputedStyle(document.getElementById('map')).opacity"))

    assert opacity() == pytest.approx(0.6)
    page.browser.find_element("id", "fade").send_keys(Keys.HOME)
    assert opacity() == 0
    page.press("m")
    assert opacity() == pytest.approx(0.6)
    page.press("]", "]")
    assert page.text("#fade-value") == "80%"
    page.press("[")
    assert opacity() == pytest.approx(0.7)
    page.press("m", "m")
    assert opacity() == pytest.approx(0.7)


def edges_in(found):
    return list(map(int, found["Rectangle"].split(", ")))


def check_rectangle(page, e):
    found = listed(page, "#rectangle-list")
    edges = edges_in(found)
    part, logit = share(e, 0, edges), float(e.logits[0])
    told = next(value for name, value in found.items() if name.startswith("Its part of"))
    assert number(told) == pytest.approx(part, abs=0.006)
    assert number(told.split("(")[1]) == pytest.approx(100 * part / logit, abs=0.1)
    assert number(found["Without it"]) == pytest.approx(logit - part, abs=0.006)
    without = np.array([e.logits[k] - share(e, k, edges) for k in range(HELD)])
    ranked = listed(page, "#without")
    assert list(ranked) == [e.labels[k] for k in np.argsort(-without)[:3]]
    expected = np.sort(without)[::-1][:3]
    np.testing.assert_allclose([number(v) for v in ranked.values()], expected, atol=0.006)
    return edges


def test_a_rectangle_of_the_mouse(page, e):
    assert not page.js("document.getElementById('rectangle-numbers').checkVisibility()")
    hover(page, 60, 40, (180, 150))
    edges = check_rectangle(page, e)
    np.testing.assert_allclose(edges, (60, 40, 181, 151), atol=2)
    assert page.js("document.getElementById('rectangle').checkVisibility()")
    assert "not" in page.text("#rectangle-numbers .note")
    page.click(f"{SECOND} .choose")
    found = listed(page, "#rectangle-list")
    assert number(found["Without it"]) == pytest.approx(
        float(e.logits[1]) - share(e, 1, edges), abs=0.006
    )
    page.click("#clear")
    assert not page.js("document.getElementById('rectangle').checkVisibility()")


def test_all_of_the_picture_leaves_the_bias(page, e):
    hover(page, 0, 0, (299, 199))
    found = listed(page, "#rectangle-list")
    np.testing.assert_allclose(edges_in(found), (0, 0, 300, 200), atol=1)
    assert number(found["Without it"]) == pytest.approx(0.25, abs=0.006)


def test_the_keyboard_reads_and_draws(page, e):
    page.js("document.getElementById('frame').focus()")
    first = place(page)
    heat = e.heatmap(0)
    assert heat[first[1], first[0]] == pytest.approx(np.nanmax(heat), rel=1e-3)
    page.press(Keys.ARROW_LEFT)
    assert first[0] - place(page)[0] == pytest.approx(300 / 7, abs=1)
    for _ in range(9):
        page.press(Keys.ARROW_LEFT, Keys.ARROW_UP)
    assert place(page) == (0, 0)
    ActionChains(page.browser).key_down(Keys.SHIFT).send_keys(
        Keys.ARROW_RIGHT, Keys.ARROW_RIGHT, Keys.ARROW_DOWN
    ).key_up(Keys.SHIFT).perform()
    assert check_rectangle(page, e) == [0, 0, 87, 41]
    page.wait(lambda: "rectangle gives" in page.text("#told"))
    page.press(Keys.ESCAPE)
    assert not page.js("document.getElementById('rectangle').checkVisibility()")
    page.press(Keys.ARROW_RIGHT)
    page.wait(lambda: page.text("#told").startswith("x 129"))


def test_every_control_can_be_reached_with_tab_and_has_a_name(page):
    reached = set()
    page.js("document.body.focus()")
    for _ in range(16):
        page.press(Keys.TAB)
        reached.add(page.focused())
        assert page.js("getComputedStyle(document.activeElement).outlineStyle") != "none"
    assert reached >= {"theme", "frame", "against", "reading", "fade", "threshold", "boxes", "draw"}
    nameless = """[...document.querySelectorAll('button, input, select, [role]')].filter((node) =>
        !(node.getAttribute('aria-label') || node.labels?.[0]?.textContent.trim()
          || node.textContent.trim() || node.getAttribute('role') === 'status')).length"""
    assert page.js(nameless) == 0


def test_dark_and_light(page):
    def ground():
        return page.js("getComputedStyle(document.body).backgroundColor")

    first = ground()
    page.click("#theme")
    assert ground() != first
    page.click("#theme")
    assert ground() == first


def tap(page, x, y):
    """A finger on a pixel of the picture."""
    box = page.js("document.getElementById('frame').getBoundingClientRect().toJSON()")
    scale = box["width"] / WIDTH
    point = {"x": box["left"] + (x + 0.5) * scale, "y": box["top"] + (y + 0.5) * scale}
    return {"type": "touchStart", "touchPoints": [point]}


def drag(page, start, end):
    first, last = tap(page, *start), tap(page, *end)
    for event in (first, {**last, "type": "touchMove"}, {"type": "touchEnd", "touchPoints": []}):
        page.browser.execute_cdp_cmd("Input.dispatchTouchEvent", event)
    page.settle()


@pytest.mark.parametrize("width", [320, 390])
def test_fingers(emulated, open_page, path, e, width):
    emulated(width)
    page = open_page(path)
    assert page.js("document.documentElement.scrollWidth") <= width
    frame = page.js("document.getElementById('frame').getBoundingClientRect().toJSON()")
    assert frame["width"] == pytest.approx(width - 28, abs=1)
    assert frame["right"] <= width
    names = page.check_targets(".top, .tools", width)
    assert {name.strip() for name in names} >= {"theme", "draw", "reading", "fade", "threshold"}
    drag(page, (100, 60), (104, 60))
    assert place(page)[0] == pytest.approx(104, abs=2)
    assert not page.js("document.getElementById('rectangle').checkVisibility()")
    page.click("#draw")
    drag(page, (60, 40), (180, 150))
    edges = check_rectangle(page, e)
    np.testing.assert_allclose(edges, (60, 40, 181, 151), atol=2)
    page.check_targets(".side", width)
    page.check_targets("#labels", width)
    page.click(f"{SECOND} .choose")
    assert page.js("document.getElementById('frame').getBoundingClientRect().top") >= 0
    page.close()


@pytest.mark.parametrize("width", [768, 1000, 1400])
def test_nothing_overflows(emulated, open_page, path, width):
    emulated(width)
    page = open_page(path)
    assert page.js("document.documentElement.scrollWidth") <= width
    frame = page.js("document.getElementById('frame').getBoundingClientRect().toJSON()")
    assert frame["width"] / frame["height"] == pytest.approx(1.5, abs=0.02)
    assert 0 < frame["left"] < frame["right"] < width
    page.close()


@pytest.mark.parametrize(("held", "classes"), [(1, 1), (2, 2), (1000, 21_000)])
def test_few_classes_and_many(open_page, explained, tmp_path, held, classes):
    page = open_page(explained(held, classes).save(tmp_path / "x.html"))
    expected = {1: "1 class", 2: "2 classes", 1000: "1,000 of 21,000 classes are in this file"}
    assert page.text("#held") == expected[held]
    hover(page, 60, 40, (180, 150))
    assert len(listed(page, "#without")) == min(held, 3)
    page.close()


def test_maps_that_do_not_add_up_have_no_parts(open_page, explained, tmp_path):
    e = replace(explained(3, method="gradcam"), exact=False)
    page = open_page(e.save(tmp_path / "x.html"))
    hover(page, 60, 40, (180, 150))
    assert not page.js("document.getElementById('rectangle-part').checkVisibility()")
    assert page.js("document.getElementById('no-sum').checkVisibility()")
    assert "Bias" not in listed(page, "#numbers")
    page.close()


def test_a_map_without_evidence(open_page, explained, tmp_path):
    e = explained(2)
    page = open_page(replace(e, maps=np.zeros_like(e.maps)).save(tmp_path / "x.html"))
    assert page.text("#high") == "no evidence"
    assert page.text("#area").startswith("No region")
    page.close()


def test_names_are_shown_as_they_are(open_page, explained, tmp_path):
    hostile = "</script><img src=x onerror=document.title='hacked'>&lt;"
    page = open_page(explained(2, labels=(hostile, "b")).save(tmp_path / "x.html"))
    assert page.text("#title") == hostile
    assert page.texts("#labels .name")[0] == hostile
    assert "hacked'>" in page.js("document.title")
    page.close()


def test_a_notebook_shows_it_in_a_frame_of_its_own(open_page, explained, tmp_path):
    cell = tmp_path / "cell.html"
    cell.write_text(f"<!doctype html><p>before</p>{explained(3)._repr_html_()}", "utf-8")
    page = open_page(cell)
    page.browser.switch_to.frame(page.browser.find_element("css selector", "iframe"))
    assert page.text("#title") == "class 0"
    first = page.js("getComputedStyle(document.body).backgroundColor")
    page.click("#theme")
    assert page.js("getComputedStyle(document.body).backgroundColor") != first
    page.click(f"{SECOND} .choose")
    assert page.text("#title") == "class 1"
    page.browser.switch_to.default_content()
    assert page.text("p") == "before"
    page.close()
