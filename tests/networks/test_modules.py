"""Modules that a caller gives, of which no map can be made: one line says why."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import camtool
from camtool.errors import ModelError


def net(last: nn.Module) -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 3, 2), nn.AdaptiveAvgPool2d(1), nn.Flatten(), last)


@pytest.mark.parametrize(
    ("module", "reason"),
    [
        (torch.jit.script(net(nn.Linear(4, 2))), "holds TorchScript"),
        (net(torch.jit.script(nn.Linear(4, 2))), "holds TorchScript"),
        (net(nn.LazyLinear(2)), "lazy layers"),
        (net(nn.Linear(4, 2)).to("meta"), "without values"),
    ],
)
def test_a_module_without_weights_or_hooks_is_refused(module: nn.Module, reason: str) -> None:
    with pytest.raises(ModelError, match=reason):
        camtool.load(module)
