"""Rows to fill a report with, and the browser that opens it."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from importlib import import_module
from itertools import combinations

import numpy as np
import pytest

from camtool.report import ReportRow


def _spot(x: float, y: float, shape: tuple[int, int] = (7, 9), noise: int = 0) -> np.ndarray:
    """Blob of evidence around (x, y), both in [0, 1], on a negative ground."""
    rows, columns = (np.arange(side)[:, None] + 0.5 for side in shape)
    distance = (rows / shape[0] - y) ** 2 + (columns.T / shape[1] - x) ** 2
    heatmap = 30 * np.exp(-distance / 0.03) - 2
    return (heatmap + np.random.default_rng(noise).normal(0, 0.5, shape)).astype(np.float32)


_PLAIN = ReportRow(
    path="a.png",
    label="cat",
    index=0,
    probability=0.9,
    logit=7.5,
    peak=28.0,
    share=0.8,
    entropy=2.0,
    residual=-3e-7,
    box=(90, 60, 210, 140),
    width=300,
    height=200,
    rank=0,
    thumb="report/0.png",
    map=_spot(0.5, 0.5),
)


@pytest.fixture(scope="session")
def spot() -> Callable[..., np.ndarray]:
    return _spot


@pytest.fixture(scope="session")
def row() -> Callable[..., ReportRow]:
    return lambda path, **fields: replace(_PLAIN, path=path, **fields)


FLAGS = (
    "--headless --no-sandbox --disable-gpu --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --window-size=1280,900"
)

# Name and edges of what a finger aims at: the label of a checkbox, not the checkbox.
TARGETS = """[...document.querySelectorAll(arguments[0])]
    .flatMap((root) => [...root.querySelectorAll('button, select, label.check, a, input')])
    .filter((node) => node.checkVisibility() && node.type !== 'checkbox')
    .map((node) => {
        const { left, top, right, bottom } = node.getBoundingClientRect();
        return [node.id || node.textContent, left, top, right, bottom]; })"""


def _program(*names):
    """Path of a program; where tests run for the record its absence is a failure, no skip."""
    missing = pytest.fail if os.environ.get("CI") else pytest.skip
    found = next(filter(None, map(shutil.which, names)), None)
    return found or missing(f"none of {', '.join(names)} is on the path")


@pytest.fixture(scope="session")
def browser(tmp_path_factory):
    missing = pytest.importorskip if not os.environ.get("CI") else import_module
    webdriver = missing("selenium.webdriver")
    options = webdriver.ChromeOptions()
    options.binary_location = _program("chromium", "chromium-browser", "google-chrome")
    for flag in (*FLAGS.split(), f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = _program("chromedriver")
    browser = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    yield browser
    browser.quit()


class Page:
    """A report in the browser; `close` checks what must hold for every page."""

    def __init__(self, browser, path, view=""):
        self.browser = browser
        browser.get("about:blank")
        for log in ("browser", "performance"):
            browser.get_log(log)
        browser.get(path.as_uri() + (f"#{view}" if view else ""))
        self.wait(lambda: view or self.cards())

    def wait(self, condition):
        from selenium.webdriver.support.ui import WebDriverWait

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
        from selenium.webdriver.common.action_chains import ActionChains

        ActionChains(self.browser).send_keys(*keys).perform()
        self.settle()

    def choose(self, select, text):
        from selenium.webdriver.support.ui import Select

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

    def open_tools(self):
        if self.js("document.querySelector('.tools:not(.open) #more')?.checkVisibility()"):
            self.click("#more")

    def targets(self, selector):
        """Name and edges of what a finger aims at: of a checkbox its label."""
        return self.js(TARGETS, selector)

    def check_targets(self, selector, width):
        """Their names; each is large enough, in sight, and apart from the others."""
        found = self.targets(selector)
        for name, left, top, right, bottom in found:
            assert min(right - left, bottom - top) >= 40 - 0.01, name
            assert -0.01 <= left <= right <= width + 0.01, name
        assert [(a[0], b[0]) for a, b in combinations(found, 2) if not _apart(a, b)] == []
        return {name for name, *_ in found}


def _apart(first, second):
    _, left, top, right, bottom = first
    _, x0, y0, x1, y1 = second
    return x0 >= right - 0.5 or x1 <= left + 0.5 or y0 >= bottom - 0.5 or y1 <= top + 0.5


@pytest.fixture
def open_page(browser):
    """Opens a report, or a view of it: from a path and what follows "#" to a `Page`."""
    return lambda path, view="": Page(browser, path, view)


@pytest.fixture
def emulated(browser):
    """Makes the screen one of a width in pixels, for fingers or not, in the light or the dark."""

    def emulate(width, touch=True, theme="light"):
        size = {"width": width, "height": 740, "deviceScaleFactor": 2, "mobile": touch}
        media = {"features": [{"name": "prefers-color-scheme", "value": theme}]}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        browser.execute_cdp_cmd("Emulation.setTouchEmulationEnabled", {"enabled": touch})
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", media)

    yield emulate
    browser.execute_cdp_cmd("Emulation.setTouchEmulationEnabled", {"enabled": False})
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
