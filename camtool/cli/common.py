"""Options with one meaning in every command, and the exit codes."""

from __future__ import annotations

import inspect
import json
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields, is_dataclass, replace
from functools import cached_property, wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, NoReturn, get_args, get_type_hints

import typer

from camtool.choices import Activation, Colormap, Dtype, Fit, Interpolation, Kind, Normalize, Rule

if TYPE_CHECKING:
    from rich.table import Table

    from camtool.model import CamModel
    from camtool.networks import Network, Preprocessing
    from camtool.views.save import Views

SOME_FAILED = 1
WRONG_USAGE = 2
NO_MODEL = 3

_ANY_WIDTH = 1000

Weights = Annotated[
    str | None,
    typer.Option(
        "--weights",
        "-w",
        "--checkpoint",
        help="Checkpoint, entry of `camtool weights list`, or 'random'; default published.",
    ),
]
Size = Annotated[
    int | None, typer.Option("--size", min=16, help="Input size in pixels; default the model's.")
]
Labels = Annotated[
    Path | None, typer.Option("--labels", help="Labels: one a line, or JSON; default the model's.")
]
Target = Annotated[
    list[str] | None,
    typer.Option("--target", "-t", help="Explain this class, by index or label; may repeat."),
]
TopK = Annotated[
    int, typer.Option("--topk", "-k", min=1, help="Explain so many of the best classes.")
]
BatchSize = Annotated[
    int,
    typer.Option(
        "--batch-size", "-b", min=1, help="Pictures that run through the network at once, at most."
    ),
]
Workers = Annotated[
    int | None,
    typer.Option(
        "--workers",
        "-j",
        "--num-workers",
        min=1,
        help="Threads that read and write pictures; default one a core.",
    ),
]
Threshold = Annotated[
    float,
    typer.Option(
        "--threshold", min=0, max=1, help="Where boxes are cut, a share: see --threshold-rule."
    ),
]
ThresholdRule = Annotated[
    Rule,
    typer.Option(
        "--threshold-rule",
        help="Share of the map's maximum, of its pixels that are dropped, of what rises over its "
        "45th percentile (ivr), or found by Otsu's rule.",
    ),
]
MaxPixels = Annotated[
    int, typer.Option("--max-pixels", min=1, help="Refuse pictures of more pixels.")
]
MeasuredBatchSize = Annotated[
    int | None,
    typer.Option(
        "--batch-size",
        "-b",
        min=1,
        help="Pictures in the network at once; default 8 on a CPU, measured on a GPU.",
    ),
]
FitMode = Annotated[
    Fit | None,
    typer.Option(
        "--fit",
        help="All of the picture (default), its middle as evaluated, or all made square.",
    ),
]
Offline = Annotated[
    bool, typer.Option("--offline", help="Download nothing; CAMTOOL_OFFLINE=1 says the same.")
]
Device = Annotated[str, typer.Option("--device", help="auto, cpu, cuda, cuda:1 or mps.")]
AsJson = Annotated[
    bool, typer.Option("--json", help="Print one JSON document on stdout, the rest on stderr.")
]


