"""A run over a folder: continued where it stopped, and the same in the end as in one go."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from camtool import __version__
from camtool.engines.threads import Failed, Job, Pipeline, Workers, one_line
from camtool.files import write_atomically
from camtool.folder import results
from camtool.folder.discovery import Found, Item, discover, identity
from camtool.folder.journal import Entry, Journal
from camtool.folder.record import (
    Row,
    failed_entry,
    finished_entry,
    finished_shape,
    maps_of,
    rows_of,
)
from camtool.folder.workspace import JOURNAL, RunError, claimed
from camtool.images import MAX_PIXELS, encode
from camtool.opencv import cv2
from camtool.views.save import Views, fitting, save_views

if TYPE_CHECKING:
    from camtool.cli.stop import Stop
    from camtool.explanation import Explanation
    from camtool.model import CamModel
    from camtool.report import ReportRow

THUMBNAILS = Path("report", "thumbs")

_FATAL = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.ESTALE, errno.ENODEV}
"""Errors of a disk that is full or gone, which every further picture would meet as well."""


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
        views = json.loads(json.dumps(asdict(self.views)))
        return {**_model_settings(model), **fixed, "views": views}


def _model_settings(model: CamModel) -> dict[str, Any]:
    """What tells a model, without what may differ from one start to the next."""
    record = model.describe()
    labels = hashlib.sha256("\n".join(model.labels).encode("utf-8", "backslashreplace"))
    # The error of the proof has last digits that depend on the machine; and where a file is does
    # not matter once its content is known.
    del record["head"]["max_error"]
    if record["sha256"]:
        del record["weights"]
    return {**record, "labels": labels.hexdigest()[:16]}


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
    _fatal: str = field(default="", init=False)

    def run(self, stop: Stop) -> Summary:
        """Explain what is not yet explained, and write the results.

        Args:
            stop: Asked before each chunk.

        Raises:
            SourceError: There are no pictures.
            RunError: The folder of the results belongs to another run, or can't be made.
            TargetError: A target matches no class, or several.
        """
        self.model.resolve(list(self.plan.targets) or None)
        found = discover(self.plan.source, self.plan.output, self.plan.recursive)
        self.summary.total, self.summary.skipped = len(found.items), found.skipped
        settings = self.plan.settings(self.model, self.dtype)
        with claimed(self.plan.output, settings, self.plan.overwrite) as hidden:
            try:
                journal = Journal(hidden / JOURNAL, [item.key for item in found.items])
            except OSError as error:
                raise RunError(f"{hidden / JOURNAL}: {error.strerror or error}") from None
            try:
                self._explain(found, journal, stop)
                self._write_results(found.items, journal)
                journal.sync()
            except OSError as error:
                self._fatal = self._fatal or f"{self.plan.output}: {error.strerror or error}"
            finally:
                with suppress(OSError):
                    journal.close()
        self.summary.stopped = self._fatal or self.summary.stopped
        return self.summary

    def _explain(self, found: Found, journal: Journal, stop: Stop) -> None:
        shapes = {
            number: shape
            for number, entry in journal.entries()
            if (shape := finished_shape(found.items[number], entry, self.plan.output))
        }
        self.summary.done = len(shapes)
        numbers = {item.key: number for number, item in enumerate(found.items)}
        jobs = (
            Job(number, item.path, item.target, shapes.get(number))
            for number, item in enumerate(found.items)
        )
        here, start = identity(self.plan.output), time.monotonic()
        stopping = partial(getattr, stop, "asked")
        with closing(self._pipeline(found).run(jobs, stopping)) as chunks:
            for chunk in chunks:
                if identity(self.plan.output) != here:
                    raise FileNotFoundError(errno.ENOENT, "is gone")
                entries = [entry for entry in chunk if entry is not None]
                journal.append([(numbers[entry["key"]], entry) for entry in entries])
                self._count(entries, shapes, numbers)
                self.summary.seconds = time.monotonic() - start
                self.progress(self.summary)
                if self._fatal:
                    break
        if stop.asked and self.summary.done + self.summary.failed < self.summary.total:
            self.summary.stopped = "interrupted"

    def _pipeline(self, found: Found) -> Pipeline[Entry | None]:
        there = identity(found.root)
        return Pipeline(
            self.model,
            lambda job, explanation, spent: self._finish(
                found.items[job.number], explanation, spent
            ),
            lambda job, failed: self._fail(found, there, job, failed),
            indices=self.model.resolve(list(self.plan.targets) or None),
            topk=self.plan.topk,
            batch_size=self.plan.batch_size,
            max_pixels=self.plan.max_pixels,
            workers=Workers.for_folder(self.model.device, self.plan.workers),
            warn=self.warn,
        )

    def _count(self, chunk: list[Entry], shapes: dict[int, Any], numbers: dict[str, int]) -> None:
        for entry in chunk:
            if "failed" in entry:
                self.summary.failed += 1
            else:
                self.summary.new += 1
                self.summary.done += numbers[entry["key"]] not in shapes

    def _finish(self, item: Item, explanation: Explanation, milliseconds: float) -> Entry | None:
        """Write the files of a picture; its journal entry follows when they are in place."""
        if self._fatal:
            return None
        start = time.perf_counter()
        try:
            rows, files = self._write(item, explanation)
            spent = milliseconds + (time.perf_counter() - start) * 1000
            return finished_entry(item, explanation, rows, files, self.plan.output, spent)
        except OSError as error:
            if error.errno in _FATAL:
                self._fatal = f"{self.plan.output}: {error.strerror}"
                return None
            reason = f"its files can't be written ({error.strerror or error})"
        except Exception as error:
            # An encoder may refuse a picture by any error; the others are not to suffer for it.
            reason = f"its files can't be made ({one_line(error)})"
        return failed_entry(item, Failed(item.key, reason))

    def _write(self, item: Item, explanation: Explanation) -> tuple[list[Row], list[Path]]:
        if not np.isfinite(explanation.all_logits).all():
            raise ArithmeticError("the network's answer is no number; try --dtype float32")
        views, base = self.plan.views, self.plan.output / fitting(item.key)
        written = save_views(explanation, base, views)
        files = [Path(name) for names in written.values() for name in _as_list(names)]
        if self.plan.report:
            files.append(self._thumbnail(item, explanation))
        return rows_of(item, explanation, views.threshold), files

    def _thumbnail(self, item: Item, explanation: Explanation) -> Path:
        from camtool.report import THUMBNAIL_SIDE

        height, width = explanation.image.shape[:2]
        scale = min(1.0, THUMBNAIL_SIDE / max(height, width))
        size = max(1, round(width * scale)), max(1, round(height * scale))
        small = cv2.resize(explanation.image, size, interpolation=cv2.INTER_AREA)
        path = self.plan.output / _thumbnail_of(item)
        write_atomically(path, encode(np.asarray(small), ".jpg", quality=80))
        return path

    def _fail(
        self, found: Found, there: tuple[int, int] | None, job: Job, failed: Failed
    ) -> Entry | None:
        if identity(found.root) != there:
            self._fatal = f"{found.root} is gone"
            return None
        item = found.items[job.number]
        if item.path.is_dir():
            failed = replace(failed, reason="is a folder that can't be read")
        return failed_entry(item, failed)

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
        from camtool.report import write_report

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
        from camtool.report import ReportRow

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
                    thumb=_thumbnail_of(item).as_posix(),
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


def _thumbnail_of(item: Item) -> Path:
    return THUMBNAILS / f"{fitting(item.key)}.jpg"


def _as_list(names: str | list[str]) -> list[str]:
    return [names] if isinstance(names, str) else names


def _failures(journal: Journal) -> Iterator[tuple[str, str]]:
    for _, entry in journal.entries():
        if "failed" in entry:
            yield entry["key"], entry["failed"]
