"""The report in a real browser, from disk, as a user opens it."""

from __future__ import annotations

import os
import shutil
import sys
from dataclasses import replace

import cv2
import numpy as np
import pytest

from camtool.report import write_report
from camtool.report.schema import KINDS

if not os.environ.get("CI"):
    pytest.importorskip("selenium", reason="the browser tests need selenium")

from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import Select

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
def judged(tmp_path_factory, row, spot):
    """20 cats and 20 dogs, all right, the dogs' evidence below right; 6 cats taken for dogs."""
    folder = tmp_path_factory.mktemp("judged")
    _thumbnail(folder)
    cat, dog = (0, "cat"), (1, "dog")
    marked = [spot(0.95, 0.95, noise=i) for i in range(26)]
    moving = [spot(0.2 + 0.15 * (i % 5), 0.2 + 0.2 * (i % 4), noise=i) for i in range(20)]
    rows = [row(f"cats/{i}.png", map=moving[i], truth=cat, predicted=cat) for i in range(20)]
    rows += [
        row(f"dogs/{i}.png", label="dog", index=1, map=marked[i], truth=dog, predicted=dog)
        for i in range(20)
    ]
    pair = {"versus": cat, "rank": 2, "probability": float("nan"), "logit": 1.25, "box": None}
    for i in range(6):
        taken = row(f"wrong/{i}.png", label="dog", index=1, truth=cat, predicted=dog, target="cat")
        one, other = marked[20 + i], spot(0.5, 0.5, noise=i)
        rows += [
            replace(taken, map=one),
            replace(taken, map=other, label="cat", index=0, rank=1, probability=0.05, logit=6.25),
            replace(taken, map=one - other, **pair),
        ]
    meta = {"Source": "photos", "Right": "40 of 46, 87.0% (95% interval 74.3% to 93.9%)"}
    return write_report(folder, rows, meta, [("broken.png", "is empty")])


@pytest.fixture(scope="module")
def large(tmp_path_factory, row):
    folder = tmp_path_factory.mktemp("large")
    _thumbnail(folder)
    return write_report(folder, (row(f"{i:05d}.png") for i in range(10_000)), {})


@pytest.fixture
def page(open_page, small):
    page = open_page(small)
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


def test_large_view_reads_the_place_under_the_pointer(page, spot):
    page.press("/", "cats/07")
    page.click(".card")
    assert page.text("#here") == "Point at a place to read it"
    frame = page.browser.find_element("id", "viewer-frame")
    heat = cv2.resize(spot(0.5, 0.5, noise=7), (900, 700), interpolation=cv2.INTER_LINEAR)
    for x, y in ((0.5, 0.5), (0.3, 0.4), (0.9, 0.1)):
        box = page.js("document.getElementById('viewer-frame').getBoundingClientRect().toJSON()")
        by = round((x - 0.5) * box["width"]), round((y - 0.5) * box["height"])
        ActionChains(page.browser).move_to_element_with_offset(frame, *by).perform()
        page.settle()
        told = float(page.text("#here").split()[2].replace("−", "-"))
        # The row's peak is 28 logits whatever the map's own is.
        expected = heat[int(y * 700), int(x * 900)] * 28 / spot(0.5, 0.5, noise=7).max()
        assert told == pytest.approx(expected, abs=0.5)
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
    page.click(".class:nth-child(2) .odd:last-child .strip button")
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


def test_every_field_is_read_and_no_other(browser, open_page, judged):
    script = browser.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": WATCH})
    page = open_page(judged)
    browser.execute_cdp_cmd("Page.removeScriptToEvaluateOnNewDocument", script)
    for sort in Select(browser.find_element("id", "sort")).options:
        page.choose("sort", sort.text)
    page.press("/", "wrong/3")
    page.click(".card")
    page.click("#chips button:nth-child(2)")
    page.press(Keys.ESCAPE, "/", Keys.ESCAPE)
    page.click("#tab-classes")
    for sort in Select(browser.find_element("id", "sort-classes")).options:
        page.choose("sort-classes", sort.text)
    for tab in ("failed", "run"):
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


def test_ten_thousand_pictures_scroll(open_page, large):
    page = open_page(large)
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


@pytest.fixture(params=[320, 390, 768])
def touch(request, emulated, open_page, small):
    """The page on a touch screen, with its width."""
    emulated(request.param)
    page = open_page(small)
    yield page, request.param
    page.close()


def test_fingers_reach_every_tool(touch):
    page, width = touch
    page.open_tools()
    names = page.check_targets(".top, .tools", width)
    assert names >= {"tab-run", "theme", "search", "label", "sort", "direction", "fade"}
    assert {name.strip() for name in names} >= {"Against", "Boxes"}
    page.click("#tab-classes")
    assert "sort-classes" in page.check_targets(".top, .tools", width)
    page.check_targets(".about", width)
    assert page.js("document.querySelectorAll('.strip button').length") > 0
    sizes = page.targets(".strip")
    assert all(min(x1 - x0, y1 - y0) >= 40 for _, x0, y0, x1, y1 in sizes)


