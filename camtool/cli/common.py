"""Options with one meaning in every command, and the exit codes."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

if TYPE_CHECKING:
    from rich.table import Table

    from camtool.model import CamModel
    from camtool.views.save import Views

SOME_FAILED = 1
WRONG_USAGE = 2
NO_MODEL = 3

_ANY_WIDTH = 10_000

Model = Annotated[
    str,
    typer.Option(
        "--model",
        "-m",
        help="auto, gapnet, a torchvision architecture, timm/NAME, or a checkpoint.",
    ),
]
Weights = Annotated[
    str | None,
    typer.Option("--weights", "-w", help="Checkpoint, published entry's name, or 'random'."),
]
Labels = Annotated[
    Path | None, typer.Option("--labels", help="Labels: one a line, or JSON; default the model's.")
]
Device = Annotated[str, typer.Option("--device", help="auto, cpu, cuda, cuda:1 or mps.")]
Dtype = Annotated[
    str, typer.Option("--dtype", help="float32, bfloat16 or float16, of the network's body.")
]
FitMode = Annotated[
    str,
    typer.Option("--fit", help="whole (all of the picture), crop (as evaluated), or squash."),
]
Size = Annotated[
    int | None, typer.Option("--size", min=16, help="Input size in pixels; default the model's.")
]
Target = Annotated[
    list[str] | None,
    typer.Option("--target", "-t", help="Class by index or label; may repeat."),
]
TopK = Annotated[int, typer.Option("--topk", "-k", min=1, help="How many of the best classes.")]
BatchSize = Annotated[
    int, typer.Option("--batch-size", "-b", min=1, help="Most pictures to a forward pass.")
]
Workers = Annotated[
    int | None,
    typer.Option("--workers", "-j", "--num-workers", min=1, help="Threads; default one a core."),
]
Boxes = Annotated[bool, typer.Option("--boxes/--no-boxes", help="Boxes from the maps.")]
Threshold = Annotated[
    float,
    typer.Option("--threshold", min=0, max=1, help="Of the boxes: share of the map's maximum."),
]
Colormap = Annotated[str | None, typer.Option("--colormap", help="Colour table, e.g. jet.")]
Opacity = Annotated[float, typer.Option("--opacity", min=0, max=1, help="Of the colours, at most.")]
Signed = Annotated[
    bool, typer.Option("--signed/--positive", help="Show evidence against the class too.")
]
Normalize = Annotated[
    str,
    typer.Option("--normalize", help="Colour scale ends at the maximum of: image, shared, none."),
]
FullScale = Annotated[
    float, typer.Option("--full-scale", min=1e-3, help="End in logits with --normalize none.")
]
MaxPixels = Annotated[int, typer.Option("--max-pixels", min=1, help="Refuse larger pictures.")]
AsJson = Annotated[
    bool, typer.Option("--json", help="Print one JSON document on stdout, the rest on stderr.")
]


def say(line: str) -> None:
    """One line for people, on stderr."""
    print(f"camtool: {line}", file=sys.stderr, flush=True)


def usage(message: str) -> NoReturn:
    """Leave with the exit code for wrong usage."""
    say(message)
    raise typer.Exit(WRONG_USAGE)


def show_table(table: Table) -> None:
    """Print a table on stdout: as wide as it is where that is no terminal, and cut nowhere."""
    from rich.console import Console

    for column in table.columns:
        column.overflow = "fold"
    width = None if Console().is_terminal else _ANY_WIDTH
    Console(width=width).print(table)


@contextmanager
def exits() -> Iterator[None]:
    """Turn what users can cause into one line and its exit code."""
    from camtool.errors import ModelError, TargetError

    try:
        yield
    except TargetError as error:
        usage(str(error))
    except ModelError as error:
        say(str(error))
        raise typer.Exit(NO_MODEL) from None


def load_model(
    model: str,
    weights: str | None,
    labels: Path | None,
    device: str,
    dtype: str,
    fit: str,
    size: int | None,
) -> CamModel:
    """The model that the options name; a wrong fit or dtype is wrong usage."""
    from camtool.device import DTYPES
    from camtool.images import FITS
    from camtool.loading import load

    matching = [known for known in FITS if known == fit]
    if not matching:
        usage(f"--fit must be one of {', '.join(FITS)}, not {fit!r}")
    if dtype not in DTYPES:
        usage(f"--dtype must be one of {', '.join(DTYPES)}, not {dtype!r}")
    return load(model, weights, labels, device, dtype, matching[0], size)


def make_views(
    save: str,
    boxes: bool,
    threshold: float,
    signed: bool,
    colormap: str | None,
    opacity: float,
    normalize: str,
    full_scale: float,
) -> Views:
    """What is written for each picture, from the options; a wrong one is wrong usage."""
    from camtool.views.overlay import Look
    from camtool.views.save import KINDS, Views

    wanted = [part.strip() for part in save.split(",") if part.strip() not in ("", "none")]
    for part in wanted:
        if part not in KINDS:
            usage(f"--save takes {', '.join(KINDS)} or none, not {part!r}")
    kinds = tuple(kind for kind in KINDS if kind in wanted)
    try:
        look = Look(signed, colormap, opacity, normalize, full_scale)  # type: ignore[arg-type]
    except (ValueError, KeyError) as error:
        usage(str(error))
    return Views(kinds, look, boxes, threshold)
