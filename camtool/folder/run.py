"""A run over a folder: continued where it stopped, and the same in the end as in one go."""

from __future__ import annotations

import errno
import hashlib
import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, closing
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from camtool import __version__
from camtool.choices import TruthSource
from camtool.engines import ENGINES
from camtool.engines.engine import Request, Shape, never
from camtool.engines.settings import model_settings
from camtool.errors import EngineError
from camtool.files import write_atomically
from camtool.folder import results
from camtool.folder.bucket import Bucket, bucket_at
from camtool.folder.discovery import Picture, discover, state_of
from camtool.folder.entry import COLUMNS, Explained, finished_shape
from camtool.folder.journal import Journal
from camtool.folder.names import output_names
from camtool.folder.page import write_page
from camtool.folder.results import Entries
from camtool.folder.truth import Verdict, verdict_of, with_truth
from camtool.folder.work import Fatal, Noted, WriteFiles
from camtool.folder.workspace import RunError, claimed, remove_strays
from camtool.folder.yolo import write_yolo
from camtool.images import MAX_PIXELS, display_name
from camtool.remote import Remote, is_address, shown
from camtool.views.save import Views

if TYPE_CHECKING:
    from camtool.engines import Factory
    from camtool.model import CamModel


@dataclass(frozen=True)
class Plan:
    """What a run does.

    Attributes:
        source: Folder, pattern or list.
        output: Folder of the results, or an address.
        views: Files for each picture.
        targets: Classes by index or label, for every picture; empty for the `topk` best.
        topk: How many, where no class is named.
        truth: Where it comes from what pictures are known to show; see `with_truth`.
        batch_size: Most pictures to a forward pass.
        workers: Threads of each kind, or a cluster's processes; None for as many as suit it.
        formats: Of the results: parquet, csv, jsonl.
        coco: Write the boxes as a COCO file too.
        yolo: Write them in the format of YOLO too.
        report: Write the page for people.
        recursive: Go into sub-folders.
        max_pixels: Refuse larger pictures.
        overwrite: Begin anew whatever is there.
    """

    source: str
    output: Path | Remote
    views: Views
    targets: tuple[str, ...] = ()
    topk: int = 1
    truth: TruthSource = "auto"
    batch_size: int = 8
    workers: int | None = None
    formats: tuple[str, ...] = ("csv",)
    coco: bool = False
    yolo: bool = False
    report: bool = True
    recursive: bool = True
    max_pixels: int = MAX_PIXELS
    overwrite: bool = False

    @property
    def named(self) -> str:
        """The source as it is written down: from the root, and without passwords and tokens."""
        return shown(self.source) if is_address(self.source) else str(Path(self.source).absolute())

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
            "source": self.named,
            "targets": list(self.targets),
            "topk": self.topk,
            "truth": self.truth,
            "batch_size": self.batch_size,
            "recursive": self.recursive,
            "max_pixels": self.max_pixels,
            "report": self.report,
            "device": model.device.type,
            "fused": model.fused,
            "camtool": __version__,
            "columns": [*COLUMNS],
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
        changed: Of the new ones, those whose file was another when the work was done.
        skipped: Files that are no pictures.
        own: Files that camtool made, which are not explained again.
        stopped: Why the run ended early; "" if it did not.
        verdict: How often the network was right, where the truth is known.
    """

    total: int = 0
    done: int = 0
    failed: int = 0
    new: int = 0
    seconds: float = 0.0
    changed: int = 0
    skipped: int = 0
    own: int = 0
    stopped: str = ""
    verdict: Verdict | None = None

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
    _folder: Path = field(default=Path(), init=False)
    _bucket: Bucket | None = field(default=None, init=False)

    def run(self, stopping: Callable[[], bool] = never) -> Summary:
        """Explain what is not yet explained, and write the results.

        Args:
            stopping: Asked before each chunk whether to begin no more.

        Raises:
            SourceError: There are no pictures, or no folders that name their classes where these
                are asked for.
            RunError: The folder of the results belongs to another run, or can't be made.
            TargetError: A target matches no class, or several.
            EngineError: The engine can't begin; where it can't go on, the run stops.
        """
        request, output = self.plan.request(self.model), self.plan.output
        source = discover(self.plan.source, output, self.plan.recursive)
        distant = isinstance(source.root, Remote) or isinstance(output, Remote)
        request = replace(request, distant=distant)
        pictures = _named(self._judged(source.pictures), output)
        self.summary = Summary(len(pictures), skipped=source.skipped, own=source.own)
        with ExitStack() as stack:
            self._settle(output, stack)
            journal = stack.enter_context(self._claimed(pictures))
            labels, views, bucket = self.model.labels, self.plan.views, self._bucket
            work = WriteFiles.into(
                self._folder,
                views,
                self.plan.report,
                labels,
                source.root,
                bucket.place if bucket else None,
            )
            try:
                self._explain(pictures, request, work, journal, stopping)
                for write in self._results(pictures, journal):
                    if journal.is_gone():
                        raise FileNotFoundError(errno.ENOENT, "is gone")
                    write()
                    if bucket:
                        bucket.publish()
                journal.sync()
            except OSError as error:
                self._stop(f"{display_name(output)}: {error.strerror or error}")
        return self.summary

    def _settle(self, output: Path | Remote, stack: ExitStack) -> None:
        """Have a folder to make files in: the output itself, if it is one."""
        self._bucket = None
        if isinstance(output, Path):
            self._folder = output
            return
        try:
            self._bucket = stack.enter_context(bucket_at(output, self.warn))
        except OSError as error:
            raise RunError(f"{display_name(output)}: {error.strerror or error}") from None
        self._folder = self._bucket.folder

    def _claimed(self, pictures: Sequence[Picture]) -> AbstractContextManager[Journal]:
        settings, overwrite = self.plan.settings(self.model), self.plan.overwrite
        return claimed(self._folder, settings, pictures, overwrite, self._bucket)

    def _judged(self, pictures: Sequence[Picture]) -> list[Picture]:
        """The pictures with what they are known to show."""
        classes = 0 if self.plan.targets else min(self.plan.topk, len(self.model.labels))
        return with_truth(pictures, self.model, self.plan.truth, classes, self.warn)

    def _explain(
        self,
        pictures: Sequence[Picture],
        request: Request,
        work: WriteFiles,
        journal: Journal,
        stopping: Callable[[], bool],
    ) -> None:
        start = time.monotonic()
        finished = dict(_finished(pictures, journal, self._size_of))
        self.summary.done = len(finished)
        engine = self.engine(self.model, request, self.plan.workers, self.warn)

        # After what is fatal nothing more is begun; what is in flight may succeed, and is noted.
        def enough() -> bool:
            return bool(self.summary.stopped) or stopping()

        with closing(engine.run(_jobs(pictures, finished), work, enough)) as chunks:
            try:
                for chunk in chunks:
                    self._note(chunk, journal)
                    self.summary.seconds = time.monotonic() - start
                    self.progress(self.summary)
            except EngineError as error:
                if not self.summary.new:
                    raise
                self._stop(str(error))
        if stopping() and self.summary.done + self.summary.failed < self.summary.total:
            self._stop("interrupted")

    def _size_of(self, name: str) -> int | None:
        """Bytes of a file of the results, if it is there."""
        if self._bucket:
            return self._bucket.sizes.get(name)
        try:
            return (self._folder / name).stat().st_size
        except OSError:
            return None

    def _note(self, chunk: list[Noted], journal: Journal) -> None:
        """Put what is finished into the journal, and into the summary."""
        noted = [result for result in chunk if not isinstance(result, Fatal)]
        journal.append(noted)
        new = [entry for _, entry in noted if isinstance(entry, Explained)]
        self.summary.new += len(new)
        self.summary.done += len(new)
        self.summary.failed += len(noted) - len(new)
        self.summary.changed += sum(entry.changed for entry in new)
        if journal.is_gone():
            output = self._folder
            remove_strays([output / name for entry in new for name in entry.files], output)
            self._stop(f"{display_name(output)}: is gone")
        for result in chunk:
            if isinstance(result, Fatal):
                self._stop(result.reason)

    def _stop(self, reason: str) -> None:
        """Note why the run ends early; the first reason counts."""
        self.summary.stopped = self.summary.stopped or reason

    def _results(
        self, pictures: Sequence[Picture], journal: Journal
    ) -> Iterator[Callable[[], object]]:
        """What writes each of the results; in order, for later ones tell how earlier ones went."""
        output, entries = self._folder, journal.entries
        for form in self.plan.formats:
            yield partial(results.write_results, output / f"results.{form}", entries)
        yield partial(self._write_failed, output / "failed.csv", entries)
        yield partial(results.write_timings, output / "timings.csv", entries)
        if self.plan.coco:
            yield partial(results.write_coco, output / "coco.json", entries, self.model.labels)
        if self.plan.yolo:
            keys = [picture.key for picture in pictures]
            yield partial(write_yolo, output, entries, keys, self.model.labels, self.warn)
        found = (entry for _, entry in results.explained(entries))
        self.summary.verdict = verdict_of(found, self.model.labels)
        if self.plan.report and self.summary.done:
            labels = self.model.labels
            place = self.plan.output
            yield partial(write_page, output, pictures, entries, labels, self._meta(), place)
        record = json.dumps(self._record(), indent=1).encode()
        yield partial(write_atomically, output / "run.json", record)

    def _write_failed(self, path: Path, entries: Entries) -> None:
        self.summary.failed = results.write_failed(path, entries)

    def _meta(self) -> dict[str, str]:
        """What the report says of the run."""
        head = self.model.head
        return {
            "Source": self.plan.named,
            "Model": f"{self.model.network.name} ({self.model.network.weights})",
            "Classes": f"{head.classes:,}",
            "Pictures": f"{self.summary.done:,}",
            "Failed": f"{self.summary.failed:,}",
            "Method": f"{self.model.method}, at {self.model.layer}",
            "Fit": self.model.fit,
            "Box threshold": _threshold(self.plan.views),
            **({"Right": str(self.summary.verdict)} if self.summary.verdict else {}),
        }

    def _record(self) -> dict[str, Any]:
        return {
            "camtool": __version__,
            "torch": torch.__version__,
            **asdict(self.summary),
            "pictures_per_second": round(self.summary.rate, 2),
            "settings": self.plan.settings(self.model),
        }


def _threshold(views: Views) -> str:
    """Where boxes are cut, in words."""
    if views.rule == "otsu":
        return "Otsu's"
    of = {
        "max": "the map's maximum",
        "percentile": "the pixels",
        "ivr": "the way from the map's 45th percentile to its maximum",
    }
    return f"{views.threshold:.0%} of {of[views.rule]}"


def _named(pictures: Sequence[Picture], output: Path | Remote) -> list[Picture]:
    """The pictures with what their files in the output are called."""
    sources = (picture.source for picture in pictures)
    names = output_names([picture.key for picture in pictures], sources, output)
    return [replace(picture, name=name) for picture, name in zip(pictures, names, strict=True)]


def _finished(
    pictures: Sequence[Picture], journal: Journal, size_of: Callable[[str], int | None]
) -> Iterator[tuple[int, Shape]]:
    """The input shapes of pictures that need no more work, by number."""
    for number, entry in journal.entries():
        shape = finished_shape(pictures[number], entry, size_of)
        if shape is not None:
            yield number, shape


def _jobs(pictures: Iterable[Picture], finished: Mapping[int, Shape]) -> Iterator[Picture]:
    """The pictures, each with the state of its file before an engine reads it."""
    for picture in pictures:
        shape = finished.get(picture.number)
        state = state_of(picture.source) if shape is None else ()
        yield replace(picture, shape=shape, state=state)
