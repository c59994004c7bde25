"""A run over a folder: continued where it stopped, and the same in the end as in one go."""

from __future__ import annotations

import errno
import hashlib
import json
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from camtool import __version__
from camtool.engines import ENGINES
from camtool.engines.engine import Request, Shape, never
from camtool.engines.settings import model_settings
from camtool.files import write_atomically
from camtool.folder import results
from camtool.folder.discovery import Source, discover, identity
from camtool.folder.entry import Explained, finished_shape
from camtool.folder.journal import Journal
from camtool.folder.page import write_page
from camtool.folder.work import Fatal, Noted, WriteFiles
from camtool.folder.workspace import claimed
from camtool.images import MAX_PIXELS
from camtool.views.save import Views

if TYPE_CHECKING:
    from camtool.engines import Factory
    from camtool.model import CamModel


@dataclass(frozen=True)
class Plan:
    """What a run does.

    Attributes:
        source: Folder, pattern or list.
        output: Folder of the results.
        views: Files for each picture.
        targets: Classes by index or label, for every picture; empty for the `topk` best.
        topk: How many, where no class is named.
        batch_size: Most pictures to a forward pass.
        workers: Threads of each kind; None for as many as there are cores.
        formats: Of the results: parquet, csv, jsonl.
        coco: Write the boxes as a COCO file too.
        report: Write the page for people.
        recursive: Go into sub-folders.
        max_pixels: Refuse larger pictures.
        overwrite: Begin anew whatever is there.
    """

    source: str
    output: Path
    views: Views
    targets: tuple[str, ...] = ()
    topk: int = 1
    batch_size: int = 8
    workers: int | None = None
    formats: tuple[str, ...] = ("csv",)
    coco: bool = False
    report: bool = True
    recursive: bool = True
    max_pixels: int = MAX_PIXELS
    overwrite: bool = False

    def request(self, model: CamModel) -> Request:
        """What is asked of every picture.

        Raises:
            TargetError: A target matches no class, or several.
        """
        indices = tuple(model.resolve(list(self.targets) or None))
        return Request(indices, self.topk, self.batch_size, self.max_pixels)

    def settings(self, model: CamModel) -> dict[str, Any]:
        """Everything that the results depend on, as JSON."""
        labels = hashlib.sha256("\n".join(model.labels).encode("utf-8", "backslashreplace"))
        return {
            **model_settings(model),
            "labels": labels.hexdigest()[:16],
            "source": str(Path(self.source).absolute()),
            "targets": list(self.targets),
            "topk": self.topk,
            "batch_size": self.batch_size,
            "recursive": self.recursive,
            "max_pixels": self.max_pixels,
            "report": self.report,
            "device": model.device.type,
            "fused": model.fused,
            "camtool": __version__,
            "torch": torch.__version__,
            "views": json.loads(json.dumps(asdict(self.views))),
        }


@dataclass
class Summary:
    """How a run ended.

    Attributes:
        total: Pictures of the run.
        done: Explained, in this run or before.
        failed: Could not be explained.
        new: Explained in this run.
        seconds: That this run took, without loading the model.
        skipped: Files that are no pictures.
        stopped: Why the run ended early; "" if it did not.
    """

    total: int = 0
    done: int = 0
    failed: int = 0
    new: int = 0
    seconds: float = 0.0
    skipped: int = 0
    stopped: str = ""

    @property
    def rate(self) -> float:
        """Pictures a second of this run."""
        return self.new / self.seconds if self.seconds else 0.0


