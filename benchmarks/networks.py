"""Which networks get maps that add up, and how well: a table in Markdown.

Every classification architecture of torchvision, and one network of each family of timm
(tests/heads/families.json), at their own input size, with random weights: whether maps add up does
not depend on them. The residual is measured from outside: what the maps of the five best classes
of two random inputs miss of the network's own logits, at the most, relative to their spread.

    python benchmarks/networks.py > docs/networks.md
    python benchmarks/networks.py convnext_tiny timm/levit_128
"""

from __future__ import annotations

import argparse
import gc
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from camtool.errors import ModelError
from camtool.heads import Forward, Head, find_head
from camtool.methods import Method, Settings, find_method
from camtool.networks import load_network

FAMILIES = Path(__file__).parents[1] / "tests" / "heads" / "families.json"
MORE = Settings(tolerance=1e-5, steps=256)
"""What `--steps 256` asks for."""

INTRODUCTION = """# Networks

All classification architectures of torchvision, and one network of each family of timm, with
random weights at their own input size. *Kind* is what follows the cut, the last tensor with places
from which the logits come: `linear` (pooling and one linear layer) and `maps` (one map a class) get
the class activation map itself, in closed form; `affine` and `norm` are linear in the maps too,
through several layers or once the statistics of normalizations are held; `nonlinear` and
`positional` have layers with a nonlinearity behind the cut, `tokens` an attention block. *Residual*
is the most that the maps of the five best classes of two random inputs miss of the network's own
logits, relative to their spread, and *steps* are the evaluations along the path that it took: by
default, and in the last two columns with `--steps 256`.

Made by `python benchmarks/networks.py > docs/networks.md`.
"""
COLUMNS = ("network", "kind", "method", "cut", "grid", "steps", "residual", "steps", "residual")


@dataclass(frozen=True)
class Found:
    """What was found of a network.

    Attributes:
        kind: Of its head.
        method: That `auto` takes.
        cut: Module or call that gives the feature maps.
        grid: (h, w) of them.
        steps: By default, and with `MORE`.
        residuals: Relative to the logits' spread, likewise.
    """

    kind: str
    method: str
    cut: str
    grid: tuple[int, int]
    steps: tuple[int, int]
    residuals: tuple[float, float]

    def cells(self) -> list[str]:
        """As cells of the table, in the order of `COLUMNS`."""
        rows, columns = self.grid
        cells = [self.kind, f"`{self.method}`", f"`{self.cut}`", f"{columns}×{rows}"]
        for steps, residual in zip(self.steps, self.residuals, strict=True):
            cells += [str(steps), f"{residual:.0e}"]
        return cells


def measure(module: nn.Module, size: int) -> Found:
    """Find the head of a network, and see from outside whether its maps add up.

    Args:
        module: The network, in evaluation mode.
        size: Side of its input.

    Raises:
        HeadError: It has none.
    """
    head = find_head(module, size)
    name, method = find_method("auto", head)
    inputs = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        logits: Tensor = head.forward(module, module, inputs).network(inputs)
    first = _missed(head, module, inputs, logits, method, Settings())
    # Where the first steps suffice for the smaller tolerance, no more are taken for it.
    enough = first[1] <= MORE.tolerance
    more = first if enough else _missed(head, module, inputs, logits, method, MORE)
    steps, residuals = (first[0], more[0]), (first[1], more[1])
    return Found(head.kind, name, head.features, head.shape, steps, residuals)


@torch.no_grad()
def _missed(
    head: Head,
    module: nn.Module,
    inputs: Tensor,
    logits: Tensor,
    method: Method,
    settings: Settings,
) -> tuple[int, float]:
    forward: Forward = head.forward(module, module, inputs)
    classes = logits.topk(min(5, logits.shape[1]), 1).indices
    maps, bias, steps = method(forward, classes, settings)
    missing = (logits.gather(1, classes) - maps.mean((2, 3)) - bias).abs().amax(1)
    return steps, float((missing / (logits.amax(1) - logits.amin(1))).max())


def measured(name: str) -> Found:
    """`measure` a network by name, with random weights.

    Raises:
        ModelError: There is no such network, or it has no head.
    """
    network = load_network(name, "random")
    return measure(network.module, network.preprocessing.size)


def names() -> Iterator[str]:
    """The networks of the table, torchvision's first."""
    from torchvision import models

    yield from models.list_models(module=models)
    yield from (f"timm/{name}" for name in json.loads(FAMILIES.read_text()).values())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help="Networks, in place of all.")
    chosen = parser.parse_args().names
    worst: dict[str, list[float]] = {}
    if not chosen:
        print(INTRODUCTION)
    print(f"| {' | '.join(COLUMNS)} |\n|{' --- |' * len(COLUMNS)}")
    for name in chosen or names():
        try:
            found = measured(name)
            worst.setdefault(found.kind, []).append(max(found.residuals))
            cells = found.cells()
        except ModelError as error:
            cells = [f"refused: {error}", *[""] * (len(COLUMNS) - 2)]
        print(f"| {' | '.join([name, *cells])} |", flush=True)
        # Some networks hold themselves in circles; the largest take gigabytes.
        gc.collect()
    for kind, residuals in worst.items():
        print(f"{kind}: {len(residuals)}, at most {max(residuals):.1e}", file=sys.stderr)


if __name__ == "__main__":
    main()
