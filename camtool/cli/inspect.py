"""`camtool inspect`: what head a network has, and whether its maps are exact."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from camtool.cli import common

STAGES = 5
"""Earlier layers that are looked at; the earlier one is, the longer its proof takes."""

if TYPE_CHECKING:
    from camtool.heads import Head
    from camtool.networks import Network


def inspect(
    model: Annotated[str, typer.Argument(help="As for --model of `camtool explain`.")] = "auto",
    weights: common.Weights = None,
    size: common.Size = None,
    as_json: common.AsJson = False,
) -> None:
    """Show where a network's maps come from.

    How well they add up to the logits is measured.

    Also shown are the layers that --layer may name, the last ones of different shapes, with what
    their integrated maps miss of the logits, relative to the logits' spread.

    An architecture whose weights are not on this machine is looked at with random weights: the
    head is the same.
    """
    from camtool.cli.progress import waiting
    from camtool.heads import find_head, heads_at
    from camtool.networks import load_network

    with common.exits():
        network = load_network(model, weights, random_if_absent=True)
        size = size or network.preprocessing.size
        with waiting("finding the cuts, and what their maps miss of the logits"):
            head = find_head(network.module, size, network.channels)
            given = head.kind == "given"
            cuts = [] if given else heads_at(network.module, [], size, network.channels, STAGES)
        earlier = [cut for cut in cuts if cut.features != head.features]
        facts = _facts(network, head, earlier)
    if as_json:
        print(json.dumps(facts, indent=1))
    else:
        _print(facts, head.layer_name)
        _print_cuts(facts["cuts"])


def _facts(network: Network, head: Head, cuts: Sequence[Head]) -> dict[str, Any]:
    from camtool.heads import TOLERANCE, PooledHead
    from camtool.methods import find_method

    total = sum(parameter.numel() for parameter in network.module.parameters())
    pooled = isinstance(head, PooledHead)
    return {
        "model": network.name,
        "weights": network.weights,
        "sha256": network.sha256,
        "parameters": total,
        "classes": head.classes,
        "input": list(head.input),
        "head": {
            "kind": head.kind,
            "features": head.features,
            "channels": head.channels,
            "shape": list(head.shape),
            "stride": head.stride,
            "pool": head.pool if pooled else None,
            "weight": head.layer,
            "bias": head.bias,
            "parameters": head.parameters if pooled else None,
            "dense_parameters": head.dense_parameters if pooled else None,
            "max_error": head.max_error,
            "tolerance": TOLERANCE,
            "exact": head.exact,
            "method": find_method("auto", head)[0],
            "steps": head.steps.number,
        },
        "cuts": [
            {
                "layer": cut.features,
                "kind": cut.kind,
                "channels": cut.channels,
                "shape": list(cut.shape),
                "residual": cut.max_error,
                "steps": cut.steps.number,
            }
            for cut in (head, *cuts)
        ],
    }


def _print(facts: dict[str, Any], after: str) -> None:
    from rich.markup import escape
    from rich.table import Table

    head = facts["head"]
    rows, columns = head["shape"]
    table = Table(show_header=False, title=escape(facts["model"]), title_justify="left")
    lines = {
        "weights": facts["weights"],
        "sha256": facts["sha256"] or "-",
        "parameters": f"{facts['parameters']:,}",
        "input": f"{facts['input'][1]}×{facts['input'][0]}",
        "features": f"{head['features']}: {head['channels']} maps of {columns}×{rows}, "
        f"stride {head['stride']}",
        **_head_lines(head, after),
        "classes": f"{facts['classes']:,}",
        "method": f"auto takes {head['method']}",
        "proof": _proof(head),
    }
    for name, value in lines.items():
        table.add_row(name, escape(value))
    common.show_table(table)


def _head_lines(head: dict[str, Any], after: str) -> dict[str, str]:
    if head["pool"] is None:
        return {"after them": after}
    rows, columns = head["shape"]
    return {
        "pool": f"{head['pool']} over all {rows * columns} positions",
        "linear layer": after,
        "GAP + linear": f"{head['parameters']:,} parameters",
        "flatten + dense": f"{head['dense_parameters']:,} parameters on the same features",
    }


def _proof(head: dict[str, Any]) -> str:
    error = f"{head['max_error']:.1e} of the logits' spread"
    steps = f" in {head['steps']} steps" if head["method"] == "integrated" else ""
    if head["exact"]:
        verdict = "exact"
    elif head["method"] == "integrated":
        verdict = "adds up nearly (--steps 256 goes on)"
    else:
        verdict = "does not add up"
    return f"{verdict}: |mean(M) + b - logit| = {error}{steps} (tolerance {head['tolerance']:.0e})"


def _print_cuts(cuts: Sequence[dict[str, Any]]) -> None:
    """A line for each layer that may be named with --layer."""
    from rich.markup import escape
    from rich.table import Table

    table = Table("layer", "maps", "what follows", "residual", "steps")
    table.title, table.title_justify = "Cuts for --layer, integrated maps", "left"
    for cut in cuts:
        rows, columns = cut["shape"]
        maps = f"{cut['channels']} of {columns}×{rows}"
        values = (cut["layer"], maps, cut["kind"], f"{cut['residual']:.0e}", str(cut["steps"]))
        table.add_row(*map(escape, values))
    common.show_table(table)
