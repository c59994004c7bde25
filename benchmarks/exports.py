"""Which networks can be exported with their maps, and how far the graphs are from them.

Every classification architecture of torchvision, with random weights, is written as ONNX and
compared in ONNX Runtime on batches of one to three pictures and, where it takes them, on inputs of
two other sizes: the most that logits or maps differ, of their range. A table in Markdown; those
that are refused stand below it with the reason.

    python benchmarks/exports.py
    python benchmarks/exports.py resnet18 timm/levit_128
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import torch

import camtool
from camtool.errors import ModelError
from camtool.export import export_model


def row(name: str, folder: Path) -> str:
    """One line of the table.

    Raises:
        ModelError: It can't be exported.
    """
    model = camtool.load(name, weights="random", device="cpu")
    done = export_model(model, folder / "graph.onnx")
    megabytes = sum(file.stat().st_size for file in done.files) / 1e6
    sizes = "any" if done.dynamic else f"{model.preprocessing.size}"
    cells = (
        name,
        model.head.kind,
        sizes,
        f"{megabytes:.0f}",
        f"{done.error:.0e}",
    )
    return " | ".join(cells)


def main() -> None:
    from torchvision import models

    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("names", nargs="*", help="networks, in place of all of torchvision's")
    chosen = parser.parse_args().names
    torch.set_num_threads(1)
    refused: dict[str, list[str]] = {}
    print("| network | kind | sizes | MB | differs by |\n|---|---|---:|---:|---:|")
    for name in chosen or models.list_models(module=models):
        with tempfile.TemporaryDirectory() as folder:
            try:
                print(f"| {row(name, Path(folder))} |", flush=True)
            except ModelError as error:
                reason = str(error).removeprefix(f"{name}: ")
                refused.setdefault(reason, []).append(name)
    for reason, names in refused.items():
        print(f"\nRefused ({reason}): {', '.join(names)}.")


if __name__ == "__main__":
    main()