@dataclass
class FolderRun:
    """One run over one source.

    Attributes:
        model: The model.
        plan: What to do.
        progress: Told the counts after every chunk.
        warn: Told what people should know.
        engine: What makes the engine that does the work, one of `ENGINES`.
    """

    model: CamModel
    plan: Plan
    progress: Callable[[Summary], None] = lambda summary: None
    warn: Callable[[str], None] = print
    engine: Factory = ENGINES["threads"]
    summary: Summary = field(default_factory=Summary, init=False)

    def run(self, stopping: Callable[[], bool] = never) -> Summary:
        """Explain what is not yet explained, and write the results.

        Args:
            stopping: Asked before each chunk whether to begin no more.

        Raises:
            SourceError: There are no pictures.
            RunError: The folder of the results belongs to another run, or can't be made.
            TargetError: A target matches no class, or several.
        """
        request, output = self.plan.request(self.model), self.plan.output
        source = discover(self.plan.source, output, self.plan.recursive)
        self.summary.total, self.summary.skipped = len(source.pictures), source.skipped
        keys = [picture.key for picture in source.pictures]
        settings = self.plan.settings(self.model)
        with claimed(output, settings, keys, self.plan.overwrite) as journal:
            try:
                self._explain(source, request, journal, stopping)
                self._write_results(source, journal)
                journal.sync()
            except OSError as error:
                self._stop(f"{output}: {error.strerror or error}")
        return self.summary

    def _explain(
        self, source: Source, request: Request, journal: Journal, stopping: Callable[[], bool]
    ) -> None:
        plan, start = self.plan, time.monotonic()
        finished = dict(_finished(source, journal, plan.output))
        self.summary.done = len(finished)
        jobs = (replace(job, shape=finished.get(job.number)) for job in source.pictures)
        engine = self.engine(self.model, request, plan.workers, self.warn)
        work = WriteFiles(plan.output, plan.views, plan.report, source.root, identity(source.root))
        here = identity(plan.output)
        # After what is fatal nothing more is begun; what is in flight may succeed, and is noted.
        with closing(
            engine.run(jobs, work, lambda: bool(self.summary.stopped) or stopping())
        ) as chunks:
            for chunk in chunks:
                if identity(plan.output) != here:
                    raise FileNotFoundError(errno.ENOENT, "is gone")
                self._note(chunk, journal)
                self.summary.seconds = time.monotonic() - start
                self.progress(self.summary)
        if stopping() and self.summary.done + self.summary.failed < self.summary.total:
            self._stop("interrupted")

    def _note(self, chunk: list[Noted], journal: Journal) -> None:
        entries = [result for result in chunk if not isinstance(result, Fatal)]
        journal.append(entries)
        new = sum(isinstance(entry, Explained) for _, entry in entries)
        self.summary.new += new
        self.summary.done += new
        self.summary.failed += len(entries) - new
        for result in chunk:
            if isinstance(result, Fatal):
                self._stop(result.reason)

    def _stop(self, reason: str) -> None:
        """Note why the run ends early; the first reason counts."""
        self.summary.stopped = self.summary.stopped or reason

    def _write_results(self, source: Source, journal: Journal) -> None:
        output = self.plan.output
        for form in results.FORMATS:
            if form in self.plan.formats:
                results.write_results(output / f"results.{form}", journal.entries)
        self.summary.failed = results.write_failed(output / "failed.csv", journal.entries)
        results.write_timings(output / "timings.csv", journal.entries)
        if self.plan.coco:
            results.write_coco(output / "coco.json", journal.entries, self.model.labels)
        if self.plan.report and self.summary.done:
            write_page(output, source.pictures, journal.entries, self._meta())
        write_atomically(output / "run.json", json.dumps(self._record(), indent=1).encode())

    def _meta(self) -> dict[str, str]:
        """What the report says of the run."""
        head = self.model.head
        return {
            "Source": str(Path(self.plan.source).absolute()),
            "Model": f"{self.model.network.name} ({self.model.network.weights})",
            "Classes": f"{head.classes:,}",
            "Pictures": f"{self.summary.done:,}",
            "Failed": f"{self.summary.failed:,}",
            "Fit": self.model.fit,
            "Box threshold": f"{self.plan.views.threshold:.0%} of the map's maximum",
        }

    def _record(self) -> dict[str, Any]:
        return {
            "camtool": __version__,
            "torch": torch.__version__,
            **asdict(self.summary),
            "pictures_per_second": round(self.summary.rate, 2),
            "settings": self.plan.settings(self.model),
        }


def _finished(source: Source, journal: Journal, output: Path) -> Iterator[tuple[int, Shape]]:
    """The input shapes of pictures that need no more work, by number."""
    for number, entry in journal.entries():
        shape = finished_shape(source.pictures[number], entry, output)
        if shape is not None:
            yield number, shape
