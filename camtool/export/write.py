"""A graph with logits and maps as a file, compared with the network before it is written."""

from __future__ import annotations

import json
import shutil
import tempfile
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from camtool.export.graph import ExportError, MapGraph
from camtool.files import replacing
from camtool.model import CamModel
from camtool.networks.graph import KEY, session

TOLERANCE = 1e-4
"""Most that logits or maps may differ from PyTorch's, of their range."""
OUTPUTS = ("logits", "maps")
SUFFIXES = (".onnx", ".pt2")

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
    """

    path: Path
    files: tuple[Path, ...]
    error: float
    shapes: tuple[tuple[int, ...], ...]
    dynamic: bool


def export_model(
    model: CamModel,
    path: Path,
    classes: Sequence[int] | None = None,
    *,
    pixels: bool = False,
) -> Exported:
    """Write a network and its maps as one graph, once it was seen to give the same numbers.

    Args:
        model: Of a linear, norm or affine head, in float32.
        path: "x.onnx", for ONNX Runtime and others, or "x.pt2", for `torch.export.load`.
        classes: Whose maps are given; None for all. Logits are of all classes.
        pixels: Take uint8 [N,H,W,C] and normalise it inside, in place of normalised float32
            [N,C,H,W].

    Returns:
        What was written. The graph has the outputs "logits" float32 [N,classes] and "maps" float32
        [N,K,h,w], and takes any number of pictures; with `fit="whole"` of any size.

    Raises:
        ExportError: The head is of another kind, torch can't trace the network, or the graph's
            numbers differ by more than `TOLERANCE` of their range; nothing is written.
        ImportError: onnx, onnxscript or onnxruntime is missing.
    """
    if path.suffix not in SUFFIXES:
        raise ExportError(f"{path}: a graph is a file called .onnx or .pt2")
    graph = MapGraph(model, classes, pixels).eval()
    dynamic = model.fit == "whole"
    examples = _examples(model, pixels, dynamic)
    program = _traced(graph, examples[0], pixels, dynamic, model.network.name)
    facts = json.dumps(_facts(model, graph, pixels))
    write = _onnx if path.suffix == ".onnx" else _program
    with tempfile.TemporaryDirectory(prefix="camtool-") as folder:
        written = Path(folder) / path.name
        run = write(program, written, facts)
        error = max(_difference(graph, run, inputs) for inputs in examples)
        if not error <= TOLERANCE:
            raise ExportError(
                f"{path}: not written: the graph differs from the network by {error:.1e} of the "
                f"range, more than {TOLERANCE:.0e}"
            )
        files = _placed(written, path)
    return Exported(path, files, error, tuple(tuple(x.shape) for x in examples), dynamic)


def _placed(written: Path, path: Path) -> tuple[Path, ...]:
    """Put what was written where it should be, the graph itself last."""
    parts = sorted(written.parent.iterdir(), key=lambda part: part == written)
    for part in parts:
        with part.open("rb") as content, replacing(path.with_name(part.name), "wb") as stream:
            shutil.copyfileobj(content, stream)
    return tuple(path.with_name(part.name) for part in parts)


def _examples(model: CamModel, pixels: bool, dynamic: bool) -> list[Tensor]:
    """Inputs: two of the usual size, and of other numbers and sizes what the graph should take."""
    side, channels, step = model.preprocessing.size, model.network.channels, 2 * model.head.stride
    sizes = [(2, side, side), (1, side, side), (3, side, side)]
    if dynamic:
        sizes += [(2, side, side + step), (1, side + step, side)]
    generator = torch.Generator().manual_seed(0)
    made = []
    for number, height, width in sizes:
        if pixels:
            shape = (number, height, width, channels)
            made.append(torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8))
        else:
            made.append(torch.randn(number, channels, height, width, generator=generator))
    return made


def _traced(
    graph: MapGraph, example: Tensor, pixels: bool, dynamic: bool, name: str
) -> torch.export.ExportedProgram:
    """The graph as torch.export sees it."""
    from torch.export import Dim

    first = 1 if pixels else 2
    sides = {first: Dim.AUTO, first + 1: Dim.AUTO} if dynamic else {}
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.export.export(
                graph, (example,), dynamic_shapes=({0: Dim.AUTO, **sides},), strict=False
            )
    except Exception as error:
        # Whatever the network's own code does that can't be traced.
        line = (str(error).splitlines() or [""])[0]
        raise ExportError(
            f"{name} can't be traced by torch.export ({type(error).__name__}: {line[:200]})"
        ) from None


def _onnx(program: torch.export.ExportedProgram, path: Path, facts: str) -> Run:
    """Write ONNX; what runs it."""
    _needed()
    import onnx

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made = torch.onnx.export(
            program, (), dynamo=True, verbose=False, input_names=["input"], output_names=[*OUTPUTS]
        )
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
    with warnings.catch_warnings():
        # It tells of tensors that share memory, which are whole on the CPU.
        warnings.simplefilter("ignore")
        torch.export.save(program, path, extra_files={KEY: facts})
    loaded = torch.export.load(path).module()

    def run(inputs: Tensor) -> Arrays:
        with torch.no_grad():
            return [found.numpy() for found in loaded(inputs)]

    return run


@torch.no_grad()
def _difference(graph: MapGraph, run: Run, inputs: Tensor) -> float:
    """Most that logits or maps differ, of their range over the batch."""
    pairs = zip(graph(inputs), run(inputs), strict=True)
    parts = [(ours.numpy(), theirs) for ours, theirs in pairs]
    if any(ours.shape != theirs.shape for ours, theirs in parts):
        return float("inf")
    return max(
        float(np.abs(ours - theirs).max() / max(np.ptp(ours), np.finfo(np.float32).tiny))
        for ours, theirs in parts
    )


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
