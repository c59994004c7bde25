"""`camtool study`: what global average pooling does, beside what could take its place."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from camtool.cli import common
from camtool.cli.stop import INTERRUPTED, leaving, stoppable

if TYPE_CHECKING:
    pass

QUICK_EPOCHS, QUICK_SEEDS, QUICK_PICTURES = 10, 2, 1500
"""Of --quick: what two cores do in ten minutes at 64 pixels."""

_TOLD = 10


def study(
    data: Annotated[
        Path, typer.Argument(help="Folder of pictures by class, or Tiny ImageNet's folder.")
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder for the runs, the page and the tables.")
    ],
    validation: Annotated[
        Path | None,
        typer.Option("--validation", metavar="DIR", help="Folder by class to measure on."),
    ] = None,
    holdout: Annotated[
        float | None,
        typer.Option(
            "--holdout",
            min=0,
            max=0.9,
            help="Share of the pictures to measure on; default 0.2, or 0 where there are others.",
        ),
    ] = None,
    classes: Annotated[
        str | None,
        typer.Option(
            "--classes", help="Only these folders: a,b; or classes of several: cat=a+b,dog=c+d."
        ),
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option(
            "--limit", min=1, help="Most training pictures of a class; default 6,000 of all."
        ),
    ] = None,
    heads: Annotated[
        str | None,
        typer.Option(
            "--heads",
            help="Any of gap, nin, dense, dropout, max, four, ema, channels, kernel; default all.",
        ),
    ] = None,
    seeds: Annotated[
        int | None, typer.Option("--seeds", min=1, help="Runs of each head; default 3.")
    ] = None,
    epochs: Annotated[
        int | None, typer.Option("--epochs", min=1, help="Passes over the pictures; default 20.")
    ] = None,
    quick: Annotated[
        bool,
        typer.Option("--quick", help="Ten minutes: 2 seeds, 10 epochs, at most 1,500 pictures."),
    ] = False,
    size: Annotated[
        int, typer.Option("--size", min=32, help="Side of the pictures in pixels.")
    ] = 64,
    device: Annotated[str, typer.Option("--device", help="auto, cpu, cuda, cuda:1 or mps.")] = (
        "auto"
    ),
    workers: common.Workers = None,
    as_json: common.AsJson = False,
) -> None:
    """Train the same small network with each of nine heads, and compare them.

    Global average pooling, one map a class, dense layers, max pooling and others: the same
    pictures, seeds and budget. What is finished is kept: started again, the study goes on.
    """
    from camtool.accelerate.memory import keep_freed_memory
    from camtool.cli.progress import counting
    from camtool.device import pick_device
    from camtool.engines.threads import available_cores
    from camtool.fit import study as room
    from camtool.fit.heads import HEADS
    from camtool.fit.study_data import StudyError, split
    from camtool.fit.study_output import write_files
    from camtool.fit.study_runs import Settings
    from camtool.folder.lists import SourceError

    wanted = common.parts("--heads", heads, tuple(HEADS)) if heads is not None else tuple(HEADS)
    if not wanted:
        common.usage(f"--heads takes {', '.join(HEADS)}")
    groups = _groups(classes)
    if data.resolve() in (output.resolve(), *output.resolve().parents):
        common.usage(f"{output}: lies among the pictures; choose another --output")
    settings = Settings(size=size)
    settings = replace(settings, epochs=epochs or (QUICK_EPOCHS if quick else settings.epochs))
    count = seeds or (QUICK_SEEDS if quick else 3)
    with common.exits():
        place = pick_device(device)
    keep_freed_memory()
    try:
        with leaving(), counting("pictures") as progress:
            most = QUICK_PICTURES if quick else None
            found = split(data, validation, groups, holdout, limit, most)
            halves = room.prepare(found, settings, workers or available_cores(), progress)
            made = room.Study(settings, found.labels, *halves, place, found.problems)
            room.claim_folder(output, made)
        for problem in found.problems[:_TOLD]:
            common.say(f"{problem.path}: {problem.reason}")
        if len(found.problems) > _TOLD:
            common.say(f"{len(found.problems):,} such things in all; study.json has them")
        with stoppable() as stop, counting("epochs") as progress:
            finished = room.run_all(made, wanted, range(count), output, progress, stop)
        if not finished:
            common.say("stopped; the same command goes on from here")
            raise typer.Exit(INTERRUPTED)
        document = made.to_json()
        written = write_files(output, made, document)
    except (StudyError, SourceError) as error:
        common.usage(str(error))
    except OSError as error:
        common.say(f"{output}: can't be written ({error.strerror or error})")
        raise typer.Exit(common.SOME_FAILED) from None
    if as_json:
        print(json.dumps(document))
    else:
        _print(document)
    (common.say if as_json else print)(f"{', '.join(written)} are in {output}")
    if "curves.png" not in written:
        common.say("curves.png needs matplotlib: pip install 'camtool[plot]'")
    if found.problems:
        raise typer.Exit(common.SOME_FAILED)


def _groups(classes: str | None) -> dict[str, list[str]] | None:
    """Classes and the folders of each: "a,b" or "cat=a+b,dog=c+d"."""
    if classes is None:
        return None
    groups: dict[str, list[str]] = {}
    for part in filter(None, classes.split(",")):
        name, _, folders = part.partition("=")
        if not name or name in groups:
            common.usage(f"--classes takes names, each once, as cat=a+b,dog=c+d, not {classes!r}")
        groups[name] = [folder for folder in (folders or name).split("+") if folder]
    return groups


def _print(document: dict[str, Any]) -> None:
    from rich.table import Table

    from camtool.fit.study_tables import CLAIM_HEADINGS, claim_rows, table_rows

    headings, *rows = table_rows(document)
    table = Table(*headings, title=f"{len(rows)} heads on one front-end", title_justify="left")
    for row in rows:
        table.add_row(*(text.replace(" (", "\n(") for text in row))
    common.show_table(table)
    told = Table(*CLAIM_HEADINGS, title="What the texts claim", title_justify="left")
    for row in claim_rows(document):
        told.add_row(*row)
    common.show_table(told)