def test_fingers_reach_everything_in_the_large_view(touch):
    page, width = touch
    page.open_tools()
    page.choose("label", "dog (10)")
    page.click(".card")
    assert {"close", "next", "viewer-fade"} <= page.check_targets("dialog", width)
    page.click("#next")
    page.click("#chips button:nth-child(2)")
    assert page.text("#viewer-label") == "cat"
    page.click("#close")
    page.choose("label", f"<b>{HOSTILE[0]} (1)")
    page.click(".card")
    assert "Picture" in page.check_targets("dialog", width)
    page.click("#close")


def test_tools_are_wide_enough_to_read_and_to_aim(touch):
    page, width = touch
    page.open_tools()
    edges = {name: (left, right) for name, left, _, right, _ in page.targets(".tools")}
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


# Of every control in sight its name, and whether it can be hit once it was scrolled to.
WALK = """[...document.querySelectorAll(
        (document.querySelector('dialog[open]') ? 'dialog[open] ' : 'body ') +
        ':is(button, select, input, a, [role=tab], .card)')]
    .filter((node) => node.checkVisibility() && !node.disabled)
    .map((node) => {
        node.scrollIntoView({ block: 'center', inline: 'nearest', behavior: 'instant' });
        const aimed = node.type === 'checkbox' ? node.closest('label') : node;
        const { left, top, right, bottom } = aimed.getBoundingClientRect();
        const hit = document.elementFromPoint((left + right) / 2, (top + bottom) / 2);
        const inside = left > -1 && top > -1 && right < innerWidth + 1 && bottom < innerHeight + 1;
        const name = node.id || node.className || node.textContent;
        return [name, inside && aimed.contains(hit), Math.min(right - left, bottom - top)];
    })"""


@pytest.mark.parametrize("width", [320, 390, 768, 1400])
def test_every_control_can_be_hit_at_every_width_in_both_themes(emulated, open_page, judged, width):
    touch = width < 1000
    open_page(judged).js("localStorage.clear()")
    for theme in ("light", "dark"):
        emulated(width, touch, theme)
        page = open_page(judged)
        seen = set()
        for view in ("#tab-pictures", "#tab-classes", "#tab-failed", "#tab-run", ".card"):
            if view == ".card":
                page.click("#tab-pictures")
            page.click(view)
            if view != ".card":
                page.open_tools()
            walked = page.js(WALK)
            assert [name for name, hit, _ in walked if not hit] == [], view
            small = [(name, side) for name, _, side in walked if touch and side < 40 - 0.01]
            assert small == [], view
            assert page.js("document.documentElement.scrollWidth <= innerWidth"), view
            seen |= {name for name, *_ in walked}
        ground = page.js("getComputedStyle(document.body).backgroundColor")
        dark = sum(map(int, ground.strip("rgb()").split(","))) < 300
        assert dark == (theme == "dark")
        assert seen >= {"search", "show", "label", "sort", "sort-classes", "direction", "fade"}
        assert seen >= {"against", "boxes", "theme", "viewer-fade", "close", "next"}
        page.click("#close")
        page.close()


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


# The share of each canvas of a card that is clearly red, and clearly blue.
SIDES = """[...document.querySelectorAll('.card:first-child canvas')].map((canvas) => {
    const { width, height } = canvas;
    const { data } = canvas.getContext('2d').getImageData(0, 0, width, height);
    let red = 0, blue = 0;
    for (let i = 0; i < data.length; i += 4) {
        if (data[i + 3] < 60) continue;
        red += data[i] > data[i + 2] + 40;
        blue += data[i + 2] > data[i] + 40;
    }
    return [4 * red / data.length, 4 * blue / data.length]; })"""


@pytest.fixture
def verdict(open_page, judged):
    page = open_page(judged)
    yield page
    page.close()


def test_accuracy_and_confusions_are_told(verdict):
    assert verdict.text("#verdict").startswith("Right: 40 of 46, 87.0%")
    assert verdict.texts("#show option")[3:] == ["cat → dog (6)"]
    groups = verdict.js("[...document.querySelectorAll('#label optgroup')].map(g => g.label)")
    assert groups == ["Predicted", "Truth"]
    assert verdict.texts("#label optgroup:last-child option") == ["cat (26)", "dog (20)"]


def test_filters_of_right_and_wrong(verdict):
    for choice, found in (
        ("Wrong only", "6 of 46 pictures"),
        ("Right only", "40 of 46 pictures"),
        ("cat → dog (6)", "6 of 46 pictures"),
        ("Right and wrong", "46 pictures"),
    ):
        verdict.choose("show", choice)
        assert verdict.text("#count") == found
    # Of the cats that were predicted, and of those that are known to be cats, the second.
    verdict.js("(document.getElementById('label').value = 't0')")
    verdict.choose("show", "Wrong only")
    verdict.wait(lambda: len(verdict.cards()) == 6)
    verdict.choose("show", "Right and wrong")
    assert verdict.text("#count") == "26 of 46 pictures"
    verdict.choose("label", "dog (26)")
    assert verdict.text("#count") == "26 of 46 pictures"
    assert {path.partition("/")[0] for path in verdict.cards()} <= {"wrong", "dogs"}


