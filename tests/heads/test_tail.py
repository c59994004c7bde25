"""What a tail costs, and that saving it changes nothing."""

from __future__ import annotations

import gc
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from camtool.heads import Forward, TailHead, find_head, integrate, path
from camtool.heads.path import Steps

SIZE = 32


class Attentive(nn.Module):
    """Patches, torch's own attention, and a class token that alone leads to the logits."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 16, 8, 8)
        self.token = nn.Parameter(torch.randn(1, 1, 16))
        self.norm, self.last = nn.LayerNorm(16), nn.LayerNorm(16)
        self.mix = nn.MultiheadAttention(16, 2, batch_first=True)
        self.mlp = nn.Sequential(nn.Linear(16, 32), nn.GELU(), nn.Linear(32, 16))
        self.fc = nn.Linear(16, 5)

    def body(self, x: Tensor) -> Tensor:
        places = self.patches(x).flatten(2).transpose(1, 2)
        return torch.cat([self.token.expand(len(x), -1, -1), places], 1).relu()

    def rest(self, x: Tensor) -> Tensor:
        y = self.norm(x)
        x = x + self.mix(y, y, y, need_weights=False)[0]
        x = x + self.mlp(self.last(x))
        return self.fc(x[:, 0])

    def forward(self, x: Tensor) -> Tensor:
        return self.rest(self.body(x))


class Calls(TorchDispatchMode):
    """Counts what is computed, by name; apart from that what is computed on shapes alone."""

    def __init__(self) -> None:
        super().__init__()
        self.on_shapes: list[str] = []
        self.products: list[tuple[int, ...]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        first = args[0] if args and isinstance(args[0], Tensor) else None
        if first is not None and first.device.type == "meta":
            self.on_shapes.append(str(func))
        if "bmm" in str(func):
            self.products.append(tuple(first.shape))
        return func(*args, **(kwargs or {}))


def seen(number: int = 3) -> tuple[Attentive, TailHead, Forward]:
    torch.manual_seed(0)
    network = Attentive().eval().requires_grad_(False)
    head = find_head(network, SIZE)
    assert isinstance(head, TailHead)
    return network, head, head.forward(network, network, torch.randn(number, 3, SIZE, SIZE))


def test_gradients_are_those_of_the_network() -> None:
    network, _, forward = seen()
    tokens = network.body(forward.inputs).detach().requires_grad_()
    expected = torch.autograd.grad(network.rest(tokens)[:, 2].sum(), tokens)[0][:, 1:]
    maps = forward.features.clone().requires_grad_()
    (found,) = torch.autograd.grad(forward.tail(maps)[:, 2].sum(), maps)
    torch.testing.assert_close(found.flatten(2).transpose(1, 2), expected)


def test_versions_one_at_a_time_give_what_they_give_together(monkeypatch) -> None:
    _, _, forward = seen()
    classes = torch.tensor([[0, 3], [1, 4], [2, 0]])
    four = Steps("gauss", 4)
    together = integrate(forward.tail, forward.features, classes, 0.0, 4, four)
    sizes: list[int] = []

    def tail(maps: Tensor, held: Any = None, secant: bool = False) -> Tensor:
        sizes.append(len(maps))
        return forward.tail(maps, held, secant)

    monkeypatch.setattr(path, "MOST_VALUES", 1)
    apart = integrate(tail, forward.features, classes, 0.0, 4, four)
    assert sizes == [3] * 6
    for one, other in zip(apart[:3], together[:3], strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


class Met(nn.Module):
    """A body in which several threads are at once, and layers behind a pool."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Conv2d(3, 4, 3, 4)
        self.rest = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 5))
        self.meet: Any = None

    def forward(self, x: Tensor) -> Tensor:
        maps = self.body(x)
        if self.meet is not None:
            # All at once, and once each: a second run would wait in vain.
            self.meet.wait(30)
        return self.rest(maps.mean((2, 3)))


def test_threads_in_one_network_keep_their_own_maps() -> None:
    torch.manual_seed(0)
    network = Met().eval().requires_grad_(False)
    head = find_head(network, SIZE)
    inputs = torch.randn(3, 1, 3, SIZE, SIZE)
    alone = [head.forward(network, network, each).features for each in inputs]
    network.meet = threading.Barrier(3)
    with ThreadPoolExecutor(3) as pool:
        found = list(pool.map(lambda each: head.forward(network, network, each), inputs))
    for one, other in zip(found, alone, strict=True):
        torch.testing.assert_close(one.features, other)
    assert not network.body._forward_hooks


class Reusing(nn.Module):
    """One module gives the maps, and others before them."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 4, 3, 4), nn.Conv2d(4, 4, 3, 1)
        self.act = nn.Tanh()
        self.rest = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 5))
        self.runs = 0

    def forward(self, x: Tensor) -> Tensor:
        self.runs += x.device.type != "meta"
        maps = self.act(self.second(self.act(self.first(x))))
        return self.rest(maps.mean((2, 3)))


def test_a_network_that_calls_a_module_again_is_run_once_a_batch() -> None:
    torch.manual_seed(0)
    network = Reusing().eval().requires_grad_(False)
    head = find_head(network, SIZE)
    assert head.features == "act"
    inputs = torch.randn(2, 3, SIZE, SIZE)
    network.runs = 0
    forward = head.forward(network, network, inputs)
    assert network.runs == 1
    expected = network.act(network.second(network.act(network.first(inputs))))
    torch.testing.assert_close(forward.features, expected)


def test_what_stands_before_the_cut_is_run_on_shapes_once() -> None:
    network, head, forward = seen()
    forward.tail(forward.features)
    again = head.forward(network, network, forward.inputs + 1)
    with torch.no_grad(), Calls() as calls:
        found = again.tail(again.features)
    assert calls.on_shapes == []
    with torch.no_grad():
        torch.testing.assert_close(found, network(forward.inputs + 1))


def test_shapes_of_few_inputs_are_kept() -> None:
    network, head, _ = seen()
    for number in range(1, 40):
        forward = head.forward(network, network, torch.randn(number, 3, SIZE, SIZE))
        forward.tail(forward.features)
    assert 0 < len(head.shapes) <= 16


def test_attention_is_not_projected_token_by_token_while_it_is_watched() -> None:
    network, head, forward = seen()
    tokens = forward.features[0, 0].numel() + 1
    with Calls() as calls:
        head.forward(network, network, forward.inputs)
    assert tokens not in [shape[0] for shape in calls.products]


def test_a_network_whose_head_was_found_is_let_go() -> None:
    network: nn.Module = nn.Sequential(
        nn.Conv2d(3, 8, 4, 4),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 6),
        nn.Tanh(),
        nn.Linear(6, 4),
    )
    find_head(network, SIZE)
    gone = weakref.ref(network)
    gc.disable()
    try:
        del network
        assert gone() is None
    finally:
        gc.enable()
