"""Speed of a network's forward pass on this CPU, as ratios to how it is usually run.

Prints, for each network, batch and number of threads, how many times faster than plain float32
each variant is: the median over rounds, each of which runs every variant once, so that whatever
else the machine does falls on all of them. Each has a process of its own, because memory is part
of it: plain float32 runs as a script of anybody's would, the others as in `camtool batch`, which
keeps freed memory. Weights are random; speed does not depend on them.

    python benchmarks/forward.py --rounds 9
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import time
from contextlib import ExitStack
from multiprocessing.connection import Connection
from statistics import median
from unittest import mock

import torch
from torch import Tensor, nn

from camtool.accelerate.environment import prepare_environment
from camtool.accelerate.fuse import bf16_pays, fuse
from camtool.accelerate.memory import keep_freed_memory
from camtool.networks.efficientnet_lite0 import EfficientNetLite0

NETWORKS = ("efficientnet_lite0", "resnet50", "resnet18", "squeezenet1_0")
VARIANTS = ("plain", "channels_last", "fused", "bf16", "fused bf16")
WARM_UP = 2
"""Rounds not counted: in the second one a fused network lays out its weights."""


def serve(
    pipe: Connection, variant: str, network: str, batch: int, size: int, threads: int
) -> None:
    """A process that runs one variant whenever it is told to, and tells the seconds."""
    if variant != "plain":
        keep_freed_memory()
    torch.set_num_threads(threads)
    run, inputs = prepared(variant, build(network), torch.randn(batch, 3, size, size))
    with torch.inference_mode():
        while pipe.recv():
            start = time.perf_counter()
            run(inputs)
            pipe.send(time.perf_counter() - start)


def prepared(variant: str, module: nn.Module, inputs: Tensor) -> tuple[nn.Module, Tensor]:
    """The network as a variant runs it, and its input; as it is where it can't be fused."""
    if variant == "plain":
        return module, inputs
    dtype = torch.bfloat16 if "bf16" in variant else torch.float32
    fused = fuse(module, dtype) if "fused" in variant else None
    found = module.to(dtype).to(memory_format=torch.channels_last) if fused is None else fused
    return found, inputs.to(dtype).to(memory_format=torch.channels_last)


def speedups(network: str, batch: int, size: int, threads: int, rounds: int) -> dict[str, float]:
    """Median over rounds of plain float32's time divided by each variant's."""
    context = multiprocessing.get_context("spawn")
    pipes: dict[str, Connection] = {}
    with ExitStack() as stack:
        for variant in VARIANTS if bf16_pays() else VARIANTS[:3]:
            pipes[variant], theirs = context.Pipe()
            arguments = (theirs, variant, network, batch, size, threads)
            process = context.Process(target=serve, args=arguments, daemon=True)
            with mock.patch.dict(os.environ):
                if variant != "plain":
                    prepare_environment()
                process.start()
            stack.callback(process.join)
            stack.callback(pipes[variant].send, False)
        times = [
            {name: seconds(pipe) for name, pipe in pipes.items()} for _ in range(WARM_UP + rounds)
        ][WARM_UP:]
    return {name: median(row["plain"] / row[name] for row in times) for name in pipes}


def seconds(pipe: Connection) -> float:
    """Let a process run its variant once."""
    pipe.send(True)
    taken: float = pipe.recv()
    return taken


def build(name: str) -> nn.Module:
    """An architecture of ours, of timm ("timm/NAME") or of torchvision, with random weights."""
    module: nn.Module
    if name == "efficientnet_lite0":
        module = EfficientNetLite0()
    elif name.startswith("timm/"):
        import timm

        module = timm.create_model(name.removeprefix("timm/"))
    else:
        from torchvision import models

        module = models.get_model(name, weights=None)
    return module.eval().requires_grad_(False)


def main() -> None:
    parser = argparse.ArgumentParser(description="Speed of forward passes, as ratios.")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--size", type=int, default=224, help="side of the input in pixels")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--networks", nargs="+", default=list(NETWORKS))
    options = parser.parse_args()
    for threads in dict.fromkeys((1, torch.get_num_threads())):
        for name in options.networks:
            for batch in options.batches:
                found = speedups(name, batch, options.size, threads, options.rounds)
                row = "  ".join(f"{key} {value:.2f}×" for key, value in found.items())
                print(f"{name}, batch {batch}, threads {threads}: {row}", flush=True)


if __name__ == "__main__":
    main()
