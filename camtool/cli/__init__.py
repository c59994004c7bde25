"""The command line: one file a command; parses, calls, prints."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable

import typer

from camtool.accelerate.environment import prepare_environment
from camtool.cli import common
from camtool.cli.batch import batch
from camtool.cli.evaluate import evaluate
from camtool.cli.explain import explain
from camtool.cli.export import export
from camtool.cli.fit import fit
from camtool.cli.help import Command, examples
from camtool.cli.inspect import inspect
from camtool.cli.study import study
from camtool.cli.weights import weights

app = typer.Typer(
    name="camtool",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    # Rich help would cost another 0.2 s of imports before the first line.
    rich_markup_mode=None,
    help="Class activation maps that add up to the answer: where an image classifier looks.",
    epilog=examples(
        "camtool explain photo.jpg       a panel beside the picture",
        "camtool batch photos/ -o out/   a folder, with a report",
    ),
)
_EXAMPLES: dict[Callable[..., None], tuple[str, ...]] = {
    explain: (
        "camtool explain photo.jpg --open",
        "camtool explain photos/ -o panels/ -k 1 --signed",
        "camtool explain photo.jpg -m resnet50 -t tabby -t 'tiger cat' --json",
    ),
    batch: (
        "camtool batch photos/ -o out/",
        "camtool batch 'shots/**/*.png' -o out/ -m mine.pth --labels labels.txt --coco",
    ),
    evaluate: (
        "camtool evaluate tiny-imagenet-200/ --format tiny-imagenet",
        "camtool evaluate voc/ --format imagenet -m resnet50 -o out/ --limit 500",
        "camtool evaluate photos/ --format folder --method cam,layercam --metrics sanity",
    ),
    fit: (
        "camtool fit pets/ -o pets.safetensors",
        "camtool fit labels.csv -o tags.safetensors --multi-label",
    ),
    study: (
        "camtool study photos-by-class/ -o study/ --quick",
        "camtool study animals/ -o study/ --classes cat=tabby+siamese,dog=pug+poodle",
    ),
    inspect: ("camtool inspect", "camtool inspect timm/convnext_tiny --json"),
    export: (
        "camtool export efficientnet_lite0 -o model.onnx",
        "camtool export -m resnet50 -o model.onnx --pixels --fit squash -t tabby",
    ),
}
for command, lines in _EXAMPLES.items():
    app.command(cls=Command, epilog=examples(*lines))(command)
app.add_typer(weights, name="weights")


def _version(wanted: bool) -> None:
    if wanted:
        from camtool import __version__

        print(__version__)
        raise typer.Exit


@app.callback()
def options(
    version: bool = typer.Option(
        False, "--version", callback=_version, is_eager=True, help="Print the version and leave."
    ),
) -> None:
    """Take the options that stand before a command."""


def main() -> None:
    """Run the command line; the console command `camtool`."""
    prepare_environment()
    # File names may hold bytes that are no UTF-8; printing them must not stop a run.
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    # Pillow warns of damaged metadata in pictures that it reads, or refuses, all the same.
    warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")
    try:
        app()
    except ImportError as error:
        common.say(str(error))
        sys.exit(common.NO_MODEL)
    except BrokenPipeError:
        # The reader (`| head`) has what it wanted; python would complain again on exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
