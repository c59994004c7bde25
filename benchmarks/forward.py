"""Speed of a network's forward pass on this CPU, as ratios to how it is usually run.

Prints, for each network, batch and number of threads, how many times faster than plain float32
each variant is: the median over rounds, each of which runs every variant once, so that whatever
else the machine does falls on all of them. Weights are random; speed does not depend on them.

    python benchmarks/forward.py --rounds 9
"""

from __future__ import annotations

import argparse
import copy
import time
from collections.abc import Callable
from functools import partial
from statistics import median

import torch
from torch import Tensor, nn

from camtool.accelerate.fuse import bf16_pays, fuse
from camtool.accelerate.memory import keep_freed_memory
from camtool.networks.efficientnet_lite0 import EfficientNetLite0

NETWORKS = ("efficientnet_lite0", "resnet50", "resnet18", "squeezenet1_0")
WARM_UP = 2
"""Rounds not counted: in the second one a fused network lays out its weights."""

Variant = tuple[nn.Module, Tensor]


def variants(module: nn.Module, batch: int, size: int) -> dict[str, Variant]:
    """Each way to run a network with its input; plain float32 comes first."""
    inputs = torch.randn(batch, 3, size, size)
    last = inputs.to(memory_format=torch.channels_last)
    made: dict[str, tuple[nn.Module | None, Tensor]] = {
        "plain": (module, inputs),
        "channels_last": (copy_of(module), last),
        "fused": (fuse(module), last),
    }
    if bf16_pays():
        made["bf16"] = (copy_of(module, torch.bfloat16), last.bfloat16())
        made["fused bf16"] = (fuse(module, torch.bfloat16), last.bfloat16())
    return {name: (found, x) for name, (found, x) in made.items() if found is not None}


def copy_of(module: nn.Module, dtype: torch.dtype = torch.float32) -> nn.Module:
    """A channels-last copy in a number format."""
    return copy.deepcopy(module).to(dtype).to(memory_format=torch.channels_last)


def seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def speedups(compared: dict[str, Variant], rounds: int) -> dict[str, float]:
    """Median over rounds of the first variant's time divided by each variant's."""
    ratios: dict[str, list[float]] = {name: [] for name in compared}
    with torch.inference_mode():
        for number in range(WARM_UP + rounds):
            times = {name: seconds(partial(run, x)) for name, (run, x) in compared.items()}
            first = next(iter(times.values()))
            if number >= WARM_UP:
                for name, taken in times.items():
                    ratios[name].append(first / taken)
    return {name: median(values) for name, values in ratios.items()}


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
    parser.add_argument("--keep", action="store_true", help="keep freed memory, as batch does")
    parser.add_argument("--networks", nargs="+", default=list(NETWORKS))
    options = parser.parse_args()
    if options.keep:
        keep_freed_memory()
    for threads in dict.fromkeys((1, torch.get_num_threads())):
        torch.set_num_threads(threads)
        for name in options.networks:
            for batch in options.batches:
                found = speedups(variants(build(name), batch, options.size), options.rounds)
                row = "  ".join(f"{key} {value:.2f}×" for key, value in found.items())
                print(f"{name}, batch {batch}, threads {threads}: {row}", flush=True)


if __name__ == "__main__":
    main()
