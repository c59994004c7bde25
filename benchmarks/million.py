"""What a folder run's journal, tables and report take at a million pictures.

Usage: python benchmarks/million.py [--pictures 1000000] [--classes 1000]

The pictures are made up, and so is what is found in them: an engine that reads nothing gives
entries as a real run has them, maps and all. Everything else is the real run: the list is read,
the journal written, the tables and the report made of it; then the same command goes on with a
finished run; then the report is opened in headless Chromium (needs selenium) and scrolled. Prints
seconds, the most memory that the process held, and the sizes of the files.
"""

from __future__ import annotations

import argparse
import base64
import csv
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Generator, Iterable
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

import camtool
from camtool.engines.engine import Request, never
from camtool.folder.discovery import Picture
from camtool.folder.entry import Explained, rows_of
from camtool.folder.run import FolderRun, Plan
from camtool.folder.work import Noted, WriteFiles
from camtool.views.overlay import Look
from camtool.views.save import Views

PHOTO = Path(__file__).parents[1] / "examples" / "espresso.jpg"
CHUNK = 32
TEMPLATES = 64


class MadeUp:
    """An engine that explains one photograph, and makes up all others from it."""

    def __init__(
        self,
        model: camtool.CamModel,
        _request: Request,
        _workers: int | None,
        _warn: Callable[[str], None],
    ) -> None:
        self.model = model

    def run(
        self,
        jobs: Iterable[Picture],
        work: WriteFiles,
        _stopping: Callable[[], bool] = never,
    ) -> Generator[list[Noted], None, None]:
        """Entries of pictures that nobody looked at."""
        explanation = self.model.explain(PHOTO)
        shapes = [self._template(explanation, seed) for seed in range(TEMPLATES)]
        jobs = (job for job in jobs if job.shape is None)
        while chunk := list(islice(jobs, CHUNK)):
            yield [(job.number, self._entry(job, shapes)) for job in chunk]

    def _template(self, explanation: camtool.Explanation, seed: int) -> Any:
        random = np.random.default_rng(seed)
        noise = random.normal(0, 5, explanation.maps.shape).astype(np.float32)
        maps = np.roll(explanation.maps, random.integers(7, size=2), (1, 2)) + noise
        picture = Picture(0, PHOTO, key="")
        rows = rows_of(picture, explanation, self.model.labels, 0.2)
        return explanation.geometry, rows[0], base64.b64encode(maps.tobytes()).decode(), maps.shape

    def _entry(self, job: Picture, templates: list[Any]) -> Explained:
        geometry, row, maps, shape = templates[job.number * 7919 % TEMPLATES]
        classes = len(self.model.labels)
        assert job.truth is not None
        truth = job.truth
        wrong = job.number * 104729 % 5 == 0
        index = (truth + wrong * (1 + job.number % 9)) % classes
        label, true = self.model.labels[index], self.model.labels[truth]
        probability = 0.05 + 0.9 * (job.number * 31337 % 1000) / 1000
        changed: dict[str, Any] = {
            "path": job.key,
            "label": label,
            "index": index,
            "probability": probability,
        }
        changed |= {"truth": true, "predicted": label, "right": not wrong}
        changed["target"] = job.listed
        return Explained(
            key=job.key,
            name=job.name,
            state=job.state,
            changed=False,
            input=list(geometry.input),
            region=list(geometry.region),
            rows=[{**row, **changed}],  # type: ignore[typeddict-item]
            shape=list(shape),
            maps=maps,
            files={},
            milliseconds=10.0,
            predicted=index,
            truth=truth,
        )


def run(folder: Path, pictures: int, output: Path) -> None:
    """One run in this process; prints what it took."""
    model = camtool.load("efficientnet_lite0", device="cpu")
    views = Views((), Look())
    plan = Plan(source=str(folder / "list.csv"), output=output, views=views, formats=("csv",))
    start = time.monotonic()
    folder_run = FolderRun(model, plan, engine=MadeUp)  # type: ignore[arg-type]
    summary = folder_run.run()
    seconds = time.monotonic() - start
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    cells = (f"{summary.new:,} of {pictures:,}", f"{seconds:.0f}", f"{summary.seconds:.0f}")
    print(f"| {' | '.join(cells)} | {memory:.0f} |")


def _make_pictures(folder: Path, count: int) -> None:
    """A thousand empty files, seen through as many links to their folder as it takes."""
    (folder / "0000").mkdir()
    for number in range(1000):
        (folder / "0000" / f"{number:03d}.jpg").touch()
    for number in range(1, -(-count // 1000)):
        (folder / f"{number:04d}").symlink_to("0000")


def opened(page: Path) -> None:
    """Open the report and scroll through it; print how long the browser took."""
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    for flag in ("headless=new", "no-sandbox", "disable-gpu"):
        options.add_argument(f"--{flag}")
    driver = webdriver.Chrome(options=options)
    driver.set_page_load_timeout(300)
    try:
        start = time.monotonic()
        driver.get(page.as_uri())
        loaded = time.monotonic() - start
        script = """
            const done = arguments[arguments.length - 1];
            const start = performance.now();
            let step = 0;
            const go = () => {
              window.scrollTo(0, document.documentElement.scrollHeight * step / 20);
              if (++step > 20) done(performance.now() - start); else requestAnimationFrame(go);
            };
            go();
        """
        driver.set_script_timeout(300)
        scrolled = driver.execute_async_script(script)
        heap = driver.execute_script("return performance.memory.usedJSHeapSize") / 1e6
        nodes = driver.execute_script("return document.querySelectorAll('*').length")
        print(
            f"opened in {loaded:.1f} s, 21 jumps from top to end in {scrolled / 1000:.1f} s, "
            f"{heap:.0f} MB of JavaScript, {nodes:,} elements"
        )
    finally:
        driver.quit()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--pictures", type=int, default=1_000_000)
    parser.add_argument("--in", dest="folder", type=Path, help="run in this folder (for itself)")
    options = parser.parse_args()
    if options.folder:
        run(options.folder, options.pictures, options.folder / "out")
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _make_pictures(folder, options.pictures)
        with (folder / "list.csv").open("w", newline="") as stream:
            writer = csv.writer(stream)
            writer.writerow(("path", "label"))
            writer.writerows(
                (f"{n // 1000:04d}/{n % 1000:03d}.jpg", n % 997) for n in range(options.pictures)
            )
        print("| explained | s | of them with pictures | MB |\n|---|---:|---:|---:|")
        for _ in range(2):
            command = [sys.executable, __file__, "--in", name, "--pictures", str(options.pictures)]
            subprocess.run(command, check=True, env=dict(os.environ))
        output = folder / "out"
        for path in (*(output / ".camtool").iterdir(), *output.iterdir()):
            if path.is_file() and path.stat().st_size > 100_000:
                print(f"{path.relative_to(output)}: {path.stat().st_size / 1e6:,.1f} MB")
        opened(output / "report.html")


if __name__ == "__main__":
    main()
