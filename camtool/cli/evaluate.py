"""`camtool evaluate`: how well a network localizes, and which of its maps can be trusted."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer

from camtool.choices import Fit
from camtool.cli import common
from camtool.cli.stop import leaving
from camtool.evaluate import DataFormat, MetricGroup, Mode
from camtool.files import make_folders, write_atomically

if TYPE_CHECKING:
    from camtool.evaluate.calibrate import Calibration
    from camtool.evaluate.comparison import Comparison
    from camtool.evaluate.datasets import Dataset, Problem
    from camtool.evaluate.predictions import MapSettings, MapStore
    from camtool.evaluate.results import EvaluationResult
    from camtool.model import CamModel
    from camtool.networks import Network


_WHOLE_TABLE = 200
"""Columns of a terminal that show everything that can be compared side by side."""


@common.grouped
def evaluate(
    data: Annotated[Path, typer.Argument(help="Folder of the data set.")],
    data_format: Annotated[DataFormat, typer.Option("--format", help="Of the data set.")],
    network: common.ModelOptions,
    metrics: Annotated[
        str | None,
        typer.Option(
            "--metrics",
            help="Compare methods (--method a,b,c) by any of localization,faithfulness,sanity.",
        ),
    ] = None,
    images: Annotated[
        Path | None, typer.Option("--images", help="Folder of the pictures, where it is elsewhere.")
    ] = None,
    mode: Annotated[
        Mode, typer.Option("--mode", help="Reference: Choe et al. 2020 to the digit.")
    ] = "plain",
    threshold: common.Threshold = 0.2,
    limit: Annotated[
        int | None, typer.Option("--limit", min=1, help="Only so many pictures, evenly spaced.")
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Folder for the numbers, curves and pictures."),
    ] = None,
    calibration: Annotated[
        Path | None,
        typer.Option(
            "--calibrate",
            metavar="FILE",
            help="Choose threshold and rule on half of the pictures, for --calibration of others.",
        ),
    ] = None,
    maps: Annotated[
        Path | None,
        typer.Option("--maps", help="Folder that keeps the maps, to measure again from them."),
    ] = None,
    batch_size: common.BatchSize = 8,
    workers: common.Workers = None,
    max_pixels: common.MaxPixels = 100_000_000,
    as_json: common.AsJson = False,
) -> None:
    """Measure how well maps localize, and which method's maps to trust.

    Boxes from maps are compared with true boxes or masks, beside trivial baselines.
    """
    from camtool.cli.progress import counting
    from camtool.evaluate import run
    from camtool.evaluate.calibrate import calibrate

    common.refuse_addresses(data, images, output, calibration, maps)
    how: dict[str, Any] = {"batch_size": batch_size, "workers": workers, "max_pixels": max_pixels}
    if metrics is not None or "," in network.method:
        if mode == "reference" or maps is not None or calibration is not None:
            common.usage(
                "--mode reference, --maps and --calibrate go with one method, no --metrics"
            )
        groups = _groups(metrics, data_format)
        with _told():
            dataset = _read(data, data_format, images, limit)
            compared = _compared(dataset, network, groups, output, {**how, "threshold": threshold})
        _tell_comparison(compared, output, as_json)
        return
    fit = network.fit or ("squash" if mode == "reference" else "whole")
    _refuse(data_format, mode, fit, calibration, output)
    with _told():
        dataset = _read(data, data_format, images, limit)
        if output is not None:
            make_folders(output)
        found = _maps_of(data, maps, replace(network, fit=fit))
        with counting("pictures") as how["progress"]:
            if calibration is None:
                result = run.evaluate(dataset, *found, mode=mode, threshold=threshold, **how)
            else:
                chosen = calibrate(dataset, *found, **how)
                write_atomically(calibration, chosen.to_bytes())
    if calibration is None:
        _tell(result, output, as_json)
    else:
        _print_calibration(chosen, calibration, as_json)


@contextmanager
def _told() -> Iterator[None]:
    """A signal, and what users can cause, as one line and an exit code."""
    from camtool.evaluate.predictions import EvaluationError

    with leaving(), common.exits():
        try:
            yield
        except EvaluationError as error:
            common.usage(str(error))
        except OSError as error:
            common.usage(_reason(error))


def _reason(error: OSError) -> str:
    return f"{error.filename}: {error.strerror}" if error.filename else str(error)


def _refuse(
    data_format: DataFormat, mode: Mode, fit: Fit, calibration: Path | None, output: Path | None
) -> None:
    """End where options do not go together for one method."""
    if data_format == "folder":
        common.usage("a folder without boxes has no localization; give --metrics faithfulness")
    if calibration is not None and (mode == "reference" or output is not None):
        common.usage(
            "--calibrate FILE writes that file alone, in plain mode: no --output, no --mode"
        )
    if mode == "reference" and fit == "crop":
        common.usage("--mode reference compares with whole pictures; use --fit squash or whole")


def _maps_of(
    data: Path, maps: Path | None, network: common.ModelOptions
) -> tuple[MapSettings, MapStore, Callable[[], CamModel]]:
    """How maps are made, where they are kept, and what loads the network if one lacks."""
    from camtool.accelerate.memory import keep_freed_memory
    from camtool.evaluate.predictions import MapSettings, MapStore

    @cache
    def load() -> CamModel:
        keep_freed_memory()
        loaded = network.load()
        common.tell_of(loaded)
        loaded.fuse()
        return loaded

    store = MapStore(maps, data)
    plain = common.ModelOptions(
        fit=network.fit, size=network.size, dtype=network.dtype, device=network.device
    )
    settings = _kept(store, network) if network == plain else None
    if settings is None:
        settings = MapSettings.of(load())
        store.claim(settings)
    return settings, store, load


def _read(data: Path, data_format: DataFormat, images: Path | None, limit: int | None) -> Dataset:
    from camtool.evaluate.datasets import read_dataset

    try:
        dataset = read_dataset(data, data_format, images)
    except OSError as error:
        common.usage(_reason(error))
    except ValueError as error:
        common.usage(f"{data}: {error}")
    return dataset if limit is None else dataset.evenly(limit)


def _groups(metrics: str | None, data_format: DataFormat) -> tuple[MetricGroup, ...]:
    """What is measured: what is asked for, or whatever the data allows."""
    known: tuple[MetricGroup, ...] = get_args(MetricGroup)
    possible = known[1:] if data_format == "folder" else known
    if metrics is None:
        return possible
    wanted = common.parts("--metrics", metrics, known)
    if not wanted:
        common.usage(f"--metrics takes {', '.join(known)}")
    if not set(wanted) <= set(possible):
        common.usage("--metrics localization needs boxes or masks, which --format folder lacks")
    return tuple(group for group in known if group in wanted)


def _compared(
    dataset: Dataset,
    network: common.ModelOptions,
    groups: tuple[MetricGroup, ...],
    output: Path | None,
    how: dict[str, Any],
) -> Comparison:
    from camtool.accelerate.memory import keep_freed_memory
    from camtool.cli.progress import counting
    from camtool.evaluate.compare import compare

    methods = [replace(network, method=name) for name in dict.fromkeys(network.method.split(","))]
    keep_freed_memory()
    found = network.network()
    models = [options.built(found) for options in methods]
    common.tell_of(models[0])
    if output is not None:
        make_folders(output)

    def rebuild(other: Network) -> list[CamModel]:
        # What is randomised is a copy, which a number format would copy again.
        return [replace(one, dtype="float32").built(other) for one in methods]

    with counting("pictures") as progress:
        return compare(dataset, models, rebuild, groups, processes=True, progress=progress, **how)


def _tell_comparison(result: Comparison, output: Path | None, as_json: bool) -> None:
    if as_json:
        print(json.dumps(result.to_json()))
    else:
        _print_comparison(result)
    if output is not None:
        _write_comparison(output, result, common.say if as_json else print)


def _print_comparison(result: Comparison) -> None:
    from rich.console import Console

    # What no screen is wide enough for is shown in parts; a redirected table is whole.
    whole = not Console().is_terminal or Console().width >= _WHOLE_TABLE
    for part in [result.metrics] if whole else [(group,) for group in result.metrics]:
        _print_part(result, part)
    _tell_problems(result.problems, "methods.json")


def _print_part(result: Comparison, metrics: tuple[MetricGroup, ...]) -> None:
    from rich.markup import escape
    from rich.table import Table

    from camtool.evaluate.comparison import NOTE

    headings, *rows = result.table(metrics)
    title = f"{escape(result.settings.name)}: {result.images:,} pictures, fit {result.settings.fit}"
    table = Table(*headings, title=title, title_justify="left", caption=NOTE)
    for row, texts in zip(result.rows, rows, strict=True):
        if row.baseline and not result.rows[len(table.rows) - 1].baseline:
            table.add_section()
        # The interval below its figure, or the table would be too wide for a screen.
        table.add_row(*(text.replace(" (", "\n(") for text in texts))
    common.show_table(table)


def _write_comparison(output: Path, result: Comparison, tell: Callable[[str], None]) -> None:
    files = {
        "methods.json": json.dumps(result.to_json(), indent=1),
        "methods.csv": result.to_csv(),
        "methods.md": result.to_markdown(),
    }
    try:
        for name, text in files.items():
            write_atomically(output / name, text.encode())
    except OSError as error:
        common.say(f"{output}: can't be written ({error.strerror or error})")
        raise typer.Exit(common.SOME_FAILED) from None
    tell(f"{', '.join(files)} are in {output}")


def _print_calibration(found: Calibration, file: Path, as_json: bool) -> None:
    if as_json:
        print(json.dumps(found.to_json()))
        return
    rule, threshold = found.choice
    print(
        f"Chosen on {found.chosen_on:,} pictures: --threshold-rule {rule} --threshold {threshold}"
    )
    print(f"On the {found.measured_on:,} others, label given, in percent (95 % interval):")
    for name, title in (("", "IoU 0.5"), ("_mean", "mean over IoUs 0.3, 0.5 and 0.7")):
        default, chosen, gain = (
            found.figures[f"{who}{name}"] for who in ("default", "chosen", "gain")
        )
        print(
            f"  {title}: {default.value:.1f} by default, {chosen.value:.1f} as chosen: "
            f"{gain.value:+.1f} ({gain.low:+.1f} to {gain.high:+.1f})"
        )
    print(f"{file} is for camtool explain and batch: --calibration {file}")


def _kept(store: MapStore, network: common.ModelOptions) -> MapSettings | None:
    """What the kept maps were made with, where that fits the options; None if there are none."""
    kept = store.settings()
    asked = (network.size or (kept and kept.size), network.fit, network.dtype)
    if kept and asked != (kept.size, kept.fit, kept.dtype):
        common.usage(f"{store.folder} holds maps made with another --fit, --size or --dtype")
    return kept


def _tell(result: EvaluationResult, output: Path | None, as_json: bool) -> None:
    if as_json:
        print(json.dumps(result.to_json()))
    else:
        _print(result)
    if output is not None:
        _write(output, result, common.say if as_json else print)


def _print(result: EvaluationResult) -> None:
    from rich.markup import escape
    from rich.table import Table

    settings, found = result.settings, result.localization
    headings, *rows = result.table()
    table = Table(
        *headings,
        title=f"{escape(settings.name)}: {found.images:,} pictures, {found.mode} mode, "
        f"fit {settings.fit}, input size {settings.size}",
        title_justify="left",
    )
    table.add_row("Top-1 accuracy", f"{result.top1:.1f}")
    table.add_row("Top-5 accuracy", f"{result.top5:.1f}")
    for row in rows:
        table.add_row(*row)
    common.show_table(table)
    _tell_problems(result.problems, "metrics.json")


def _tell_problems(problems: Sequence[Problem], file: str) -> None:
    if problems:
        common.say(f"what could not be used of the data set as it stands ({len(problems):,}):")
        for problem in problems[:10]:
            common.say(f"  {problem.path}: {problem.reason}")
        if len(problems) > 10:
            common.say(f"  … all of them are in {file}, with --output")


def _write(output: Path, result: EvaluationResult, tell: Callable[[str], None]) -> None:
    from camtool.evaluate.output import write_files

    try:
        *others, last = write_files(output, result)
    except OSError as error:
        common.say(f"{output}: can't be written ({error.strerror or error})")
        raise typer.Exit(common.SOME_FAILED) from None
    tell(f"{', '.join(others)} and {last} are in {output}")
    if "curves.png" not in (*others, last):
        common.say("curves.png needs matplotlib: pip install 'camtool[plot]'")
