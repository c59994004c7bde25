"""A graph with logits and maps as a file, compared with the network before it is written."""

from __future__ import annotations

import json
import logging
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from errno import EISDIR
from importlib import import_module
from os import strerror
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.overrides import TorchFunctionMode

from camtool.export.graph import ExportError, MapGraph
from camtool.files import make_folders, replacing
from camtool.model import CamModel
from camtool.networks.graph import KEY, session
from camtool.networks.state import line_of

TOLERANCE = 1e-4
"""Most that logits or maps may differ from PyTorch's, of their range."""
OUTPUTS = ("logits", "maps")
SUFFIXES = (".onnx", ".pt2")
SQUARES = 3
"""Of the inputs for comparison, those of the usual size; they come first."""
PROVED = 5
"""Classes whose maps are compared with the model's own, at the most."""
OPERATIONS = 250
"""In the term of the input's sizes that a size may be. Networks that take any size have 30 at the
most, but efficientnet_lite0 has 187; where there are many hundreds, each call takes seconds."""

WHOLE = (2 << 30) - (64 << 20)
"""Bytes of weights that one ONNX file holds beside the rest; more go into a file beside it."""

Arrays: TypeAlias = "Sequence[NDArray[np.float32]]"
Run: TypeAlias = "Callable[[Tensor], Arrays]"


@dataclass(frozen=True)
class Exported:
    """A graph that was written.

    Attributes:
        path: Of the file.
        files: All of them: weights of two gigabytes and more are in another one beside it.
        error: Most that logits or maps differ from the network's, of their range.
        shapes: Of the inputs on which they were compared.
        dynamic: Whether it takes inputs of other heights and widths.
        fixed: Why it takes no others, where all sizes were wanted.
    """

    path: Path
    files: tuple[Path, ...]
    error: float
    shapes: tuple[tuple[int, ...], ...]
    dynamic: bool
    fixed: str = ""


def export_model(
    model: CamModel,
    path: Path,
    classes: Sequence[int] | None = None,
    *,
    pixels: bool = False,
    tell: Callable[[str], None] = lambda _: None,
) -> Exported:
    """Write a network and its maps as one graph, once it was seen to give the same numbers.

    Args:
        model: Of a linear, norm or affine head, in float32.
        path: "x.onnx", for ONNX Runtime and others, or "x.pt2", for `torch.export.load`.
        classes: Whose maps are given; None for all. Logits are of all classes.
        pixels: Take uint8 [N,H,W,C] and normalise it inside, in place of normalised float32
            [N,C,H,W].
        tell: Called with what is being done, whenever that is something else; it may take minutes.

    Returns:
        What was written. The graph has the outputs "logits" float32 [N,classes] and "maps" float32
        [N,K,h,w], and takes any number of pictures; with `fit="whole"` of any size where one
        graph can: where the network's code has no branches on sizes.

    Raises:
        ExportError: The head is of another kind, torch can't trace the network, or the graph's
            numbers differ by more than `TOLERANCE` of their range; nothing is written.
        ImportError: onnx, onnxscript or onnxruntime is missing.
        OSError: The file can't be written.
    """
    if path.suffix not in SUFFIXES:
        raise ExportError(f"{path}: a graph is a file called .onnx or .pt2")
    if model.device.type != "cpu":
        raise ExportError(f"a graph is exported from the CPU, and the network is on {model.device}")
    if path.suffix == ".onnx":
        _needed()
    _check_place(path)
    tell("seeing what the maps are made of")
    graph = MapGraph(model, classes, pixels).eval()
    examples = _examples(model, pixels)
    _prove(model, graph, examples[0])
    fixed = ""
    if model.fit == "whole":
        try:
            _check_branches(graph, examples)
            return _written(graph, _facts(model, graph, pixels), path, examples, tell)
        except ExportError as error:
            fixed = str(error)
            tell(f"for one size alone: {fixed}")
    facts = {**_facts(model, graph, pixels), "fit": "squash" if fixed else model.fit}
    done = _written(graph, facts, path, examples[:SQUARES], tell)
    return replace(done, fixed=fixed)


def _written(
    graph: MapGraph,
    facts: dict[str, Any],
    path: Path,
    examples: Sequence[Tensor],
    tell: Callable[[str], None],
) -> Exported:
    """Trace, write and compare a graph for inputs as in some examples.

    Raises:
        ExportError: One of the three fails.
    """
    dynamic = len(examples) > SQUARES
    tell("tracing the network")
    program = _traced(graph, examples[0], dynamic)
    write = _onnx if path.suffix == ".onnx" else _program
    with tempfile.TemporaryDirectory(prefix="camtool-") as folder:
        written = Path(folder) / path.name
        tell(f"writing {path.name}")
        run = write(program, written, json.dumps(facts))
        tell("comparing the graph with the network")
        error = max(_difference(graph, run, inputs) for inputs in examples)
        if not error <= TOLERANCE:
            raise ExportError(
                f"the graph differs from the network by {error:.1e} of the range, more than "
                f"{TOLERANCE:.0e}"
            )
        files = _placed(written, path)
    return Exported(path, files, error, tuple(tuple(x.shape) for x in examples), dynamic)


