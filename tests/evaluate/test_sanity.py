from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torch import nn

from camtool.evaluate.figures import Figure
from camtool.evaluate.sanity import ALIKE, STAGES, passes, randomise, rank_correlation
from camtool.networks.gapnet import gapnet

WHOLE = arrays(np.int64, (3, 4), elements=st.integers(-5, 5))
MAPS = arrays(np.float32, (3, 4), elements=st.floats(-3, 3, width=32))


def weights(module: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in module.named_parameters()}


def changed(before: dict[str, torch.Tensor], module: nn.Module) -> set[str]:
    after = weights(module)
    return {name for name in before if not torch.equal(before[name], after[name])}


def trained() -> nn.Module:
    """Weights that are those of no initialisation."""
    module = gapnet(widths=[4, 4, 8, 8], blocks=[1, 1], classes=3)
    for parameter in module.parameters():
        nn.init.uniform_(parameter, 2, 3)
    return module


def test_the_last_layer_goes_first_and_all_go_in_the_end():
    module = trained()
    before = weights(module)
    found, stages = [], randomise(module)
    for _ in STAGES:
        assert next(stages) in STAGES
        found.append(changed(before, module))
    assert found[0] == {"fc.weight", "fc.bias"}
    assert found[0] < found[1] < found[2] < found[3] == set(before)


def test_the_same_seed_draws_the_same_weights():
    modules = [trained() for _ in range(3)]
    for module, seed in zip(modules, (0, 0, 1), strict=True):
        list(randomise(module, seed))
    one, same, other = map(weights, modules)
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not torch.equal(one["fc.weight"], other["fc.weight"])


def test_the_global_random_numbers_are_left_alone():
    module = trained()
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    list(randomise(module))
    assert torch.equal(torch.rand(3), expected)


def test_weights_that_are_no_layers_are_drawn_too():
    class Scale(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.full((4,), 7.0))

    module = nn.Sequential(nn.Linear(2, 2), Scale())
    before = weights(module)
    first = copy.deepcopy(module)
    next(randomise(first))
    assert changed(before, first) == {"1.scale"}


@given(one=WHOLE, other=WHOLE)
def test_rank_correlations_are_symmetric_and_know_only_order(one, other):
    found = rank_correlation(one, other)
    assert -1 - 1e-9 <= found <= 1 + 1e-9
    assert found == pytest.approx(rank_correlation(other, one))
    assert found == pytest.approx(rank_correlation(one * 2, np.sign(other) * other**2), abs=1e-6)
    assert found == pytest.approx(-rank_correlation(-one, other), abs=1e-9)


def test_rank_correlations_by_hand():
    assert rank_correlation([1, 2, 3, 4], [1, 2, 4, 3]) == pytest.approx(0.8)
    assert rank_correlation([1, 1, 2], [3, 3, 9]) == pytest.approx(1)
    assert rank_correlation([1, 1, 1], [1, 2, 3]) == 0


@pytest.mark.slow
@given(one=MAPS, other=MAPS)
def test_rank_correlations_are_those_of_scipy(one, other):
    stats = pytest.importorskip("scipy.stats", reason="needs scipy: pip install grad-cam")
    if np.ptp(one) > 0 and np.ptp(other) > 0:
        expected = stats.spearmanr(one.ravel(), other.ravel()).statistic
        assert rank_correlation(one, other) == pytest.approx(expected, abs=1e-9)


def test_what_passes_is_below_the_limit_by_all_of_its_interval():
    low, wide = Figure(10, 0, ALIKE - 1), Figure(10, 0, ALIKE + 1)
    assert passes(low, low)
    assert passes(low, None)
    assert not passes(low, wide)
    assert not passes(wide, low)
