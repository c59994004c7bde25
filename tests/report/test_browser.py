"""The report in a real browser, from disk, as a user opens it."""

from __future__ import annotations

import json
import os
import shutil
import sys
from itertools import combinations

import cv2
import numpy as np
import pytest

from camtool.report import write_report
from camtool.report.schema import KINDS

if not os.environ.get("CI"):
    pytest.importorskip("selenium", reason="the browser tests need selenium")

from selenium import webdriver
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import Select, WebDriverWait

pytestmark = pytest.mark.browser

HOSTILE = [
    "quotes\"and'`.png",
    "line\nbreak.png",
    "<img src=x onerror=document.title='hacked'>.png",
    "script<\u2215script><script>document.title='hacked'<\u2215script>.png",
    "percent%41#hash?query.png",
    "bytes\udcff\udcfe.png",
    "&lt;b&gt;.png",
]
FLAGS = (
    "--headless --no-sandbox --disable-gpu --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --window-size=1280,900"
)


# Notes which fields of each record are read; a kind of record is known by its fields.
WATCH = """
const fromEntries = Object.fromEntries;
window.reads = {};
Object.fromEntries = (entries) => {
  const record = fromEntries(entries), fields = Object.keys(record);
  const reads = window.reads[fields] ??= [];
  const get = (target, name) => {
    if (fields.includes(name) || !(name in target)) reads.push(String(name));
    return target[name];
  };
  return new Proxy(record, { get });
};
"""


def _program(*names):
    """Path of a program; where tests run for the record its absence is a failure, no skip."""
    missing = pytest.fail if os.environ.get("CI") else pytest.skip
    found = next(filter(None, map(shutil.which, names)), None)
    return found or missing(f"none of {', '.join(names)} is on the path")


