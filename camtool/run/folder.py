"""A run over a folder: continued where it stopped, and the same in the end as in one go."""

from __future__ import annotations

import errno
import io
import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from PIL import Image

from camtool import __version__
from camtool.files import write_atomically
from camtool.images import MAX_PIXELS
from camtool.run import results
from camtool.run.discovery import Found, Item, discover
from camtool.run.journal import Entry, Journal, differences
from camtool.run.pipeline import Failed, Job, Pipeline, Workers
from camtool.run.record import failed_entry, finished_entry, finished_shape, maps_of, rows_of
from camtool.run.save import Views, save_views

if TYPE_CHECKING:
    from camtool.explainer import CamModel, Explanation
    from camtool.render.report import ReportRow
    from camtool.run.stop import Stop

HIDDEN = ".camtool"
THUMBNAILS = Path("report", "thumbs")

_FATAL = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.ESTALE, errno.ENODEV}
"""Errors of a disk that is full or gone, which every further picture would meet as well."""


class RunError(RuntimeError):
    """The run can't start or can't go on; what is finished is kept."""


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

    def settings(self, model: CamModel, dtype: str) -> dict[str, Any]:
        """Everything that the results depend on, as JSON."""
        fixed = {
            "source": str(Path(self.source).absolute()),
            "targets": list(self.targets),
            "topk": self.topk,
            "batch_size": self.batch_size,
            "recursive": self.recursive,
            "max_pixels": self.max_pixels,
            "report": self.report,
            "fit": model.fit,
            "size": model.preprocessing.size,
            "dtype": dtype,
            "device": model.device.type,
            "fused": model.fused,
            "camtool": __version__,
            "torch": torch.__version__,
        }
        views = asdict(self.views)
        return {**model.describe(), **fixed, "views": json.loads(json.dumps(views))}


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
        dtype: Name of the model's number format.
        progress: Told the counts after every chunk.
        warn: Told what people should know.
    """

    model: CamModel
    plan: Plan
    dtype: str
    progress: Callable[[Summary], None]
    warn: Callable[[str], None]
    summary: Summary = field(default_factory=Summary)

    def run(self, stop: Stop) -> Summary:
        """Explain what is not yet explained, and write the results.

        Args:
            stop: Asked before each chunk.

        Raises:
            SourceError: There are no pictures.
            RunError: The folder of the results belongs to another run, or can't be written.
            TargetError: A target matches no class, or several.
        """
        self.model.resolve(self.plan.targets or None)
        found = discover(self.plan.source, self.plan.output, self.plan.recursive)
        self.summary.total, self.summary.skipped = len(found.items), found.skipped
        with self._claimed():
            journal = Journal(self._hidden / "journal.jsonl", [item.key for item in found.items])
            try:
                self._explain(found, journal, stop)
                self._write_results(found.items, journal)
            finally:
                journal.close()
        return self.summary

    @property
    def _hidden(self) -> Path:
        return self.plan.output / HIDDEN

    @contextmanager
    def _claimed(self) -> Iterator[None]:
        """The folder of the results, for this run alone, with settings that fit it."""
        try:
            self._hidden.mkdir(parents=True, exist_ok=True)
            with (self._hidden / "lock").open("w") as lock:
                _lock(lock, self.plan.output)
                self._agree()
                yield
        except OSError as error:
            raise RunError(f"{self.plan.output}: {error.strerror or error}") from None

    def _agree(self) -> None:
        """Refuse to mix two runs; begin anew where that is wanted."""
        path = self._hidden / "settings.json"
        now = self.plan.settings(self.model, self.dtype)
        if self.plan.overwrite:
            (self._hidden / "journal.jsonl").unlink(missing_ok=True)
        elif path.exists():
            changed = differences(json.loads(path.read_text()), now)
            if changed:
                raise RunError(
                    f"{self.plan.output} holds another run ({'; '.join(changed)}); choose another "
                    "folder, or --overwrite"
                )
        for left in self.plan.output.rglob(".camtool-*.part"):
            left.unlink(missing_ok=True)
        write_atomically(path, json.dumps(now, indent=1).encode())

    def _explain(self, found: Found, journal: Journal, stop: Stop) -> None:
        shapes = {
            number: shape
            for number, entry in journal.entries()
            if (shape := finished_shape(found.items[number], entry, self.plan.output))
        }
        self.summary.done = len(shapes)
        start = time.monotonic()
        pipeline = Pipeline(
            self.model,
            lambda job, explanation, spent: self._finish(
                found.items[job.number], explanation, spent
            ),
            lambda job, failed: self._fail(found, job, failed),
            indices=self.model.resolve(self.plan.targets or None),
            topk=self.plan.topk,
            batch_size=self.plan.batch_size,
            max_pixels=self.plan.max_pixels,
            workers=Workers.for_folder(self.model.device, self.plan.workers),
            warn=self.warn,
        )
        numbers = {item.key: number for number, item in enumerate(found.items)}
        try:
            for chunk in pipeline.run(self._jobs(found.items, shapes, stop)):
                journal.append([(numbers[entry["key"]], entry) for entry in chunk])
                self._count(chunk, shapes, numbers)
                self.summary.seconds = time.monotonic() - start
                self.progress(self.summary)
        except _FatalError as error:
            self.summary.stopped = str(error)
        if stop.asked and not self.summary.stopped:
            self.summary.stopped = "interrupted"
        self.summary.seconds = time.monotonic() - start

    def _jobs(self, items: Sequence[Item], shapes: dict[int, Any], stop: Stop) -> Iterator[Job]:
        for number, item in enumerate(items):
            if stop.asked:
                return
            yield Job(number, item.path, item.target, shapes.get(number))

    def _count(self, chunk: list[Entry], shapes: dict[int, Any], numbers: dict[str, int]) -> None:
        for entry in chunk:
            if "failed" in entry:
                self.summary.failed += 1
            else:
                self.summary.new += 1
                self.summary.done += numbers[entry["key"]] not in shapes

    def _finish(self, item: Item, explanation: Explanation, milliseconds: float) -> Entry:
        """Write the files of a picture; its journal entry follows when they are in place."""
        start = time.perf_counter()
        try:
            written = save_views(explanation, self.plan.output / item.key, self.plan.views)
            files = [Path(name) for names in written.values() for name in _as_list(names)]
            if self.plan.report:
                files.append(self._thumbnail(item, explanation))
            rows = rows_of(item, explanation, self.plan.views.threshold)
            spent = milliseconds + (time.perf_counter() - start) * 1000
            return finished_entry(item, explanation, rows, files, self.plan.output, spent)
        except OSError as error:
            if error.errno in _FATAL:
                raise _FatalError(f"{self.plan.output}: {error.strerror}") from None
            reason = f"its files can't be written ({error.strerror})"
            return failed_entry(item, Failed(item.key, reason))

    def _thumbnail(self, item: Item, explanation: Explanation) -> Path:
        from camtool.render.report import THUMBNAIL_SIDE

        small = Image.fromarray(explanation.image)
        small.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE))
        stream = io.BytesIO()
        small.save(stream, "JPEG", quality=80)
        path = self.plan.output / THUMBNAILS / f"{item.key}.jpg"
        write_atomically(path, stream.getvalue())
        return path

    def _fail(self, found: Found, job: Job, failed: Failed) -> Entry:
        if not os.path.lexists(found.root):
            raise _FatalError(f"{found.root} is gone")
        return failed_entry(found.items[job.number], failed)

    def _write_results(self, items: Sequence[Item], journal: Journal) -> None:
        output = self.plan.output
        for form in results.FORMATS:
            if form in self.plan.formats:
                rows = (row for _, entry in journal.entries() for row in entry.get("rows", ()))
                results.write_results(output / f"results.{form}", rows)
        failed = results.write_failed(output / "failed.csv", _failures(journal))
        self.summary.failed = failed
        results.write_timings(output / "timings.csv", journal.entries)
        if self.plan.coco:
            results.write_coco(output / "coco.json", journal.entries, self.model.labels)
        if self.plan.report and self.summary.done:
            self._write_report(items, journal)
        write_atomically(output / "run.json", json.dumps(self._record(), indent=1).encode())

    def _write_report(self, items: Sequence[Item], journal: Journal) -> None:
        from camtool.render.report import write_report

        head = self.model.head
        meta = {
            "Source": str(Path(self.plan.source).absolute()),
            "Model": f"{self.model.network.name} ({self.model.network.weights})",
            "Classes": f"{head.classes:,}",
            "Pictures": f"{self.summary.done:,}",
            "Failed": f"{self.summary.failed:,}",
            "Fit": self.model.fit,
            "Box threshold": f"{self.plan.views.threshold:.0%} of the map's maximum",
        }
        rows = self._report_rows(items, journal)
        write_report(self.plan.output, rows, meta, _failures(journal))

    def _report_rows(self, items: Sequence[Item], journal: Journal) -> Iterator[ReportRow]:
        from camtool.render.report import ReportRow

        for number, entry in journal.entries():
            if "failed" in entry:
                continue
            item = items[number]
            overlays = [name for name in entry["files"] if ".overlay-" in name]
            for k, (row, heat) in enumerate(zip(entry["rows"], maps_of(entry), strict=True)):
                yield ReportRow(
                    path=item.key,
                    label=row["label"],
                    index=row["index"],
                    probability=row["probability"],
                    logit=row["logit"],
                    peak=row["peak"],
                    share=float("nan") if row["share"] is None else row["share"],
                    entropy=row["entropy"],
                    box=None if row["x0"] is None else tuple(row[side] for side in _SIDES),
                    width=row["width"],
                    height=row["height"],
                    rank=k,
                    thumb=(THUMBNAILS / f"{item.key}.jpg").as_posix(),
                    map=heat,
                    region=tuple(entry["region"]),
                    picture=os.path.relpath(item.path, self.plan.output),
                    overlay=overlays[0] if overlays else "",
                    target=item.target or "",
                )

    def _record(self) -> dict[str, Any]:
        summary = asdict(self.summary)
        versions = {"camtool": __version__, "torch": torch.__version__}
        return {
            **versions,
            **summary,
            "pictures_per_second": round(self.summary.rate, 2),
            "settings": self.plan.settings(self.model, self.dtype),
        }


_SIDES = ("x0", "y0", "x1", "y1")


class _FatalError(RuntimeError):
    """What every further picture would meet as well."""


def _as_list(names: str | list[str]) -> list[str]:
    return [names] if isinstance(names, str) else names


def _failures(journal: Journal) -> Iterator[tuple[str, str]]:
    for _, entry in journal.entries():
        if "failed" in entry:
            yield entry["key"], entry["failed"]


def _lock(stream: io.TextIOWrapper, output: Path) -> None:
    """Let no two runs write to one folder; the lock goes with the process, however it ends."""
    try:
        import fcntl
    except ImportError:
        return
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise RunError(f"{output}: another run is writing there") from None
