"""Options with one meaning in every command, and the exit codes."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

if TYPE_CHECKING:
    from camtool.explainer import CamModel

SOME_FAILED = 1
WRONG_USAGE = 2
NO_MODEL = 3

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
    int, typer.Option("--batch-size", min=1, help="Most pictures to a forward pass.")
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


@contextmanager
def exits() -> Iterator[None]:
    """Turn what users can cause into one line and its exit code."""
    from camtool.models import ModelError, TargetError

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
    """The model that the options name; a wrong fit is wrong usage."""
    from camtool.explainer import load
    from camtool.images import FITS

    matching = [known for known in FITS if known == fit]
    if not matching:
        usage(f"--fit must be one of {', '.join(FITS)}, not {fit!r}")
    return load(model, weights, labels, device, dtype, matching[0], size)