@pytest.fixture(scope="session")
def browser(tmp_path_factory):
    options = webdriver.ChromeOptions()
    options.binary_location = _program("chromium", "chromium-browser", "google-chrome")
    for flag in (*FLAGS.split(), f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = _program("chromedriver")
    browser = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    yield browser
    browser.quit()


def _thumbnail(folder):
    (folder / "report").mkdir()
    cv2.imwrite(str(folder / "report" / "0.png"), np.full((20, 30, 3), 90, np.uint8))


def _save_as(folder, name):
    """Copy the thumbnail under a hostile name; False where the file system refuses it."""
    try:
        shutil.copyfile(folder / "report" / "0.png", folder / name)
    except (OSError, UnicodeError):
        return False
    return True


@pytest.fixture(scope="module")
def small(tmp_path_factory, row, spot):
    """30 cats, 10 dogs with a watermark below right (one without), and hostile names."""
    folder = tmp_path_factory.mktemp("small")
    _thumbnail(folder)
    rows = [
        row(f"cats/{i:02d}.png", probability=0.5 + i / 100, map=spot(0.5, 0.5, noise=i))
        for i in range(30)
    ]
    for i in range(10):
        heatmap = spot(0.3, 0.2) if i == 4 else spot(0.95, 0.95, noise=i)
        rows.append(row(f"dogs/{i}.png", label="dog", index=1, probability=0.3, map=heatmap))
        rows.append(row(f"dogs/{i}.png", index=0, probability=0.2, rank=1, logit=-3.25))
    for name in HOSTILE:
        saved = name if _save_as(folder, name) else ""
        rows.append(row(name, label=f"<b>{name}", index=2, probability=0.1, picture=saved))
    meta = {"Source": "<i>photos", "Model": "resnet50"}
    return write_report(folder, rows, meta, [(name, "<b>broken") for name in HOSTILE])


@pytest.fixture(scope="module")
def large(tmp_path_factory, row):
    folder = tmp_path_factory.mktemp("large")
    _thumbnail(folder)
    return write_report(folder, (row(f"{i:05d}.png") for i in range(10_000)), {})


class Page:
    """A report in the browser; `close` checks what must hold for every page."""

    def __init__(self, browser, path):
        self.browser = browser
        browser.get("about:blank")
        for log in ("browser", "performance"):
            browser.get_log(log)
        browser.get(path.as_uri())
        self.wait(lambda: self.cards())

    def wait(self, condition):
        WebDriverWait(self.browser, 10, 0.05).until(lambda _: condition())

    def js(self, script, *arguments):
        return self.browser.execute_script(f"return {script}", *arguments)

    def texts(self, selector):
        return self.js(
            "[...document.querySelectorAll(arguments[0])].map(e => e.textContent)", selector
        )

    def text(self, selector):
        return self.texts(selector)[0]

    def cards(self):
        """Paths of the cards in the document, in the order of the grid."""
        script = """[...document.querySelectorAll('.card')]
            .sort((a, b) => a.dataset.index - b.dataset.index)
            .map(e => e.querySelector('.path').textContent)"""
        return self.js(script)

    def settle(self):
        """Wait until the page has painted: grids fill when the browser lays them out."""
        self.browser.execute_async_script(
            "requestAnimationFrame(() => requestAnimationFrame(arguments[0]))"
        )

    def click(self, selector):
        self.browser.find_element("css selector", selector).click()
        self.settle()

    def press(self, *keys):
        ActionChains(self.browser).send_keys(*keys).perform()
        self.settle()

    def choose(self, select, text):
        Select(self.browser.find_element("id", select)).select_by_visible_text(text)
        self.settle()

    def focused(self):
        return self.js("document.activeElement.id")

    def map_opacity(self):
        return float(self.js("getComputedStyle(document.querySelector('.card canvas')).opacity"))

    def close(self):
        assert self.browser.get_log("browser") == []
        events = [json.loads(e["message"])["message"] for e in self.browser.get_log("performance")]
        urls = [
            event["params"]["request"]["url"]
            for event in events
            if event["method"] == "Network.requestWillBeSent"
        ]
        assert urls
        assert [url for url in urls if not url.startswith("file:///")] == []


@pytest.fixture
def page(browser, small):
    page = Page(browser, small)
    yield page
    page.close()


def test_filter_by_label(page):
    page.choose("label", "dog (10)")
    assert page.text("#count") == "10 of 47 pictures"
    assert all(path.startswith("dogs/") for path in page.cards())
    page.choose("label", "All labels")
    assert page.text("#count") == "47 pictures"


def test_labels_to_choose_from(page):
    names = page.texts("#label option")
    assert names[:3] == ["All labels", "cat (30)", "dog (10)"]
    assert len(names) == 1 + 2 + len(HOSTILE)


def test_search(page):
    page.press("/", "DOGS/3")
    assert page.cards() == ["dogs/3.png"]
    page.press("nothing")
    assert page.cards() == []
    assert page.js("document.querySelector('#grid .empty').checkVisibility()")
    page.press(Keys.ESCAPE)
    assert page.text("#count") == "47 pictures"


def test_sort(page):
    assert page.cards()[:2] == ["cats/29.png", "cats/28.png"]
    page.choose("sort", "File name")
    page.press("/", "cats")
    assert page.cards()[:2] == ["cats/00.png", "cats/01.png"]
    page.click("#direction")
    assert page.cards()[:2] == ["cats/29.png", "cats/28.png"]


def test_slider_fades_the_map_and_not_the_picture(page):
    assert page.map_opacity() == pytest.approx(0.6)
    page.browser.find_element("id", "fade").send_keys(Keys.HOME)
    assert page.map_opacity() == 0
    assert page.js("getComputedStyle(document.querySelector('.card img')).opacity") == "1"
    page.browser.find_element("id", "fade").send_keys(Keys.END)
    assert page.map_opacity() == 1
    page.press("[", "[")
    assert page.text("#fade-value") == "80%"


def test_map_is_painted_where_the_evidence_is(page):
    page.press("/", "cats/29")
    alpha = """(() => {
        const canvas = document.querySelector('.card canvas'), { width, height } = canvas;
        const { data } = canvas.getContext('2d').getImageData(0, 0, width, height);
        return [data[4 * ((height >> 1) * width + (width >> 1)) + 3], data[3]]; })()"""
    centre, corner = page.js(alpha)
    assert centre > 240
    assert corner < 10


def test_keyboard(page):
    page.press("/", "cats", Keys.ENTER)
    assert page.focused() == "grid"
    page.press(Keys.ARROW_RIGHT, Keys.ARROW_DOWN)
    columns = int(page.js("document.querySelector('.card.active').dataset.index")) - 1
    active = page.js("document.getElementById('grid').getAttribute('aria-activedescendant')")
    assert active == f"picture-{columns + 1}"
    assert columns > 1
    page.press(Keys.ENTER)
    assert page.js("document.getElementById('viewer').open")
    assert page.text("#viewer-path") == f"cats/{28 - columns:02d}.png"
    page.press(Keys.ARROW_RIGHT)
    assert page.text("#viewer-path") == f"cats/{27 - columns:02d}.png"
    page.press(Keys.ESCAPE)
    assert not page.js("document.getElementById('viewer').open")
    assert page.focused() == "grid"
    page.press("2")
    assert page.js("document.getElementById('view-classes').hidden") is False


def test_every_tool_can_be_reached_with_tab(page):
    reached = []
    page.js("document.body.focus()")
    for _ in range(20):
        page.press(Keys.TAB)
        reached.append(page.focused())
        outline = page.js("getComputedStyle(document.activeElement).outlineStyle")
        assert outline != "none" or page.focused() in ("", "grid")
    expected = ["tab-pictures", "theme", "search", "label", "sort", "direction", "fade"]
    assert [name for name in reached if name in expected][: len(expected)] == expected
    assert "grid" in reached


def test_large_view_shows_the_numbers_of_each_class(page):
    page.press("/", "dogs/3")
    page.click(".card")
    assert page.text("#viewer-label") == "dog"
    assert "7.50" in page.texts("#numbers dd")
    page.click("#chips button:nth-child(2)")
    assert page.text("#viewer-label") == "cat"
    assert "−3.25" in page.texts("#numbers dd")
    page.press(Keys.ESCAPE)


def test_class_page_shows_the_watermark(page):
    page.click("#tab-classes")
    page.choose("sort-classes", "Peak at the border")
    assert page.texts(".class h3")[:2] == ["All pictures", "dog"]
    brightest = """(() => { const c = document.querySelectorAll('.mean canvas')[1];
        const d = c.getContext('2d').getImageData(0, 0, c.width, c.height).data;
        let best = 0;
        for (let i = 0; i < d.length; i += 4) if (d[i] + d[i + 1] > d[best] + d[best + 1]) best = i;
        return [best / 4 % c.width / c.width, Math.floor(best / 4 / c.width) / c.height]; })()"""
    assert min(page.js(brightest)) > 0.85
    page.click(".class:nth-child(2) .strip button")
    assert page.text("#viewer-path") == "dogs/4.png"
    page.press(Keys.ESCAPE)
    page.click(".class:nth-child(2) h3 button")
    assert page.text("#count") == "10 of 47 pictures"


def test_hostile_names_stay_text(page):
    page.press("/", "<b>")
    assert page.text("#count") == "7 of 47 pictures"
    page.wait(lambda: len(page.cards()) == len(HOSTILE))
    shown = page.cards()
    assert "line\\nbreak.png" in shown
    assert "bytes\\xff\\xfe.png" in shown
    assert HOSTILE[2] in shown
    page.click("#tab-failed")
    page.wait(lambda: len(page.texts(".failure")) == len(HOSTILE))
    assert set(page.texts(".failure .path")) == set(shown)
    assert (
        page.js("document.querySelectorAll('[onerror], main script, main b:not(.count b)').length")
        == 0
    )
    assert page.js("document.title") == "camtool report"
    assert "<i>photos" in page.text("#summary")


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse such file names")
def test_pictures_with_hostile_names_are_found(page):
    page.press("/", "<b>", Keys.ENTER, Keys.ENTER)
    for _ in HOSTILE:
        page.wait(lambda: page.js("document.querySelectorAll('.stage img').length") == 2)
        page.wait(lambda: page.js("document.querySelectorAll('.stage img')[1].naturalWidth") == 30)
        page.press(Keys.ARROW_RIGHT)
    page.press(Keys.ESCAPE)


def test_every_field_is_read_and_no_other(browser, small):
    script = browser.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": WATCH})
    page = Page(browser, small)
    browser.execute_cdp_cmd("Page.removeScriptToEvaluateOnNewDocument", script)
    for sort in Select(browser.find_element("id", "sort")).options:
        page.choose("sort", sort.text)
    page.press("/", "dogs/3")
    page.click(".card")
    page.click("#chips button:nth-child(2)")
    page.press(Keys.ESCAPE, "/", Keys.ESCAPE)
    for tab in ("classes", "failed", "run"):
        page.click(f"#tab-{tab}")
    reads = {tuple(kind.split(",")): set(names) for kind, names in page.js("reads").items()}
    assert reads == {kind._fields: set(kind._fields) for kind in KINDS}
    page.close()


def test_dark_and_light(page):
    def ground():
        return page.js("getComputedStyle(document.body).backgroundColor")

    first = ground()
    page.click("#theme")
    second = ground()
    page.browser.refresh()
    assert first != second
    assert ground() == second
    page.click("#theme")
    assert ground() == first


def test_ten_thousand_pictures_scroll(browser, large):
    page = Page(browser, large)
    assert page.text("#count") == "10,000 pictures"
    nodes = []
    for part in np.linspace(0, 1, 9):
        page.js("document.getElementById('grid').scrollTop = arguments[0] * 1e6", float(part))
        page.settle()
        nodes.append(page.js("document.querySelectorAll('*').length"))
        assert len(page.cards()) >= 12
    assert max(nodes) < 1000
    page.js("document.getElementById('grid').focus()")
    page.press(Keys.END, Keys.ENTER)
    assert page.text("#position") == "10,000 of 10,000"
    page.press(Keys.ESCAPE)
    page.close()


# Name and edges of what a finger aims at: the label of a checkbox, not the checkbox.
TARGETS = """[...document.querySelectorAll(arguments[0])]
    .flatMap((root) => [...root.querySelectorAll('button, select, label.check, a, input')])
    .filter((node) => node.checkVisibility() && node.type !== 'checkbox')
    .map((node) => {
        const { left, top, right, bottom } = node.getBoundingClientRect();
        return [node.id || node.textContent, left, top, right, bottom]; })"""


@pytest.fixture(params=[320, 390, 768])
def touch(request, browser, small):
    """The page on a touch screen, with its width."""
    size = {"width": request.param, "height": 740, "deviceScaleFactor": 2, "mobile": True}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    browser.execute_cdp_cmd("Emulation.setTouchEmulationEnabled", {"enabled": True})
    page = Page(browser, small)
    yield page, request.param
    browser.execute_cdp_cmd("Emulation.setTouchEmulationEnabled", {"enabled": False})
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    page.close()


def _open_tools(page):
    if page.js("document.getElementById('more')?.checkVisibility()"):
        page.click("#more")


def _apart(first, second):
    _, left, top, right, bottom = first
    _, x0, y0, x1, y1 = second
    return x0 >= right - 0.5 or x1 <= left + 0.5 or y0 >= bottom - 0.5 or y1 <= top + 0.5


def _check_targets(page, selector, width):
    found = page.js(TARGETS, selector)
    for name, left, top, right, bottom in found:
        assert min(right - left, bottom - top) >= 40 - 0.01, name
        assert -0.01 <= left <= right <= width + 0.01, name
    assert [(a[0], b[0]) for a, b in combinations(found, 2) if not _apart(a, b)] == []
    return {name for name, *_ in found}


def test_fingers_reach_every_tool(touch):
    page, width = touch
    _open_tools(page)
    names = _check_targets(page, ".top, .tools", width)
    assert names >= {"tab-run", "theme", "search", "label", "sort", "direction", "fade"}
    assert {name.strip() for name in names} >= {"Against", "Boxes"}
    page.click("#tab-classes")
    assert "sort-classes" in _check_targets(page, ".top, .tools", width)
    _check_targets(page, ".about", width)
    assert page.js("document.querySelectorAll('.strip button').length") > 0
    sizes = page.js(TARGETS, ".strip")
    assert all(min(x1 - x0, y1 - y0) >= 40 for _, x0, y0, x1, y1 in sizes)


def test_fingers_reach_everything_in_the_large_view(touch):
    page, width = touch
    _open_tools(page)
    page.choose("label", "dog (10)")
    page.click(".card")
    assert {"close", "next", "viewer-fade"} <= _check_targets(page, "dialog", width)
    page.click("#next")
    page.click("#chips button:nth-child(2)")
    assert page.text("#viewer-label") == "cat"
    page.click("#close")
    page.choose("label", f"<b>{HOSTILE[0]} (1)")
    page.click(".card")
    assert "Picture" in _check_targets(page, "dialog", width)
    page.click("#close")


def test_tools_are_wide_enough_to_read_and_to_aim(touch):
    page, width = touch
    _open_tools(page)
    edges = {name: (left, right) for name, left, _, right, _ in page.js(TARGETS, ".tools")}
    wanted = {"label": 100, "sort": 100, "search": 150, "fade": 100}
    for name, least in wanted.items():
        assert edges[name][1] - edges[name][0] >= least, name
    legend = page.js("document.getElementById('legend').getBoundingClientRect().toJSON()")
    assert page.js("document.getElementById('legend').checkVisibility()")
    assert legend["width"] >= 40
    assert 0 <= legend["left"] <= legend["right"] <= width


def test_a_finger_moves_the_slider(touch):
    page, _ = touch
    for share in (0.25, 0.75):
        box = page.js("document.getElementById('fade').getBoundingClientRect().toJSON()")
        tap = {"x": box["left"] + share * box["width"], "y": box["top"] + box["height"] - 4}
        page.browser.execute_cdp_cmd("Input.synthesizeTapGesture", tap)
        page.wait(lambda share=share: abs(page.map_opacity() - share) < 0.1)


@pytest.mark.parametrize("touch", [320, 390], indirect=True)
def test_a_failure_can_be_read_on_a_phone(touch):
    page, width = touch
    page.click("#tab-failed")
    path, reason = (
        page.js(f"document.querySelector('.failure .{name}').getBoundingClientRect().toJSON()")
        for name in ("path", "reason")
    )
    assert reason["top"] >= path["bottom"]
    assert min(path["width"], reason["width"]) > width - 60


def test_a_touch_screen_has_no_sideways_scrolling(touch):
    page, width = touch
    for tab in ("pictures", "classes", "failed", "run"):
        page.click(f"#tab-{tab}")
        assert page.js("document.documentElement.scrollWidth") <= width


def test_an_empty_folder(browser, tmp_path):
    browser.get(write_report(tmp_path, [], {}).as_uri())
    assert browser.get_log("browser") == []
    assert browser.find_element("css selector", "#grid .empty").is_displayed()
