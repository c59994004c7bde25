"""Laws that maps keep whatever the numbers are."""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from camtool.heads import find_head
from camtool.methods import METHODS, Maps, Settings, merged
from camtool.methods.merge import spread

SIDES = st.integers(1, 9)


@given(st.lists(st.tuples(SIDES, SIDES), min_size=1, max_size=4), st.integers(0, 2**31))
def test_merging_keeps_the_mean_of_what_each_cut_adds_up_to(grids, seed) -> None:
    random = torch.Generator().manual_seed(seed)
    found = [
        Maps(torch.randn(2, 3, *grid, generator=random), torch.randn(2, 3, generator=random), n)
        for n, grid in enumerate(grids)
    ]
    one = merged(found)
    sums = torch.stack([each.maps.mean((2, 3)) + each.bias for each in found]).mean(0)
    torch.testing.assert_close(one.maps.mean((2, 3)) + one.bias, sums, rtol=1e-5, atol=1e-5)
    assert one.maps.shape[2:] == tuple(max(sides) for sides in zip(*grids, strict=True))
    assert one.steps == len(grids) - 1


@given(SIDES, SIDES, st.integers(1, 4), st.integers(0, 2**31))
def test_on_a_finer_grid_whole_cells_are_repeated_and_come_back(rows, columns, times, seed) -> None:
    maps = torch.randn(2, 3, rows, columns, generator=torch.Generator().manual_seed(seed))
    finer = spread(maps, rows * times, columns * times)
    repeated = maps.repeat_interleave(times, 2).repeat_interleave(times, 3)
    torch.testing.assert_close(finer, repeated)
    torch.testing.assert_close(spread(finer, rows, columns), maps)


def network(last: str) -> nn.Module:
    """A body, and a head that ends in a linear layer."""
    torch.manual_seed(0)
    body = nn.Sequential(nn.Conv2d(3, 6, 3, 2, 1), nn.ReLU(), nn.Conv2d(6, 8, 3, 2, 1), nn.ReLU())
    head: dict[str, list[nn.Module]] = {
        "norm": [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.LayerNorm(8)],
        "hidden": [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 8), nn.GELU()],
        "positional": [nn.Flatten(), nn.Linear(8 * 6 * 6, 8), nn.ReLU()],
    }
    return nn.Sequential(body, *head[last], nn.Linear(8, 4)).eval()


def integrated(module: nn.Module, inputs: Tensor) -> Tensor:
    """The integrated maps of all classes."""
    head = find_head(module, 24)
    with torch.no_grad():
        forward = head.forward(module, module, inputs)
        classes = torch.arange(head.classes).expand(len(inputs), -1)
        return METHODS["integrated"](forward, classes, Settings()).maps


@pytest.mark.parametrize("last", ["norm", "hidden", "positional"])
@settings(max_examples=10, deadline=None)
@given(scale=st.floats(-3, 3), seed=st.integers(0, 2**31))
def test_maps_are_linear_in_the_last_layer(last, scale, seed) -> None:
    one, other, both = (network(last) for _ in range(3))
    random = torch.Generator().manual_seed(seed)
    inputs = torch.randn(2, 3, 24, 24, generator=random)
    with torch.no_grad():
        for module in (one, other):
            module[-1].weight.copy_(torch.randn(4, 8, generator=random))
        both[-1].weight.copy_(one[-1].weight + scale * other[-1].weight)
    expected = integrated(one, inputs) + scale * integrated(other, inputs)
    found = integrated(both, inputs)
    assert (found - expected).abs().max() <= 1e-4 * expected.abs().max()


@pytest.mark.parametrize("name", ["integrated", "gradcam", "hirescam", "layercam", "reciprocam"])
def test_a_mirrored_picture_has_the_mirrored_map(name) -> None:
    module = copy.deepcopy(network("norm"))
    with torch.no_grad():
        for part in module.modules():
            if isinstance(part, nn.Conv2d):
                # Odd inputs and symmetric kernels: what is seen in a mirror is seen mirrored.
                part.weight.copy_((part.weight + part.weight.flip(3)) / 2)
    inputs = torch.randn(2, 3, 25, 25, generator=torch.Generator().manual_seed(0))
    head = find_head(module, 25)

    def maps(values: Tensor) -> Tensor:
        with torch.no_grad():
            forward = head.forward(module, module, values)
            return METHODS[name](forward, torch.tensor([[0, 2], [1, 3]]), Settings()).maps

    found, mirrored = maps(inputs), maps(inputs.flip(3)).flip(3)
    torch.testing.assert_close(found, mirrored, rtol=1e-4, atol=1e-5 * float(found.abs().max()))
