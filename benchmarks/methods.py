"""What maps cost: time and memory as ratios to the plain forward pass, and to pytorch-grad-cam.

Usage: python benchmarks/methods.py [--rounds 9] [--threads N] [--parts integrated peers memory]

Batches of 8 normalised inputs of 224x224, float32, random weights (speed hardly depends on them).
Everything of one network runs in one process, in turns: a round runs every contestant once, and a
figure is the median over rounds of the ratio within the round. Both sides of a ratio get the same
threads and the same allocator settings. Peers need `pip install grad-cam`.

* integrated: network and map of the best class as a multiple of the plain forward pass, and of five
  classes as a multiple of one;
* peers: methods of the same name, camtool's and pytorch-grad-cam's, same network and layer, one
  class a picture, both from the tensor to maps of the input's size: time as a multiple of the plain
  forward pass, and how many times as fast camtool is; with the module as it is, and fused as
  `camtool batch` runs it (`model.fuse()`);
* memory: of the process at the peak of one run, each in a process of its own, as a multiple of the
  plain forward pass's; and what of it lies beyond network and input.
"""

from __future__ import annotations

import argparse
import ctypes
import multiprocessing
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn

import camtool
from camtool.accelerate.memory import keep_freed_memory
from camtool.heads import find_head
from camtool.methods import METHODS, Settings
from camtool.networks import Preprocessing, load_network

BATCH, SIDE = 8, 224
NETWORKS = ("mobilenet_v3_large", "convnext_tiny", "maxvit_t", "vgg16", "vit_b_16")
GOALS = {"vgg16": 2.0, "vit_b_16": 3.0}
"""As multiples of the forward pass; 1.15 for networks with a global pool."""
PEERS = {
    "gradcam": "GradCAM",
    "gradcam++": "GradCAMPlusPlus",
    "xgradcam": "XGradCAM",
    "hirescam": "HiResCAM",
    "layercam": "LayerCAM",
    "eigencam": "EigenCAM",
    "eigengradcam": "EigenGradCAM",
}
"""pytorch-grad-cam's classes by our names."""

Run = Callable[[], object]


def build(name: str) -> nn.Module:
    """An architecture of torchvision with random weights, as `camtool inspect` takes it."""
    return load_network(name, "random").module.requires_grad_(False)


def inputs_of() -> Tensor:
    return torch.randn(BATCH, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))


def plain(module: nn.Module, inputs: Tensor) -> Run:
    """The forward pass alone."""

    def run() -> object:
        with torch.inference_mode():
            return module(inputs)

    return run


def maps(module: nn.Module, inputs: Tensor, method: str, classes: int = 1) -> Run:
    """Forward pass and maps of the best classes."""
    head = find_head(module, SIDE)

    def run() -> object:
        with torch.no_grad():
            forward = head.forward(module, module, inputs)
            best = forward.logits.topk(classes, dim=1).indices
            return METHODS[method](forward, best, Settings())

    return run


def ours(name: str, inputs: Tensor, method: str, fused: bool = False) -> Run:
    """From the tensor to maps of its size, as users call it; the same weights as `build`."""
    given = name if fused else build(name)
    weights = "random" if fused else None
    spec = Preprocessing(size=SIDE)
    model = camtool.load(given, weights, device="cpu", method=method, preprocessing=spec)
    if fused and not model.fuse():
        raise SystemExit(f"{name} can't be fused on this machine")

    def run() -> object:
        return [each.heatmap() for each in model.explain_tensor(inputs, targets=0)]

    return run


def theirs(module: nn.Module, inputs: Tensor, method: str) -> Run:
    """The same by pytorch-grad-cam; its hooks stay on the module."""
    import pytorch_grad_cam
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    peer: Any = getattr(pytorch_grad_cam, PEERS[method])
    layer = module.get_submodule(find_head(module, SIDE).features)
    explain = peer(model=module, target_layers=[layer])
    return lambda: explain(inputs, [ClassifierOutputTarget(0)] * BATCH)


def in_turns(contestants: dict[str, Run], rounds: int) -> list[dict[str, float]]:
    """Seconds of every contestant in every round, the first two not counted."""
    return [{name: seconds(run) for name, run in contestants.items()} for _ in range(rounds + 2)][
        2:
    ]


def seconds(run: Run) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def ratio(rows: list[dict[str, float]], one: str, other: str) -> float:
    """Median over rounds of one contestant's time divided by another's."""
    return median(row[one] / row[other] for row in rows)