@dataclass(frozen=True)
class ModelOptions:
    """Which network explains, and how pictures meet it."""

    HEADING: ClassVar[str] = "Network and input"

    model: Annotated[
        str,
        typer.Option(
            "--model",
            "-m",
            help="Name (resnet50, efficientnet_lite0, timm/NAME, hf/NAME) or checkpoint. "
            "auto: resnet50 if it is here, else the embedded efficientnet_lite0.",
        ),
    ] = "auto"
    weights: Weights = None
    labels: Labels = None
    method: Annotated[
        str,
        typer.Option(
            "--method",
            help="What makes the maps; auto: cam, or integrated where the head is not linear. "
            "Others: stages, gradcam, hirescam, layercam, scorecam, …; any other word lists all.",
        ),
    ] = "auto"
    layer: Annotated[
        str | None,
        typer.Option(
            "--layer",
            help="Module whose output the maps are made of, as `camtool inspect` lists them; "
            "several: a,b,c. Default the last feature maps.",
        ),
    ] = None
    steps: Annotated[
        int | None,
        typer.Option(
            "--steps", min=1, help="Most steps of an integration; more is more exact; default 32."
        ),
    ] = None
    exact: Annotated[
        bool, typer.Option("--exact", help="Refuse a network whose maps do not add up.")
    ] = False
    activation: Annotated[
        Activation,
        typer.Option(
            "--activation",
            help="From logits to probabilities; auto: sigmoid for one logit, else softmax.",
        ),
    ] = "auto"
    logits: Annotated[
        str | None,
        typer.Option(
            "--logits",
            help="Which of several outputs are the logits: number or name; "
            "default 'logits', or the first.",
        ),
    ] = None
    fit: FitMode = None
    size: Size = None
    mean: Annotated[
        str | None,
        typer.Option(
            "--mean",
            help="Of the input in 0..1, a number a channel: .5,.5,.5; default the model's.",
        ),
    ] = None
    std: Annotated[
        str | None,
        typer.Option(
            "--std", help="Of the input in 0..1, a number a channel: .5,.5,.5; default the model's."
        ),
    ] = None
    interpolation: Annotated[
        Interpolation | None,
        typer.Option("--interpolation", help="How pictures are resized; default the model's."),
    ] = None
    offline: Offline = False
    device: Device = "auto"
    dtype: Annotated[
        Dtype, typer.Option("--dtype", help="Number format that the network runs in.")
    ] = "float32"

    def load(self) -> CamModel:
        """The model that the options name; what can't be meant is wrong usage."""
        if "," in self.method:
            usage("--method takes one method here; camtool evaluate compares several")
        return self.built(self.network())

    def network(self) -> Network:
        """The network that the options name."""
        from camtool.loading import network_of
        from camtool.methods import AUTO, METHODS

        for method in self.method.split(","):
            if method not in (AUTO, *METHODS):
                usage(f"--method takes {', '.join((AUTO, *METHODS))}, not {method!r}")
        named = self.logits or ""
        output = int(named) if named.isdecimal() else self.logits
        return network_of(self.model, self.weights, output, self.offline)

    def built(self, network: Network) -> CamModel:
        """A network with all else that the options say."""
        from camtool.model import CamModel

        try:
            return CamModel(
                network,
                self.labels,
                self.device,
                self.dtype,
                self.fit or "whole",
                self.size,
                preprocessing=self._adapted(network.preprocessing),
                method=self.method,
                exact="require" if self.exact else "measure",
                activation=self.activation,
                layer=self.layer,
                steps=self.steps,
            )
        except ValueError as error:
            usage(str(error))

    def _adapted(self, known: Preprocessing) -> Preprocessing:
        given: dict[str, Any] = {
            "mean": self.mean and _numbers("--mean", self.mean),
            "std": self.std and _numbers("--std", self.std),
            "interpolation": self.interpolation,
        }
        return replace(known, **{name: value for name, value in given.items() if value})


@dataclass(frozen=True)
class LookOptions:
    """What is drawn, and how."""

    HEADING: ClassVar[str] = "Boxes and colours"

    threshold: Threshold = 0.2
    threshold_rule: ThresholdRule = "max"
    calibration: Annotated[
        Path | None,
        typer.Option(
            "--calibration",
            metavar="FILE",
            help="Threshold and its rule as camtool evaluate --calibrate chose them.",
        ),
    ] = None
    signed: Annotated[
        bool, typer.Option("--signed/--positive", help="Show evidence against the class too.")
    ] = False
    colormap: Annotated[
        Colormap | None,
        typer.Option("--colormap", help="Colours; default inferno, blue-red for --signed."),
    ] = None
    opacity: Annotated[
        float,
        typer.Option("--opacity", min=0, max=1, help="Of the colours over the picture, at most."),
    ] = 0.6
    normalize: Annotated[
        Normalize,
        typer.Option(
            "--normalize",
            help="Colours end at each map's maximum, at that of all maps of a picture, "
            "or at --full-scale.",
        ),
    ] = "image"
    full_scale: Annotated[
        float,
        typer.Option(
            "--full-scale", min=1e-3, help="Logits at which colours end with --normalize none."
        ),
    ] = 30.0
    smooth: Annotated[
        bool,
        typer.Option(
            "--smooth/--linear",
            help="Interpolate maps smoothly, or linearly, which shows as diamonds.",
        ),
    ] = False

    def idle(self, views: Views) -> dict[str, str]:
        """Options of this group that have no effect, each with the reason."""
        idle: dict[str, str] = {}
        if self.calibration is not None:
            idle = dict.fromkeys(("threshold", "threshold_rule"), "with --calibration")
        elif self.threshold_rule == "otsu":
            idle["threshold"] = "with --threshold-rule otsu"
        if self.normalize != "none":
            idle["full_scale"] = "without --normalize none"
        if not set(views.kinds) & {"panel", "overlay", "heatmap"}:
            drawn = ("signed", "colormap", "opacity", "normalize", "full_scale", "smooth")
            idle |= dict.fromkeys(drawn, "where no map is drawn (--save)")
        return idle

    def views(self, save: str, boxes: bool, picture: str = "png") -> Views:
        """What is written for each picture; an unknown kind of file is wrong usage."""
        from camtool.views.overlay import Look
        from camtool.views.save import Views

        names = ("signed", "colormap", "opacity", "normalize", "full_scale", "smooth")
        look = Look(**{name: getattr(self, name) for name in names})
        known = get_args(Kind)
        wanted = parts("--save", save, known) if save != "none" else ()
        kinds = tuple(kind for kind in known if kind in wanted)
        rule, threshold = self._cut()
        return Views(kinds, look, boxes, threshold, f".{picture}", rule)

    def _cut(self) -> tuple[Rule, float]:
        """Rule and threshold of the boxes."""
        if self.calibration is None:
            return self.threshold_rule, self.threshold
        return self._calibrated[:2]

    @cached_property
    def _calibrated(self) -> tuple[Rule, float, dict[str, Any]]:
        """Rule, threshold, and the model that they were chosen for; wrong usage if unreadable."""
        assert self.calibration is not None
        try:
            found = json.loads(self.calibration.read_text(encoding="utf-8"))
            rule, threshold = found["threshold_rule"], float(found["threshold"])
            model = dict(found.get("model", {}))
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            reason = getattr(error, "strerror", None) or "not what --calibrate writes"
            usage(f"{self.calibration} can't be used: {reason}")
        if rule not in get_args(Rule) or not 0 <= threshold <= 1:
            usage(f"{self.calibration} can't be used: no such rule or threshold")
        return rule, threshold, model

    def tell_calibration(self, cam: CamModel) -> None:
        """Say where thresholds were chosen for other maps than those of a model."""
        if self.calibration is not None:
            known = self._calibrated[2]
            now = {"name": cam.network.name, "method": cam.method, "layer": cam.layer}
            if any(known.get(name) != value for name, value in now.items()):
                of = ", ".join(str(known.get(name)) for name in now)
                say(f"{self.calibration} was chosen for other maps: {of}")


