"""`camtool inspect`: what head a network has, and whether its maps are exact."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from camtool.cli import common

if TYPE_CHECKING:
    from camtool.heads import Head
    from camtool.networks import Network


def inspect(
    model: Annotated[str, typer.Argument(help="As for --model.")] = "auto",
    weights: common.Weights = None,
    size: common.Size = None,
    as_json: common.AsJson = False,
) -> None:
    """Show where a network's maps come from.

    How well they add up to the logits is measured.

    An architecture whose weights are not on this machine is looked at with random weights: the
    head is the same.
    """
    from camtool.heads import find_head
    from camtool.networks import load_network

    with common.exits():
        network = load_network(model, weights, random_if_absent=True)
        head = find_head(network.module, size or network.preprocessing.size, network.channels)
        facts = _facts(network, head)
    if as_json:
        print(json.dumps(facts, indent=1))
    else:
        _print(facts, head.layer_name)


def _facts(network: Network, head: Head) -> dict[str, Any]:
    from camtool.heads import TOLERANCE

    total = sum(parameter.numel() for parameter in network.module.parameters())
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
            "pool": head.pool,
            "weight": head.layer,
            "bias": head.bias,
            "parameters": head.parameters,
            "dense_parameters": head.dense_parameters,
            "max_error": head.max_error,
            "tolerance": TOLERANCE,
            "exact": head.exact,
        },
    }


def _print(facts: dict[str, Any], layer: str) -> None:
    from rich.markup import escape
    from rich.table import Table

    head = facts["head"]
    rows, columns = head["shape"]
    verdict = "exact" if head["exact"] else "does not add up"
    proof = (
        f"{verdict}: |mean(M) + b - logit| = {head['max_error']:.1e} of the logits' spread "
        f"(tolerance {head['tolerance']:.0e})"
    )
    table = Table(show_header=False, title=escape(facts["model"]), title_justify="left")
    lines = {
        "weights": facts["weights"],
        "sha256": facts["sha256"] or "-",
        "parameters": f"{facts['parameters']:,}",
        "input": f"{facts['input'][1]}×{facts['input'][0]}",
        "features": f"{head['features']}: {head['channels']} maps of {columns}×{rows}, "
        f"stride {head['stride']}",
        "pool": f"{head['pool']} over all {rows * columns} positions",
        "linear layer": layer,
        "classes": f"{facts['classes']:,}",
        "proof": proof,
        "GAP + linear": f"{head['parameters']:,} parameters",
        "flatten + dense": f"{head['dense_parameters']:,} parameters on the same features",
    }
    for name, value in lines.items():
        table.add_row(name, escape(value))
    common.show_table(table)
