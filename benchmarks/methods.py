"""What maps cost: time and memory as ratios to the plain forward pass, and to pytorch-grad-cam.

Usage: python benchmarks/methods.py [--rounds 9] [--threads N] [--parts integrated peers memory]

Batches of 8 normalised inputs of 224x224, float32, random weights (speed hardly depends on them).
Everything of one network runs in one process, in turns: a round runs every contestant once, and a
figure is the median over rounds of the ratio within the round. Both sides of a ratio get the same
threads and the same allocator settings. Peers need `pip install grad-cam`.

* integrated: network and map of the best class as a multiple of the plain forward pass, and of five
  classes as a multiple of one;
* peers: pytorch-grad-cam's time divided by camtool's for the method of the same name, same module,
  same layer, one class a picture, both from the tensor to maps of the input's size;
* memory: what the process needs at its peak beyond what it held before (network and input), a run
  in a process of its own each, as a multiple of the plain forward pass's.
"""

from __future__ import annotations

import argparse
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


def ours(module: nn.Module, inputs: Tensor, method: str) -> Run:
    """From the tensor to maps of its size, as users call it."""
    model = camtool.load(module, method=method, preprocessing=Preprocessing(size=SIDE))

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
    print(f"\n| {name} | camtool ÷ forward | pytorch-grad-cam ÷ forward | times as fast | goal |")
    print("|---|---:|---:|---:|---:|")
    for method in PEERS:
        # Modules of their own: hooks that stay on one would cost the other.
        peer, module, inputs = build(name).requires_grad_(True), build(name), inputs_of()
        contestants = {
            "plain": plain(module, inputs),
            "ours": ours(module, inputs, method),
            "theirs": theirs(peer, inputs, method),
        }
        rows = in_turns(contestants, rounds)
        figures = [ratio(rows, "ours", "plain"), ratio(rows, "theirs", "plain")]
        faster = ratio(rows, "theirs", "ours")
        print(f"| {method} | {figures[0]:.2f} | {figures[1]:.2f} | {faster:.1f} | 3 |", flush=True)


def status(key: str) -> int:
    """Bytes of this process by a key of the kernel's (Linux)."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(key):
            return int(line.split()[1]) * 1024
    raise OSError("the system does not say")


def peak(name: str, method: str, threads: int) -> int:
    """Bytes that a second run needs at its peak beyond what was there before it.

    The first run is of one small input: it makes what is made once for a process.
    """
    keep_freed_memory()
    torch.set_num_threads(threads)
    module, inputs = build(name), inputs_of()
    if method == "plain":
        warm, run = plain(module, inputs[:1]), plain(module, inputs)
    elif method in PEERS.values():
        module.requires_grad_(True)
        ours_by = {peer: own for own, peer in PEERS.items()}
        warm, run = (lambda: None), theirs(module, inputs, ours_by[method])
    else:
        warm, run = maps(module, inputs[:1], method), maps(module, inputs, method)
    warm()
    before = status("VmRSS:")
    # From Documentation/filesystems/proc.rst: 5 resets the peak to what is resident now.
    Path("/proc/self/clear_refs").write_text("5")
    run()
    return status("VmHWM:") - before


def alone(name: str, method: str, threads: int) -> int:
    """`peak` in a process of its own."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(peak, (name, method, threads))


def print_memory(names: list[str], peers_on: str, threads: int) -> None:
    """Peak memory of integrated maps, and of both tools' gradient methods."""
    print("\n| network | method | MB beyond network and input | ÷ forward | goal |")
    print("|---|---|---:|---:|---:|")
    cases = [(name, ["integrated"]) for name in names]
    cases.append((peers_on, ["gradcam", "GradCAM", "layercam", "LayerCAM"]))
    for name, methods in cases:
        forward = alone(name, "plain", threads)
        print(f"| {name} | forward | {forward / 2**20:.0f} | 1 | |")
        for method in methods:
            used = alone(name, method, threads)
            label = f"pytorch-grad-cam {method}" if method in PEERS.values() else method
            print(f"| {name} | {label} | {used / 2**20:.0f} | {used / forward:.2f} | 1.3 |")


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
