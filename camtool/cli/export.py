"""`camtool export`: a network and its maps as one graph."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from camtool.cli import common

if TYPE_CHECKING:
    from camtool.export import Exported
    from camtool.model import CamModel


@common.grouped
def export(
    output: Annotated[
        Path,
        typer.Option(
            "--output", "-o", help="File of the graph: .onnx, or .pt2 for torch.export.load."
        ),
    ],
    network: common.ModelOptions,
    named: Annotated[
        str | None,
        typer.Argument(metavar="[MODEL]", help="As for --model, which may be left out then."),
    ] = None,
    target: Annotated[
        list[str] | None,
        typer.Option(
            "--target", "-t", help="Class whose map is given; may repeat; default all classes."
        ),
    ] = None,
    pixels: Annotated[
        bool,
        typer.Option(
            "--pixels/--normalized",
            help="Take uint8 pixels [N,H,W,C] and normalise them inside, or float [N,C,H,W].",
        ),
    ] = False,
    as_json: common.AsJson = False,
) -> None:
    """Write a network with its maps as outputs, for where camtool isn't.

    The graph gives `logits` [N,classes] and `maps` [N,classes,h,w] that add up to them; it is
    compared with the network on random inputs before it is written.
    """
    from dataclasses import replace

    from camtool.cli.progress import waiting

    if named is not None:
        if network.model != "auto":
            common.usage("the network is named twice, as an argument and by --model")
        network = replace(network, model=named)
    with common.exits():
        from camtool.export import export_model

        cam = network.load()
        common.tell_of(cam)
        classes = [_one(choice) for choice in cam.resolve(target)] or None
        try:
            with waiting("tracing the network, and comparing the graph with it"):
                done = export_model(cam, output, classes, pixels=pixels)
        except OSError as error:
            common.usage(f"{output}: can't be written ({error.strerror or error})")
    _tell(cam, done, as_json)


def _one(choice: object) -> int:
    if not isinstance(choice, int) or choice < 0:
        common.usage("--target takes classes here, no contrasts")
    return choice


def _tell(cam: CamModel, done: Exported, as_json: bool) -> None:
    megabytes = sum(file.stat().st_size for file in done.files) / 1e6
    if as_json:
        facts = {
            "file": str(done.path),
            "files": [str(file) for file in done.files],
            "megabytes": round(megabytes, 1),
            "model": cam.describe(),
            "error": done.error,
            "shapes": done.shapes,
            "dynamic": done.dynamic,
        }
        print(json.dumps(facts, indent=1))
        return
    sizes = "any number of pictures of any size" if done.dynamic else "any number of pictures"
    print(f"{done.path}: {megabytes:.1f} MB, takes {sizes}")
    for beside in done.files[:-1]:
        print(f"{beside}: its weights, which have to stay beside it")
    print(f"differs from the network by {done.error:.0e} of the range at the most")
    if done.path.suffix == ".onnx":
        print(f"camtool explain photo.jpg -m {done.path}")