def _check_place(path: Path) -> None:
    """Find out before it takes minutes whether a file can be written.

    Raises:
        OSError: It can't.
    """
    if path.is_dir():
        raise IsADirectoryError(EISDIR, strerror(EISDIR), str(path))
    make_folders(path.parent)
    with tempfile.TemporaryFile(dir=path.parent):
        pass


def _placed(written: Path, path: Path) -> tuple[Path, ...]:
    """Put what was written where it should be, the graph itself last."""
    parts = sorted(written.parent.iterdir(), key=lambda part: part == written)
    for part in parts:
        with part.open("rb") as content, replacing(path.with_name(part.name), "wb") as stream:
            shutil.copyfileobj(content, stream)
    return tuple(path.with_name(part.name) for part in parts)


def _examples(model: CamModel, pixels: bool) -> list[Tensor]:
    """Inputs: `SQUARES` of the usual size and other numbers, and two of other sizes."""
    side, channels, step = model.preprocessing.size, model.network.channels, model.head.stride
    sizes = [(2, side, side), (1, side, side), (3, side, side)]
    # Sides of even and of odd numbers of cells: camtool's own inputs have both.
    sizes += [(2, side, side + step), (1, side + 2 * step, side)]
    generator = torch.Generator().manual_seed(0)
    made = []
    for number, height, width in sizes:
        if pixels:
            shape = (number, height, width, channels)
            made.append(torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8))
        else:
            made.append(torch.randn(number, channels, height, width, generator=generator))
    return made


@torch.no_grad()
def _prove(model: CamModel, graph: MapGraph, inputs: Tensor) -> None:
    """Refuse a graph whose maps are not the model's own: one matrix may not be all of its head.

    Raises:
        ExportError: They are not.
    """
    rows = sorted({round(row) for row in np.linspace(0, len(graph.classes) - 1, PROVED)})
    chosen = [graph.classes[row] for row in rows]
    own = model.explain_tensor(graph.normalized(inputs), [chosen] * len(inputs))
    maps = graph(inputs)[1][:, rows].numpy()
    if _apart(np.stack([each.maps for each in own]), maps) > TOLERANCE:
        raise ExportError(
            f"{model.network.name}: what follows {model.head.features} weighs each place by "
            "itself, so that its maps are no matrix times the features; only those that are can be "
            "exported"
        )


@torch.no_grad()
def _check_branches(graph: MapGraph, examples: Sequence[Tensor]) -> None:
    """Refuse a network that calls other functions on other sizes, which no one graph does.

    Swin transformers, for one, shift their windows only where there are several.

    Raises:
        ExportError: It does, or it can't run on them.
    """
    usual, *others = (examples[0], *examples[SQUARES:])
    calls = _calls(graph, usual)
    for inputs in others:
        try:
            same = _calls(graph, inputs) == calls
        except Exception as error:
            # The network's own code may raise anything on an input that it was not made for.
            raise ExportError(f"it can't run on other sizes ({line_of(error)})") from None
        if not same:
            raise ExportError("the network's code takes other ways on other sizes")


def _calls(graph: MapGraph, inputs: Tensor) -> list[str]:
    mode = _Calls()
    with mode:
        graph(inputs)
    return mode.names


class _Calls(TorchFunctionMode):
    """Names of the functions that are called."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        self.names.append(getattr(func, "__name__", ""))
        return func(*args, **(kwargs or {}))


class _Terms(TorchFunctionMode):
    """Stops a trace whose sizes become terms so long that simplifying them takes for ever."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        output = func(*args, **(kwargs or {}))
        if isinstance(output, Tensor) and any(map(_is_long, output.shape)):
            raise ExportError("the network's sizes are no short terms of the input's")
        return output


def _is_long(size: int | torch.SymInt) -> bool:
    """Whether a size is a term of more than `OPERATIONS`."""
    return isinstance(size, torch.SymInt) and size.node.expr.count_ops() > OPERATIONS


def _traced(graph: MapGraph, example: Tensor, dynamic: bool) -> torch.export.ExportedProgram:
    """The graph as torch.export sees it, for any number of pictures; of any size if `dynamic`."""
    from torch.export import Dim

    first = 1 if graph.pixels else 2
    sides = {first: Dim.AUTO, first + 1: Dim.AUTO} if dynamic else {}
    terms = _Terms() if dynamic else nullcontext()
    try:
        with torch.no_grad(), _quiet(), terms:
            return torch.export.export(
                graph, (example,), dynamic_shapes=({0: Dim.AUTO, **sides},), strict=False
            )
    except ExportError:
        raise
    except Exception as error:
        # Whatever the network's own code does that can't be traced.
        raise ExportError(
            f"{graph.name} can't be traced by torch.export ({type(error).__name__}: "
            f"{line_of(error)})"
        ) from None


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep from the user what torch tells of its own work: of terms that it can't solve, pages."""
    log = logging.getLogger("torch.fx.experimental.symbolic_shapes")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        log.addFilter(_nothing)
        try:
            yield
        finally:
            log.removeFilter(_nothing)


