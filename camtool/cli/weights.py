"""`camtool weights`: what can be had, fetching it, and verifying what is here."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from camtool.cli import common
from camtool.cli.help import Command, examples

if TYPE_CHECKING:
    from camtool.networks import Source

weights = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Published weights: list, get, verify.",
    epilog=examples("camtool weights list resnet50", "camtool weights get resnet50"),
)

Name = Annotated[
    str, typer.Argument(help="Name of a network, as for --model of `camtool explain`.")
]
EntryName = Annotated[
    str | None,
    typer.Option(
        "--weights", "-w", help="Which entry of `camtool weights list`; default the network's own."
    ),
]
AnyName = Annotated[str | None, typer.Argument(help="Name of a network; default all of them.")]


def _chosen(model: str | None) -> Iterator[tuple[Source, str]]:
    """The source of one name, or every source with its names."""
    from camtool.networks import SOURCES
    from camtool.networks.load import find_source

    if model is not None:
        yield find_source(model), model
        return
    for source in SOURCES:
        for name in source.names():
            yield source, name


@weights.command(
    name="list",
    cls=Command,
    epilog=examples("camtool weights list", "camtool weights list resnet50"),
)
def list_(model: AnyName = None) -> None:
    """List the published weights, and which are here."""
    from rich.markup import escape
    from rich.table import Table

    table = Table("model", "entry", "classes", "here")
    with common.exits():
        for source, name in _chosen(model):
            for one in source.published(name):
                here = escape(str(one.path)) if one.path else "-"
                table.add_row(escape(name), one.name, str(one.classes or "?"), here)
    common.show_table(table)


@weights.command(
    cls=Command,
    epilog=examples(
        "camtool weights get resnet50", "camtool weights get resnet50 -w IMAGENET1K_V1"
    ),
)
def get(model: Name, entry: EntryName = None) -> None:
    """Fetch weights, with progress.

    What is here already is only verified.
    """
    with common.exits():
        ((source, name),) = _chosen(model)
        print(source.fetch(name, entry, offline=False))


@weights.command(
    cls=Command,
    epilog=examples("camtool weights verify", "camtool weights verify resnet50"),
)
def verify(model: AnyName = None) -> None:
    """Check the weights on this machine.

    A file whose hash is not the published one is an error.
    """
    from camtool.errors import ModelError
    from camtool.networks import hub

    damaged = False
    with common.exits():
        here = [one for source, name in _chosen(model) for one in source.published(name)]
    for one in here:
        try:
            if one.path is not None:
                hub.verify(one.path, one.sha256)
                print(f"ok       {one.path}")
        except ModelError as error:
            damaged = True
            common.say(str(error))
    if damaged:
        raise typer.Exit(common.NO_MODEL)
