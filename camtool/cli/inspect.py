"""`camtool inspect`: what head a network has, and whether its maps are exact."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from camtool.cli import common

if TYPE_CHECKING:
    from camtool.heads import Head, TailHead
    from camtool.networks import Network


def inspect(
    model: Annotated[str, typer.Argument(help="As for --model.")] = "auto",
    weights: common.Weights = None,
    size: common.Size = None,
    as_json: common.AsJson = False,
) -> None:
    """Show where a network's maps come from.

    How well they add up to the logits is measured; so it is for other layers that --layer may
    name, the last of each shape, whose integrated maps take the default steps.

    An architecture whose weights are not on this machine is looked at with random weights: the
    head is the same.
    """
    from camtool.heads import inspected
    from camtool.networks import load_network

    with common.exits():
        network = load_network(model, weights, random_if_absent=True)
        side = size or network.preprocessing.size
        head, cuts = inspected(network.module, side, network.channels)
        facts = _facts(network, head, cuts)
    if as_json:
        print(json.dumps(facts, indent=1))
    else:
        _print(facts, head.layer_name)
        _print_cuts(facts["cuts"])


def _facts(network: Network, head: Head, cuts: Sequence[TailHead]) -> dict[str, Any]:
    from camtool.heads import TOLERANCE, PooledHead, TailHead
    from camtool.methods import AUTO, find_method

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
            "method": find_method(AUTO, head)[0],
            "steps": head.steps.number if isinstance(head, TailHead) else 1,
        },
        "cuts": [_cut(cut) for cut in cuts],
    }


def _cut(head: TailHead) -> dict[str, Any]:
    return {
        "layer": head.features,
        "kind": head.kind,
        "channels": head.channels,
        "shape": list(head.shape),
        "residual": head.max_error,
        "steps": head.steps.number,
        "exact": head.exact,
    }


def _print(facts: dict[str, Any], follows: str) -> None:
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
        **(_pooled(head, follows) if head["pool"] else {"head": follows}),
        "classes": f"{facts['classes']:,}",
        "method": f"{head['method']} (taken by auto)",
        "proof": _proof(head),
    }
    for name, value in lines.items():
        table.add_row(name, escape(value))
    common.show_table(table)


def _pooled(head: dict[str, Any], layer: str) -> dict[str, str]:
    rows, columns = head["shape"]
    return {
        "pool": f"{head['pool']} over all {rows * columns} positions",
        "linear layer": layer,
        "GAP + linear": f"{head['parameters']:,} parameters",
        "flatten + dense": f"{head['dense_parameters']:,} parameters on the same features",
    }


def _proof(head: dict[str, Any]) -> str:
    integrated = head["method"] == "integrated"
    verdict = "exact" if head["exact"] else "not exact" if integrated else "does not add up"
    steps = f", {_steps(head['steps'])}" if integrated else ""
    return (
        f"{verdict}: |mean(M) + b - logit| = {head['max_error']:.1e} of the logits' spread"
        f"{steps} (tolerance {head['tolerance']:.0e})"
    )


def _steps(number: int) -> str:
    return "1 step" if number == 1 else f"{number} steps"


def _print_cuts(cuts: Sequence[dict[str, Any]]) -> None:
    from rich.markup import escape
    from rich.table import Table

    if not cuts:
        return
    table = Table(title="for --layer: integrated maps at the last layer of each shape")
    table.title_justify = "left"
    for heading in ("layer", "maps", "kind", "residual / spread", "steps"):
        table.add_column(heading, justify="left" if heading in ("layer", "kind") else "right")
    for cut in cuts:
        rows, columns = cut["shape"]
        maps = f"{cut['channels']} of {columns}×{rows}"
        values = (cut["layer"], maps, cut["kind"], f"{cut['residual']:.1e}", str(cut["steps"]))
        table.add_row(*map(escape, values))
    common.show_table(table)