def _nothing(record: logging.LogRecord) -> bool:
    return False


def _onnx(program: torch.export.ExportedProgram, path: Path, facts: str) -> Run:
    """Write ONNX; what runs it."""
    _needed()
    import onnx

    try:
        with _quiet():
            made = torch.onnx.export(
                program,
                (),
                dynamo=True,
                verbose=False,
                input_names=["input"],
                output_names=[*OUTPUTS],
            )
    except torch.onnx.OnnxExporterError as error:
        cause: BaseException = error
        while cause.__cause__ is not None:
            cause = cause.__cause__
        raise ExportError(f"torch can't convert it to ONNX ({line_of(cause)})") from None
    assert made is not None
    made.save(path)
    document = onnx.load(path)
    _name_sizes(document)
    onnx.helper.set_model_props(document, {KEY: facts})
    beside = path.with_name(f"{path.name}.data")
    # It is in memory now, and would be added to.
    beside.unlink(missing_ok=True)
    weights = sum(each.nbytes for each in program.state_dict.values())
    onnx.save(document, path, save_as_external_data=weights > WHOLE, location=beside.name)
    running = session(path)

    def run(inputs: Tensor) -> Arrays:
        found: Arrays = running.run(list(OUTPUTS), {"input": inputs.numpy()})
        return found

    return run


def _needed() -> None:
    for name in ("onnx", "onnxruntime", "onnxscript"):
        try:
            import_module(name)
        except ImportError:
            reason = f"to write ONNX {name} is needed: pip install 'camtool[onnx]'"
            raise ImportError(reason) from None


def _name_sizes(document: Any) -> None:
    """Call what may be of any size by what it is, in place of the terms of its computation."""
    batch, sides = "batch", ("height", "width")
    for value, names in (
        *((one, None) for one in document.graph.input),
        *((one, one.name) for one in document.graph.output),
    ):
        dims = value.type.tensor_type.shape.dim
        places = {0: batch}
        if names == "maps":
            places |= {2: "map_height", 3: "map_width"}
        elif names is None and len(dims) == 4:
            start = 1 if dims[3].dim_value else 2
            places |= dict(zip((start, start + 1), sides, strict=True))
        for place, name in places.items():
            if dims[place].dim_param:
                dims[place].dim_param = name


def _program(program: torch.export.ExportedProgram, path: Path, facts: str) -> Run:
    """Write what torch.export saves; what runs it."""
    # It would tell of tensors that share memory, which are whole on the CPU.
    with _quiet():
        torch.export.save(program, path, extra_files={KEY: facts})
    loaded = torch.export.load(path).module()

    def run(inputs: Tensor) -> Arrays:
        with torch.no_grad():
            return [found.numpy() for found in loaded(inputs)]

    return run


@torch.no_grad()
def _difference(graph: MapGraph, run: Run, inputs: Tensor) -> float:
    """Most that logits or maps differ, of their range over the batch.

    Raises:
        ExportError: The graph can't run on such inputs.
    """
    try:
        found = run(inputs)
    except Exception as error:
        # ONNX Runtime has its own errors, of no common kind.
        raise ExportError(
            f"the graph can't run on inputs {tuple(inputs.shape)} ({line_of(error)})"
        ) from None
    return max(_apart(ours.numpy(), each) for ours, each in zip(graph(inputs), found, strict=True))


def _apart(ours: NDArray[np.float32], theirs: NDArray[np.float32]) -> float:
    """Most that two arrays differ, of the first one's range; without end where one is no number."""
    if ours.shape != theirs.shape or not np.isfinite(ours - theirs).all():
        return float("inf")
    return float(np.abs(ours - theirs).max() / max(np.ptp(ours), np.finfo(np.float32).tiny))


def _facts(model: CamModel, graph: MapGraph, pixels: bool) -> dict[str, Any]:
    """What is said of the network in the file."""
    spec = model.preprocessing
    return {
        "network": model.describe(),
        "labels": list(model.labels),
        "synsets": list(model.network.synsets),
        "maps_of": len(graph.rows),
        "pixels": pixels,
        "fit": model.fit,
        "stride": model.head.stride,
        "channels": model.network.channels,
        "preprocessing": {
            "size": spec.size,
            "resize": spec.resize,
            "mean": list(spec.mean),
            "std": list(spec.std),
            "interpolation": spec.interpolation,
        },
    }