def parts(option: str, value: str, known: tuple[str, ...]) -> tuple[str, ...]:
    """The parts of a list with commas; one that is not known is wrong usage."""
    wanted = tuple(part.strip() for part in value.split(",") if part.strip())
    for part in wanted:
        if part not in known:
            usage(f"{option} takes {', '.join(known)}, not {part!r}")
    return wanted


def _numbers(option: str, value: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in value.replace(",", " ").split())
    except ValueError:
        usage(f"{option} takes numbers, one a channel, as 0.5,0.5,0.5, not {value!r}")


def grouped(command: Callable[..., None]) -> Callable[..., None]:
    """Let a command take groups of options: a parameter that is a dataclass becomes its fields."""
    hints = get_type_hints(command, include_extras=True)
    groups: dict[str, Any] = {}
    flat: list[inspect.Parameter] = []
    for parameter in inspect.signature(command).parameters.values():
        kind = hints[parameter.name]
        if is_dataclass(kind):
            groups[parameter.name] = kind
            flat += _options(kind)
        else:
            flat.append(parameter.replace(annotation=kind))

    @wraps(command)
    def call(**given: Any) -> None:
        for name, kind in groups.items():
            given[name] = kind(**{field.name: given.pop(field.name) for field in fields(kind)})
        command(**given)

    flat.sort(key=lambda parameter: parameter.default is not parameter.empty)
    call.__signature__ = inspect.Signature(flat)  # type: ignore[attr-defined]
    call.__annotations__ = {parameter.name: parameter.annotation for parameter in flat}
    return call


def _options(kind: Any) -> list[inspect.Parameter]:
    hints = get_type_hints(kind, include_extras=True)
    keyword = inspect.Parameter.POSITIONAL_OR_KEYWORD
    for field in fields(kind):
        hints[field.name].__metadata__[0].rich_help_panel = kind.HEADING
    return [
        inspect.Parameter(field.name, keyword, default=field.default, annotation=hints[field.name])
        for field in fields(kind)
    ]


def say(line: str) -> None:
    """One line for people, on stderr."""
    print(f"camtool: {line}", file=sys.stderr, flush=True)


def usage(message: str) -> NoReturn:
    """Leave with the exit code for wrong usage."""
    say(message)
    raise typer.Exit(WRONG_USAGE)


def refuse_addresses(*places: str | Path | None) -> None:
    """Leave where one is no path: `batch` and `explain` alone go further than this machine."""
    from camtool.remote import is_address, shown

    for place in places:
        # A path has one slash where the address had two.
        text = re.sub(r"^(\w\w+):/+", r"\1://", str(place))
        if is_address(text):
            usage(f"{shown(text)}: is an address; this command works with copies in a folder here")


def tell_of(cam: CamModel) -> None:
    """What has to be said of a network that was loaded: which it is, where nobody named it."""
    for note in cam.network.notes:
        say(note)


def warn_idle(context: typer.Context, idle: Mapping[str, str]) -> None:
    """Tell of options that were given and have no effect.

    Args:
        context: Of the command.
        idle: Parameters without effect, each with the reason.
    """
    for parameter in context.command.params:
        source = context.get_parameter_source(parameter.name or "")
        if parameter.name in idle and source is not None and source.name == "COMMANDLINE":
            option = next(name for name in parameter.opts if name.startswith("--"))
            say(f"{option} has no effect {idle[parameter.name]}")


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
