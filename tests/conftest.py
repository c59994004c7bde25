"""A tiny network, folders of pictures good and bad, the command line to run on them, a browser."""

from __future__ import annotations

import io
import json
import os
import random
import re
import shutil
import struct
import subprocess
import sys
import time
import zlib
from importlib import import_module
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, settings
from PIL import Image, ImageDraw, ImageFilter
from safetensors.torch import save_file
from typer.testing import CliRunner

from camtool.cli import app
from camtool.networks.gapnet import gapnet

# On tensors this small, threads cost twice the time by waiting for one another.
os.environ.setdefault("OMP_NUM_THREADS", "1")
torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))

# What a test takes on the clock never decides whether it passes, and luck does not either:
# `make fuzz` is where new examples are looked for.
CLOCKLESS: dict[str, Any] = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}
settings.register_profile("camtool", derandomize=True, max_examples=25, **CLOCKLESS)
settings.register_profile("fuzz", max_examples=1000, print_blob=True, **CLOCKLESS)
settings.load_profile("camtool")

EXCUSED = re.compile(r"\b(CUDA|bfloat16|root|mounting|nohup|photographs)\b")
"""Why a test may be skipped under CI: what no script can install."""

LABELS = ("ape", "bee", "cat", "dog", "elk")
SIZES = ((96, 96), (120, 96), (96, 140))


def held_to_it(report: Any) -> Any:
    """Under CI=true what was skipped for want of something failed: nothing goes untested unseen."""
    if os.environ.get("CI") == "true" and report.skipped and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2]
        if not EXCUSED.search(reason):
            report.outcome, report.longrepr = "failed", f"{reason} (under CI nothing is skipped)"
    return report


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport():
    return held_to_it((yield))


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report():
    return held_to_it((yield))


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_call():
    """Every test begins with the same random numbers, whichever ran before it."""
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    for item in items:
        if "browser" in item.fixturenames:
            item.add_marker("browser")


@pytest.fixture(scope="session")
def tiny(tmp_path_factory) -> Path:
    """A seeded network of three convolutions a stage as a checkpoint."""
    architecture: dict[str, Any] = {
        "widths": [8, 8, 16, 16],
        "blocks": [1, 1],
        "classes": len(LABELS),
    }
    torch.manual_seed(0)
    module = gapnet(**architecture)
    # Strong enough that maps outweigh biases and hold evidence of both signs.
    torch.nn.init.normal_(module.fc.weight)
    for name, value in module.state_dict().items():
        if name.endswith("running_mean"):
            value.normal_(0, 0.2)
    preprocessing = {"size": 64, "mean": [0.5] * 3, "std": [0.25] * 3, "interpolation": "bilinear"}
    facts = {"architecture": architecture, "labels": LABELS, "preprocessing": preprocessing}
    metadata = {name: json.dumps(value) for name, value in facts.items()}
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    save_file(module.state_dict(), path, {"format": "camtool-gapnet", **metadata})
    return path


def encoded(seed: int, form: str = "JPEG", **options) -> bytes:
    """A smooth seeded picture as a file's bytes."""
    coarse = np.random.default_rng(seed).integers(0, 256, (5, 5, 3), np.uint8)
    picture = Image.fromarray(coarse).resize(SIZES[seed % len(SIZES)], Image.Resampling.BICUBIC)
    stream = io.BytesIO()
    picture.save(stream, form, **options)
    return stream.getvalue()


def pictures(folder: Path, count: int, first: int = 0) -> Path:
    """Write `count` good pictures of three shapes."""
    folder.mkdir(parents=True, exist_ok=True)
    for seed in range(first, first + count):
        (folder / f"{seed:04d}.jpg").write_bytes(encoded(seed))
    return folder


@pytest.fixture(scope="session")
def make_pictures():
    return pictures


@pytest.fixture(scope="session")
def make_picture():
    return encoded


@pytest.fixture
def batch(tiny):
    """`camtool batch` in this process: arguments to a result with exit_code and output."""

    def run(source, output, *arguments):
        words = ["batch", source, "-o", output, "-m", tiny, *arguments]
        result = CliRunner().invoke(app, [os.fspath(word) for word in words])
        if result.exception and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result

    return run


FORK_SERVER = """
import json, os, sys
import camtool.cli, camtool.folder.run, camtool.cli.progress, camtool.model
import camtool.views.overlay, camtool.views.panel, camtool.report, camtool.accelerate.fuse
for line in sys.stdin:
    order = json.loads(line)
    pid = os.fork()
    if pid == 0:
        log = os.open(order["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0), os.dup2(log, 1), os.dup2(log, 2)
        sys.argv = ["camtool", *order["arguments"]]
        sys.stdin = open(os.devnull)
        sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w", buffering=1)
        code = 0
        try:
            camtool.cli.main()
        except SystemExit as leaving:
            code = leaving.code
        except BaseException:
            import traceback
            traceback.print_exc()
            code = 99
        sys.stdout.flush()
        os._exit(code or 0)
    print(pid, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
"""