def test_each_wrong_card_shows_prediction_truth_and_their_difference(verdict):
    verdict.choose("show", "Right only")
    assert verdict.js("document.querySelectorAll('.card .trio').length") == 0
    assert set(verdict.texts(".card .truth")) == {"right"}
    verdict.choose("show", "Wrong only")
    assert verdict.js("document.querySelectorAll('.card .trio').length") == 6
    assert verdict.js("document.querySelectorAll('.card').length") == 6
    assert set(verdict.texts(".card .truth")) == {"is cat"}
    assert verdict.texts(".card:first-child figcaption") == ["prediction", "truth", "difference"]
    assert min(verdict.js(SIDES)[2]) > 0.02, "the prediction's side is red, the truth's blue"
    verdict.click(".card")
    assert verdict.texts("#chips .name") == ["dog", "cat (truth)", "dog rather than cat"]
    verdict.click("#chips button:nth-child(3)")
    assert verdict.text("#viewer-label") == "dog rather than cat"
    assert verdict.texts("#numbers dt")[:3] == ["Truth", "Prediction", "Listed as"]
    assert "1.25" in verdict.texts("#numbers dd")
    verdict.press(Keys.ESCAPE)


def _address(page, *parts):
    page.wait(lambda: all(part in page.js("location.hash") for part in parts))
    return page.js("location.hash").removeprefix("#")


def test_the_address_keeps_the_view(open_page, verdict, judged):
    verdict.choose("show", "Wrong only")
    verdict.choose("sort", "File name")
    verdict.click("#direction")
    verdict.press("/", "wrong/", Keys.ENTER, "[", "[")
    verdict.js("document.getElementById('boxes').click()")
    verdict.click(".card[data-index='2']")
    parts = ("show=wrong", "sort=path", "reverse=on", "fade=40", "boxes=off", "search=", "open=")
    seen = _address(verdict, *parts)
    assert verdict.text("#viewer-path") == "wrong/3.png"
    again = open_page(judged, seen)
    again.wait(lambda: again.js("document.getElementById('viewer').open"))
    assert again.text("#viewer-path") == "wrong/3.png"
    again.press(Keys.ESCAPE)
    assert again.text("#count") == "6 of 46 pictures"
    again.wait(lambda: again.cards()[:2] == ["wrong/5.png", "wrong/4.png"])
    assert again.map_opacity() == pytest.approx(0.4)
    assert again.js("document.getElementById('boxes').checked") is False
    assert again.js("document.documentElement.dataset.boxes") == "off"
    again.wait(lambda: "open" not in again.js("location.hash"))


def test_an_address_changed_by_hand_is_followed(verdict):
    verdict.js("(location.hash = 'tab=classes&sort-classes=label')")
    verdict.wait(lambda: verdict.texts(".class h3") == ["All pictures", "cat", "dog"])
    verdict.js("(location.hash = 'tab=nothing&show=7>9&label=q&fade=x&open=999')")
    verdict.wait(lambda: verdict.text("#count") == "46 pictures" and verdict.cards())


def test_a_flagged_class_is_told_of(verdict):
    verdict.click("#tab-classes")
    assert verdict.texts(".flagged h3") == ["dog"]
    assert "dog (lower right" in verdict.text("#flagged")
    mark, mean = (
        verdict.js(f"document.querySelector('.flagged .{name}').getBoundingClientRect().toJSON()")
        for name in ("mark", "mean")
    )
    assert mark["right"] == pytest.approx(mean["right"], abs=1)
    assert mark["bottom"] == pytest.approx(mean["bottom"], abs=1)
    assert verdict.texts(".flagged .odd > p") == ["Most typical", "Furthest from this mean"]
    near, far = (
        [float(text) for text in verdict.texts(f".flagged .odd:nth-child({n}) figcaption")]
        for n in (3, 4)
    )
    assert near == sorted(near)
    assert far == sorted(far, reverse=True)
    assert near[-1] <= far[-1]


@pytest.mark.parametrize("width", [320, 390, 768])
def test_fingers_reach_the_tools_of_right_and_wrong(emulated, open_page, judged, width):
    emulated(width)
    page = open_page(judged, "show=wrong")
    page.open_tools()
    assert "show" in page.check_targets(".top, .tools", width)
    assert page.js("document.getElementById('verdict').checkVisibility()")
    assert page.js("document.documentElement.scrollWidth") <= width
    edges = page.js("document.getElementById('show').getBoundingClientRect().toJSON()")
    assert edges["width"] >= 100
    page.click(".card")
    assert {"close", "next"} <= page.check_targets("dialog", width)
    page.click("#close")
    page.click("#tab-classes")
    page.check_targets(".about", width)
    assert page.js("document.documentElement.scrollWidth") <= width
    page.close()