def print_integrated(names: list[str], rounds: int) -> None:
    """Integrated maps of one and of five classes against the forward pass."""
    print("\n| network | integrated ÷ forward | goal | five classes ÷ one | goal |")
    print("|---|---:|---:|---:|---:|")
    for name in names:
        module, inputs = build(name), inputs_of()
        contestants = {
            "plain": plain(module, inputs),
            "one": maps(module, inputs, "integrated"),
            "five": maps(module, inputs, "integrated", 5),
        }
        rows = in_turns(contestants, rounds)
        one, five = ratio(rows, "one", "plain"), ratio(rows, "five", "one")
        print(f"| {name} | {one:.2f} | {GOALS.get(name, 1.15)} | {five:.2f} | 1.3 |", flush=True)


def print_peers(name: str, rounds: int) -> None:
    """Methods of the same name, camtool's and pytorch-grad-cam's."""
    print(f"\n| {name} | camtool | fused | pytorch-grad-cam | times as fast | fused | goal |")
    print("|---|---:|---:|---:|---:|---:|---:|")
    for method in PEERS:
        # Modules of their own: hooks that stay on one would cost the other.
        inputs = inputs_of()
        contestants = {
            "plain": plain(build(name), inputs),
            "ours": ours(name, inputs, method),
            "fused": ours(name, inputs, method, fused=True),
            "theirs": theirs(build(name).requires_grad_(True), inputs, method),
        }
        rows = in_turns(contestants, rounds)
        cost = [f"{ratio(rows, who, 'plain'):.2f}" for who in ("ours", "fused", "theirs")]
        faster = [f"{ratio(rows, 'theirs', who):.1f}" for who in ("ours", "fused")]
        print("| " + " | ".join([method, *cost, *faster, "3"]) + " |", flush=True)


def status(key: str) -> int:
    """Bytes of this process by a key of the kernel's (Linux)."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(key):
            return int(line.split()[1]) * 1024
    raise OSError("the system does not say")


def peak(name: str, method: str, threads: int) -> tuple[int, int]:
    """Bytes of this process at the peak of one run, and those beyond what it held before."""
    torch.set_num_threads(threads)
    module, inputs = build(name), inputs_of()
    if method == "plain":
        run = plain(module, inputs)
    elif method in PEERS.values():
        own = {peer: name for name, peer in PEERS.items()}[method]
        run = theirs(module.requires_grad_(True), inputs, own)
    else:
        run = maps(module, inputs, method)
    # What was freed since the process began is given back, so that it hides nothing.
    ctypes.CDLL(None).malloc_trim(0)
    before = status("VmRSS:")
    # From Documentation/filesystems/proc.rst: 5 resets the peak to what is resident now.
    Path("/proc/self/clear_refs").write_text("5")
    run()
    return status("VmHWM:"), status("VmHWM:") - before


def alone(name: str, method: str, threads: int) -> tuple[int, int]:
    """`peak` in a process of its own."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(peak, (name, method, threads))


def print_memory(names: list[str], peers_on: str, threads: int) -> None:
    """Peak memory of integrated maps, and of both tools' gradient methods."""
    print("\n| network | method | MB | ÷ forward | goal | beyond network and input | ÷ forward |")
    print("|---|---|---:|---:|---:|---:|---:|")
    cases = [(name, ["integrated"]) for name in names]
    cases.append((peers_on, ["gradcam", "GradCAM", "layercam", "LayerCAM"]))
    for name, methods in cases:
        forward = alone(name, "plain", threads)
        for method in ("plain", *methods):
            used = forward if method == "plain" else alone(name, method, threads)
            label = f"pytorch-grad-cam {method}" if method in PEERS.values() else method
            megabytes = [f"{size / 2**20:.0f}" for size in used]
            times = [f"{size / plain:.2f}" for size, plain in zip(used, forward, strict=True)]
            row = (name, label, megabytes[0], times[0], "1.3", megabytes[1], times[1])
            print("| " + " | ".join(row) + " |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--networks", nargs="+", default=list(NETWORKS))
    parser.add_argument("--peers-on", default="resnet50", help="network for the peers")
    parts = {
        "integrated": lambda o: print_integrated(o.networks, o.rounds),
        "peers": lambda o: print_peers(o.peers_on, o.rounds),
        "memory": lambda o: print_memory(o.networks, o.peers_on, o.threads),
    }
    parser.add_argument("--parts", nargs="+", choices=parts, default=list(parts))
    options = parser.parse_args()
    keep_freed_memory()
    torch.set_num_threads(options.threads)
    print(f"batch {BATCH}, {SIDE} px, {options.threads} threads, {options.rounds} rounds")
    for part in options.parts:
        parts[part](options)


if __name__ == "__main__":
    main()
