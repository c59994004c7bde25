"""The study of heads: the same front-end, data, seeds and budget with each of them."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

import camtool
from camtool.evaluate.figures import Figure
from camtool.files import make_folders, write_atomically
from camtool.fit import study_data
from camtool.fit.heads import HEADS, written_out
from camtool.fit.outcome import Problem
from camtool.fit.study_data import Pictures, Split, StudyError
from camtool.fit.study_figures import FIRST, Judged, Table, curves, mean_of
from camtool.fit.study_runs import (
    Ground,
    Run,
    Settings,
    centre_box,
    learn,
    shape_of,
    with_boxes,
)

Progress = Callable[[int, int], None]

RUNS, PLAN = "runs", "plan.json"


@dataclass(eq=False)
class Study(Ground):
    """What a study stands on, and what came of it.

    Attributes:
        problems: What was left out.
        runs: Those that are finished, in the order in which they were asked for.
    """

    problems: Sequence[Problem]
    runs: list[Run] = field(default_factory=list)

    def table(self) -> Table:
        """The scores of all heads that ran with every seed."""
        return Table(self.runs, self.validation.labels, with_boxes(self.validation))

    def to_json(self) -> dict[str, Any]:
        """Everything but the seconds follows from data, settings and seeds."""
        table = self.table()
        boxed = with_boxes(self.validation)
        centre = None
        if len(boxed):
            centre = mean_of(np.array([centre_box(self.validation)]), self.validation.labels[boxed])
        return {
            "camtool": camtool.__version__,
            "settings": {**asdict(self.settings), "device": self.device.type},
            "seeds": sorted({run.seed for run in self.runs}),
            "labels": list(self.labels),
            "pictures": {
                "training": np.bincount(self.training.labels).tolist(),
                "validation": np.bincount(self.validation.labels).tolist(),
                "with_boxes": len(boxed),
            },
            "heads": [self._head(name, table) for name in table.runs],
            "centre_box": _plain(centre),
            "claims": [_claim(judged) for judged in table.judged()],
            "problems": [asdict(problem) for problem in self.problems],
        }

    @property
    def measures(self) -> list[str]:
        """Names of what each head is measured by."""
        others = [f"at {side}" for side in self.settings.sides[1:]]
        return ["accuracy", "generalization", "shifted", "steadiness", *others, "localization"]

    def _head(self, name: str, table: Table) -> dict[str, Any]:
        runs, kind = table.runs[name], HEADS[name]
        shape, channels = shape_of(self.settings), self.settings.widths[-1]
        arithmetic, parameters = written_out(kind, channels, shape, len(self.labels))
        return {
            "head": name,
            "title": kind.title,
            "formula": kind.formula,
            "arithmetic": arithmetic,
            "parameters": parameters,
            "any_size": kind.any_size,
            "figures": {each: _plain(table.figure(name, each)) for each in self.measures},
            "lead": {
                each: _plain(table.figure(name, each, FIRST)) if name != FIRST else None
                for each in self.measures
            },
            "training": {
                key: float(np.mean([run.training[key] for run in runs]))
                for key in ("accuracy", "loss")
            },
            "loss": float(np.mean([run.epochs[-1]["loss"] for run in runs])),
            "best_epochs": [run.best for run in runs],
            "seconds": [run.seconds for run in runs],
            "curves": curves(runs),
        }


def _plain(figure: Figure | None) -> dict[str, float] | None:
    if figure is None:
        return None
    return {"value": figure.value, "low": figure.low, "high": figure.high}


def _claim(judged: Judged) -> dict[str, Any]:
    claim = asdict(judged.claim)
    return {**claim, "lead": _plain(judged.lead), "order": judged.order, "size": judged.size}


def prepare(
    split: Split, settings: Settings, workers: int, progress: Progress
) -> tuple[Pictures, Pictures]:
    """Read the pictures of both halves.

    Raises:
        StudyError: They would not fit into memory, or too few can be read.
    """
    areas = len(split.training) * settings.size**2
    areas += len(split.validation) * sum(side**2 for side in settings.sides)
    study_data.check_memory(3 * areas)
    total = len(split.training) + len(split.validation)
    training = study_data.read(
        split.training, settings.sides[:1], split.problems, workers,
        lambda done, _: progress(done, total),
    )  # fmt: skip
    validation = study_data.read(
        split.validation, settings.sides, split.problems, workers,
        lambda done, _: progress(len(split.training) + done, total),
    )  # fmt: skip
    for half, what in ((training, "train on"), (validation, "validate on")):
        missing = set(range(len(split.labels))) - set(half.labels.tolist())
        for label in sorted(missing):
            first = split.problems[0]
            raise StudyError(
                f"class {split.labels[label]!r} has no readable picture to {what} "
                f"({first.path}: {first.reason}); name the others with --classes"
            )
    return training, validation


def claim_folder(folder: Path, study: Study) -> None:
    """Make a folder this study's own, or find that it is already.

    Raises:
        StudyError: It holds another study, or can't be written.
    """
    plan = {
        **asdict(study.settings),
        "labels": list(study.labels),
        "pictures": [half.digest() for half in (study.training, study.validation)],
    }
    text = json.dumps(plan, indent=1)
    try:
        make_folders(folder)
        kept = folder / PLAN
        if kept.is_file():
            if kept.read_text("utf-8") != text:
                raise StudyError(
                    f"{folder}: holds a study of other data or settings; choose another --output"
                )
        else:
            write_atomically(kept, text.encode())
    except OSError as error:
        raise StudyError(f"{folder}: can't be written ({error.strerror})") from None


def run_all(
    study: Study,
    heads: Sequence[str],
    seeds: Sequence[int],
    folder: Path,
    progress: Progress,
    stop: Callable[[], bool],
) -> bool:
    """Train and measure every head with every seed, or go on with it.

    Args:
        study: Its `runs` are added to.
        heads: Names.
        seeds: Each head's.
        folder: Of the study.
        progress: Called with the epochs done, and their number.
        stop: Says whether to stop after the epoch.

    Returns:
        Whether all are finished.
    """
    total = len(heads) * len(seeds) * study.settings.epochs
    done = 0

    def told() -> None:
        nonlocal done
        done += 1
        progress(done, total)

    for seed in seeds:
        for head in heads:
            run = Run(head, seed)
            finished = learn(run, study, folder / RUNS, stop, told)
            if not finished:
                return False
            done = (len(study.runs) + 1) * study.settings.epochs
            study.runs.append(run)
    return True
