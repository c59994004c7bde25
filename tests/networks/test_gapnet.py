"""The embedded network's shapes, its exactness, and the file that ships."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from camtool.networks.gapnet import GapNet, Residual, gapnet


@pytest.fixture(scope="module")
def small() -> GapNet:
    torch.manual_seed(0)
    network = gapnet((4, 8, 12, 16, 20), (1, 2, 1), classes=7)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None
            nn.init.normal_(module.running_mean, std=0.1)
            nn.init.uniform_(module.weight, 0.5, 1.5)
    return network.eval()


@pytest.mark.parametrize(("size", "cells"), [(64, 8), (128, 16)])
def test_the_last_map_has_stride_eight(size: int, cells: int) -> None:
    with torch.inference_mode():
        features = gapnet().eval().features(torch.zeros(1, 3, size, size))
    assert features.shape[2:] == (cells, cells)


@pytest.mark.slow
@settings(max_examples=15)
@given(height=st.integers(64, 150), width=st.integers(64, 150))
def test_any_size_from_64_up_gives_the_exact_map(small: GapNet, height: int, width: int) -> None:
    image = torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(height))
    with torch.inference_mode():
        features, logits = small.features(image), small(image)
        maps = torch.einsum("nchw,kc->nkhw", features, small.fc.weight)
    assert features.min() >= 0
    assert features.shape[2:] == (-(-(height // 2) // 4), -(-(width // 2) // 4))
    torch.testing.assert_close(maps.mean((2, 3)) + small.fc.bias, logits, atol=1e-5, rtol=1e-5)


def test_pictures_of_a_batch_do_not_touch_each_other(small: GapNet) -> None:
    images = torch.randn(3, 3, 64, 72, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        together = small(images)
        alone = torch.cat([small(image[None]) for image in images])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-5)


def test_a_residual_block_with_zero_gain_is_its_shortcut() -> None:
    block = Residual(6, 6).eval()
    nn.init.zeros_(block.second.get_parameter("1.weight"))
    x = torch.rand(1, 6, 5, 5)
    torch.testing.assert_close(block(x), x)


def test_gradients_reach_every_parameter() -> None:
    network = gapnet((4, 8, 8, 12), (1, 1), classes=3)
    network(torch.randn(4, 3, 64, 64)).logsumexp(1).sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in network.features.parameters())


@pytest.mark.parametrize(
    ("widths", "blocks", "classes"),
    [
        ((4, 8, 8), (1,), 3),
        ((4, 8, 8), (1, 1), 3),
        ((4, 0, 8, 8), (1, 1), 3),
        ((4, 8, 8, 8), (1, 1), 0),
    ],
)
def test_numbers_that_do_not_fit_are_refused(
    widths: tuple[int, ...], blocks: tuple[int, ...], classes: int
) -> None:
    with pytest.raises(ValueError, match="widths"):
        gapnet(widths, blocks, classes)


def test_the_default_network_is_the_one_that_ships() -> None:
    from safetensors.torch import load_file

    path = Path(__file__).parents[2] / "weights" / "gapnet-1.safetensors"
    assert path.stat().st_size <= 12e6
    gapnet().load_state_dict(load_file(path))
