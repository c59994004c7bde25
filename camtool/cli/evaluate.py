"""`camtool evaluate`: how well a network localizes, on a data set with true boxes or masks."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from camtool.cli import common

if TYPE_CHECKING:
    from camtool.evaluate.evaluation import Mode
    from camtool.evaluate.run import Outcome, Store
    from camtool.model import CamModel


@common.grouped
def evaluate(
    data: Annotated[Path, typer.Argument(help="Folder of the data set.")],
    data_format: Annotated[
        str,
        typer.Option("--format", help="csv, imagenet, cub, pets, tiny-imagenet, coco or wsol."),
    ],
    network: common.ModelOptions,
    images: Annotated[
        Path | None, typer.Option("--images", help="Folder of the pictures, where it is elsewhere.")
    ] = None,
    mode: Annotated[
        str, typer.Option("--mode", help="plain, or reference: Choe et al. 2020 to the digit.")
    ] = "plain",
    threshold: common.Threshold = 0.2,
    limit: Annotated[
        int | None, typer.Option("--limit", min=1, help="Only so many pictures, evenly spaced.")
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Folder for metrics.json, curves and pictures."),
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
    """Measure localization: boxes from maps against true boxes, beside trivial baselines."""
    from camtool.cli.progress import counting
    from camtool.evaluate.run import EvaluationError, Store, evaluate

    measured_mode = _mode(mode)
    fit = network.fit or ("squash" if measured_mode == "reference" else "whole")
    network = replace(network, fit=fit)
    if measured_mode == "reference" and fit == "crop":
        common.usage("--mode reference compares with whole pictures; use --fit squash or whole")
    with common.exits():
        dataset = _read(data, data_format, images, limit)
        store = Store(maps, data)
        lazy = _Lazy(store, network)
        try:
            with counting("pictures") as progress:
                outcome = evaluate(
                    dataset,
                    lazy.settings["labels"],
                    lazy.settings["synsets"],
                    store,
                    lazy.load,
                    mode=measured_mode,
                    threshold=threshold,
                    batch_size=batch_size,
                    workers=workers,
                    max_pixels=max_pixels,
                    progress=progress,
                )
        except EvaluationError as error:
            common.usage(str(error))
        result = _result(outcome, lazy.settings, data_format, fit)
        if output is not None:
            from camtool.evaluate.files import write_evaluation

            write_evaluation(output, outcome, result, lazy.settings["labels"], data)
    if as_json:
        print(json.dumps(result))
    else:
        _print(result, output)


class _Lazy:
    """The model, loaded only where maps are missing or it was named."""

    def __init__(self, store: Store, network: common.ModelOptions) -> None:
        from camtool.evaluate.run import EvaluationError, settings_of

        self._model: CamModel | None = None
        self._network = network
        kept = store.settings()
        named = network != replace(common.ModelOptions(), fit=network.fit, size=network.size)
        if kept is not None and not named:
            self.settings = kept
            if network.size not in (None, kept["size"]) or network.fit != kept["fit"]:
                common.usage(f"{store.folder} holds maps made with another --fit or --size")
            return
        self.settings = settings_of(self.load(), network.dtype)
        try:
            store.claim(self.settings)
        except EvaluationError as error:
            common.usage(str(error))

    def load(self) -> CamModel:
        if self._model is None:
            self._model = self._network.load()
            self._model.fuse()
        return self._model


def _mode(name: str) -> Mode:
    if name == "plain":
        return "plain"
    if name == "reference":
        return "reference"
    common.usage(f"--mode takes plain or reference, not {name!r}")


def _read(data: Path, data_format: str, images: Path | None, limit: int | None) -> Any:
    from camtool.evaluate.datasets import Dataset, read_dataset

    try:
        dataset = read_dataset(data, data_format, images)
    except (OSError, ValueError) as error:
        common.usage(f"{data}: {error}")
    if limit is not None and limit < len(dataset.records):
        step = len(dataset.records) / limit
        some = [dataset.records[int(n * step)] for n in range(limit)]
        return Dataset(some, dataset.problems)
    return dataset


def _result(
    outcome: Outcome, settings: dict[str, Any], data_format: str, fit: str
) -> dict[str, Any]:
    from camtool import __version__
    from camtool.evaluate.published import PUBLISHED

    found = outcome.evaluation.result()
    model = {key: value for key, value in settings.items() if key not in ("labels", "synsets")}
    return {
        "camtool": __version__,
        "model": model,
        "format": data_format,
        "fit": fit,
        "top1": 100 * outcome.top[0] / found["images"],
        "top5": 100 * outcome.top[1] / found["images"],
        **found,
        "published": PUBLISHED.get(data_format, {}),
        "problems": [problem._asdict() for problem in outcome.problems],
    }


def _print(result: dict[str, Any], output: Path | None) -> None:
    from rich import print as show
    from rich.table import Table

    from camtool.evaluate.evaluation import report_rows

    headings, *rows = report_rows(result)
    table = Table(
        *headings,
        title=f"{result['model']['name']}: {result['images']:,} pictures, {result['mode']} mode, "
        f"fit {result['fit']}, input size {result['model']['size']}",
        title_justify="left",
    )
    table.add_row("Top-1 accuracy", f"{result['top1']:.1f}")
    table.add_row("Top-5 accuracy", f"{result['top5']:.1f}")
    for row in rows:
        table.add_row(*row)
    show(table)
    problems = result["problems"]
    if problems:
        common.say(f"{len(problems):,} things in the data set could not be used as they stand:")
        for problem in problems[:10]:
            common.say(f"  {problem['path']}: {problem['reason']}")
        if len(problems) > 10:
            common.say("  … all of them are in metrics.json, with --output")
    if output is not None:
        print(f"metrics.json, curves.png and cases.html are in {output}")
