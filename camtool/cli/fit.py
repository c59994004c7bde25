"""`camtool fit`: a network for one's own classes."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, TypeAlias

import typer

from camtool.choices import Interpolation
from camtool.cli import common
from camtool.cli.stop import INTERRUPTED, leaving, stoppable

if TYPE_CHECKING:
    from camtool.fit.look import ClassLook
    from camtool.fit.outcome import Outcome
    from camtool.fit.run import Plan, Result
    from camtool.model import CamModel

Balance: TypeAlias = Literal["auto", "yes", "no"]

_TOLD = 10
"""Problems that are printed; all of them are in the JSON."""


@dataclass(frozen=True)
class BaseOptions:
    """Which network is the base, and how pictures meet it."""

    HEADING: ClassVar[str] = "Base and input"

    base: Annotated[
        str,
        typer.Option(
            "--base",
            "--model",
            "-m",
            help="Network whose features are taken: efficientnet_lite0, resnet50, timm/NAME, or "
            "a checkpoint; its head must be linear.",
        ),
    ] = "efficientnet_lite0"
    weights: common.Weights = None
    fit: common.FitMode = None
    size: common.Size = None
    mean: Annotated[
        str | None, typer.Option("--mean", help="Of the input in 0..1, a number a channel.")
    ] = None
    std: Annotated[
        str | None, typer.Option("--std", help="Of the input in 0..1, a number a channel.")
    ] = None
    interpolation: Annotated[
        Interpolation | None,
        typer.Option("--interpolation", help="How pictures are resized; default the base's."),
    ] = None
    offline: common.Offline = False
    device: common.Device = "auto"

    def load(self) -> CamModel:
        """The base."""
        given = {name: value for name, value in vars(self).items() if name != "base"}
        return common.ModelOptions(model=self.base, **given).load()


@common.grouped
def fit(
    data: Annotated[
        str, typer.Argument(help="Folder with a sub-folder a class, or CSV with path and label.")
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="The network's file, .safetensors.")
    ],
    base: BaseOptions,
    multi_label: Annotated[
        bool,
        typer.Option(
            "--multi-label",
            help="The CSV's labels of a picture are any number, with ; between them.",
        ),
    ] = False,
    validation: Annotated[
        str,
        typer.Option(
            "--validation",
            metavar="DATA",
            help="Pictures to measure accuracy on, like the data; default some of the data.",
        ),
    ] = "",
    holdout: Annotated[
        float,
        typer.Option(
            "--holdout", min=0, max=0.9, help="Share of each class that accuracy is measured on."
        ),
    ] = 0.2,
    seed: Annotated[int, typer.Option("--seed", help="Of which pictures are held out.")] = 0,
    views: Annotated[
        int | None,
        typer.Option(
            "--views",
            min=1,
            max=64,
            help="Of each picture: 1 as it is, 2 mirrored too, more are crops; default 2, and 1 "
            "for more than 2,000 pictures.",
        ),
    ] = None,
    balance: Annotated[
        Balance,
        typer.Option(
            "--balance",
            help="Whether classes count the same, however many pictures each has; auto: where "
            "one has more than twice as many as another.",
        ),
    ] = "auto",
    strength: Annotated[
        float | None,
        typer.Option(
            "--strength",
            min=1e-9,
            help="Inverse of the penalty on the weights; default the best by cross-validation.",
        ),
    ] = None,
    features: Annotated[
        Path | None,
        typer.Option(
            "--features", metavar="FOLDER", help="Where features are kept; default OUTPUT.features."
        ),
    ] = None,
    batch_size: common.MeasuredBatchSize = None,
    workers: common.Workers = None,
    max_pixels: common.MaxPixels = 100_000_000,
    finetune: Annotated[
        bool,
        typer.Option(
            "--finetune",
            help="Train the last stage of the base further, if that is better; on a GPU, or with "
            "patience.",
        ),
    ] = False,
    report: Annotated[
        bool, typer.Option("--report/--no-report", help="Write a page beside it, for people.")
    ] = True,
    as_json: common.AsJson = False,
) -> None:
    """Fit a network to your own classes, from pictures sorted into folders.

    It says what and where: explain, batch and evaluate take its file by -m. Stopped at any
    moment, by Ctrl-C or a crash, the same command continues.
    """
    with leaving(), common.exits():
        from camtool.fit.run import Plan

        common.refuse_addresses(data, validation, output, features)
        if output.suffix != ".safetensors":
            common.usage(f"--output {output}: the file's name has to end in .safetensors")
        cam = base.load()
        common.tell_of(cam)
        plan = Plan(
            data=data,
            output=output,
            features=features,
            validation=validation,
            form="sigmoid" if multi_label else "softmax",
            holdout=holdout,
            views=views,
            balance=balance,
            strength=strength,
            seed=seed,
            batch_size=batch_size or cam.measured_batch_size(),
            workers=workers,
            max_pixels=max_pixels,
            finetune=finetune,
        )
        result = _run(cam, plan)
        looks = _report(cam, plan, result) if report else []
    _tell_problems(result.outcome)
    if as_json:
        from camtool.fit.record import to_json

        print(json.dumps({"file": str(output), **to_json(result.outcome, looks)}))
    else:
        _tell(result.outcome, plan)
        _tell_looks(result.outcome, looks, plan)
    if result.failed:
        raise typer.Exit(common.SOME_FAILED)


def _run(cam: CamModel, plan: Plan) -> Result:
    from camtool.accelerate.memory import keep_freed_memory
    from camtool.cli.progress import counting
    from camtool.fit.data import DataError
    from camtool.fit.run import StoppedError, fit
    from camtool.folder.workspace import RunError

    keep_freed_memory()
    try:
        with stoppable() as stopping, counting("views") as progress:
            return fit(cam, plan, progress, common.say, stopping)
    except StoppedError:
        common.say("stopped: the same command continues")
        raise typer.Exit(INTERRUPTED) from None
    except (DataError, RunError) as error:
        common.usage(str(error))
    except OSError as error:
        common.usage(f"{error.filename or plan.output}: can't be written ({error.strerror})")


def _report(cam: CamModel, plan: Plan, result: Result) -> list[ClassLook]:
    """Write the page; where the fitted network looks."""
    from camtool import load
    from camtool.cli.progress import counting
    from camtool.engines import ENGINES
    from camtool.engines.engine import Request
    from camtool.fit.look import look_at_classes
    from camtool.fit.page import write_page

    fitted = load(plan.output, device=str(cam.device), fit=cam.fit)
    fitted.fuse()
    request = Request((), 1, plan.batch_size, plan.max_pixels, reduced=True)
    engine = ENGINES["threads"](fitted, request, plan.workers, common.say)
    with counting("maps") as progress:
        looks = look_at_classes(engine, result.pictures, len(fitted.labels), progress)
    page = plan.output.with_suffix(".html")
    try:
        write_page(page, result.outcome, engine, looks)
    except OSError as error:
        common.usage(f"{page}: can't be written ({error.strerror})")
    return looks


def _tell_problems(outcome: Outcome) -> None:
    from camtool.images.read import printable

    for problem in outcome.problems[:_TOLD]:
        common.say(f"{problem.path}: {problem.reason}")
    if len(outcome.problems) > _TOLD:
        common.say(f"… and {len(outcome.problems) - _TOLD:,} more: --json names all")
    if outcome.duplicates:
        first, second, *_ = map(printable, outcome.duplicates[0])
        common.say(
            f"{len(outcome.duplicates):,} groups of pictures are nearly the same, as {first} and "
            f"{second}; each is on one side of the split"
        )


def _tell(outcome: Outcome, plan: Plan) -> None:
    from camtool.fit.figures import with_twice_the_pictures

    fitted, held = sum(outcome.fitted), len(outcome.answers)
    if outcome.form == "softmax":
        print(f"Fitted on {fitted:,} pictures; strength {outcome.strength:g}.")
    else:
        print(f"Fitted; strength {outcome.strength:g}.")
    if held:
        figure = outcome.accuracy
        print(
            f"Right on {figure.value:.1f} % of {held:,} held out "
            f"(95% interval {figure.low:.1f} to {figure.high:.1f}); the most frequent answer alone "
            f"would be on {outcome.majority:.1f} %."
        )
    else:
        print("No picture was held out: nothing is known of its accuracy.")
    if twice := with_twice_the_pictures(outcome.curve):
        print(
            f"Twice the pictures would give about {twice.value:.0f} % "
            f"({twice.low:.0f} to {twice.high:.0f})."
        )
    print(f"{plan.output} is the network. Next:\n  camtool explain -m {plan.output} photo.jpg")


def _tell_looks(outcome: Outcome, looks: list[ClassLook], plan: Plan) -> None:
    from camtool.fit.look import warnings
    from camtool.images import display_name

    for line in warnings(looks, outcome.labels):
        print(f"⚑ {line}")
    if looks:
        print(f"Look at {display_name(plan.output.with_suffix('.html'))}.")