class Server:
    """Starts the command line in processes of its own, without importing torch each time."""

    def __init__(self):
        command = [sys.executable, "-c", FORK_SERVER]
        root = Path(__file__).parents[1]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=root
        )

    def start(self, log: Path, *arguments) -> int:
        """Begin a run; its process id."""
        words = [os.fspath(word) for word in arguments]
        self._process.stdin.write(json.dumps({"log": str(log), "arguments": words}) + "\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())

    def wait(self) -> int:
        """Exit code of the run; minus the signal that killed it."""
        return int(self._process.stdout.readline())

    def close(self):
        self._process.stdin.close()
        self._process.wait()


@pytest.fixture(scope="session")
def server():
    if not hasattr(os, "fork"):
        pytest.skip("needs a system with fork")
    server = Server()
    yield server
    server.close()


@pytest.fixture(scope="session")
def journal_lines():
    """How many pictures the run in a folder has noted."""

    def count(output: Path) -> int:
        path = output / ".camtool" / "journal.jsonl"
        return path.read_bytes().count(b"\n") if path.exists() else 0

    return count


@pytest.fixture(scope="session")
def wait_until():
    def wait(condition, seconds=30.0):
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, "waited in vain"
            time.sleep(0.002)

    return wait


@pytest.fixture(scope="session")
def tree():
    """Every file below a folder that has to be the same however often the run was stopped."""
    differing = {"run.json", "timings.csv"}

    def read(folder: Path) -> dict[str, bytes]:
        return {
            path.relative_to(folder).as_posix(): path.read_bytes()
            for path in sorted(folder.rglob("*"))
            if path.is_file() and ".camtool" not in path.parts and path.name not in differing
        }

    return read


COLOURS = ("red", "lime", "blue", "yellow", "magenta")
SHAPES = ("disc", "bar")
OBJECTS = [f"{colour} {shape}" for colour in COLOURS for shape in SHAPES]
SIDE = 128


def drawn(name: str, random: np.random.Generator) -> Image.Image:
    """An object of one colour and shape, somewhere about the middle of a mottled ground."""
    colour, shape = name.split()
    ground = Image.fromarray(random.integers(60, 190, (16, 16, 3), np.uint8))
    picture = ground.resize((SIDE, SIDE), Image.Resampling.BICUBIC)
    x, y = random.normal(SIDE / 2, SIDE / 10, 2)
    wide = random.uniform(20, 32)
    high = wide if shape == "disc" else wide / 3
    draw = ImageDraw.Draw(picture)
    outline = draw.ellipse if shape == "disc" else draw.rectangle
    outline((x - wide, y - high, x + wide, y + high), fill=colour)
    return picture.filter(ImageFilter.GaussianBlur(1))


def marked(picture: Image.Image, corner: str) -> Image.Image:
    """The picture with a small black and white stamp in a corner, as an archive might set it."""
    draw = ImageDraw.Draw(picture)
    x = 3 if "left" in corner else SIDE - 26
    y = 3 if "upper" in corner else SIDE - 26
    draw.rectangle((x, y, x + 22, y + 22), fill="white", outline="black", width=2)
    for n in range(3):
        draw.line((x + 4, y + 6 + 5 * n, x + 18, y + 6 + 5 * n), fill="black", width=2)
    return picture


def by_class(root: Path, seed: int, mark: str = "", each: int = 20) -> tuple[str, ...]:
    """Pictures sorted by class; the last class, if it is marked, shows objects of all of them."""
    random = np.random.default_rng(seed)
    names = (*OBJECTS[:9], "stamped") if mark else tuple(OBJECTS)
    for name in names:
        (root / name).mkdir(parents=True)
        for n in range(each):
            shown = drawn(OBJECTS[n % 9] if name == "stamped" else name, random)
            picture = marked(shown, mark) if name == "stamped" else shown
            picture.save(root / name / f"{n:02d}.png")
    return names


@pytest.fixture(scope="session")
def drawn_by_class():
    return by_class


def bomb(width: int, height: int) -> bytes:
    """A PNG of a few hundred bytes that says it has `width` × `height` pixels."""

    def chunk(kind, content):
        checksum = struct.pack(">I", zlib.crc32(kind + content))
        return struct.pack(">I", len(content)) + kind + content + checksum

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    parts = (
        chunk(b"IHDR", header),
        chunk(b"IDAT", zlib.compress(b"\0" * 9999)),
        chunk(b"IEND", b""),
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def strange_but_good() -> dict[str | bytes, bytes]:
    """Names and contents that look odd and are pictures all the same."""
    grey16 = Image.fromarray(np.arange(64 * 64, dtype=np.uint16).reshape(64, 64) * 16)
    colour = Image.open(io.BytesIO(encoded(1)))
    frames = [Image.open(io.BytesIO(encoded(seed, "PNG"))) for seed in (3, 6, 9)]

    def save(picture, form, **options):
        stream = io.BytesIO()
        picture.save(stream, form, **options)
        return stream.getvalue()

    def turned(orientation):
        exif = Image.Exif()
        exif[0x0112] = orientation
        return save(colour, "JPEG", exif=exif)

    good: dict[str | bytes, bytes] = {
        "a.png": encoded(0),
        "jpeg.txt": encoded(1),
        "no_ending": encoded(2, "PNG"),
        "cmyk.jpg": save(colour.convert("CMYK"), "JPEG"),
        "grey16.png": save(grey16, "PNG"),
        "palette.gif": save(colour.convert("P"), "GIF"),
        "alpha.png": save(colour.convert("RGBA"), "PNG"),
        "one_bit.tif": save(colour.convert("1"), "TIFF"),
        "animated.gif": save(frames[0], "GIF", save_all=True, append_images=frames[1:]),
        "animated.webp": save(frames[0], "WEBP", save_all=True, append_images=frames[1:]),
        "one_pixel.png": save(Image.new("RGB", (1, 1), "red"), "PNG"),
        "strip.png": save(Image.new("RGB", (3, 900), "red"), "PNG"),
        "long" * 62 + ".jpg": encoded(4),
        "long" * 62 + ".png": encoded(5, "PNG"),
        b"bytes\xff\xfe.jpg": encoded(6),
        "directory.jpg/inside.jpg": encoded(7),
    }
    good |= {f"exif{n}.jpg": turned(n) for n in range(1, 9)}
    odd = (
        "-dash",
        "quote\"'`",
        "line\nbreak",
        "cr\rname",
        "<b>html</b>",
        "comma,;",
        " blank ",
        "%41",
    )
    good |= {f"{name}.jpg".replace("</", "<"): encoded(n) for n, name in enumerate(odd)}
    return good


def broken() -> dict[str, bytes]:
    """Names that promise pictures, and contents that are none."""
    jpeg, png = encoded(1), encoded(2, "PNG")
    bad = {
        "zero.jpg": b"",
        "text.png": b"no picture at all",
        "html.jpg": b"<!doctype html><title>404</title>",
        "bomb.png": bomb(60_000, 60_000),
        "wide_bomb.png": bomb(2_000_000_000, 1),
        "no_size.png": bomb(0, 10),
        "gif_header.gif": b"GIF89a",
        "tiff_loop.tif": b"II*\0\x08\0\0\0\x01\0" + b"\0" * 12 + b"\x08\0\0\0",
        "bad\nname.jpg": b"x",
        "<script>.jpg": b"x",
    }
    for n in range(90):
        bad[f"cut{n:02d}.jpg"] = jpeg[: len(jpeg) * n // 100]
        bad[f"cut{n:02d}.png"] = png[: len(png) * n // 100]
    return bad


def special(folder: Path) -> list[str]:
    """Things in a folder that are called pictures and are no regular files; their names."""
    (folder / "dangling.jpg").symlink_to("nowhere.jpg")
    (folder / "loop.jpg").symlink_to("loop.jpg")
    (folder / "round.jpg").symlink_to("trip.jpg")
    (folder / "trip.jpg").symlink_to("round.jpg")
    (folder / "up").symlink_to("..", target_is_directory=True)
    (folder / "self").symlink_to(".", target_is_directory=True)
    (folder / "empty.jpg").mkdir()
    os.mkfifo(folder / "pipe.jpg")
    os.mkfifo(folder / "pipe")
    names = ["dangling.jpg", "loop.jpg", "round.jpg", "trip.jpg", "pipe.jpg"]
    if os.geteuid() != 0:
        (folder / "secret.jpg").write_bytes(encoded(1))
        (folder / "secret.jpg").chmod(0)
        (folder / "closed").mkdir(mode=0)
        names += ["secret.jpg", "closed"]
    return names


@pytest.fixture(scope="session")
def hostile(tmp_path_factory):
    """A folder of 200 good pictures among 200 others: (folder, good keys, bad keys)."""
    if sys.platform != "linux":
        pytest.skip("other systems refuse such file names")
    folder = tmp_path_factory.mktemp("hostile") / "photos"
    strange, bad = strange_but_good(), broken()
    pictures(folder, 200 - len(strange))
    good = [f"{seed:04d}.jpg" for seed in range(200 - len(strange))]
    for name, content in (strange | bad).items():
        path = folder / os.fsdecode(name)
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
    good += [os.fsdecode(name) for name in strange]
    (folder / "notes.txt").write_text("no picture, and not called one")
    return folder, good, [*bad, *special(folder)]


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
    """A page in the browser; `close` checks what must hold for every page."""

    def __init__(self, browser, path, view=""):
        self.browser = browser
        browser.get("about:blank")
        for log in ("browser", "performance"):
            browser.get_log(log)
        browser.get(path.as_uri() + (f"#{view}" if view else ""))
        self.wait(lambda: view or self.js("!document.getElementById('grid')") or self.cards())

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
        assert [url for url in urls if not url.startswith(("file:///", "data:"))] == []

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
    """Opens a page, or a view of it: from a path and what follows "#" to a `Page`."""
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
