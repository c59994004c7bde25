"""Gradients through attention that come from few queries are those that torch takes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from camtool.heads.tokens import ATTENTION, attention

TOKENS, WIDTH = 40, 8


class Watched(TorchFunctionMode):
    """Puts our attention in the place of torch's, and counts it."""

    def __init__(self) -> None:
        super().__init__()
        self.taken = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = getattr(func, "__name__", "")
        found = attention(func, args, kwargs or {}) if name in ATTENTION else None
        self.taken += found is not None
        return func(*args, **(kwargs or {})) if found is None else found


def scaled(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    q, k, v = (each.view(2, -1, 2, WIDTH // 2).transpose(1, 2) for each in (query, key, value))
    return functional.scaled_dot_product_attention(q, k, v, scale=0.7).transpose(1, 2).flatten(2)


def projected(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    torch.manual_seed(1)
    layer = nn.MultiheadAttention(WIDTH, 2, batch_first=True).double().eval()
    found: Tensor = layer(query, key, value, need_weights=False)[0]
    return found


def gradients(how: Any, leaves: list[Tensor], places: list[int], rows: Any) -> list[Any]:
    """Of each leaf, one backward pass after the other; each from some rows of the result."""
    # No leaves, as what comes from a cut is none; one that is given twice stays one.
    inputs = [leaf * 1 for leaf in leaves]
    result = how(*(inputs[place] for place in places))
    found = []
    for some in rows:
        given = torch.zeros_like(result)
        given[:, some] = result.detach()[:, some] + 1
        found.append(torch.autograd.grad(result, leaves, given, retain_graph=True))
    return found


ROWS = st.lists(st.lists(st.integers(0, TOKENS - 1), max_size=TOKENS), min_size=1, max_size=3)


@given(
    st.sampled_from([scaled, projected]),
    st.sampled_from([[0, 0, 0], [0, 1, 1], [0, 1, 2], [0, 1, 0]]),
    ROWS,
)
def test_gradients_are_those_of_torch(how: Any, places: list[int], rows: list[list[int]]) -> None:
    torch.manual_seed(0)
    count = max(places) + 1
    leaves = [
        torch.randn(2, TOKENS, WIDTH, dtype=torch.double, requires_grad=True) for _ in range(count)
    ]
    expected = gradients(how, leaves, places, rows)
    with Watched() as watched:
        found = gradients(how, leaves, places, rows)
    assert watched.taken == 1
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other)


def masked(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    mask = torch.ones(TOKENS, TOKENS, dtype=torch.bool).tril()
    return functional.scaled_dot_product_attention(query, key, value, mask)


def causal(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    return functional.scaled_dot_product_attention(query, key, value, is_causal=True)


def with_weights(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    torch.manual_seed(1)
    layer = nn.MultiheadAttention(WIDTH, 2, batch_first=True).double().eval()
    found: Tensor = layer(query, key, value, need_weights=True)[0]
    return found


@pytest.mark.parametrize("how", [masked, causal, with_weights])
def test_what_belongs_to_all_queries_is_left_to_torch(how: Any) -> None:
    leaves = [torch.randn(2, TOKENS, WIDTH, dtype=torch.double, requires_grad=True)]
    expected = gradients(how, leaves, [0, 0, 0], [[0]])
    with Watched() as watched:
        found = gradients(how, leaves, [0, 0, 0], [[0]])
    assert watched.taken == 0
    torch.testing.assert_close(found, expected)
