"""Maxima that switch on the way add up, and count as in the gradient where none switches."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from camtool.heads import find_head, heads_at
from camtool.methods import METHODS, Settings

HEADS: dict[str, Callable[[Tensor], Tensor]] = {
    "max along an axis": lambda x: x.view(-1, 6, 4).max(2).values,
    "the same, kept": lambda x: x.view(-1, 6, 4).max(-1, keepdim=True)[0].squeeze(2),
    "amax": lambda x: x.view(-1, 6, 4).amax(dim=2),
    "amax over two axes": lambda x: x.view(-1, 2, 6, 2).amax((1, 3)),
    "of two": lambda x: torch.maximum(x[:, :6], x[:, 6:12]),
    "of two, by max": lambda x: torch.max(x[:, :6], x[:, 6:12]),
    "with a number": lambda x: torch.maximum(x[:, :6], torch.full((6,), 0.05)),
}


class Maxout(nn.Module):
    """A pooled tail in which the greatest of several counts."""

    def __init__(self, how: str) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(nn.Conv2d(3, 8, 3, 4), nn.ReLU())
        self.first, self.last = nn.Linear(8, 24), nn.Linear(6, 5)
        nn.init.normal_(self.first.bias)
        self.how = HEADS[how]

    def forward(self, x: Tensor) -> Tensor:
        pooled = self.body(x).mean((2, 3))
        logits: Tensor = self.last(self.how(self.first(pooled)))
        return logits


def missing(module: nn.Module, head, inputs: Tensor) -> float:
    forward = head.forward(module, module, inputs)
    every = torch.arange(forward.logits.shape[1]).expand(len(inputs), -1)
    maps, bias, _ = METHODS["integrated"](forward, every, Settings())
    spread = forward.logits.amax(1) - forward.logits.amin(1)
    return float(((maps.mean((2, 3)) + bias - forward.logits).abs().amax(1) / spread).max())


@pytest.mark.parametrize("how", HEADS)
def test_maxout_heads_add_up(how: str) -> None:
    module = Maxout(how).eval()
    inputs = torch.randn(3, 3, 40, 40, generator=torch.Generator().manual_seed(1))
    head = find_head(module, 40)
    assert head.exact
    assert missing(module, head, inputs) <= 1e-5


@pytest.mark.parametrize("pool", [nn.MaxPool2d(3, 2), nn.MaxPool2d(2), nn.AdaptiveMaxPool2d(5)])
def test_earlier_cuts_add_up_through_max_pools(pool: nn.Module) -> None:
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 8, 3, 1, 1), nn.ReLU(), pool,
        nn.Conv2d(8, 16, 3, 1, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(16, 5),
    ).eval()  # fmt: skip
    for layer in module:
        if isinstance(layer, nn.Conv2d):
            nn.init.normal_(layer.bias)  # type: ignore[arg-type]
    (head,) = heads_at(module, ["1"], 40)
    inputs = torch.randn(3, 3, 40, 40, generator=torch.Generator().manual_seed(1))
    assert missing(module, head, inputs) <= 1e-5


def test_without_a_switch_the_greatest_alone_counts() -> None:
    module = Maxout("amax").eval()
    nn.init.zeros_(module.first.bias)
    inputs = torch.randn(2, 3, 40, 40, generator=torch.Generator().manual_seed(1))
    head = find_head(module, 40)
    forward = head.forward(module, module, inputs)
    maps, _, _ = METHODS["integrated"](forward, torch.zeros(2, 1, dtype=torch.long), Settings())
    features = forward.features.clone().requires_grad_()
    logits = module.last(module.how(module.first(features.mean((2, 3)))))
    (gradient,) = torch.autograd.grad(logits[:, 0].sum(), features)
    expected = (gradient * features).sum(1) * features[0, 0].numel()
    assert maps[:, 0] == pytest.approx(expected.detach(), abs=1e-6)
