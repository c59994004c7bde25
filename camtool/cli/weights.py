"""`camtool weights`: what can be had, fetching it, and verifying what is here."""

from __future__ import annotations

from typing import Annotated

import typer

from camtool.cli import common

weights = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="Published weights: list, get, verify."
)

Name = Annotated[str, typer.Argument(help="A torchvision architecture, or gapnet.")]
EntryName = Annotated[
    str, typer.Option("--weights", "-w", help="Which entry; default the architecture's.")
]


@weights.command(name="list")
def list_(
    model: Annotated[str | None, typer.Argument(help="Only this architecture.")] = None,
) -> None:
    """List the published weights, and which of them are on this machine."""
    from rich.table import Table

    from camtool.networks import embedded, hub, zoo

    with common.exits():
        if model is not None and model not in (*zoo.torchvision_names(), "gapnet"):
            raise zoo.unknown(model)
        table = Table("model", "entry", "classes", "here")
        if model in (None, "gapnet"):
            path = embedded.embedded_path()
            table.add_row("gapnet", "embedded", "200", str(path) if path.exists() else "missing")
        for name in [model] if model else zoo.torchvision_names():
            for entry in zoo.entries(name) if name != "gapnet" else ():
                path = hub.cached_path(entry.url)
                here = str(path) if path.exists() else "-"
                table.add_row(name, entry.name, str(len(entry.labels)), here)
    common.show_table(table)


@weights.command()
def get(model: Name, entry: EntryName = "DEFAULT") -> None:
    """Fetch weights once, with progress; what is here already is only verified."""
    from camtool.networks import embedded, hub, zoo

    with common.exits():
        if model == "gapnet":
            print(embedded.verified_path())
            return
        if model not in zoo.torchvision_names():
            raise zoo.unknown(model)
        found = zoo.find_entry(model, entry)
        path = hub.fetch(found.url, f"{model} ({found.name})")
    print(path)


@weights.command()
def verify(model: Annotated[str | None, typer.Argument(help="Default: all.")] = None) -> None:
    """Check the hashes of the weights on this machine; a damaged file is an error."""
    from camtool.errors import ModelError
    from camtool.networks import embedded, hub, zoo

    with common.exits():
        if model is not None and model not in (*zoo.torchvision_names(), "gapnet"):
            raise zoo.unknown(model)
    damaged = False
    for name in [model] if model else ["gapnet", *zoo.torchvision_names()]:
        paths = [hub.cached_path(e.url) for e in (zoo.entries(name) if name != "gapnet" else ())]
        try:
            if name == "gapnet":
                print(f"ok       {embedded.verified_path()}")
            for path in paths:
                if path.exists():
                    hub.verify(path)
                    print(f"ok       {path}")
        except ModelError as error:
            damaged = True
            common.say(str(error))
    if damaged:
        raise typer.Exit(common.NO_MODEL)
