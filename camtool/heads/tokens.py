"""What transformers do with tokens, with gradients taken back for those alone that have some.

Behind the last attention of a transformer the class token alone leads to the logits: of the matrix
of attention that is one row, and of all layers on tokens one of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

FEW = 8
"""One token in so many, at the most: more take their gradients back as usual."""

ATTENTION = {"scaled_dot_product_attention": -2, "multi_head_attention_forward": 0}
"""By name, the dimension that counts the queries."""

Attend = Callable[[Tensor, Tensor, Tensor], Tensor]


class TokensLinear(torch.autograd.Function):
    """A linear layer on [N,T,C]."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """As torch's."""
        ctx.weight = weight
        return torch.nn.functional.linear(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        """Of the tokens alone."""
        tokens = gradient.flatten(0, 1)
        found = tokens.new_zeros(len(tokens), ctx.weight.shape[1])
        some = tokens.any(1)
        found[some] = tokens[some] @ ctx.weight
        return found.view(*gradient.shape[:2], -1), None, None


def attention(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """A function of torch for queries, keys and values, its first three arguments.

    Returns:
        What it returns; None where it is given a mask, which is one for all queries, or asked for
        the matrix of attention itself.
    """
    name, rest = func.__name__, args[3:]
    projects = name == "multi_head_attention_forward"
    masked = any(isinstance(one, Tensor) for one in (*rest[:1], kwargs.get("attn_mask")))
    if masked or kwargs.get("is_causal") or (projects and kwargs.get("need_weights", True)):
        return None

    def attend(*parts: Tensor) -> Tensor:
        found = func(*parts, *rest, **kwargs)
        result: Tensor = found[0] if projects else found
        return result

    result = _Attention.apply(attend, ATTENTION[name], *args[:3])
    return (result, None) if projects else result


class _Attention(torch.autograd.Function):
    """Attention; `dim` counts the queries."""

    @staticmethod
    def forward(ctx: Any, attend: Attend, dim: int, *given: Tensor) -> Tensor:
        # What is the same tensor stays so: torch projects queries, keys and values at once then.
        # And laid out token by token, or it projects them one by one.
        ctx.leaves = {id(each): each.detach().contiguous().requires_grad_() for each in given}
        ctx.given = [id(each) for each in given]
        ctx.attend, ctx.dim, ctx.few = attend, dim, None
        with torch.enable_grad():
            ctx.result = attend(*(ctx.leaves[each] for each in ctx.given))
        result: Tensor = ctx.result.detach()
        return result

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        used = gradient.movedim(ctx.dim, 0).flatten(1).any(1).nonzero()[:, 0]
        leaves, few = list(ctx.leaves.values()), 0 < len(used) * FEW <= gradient.shape[ctx.dim]
        found = _of_few(ctx, used, leaves, gradient) if few else _of_all(ctx, leaves, gradient)
        by_leaf = dict(zip(ctx.leaves, found, strict=True))
        # Of a tensor that was given twice all of it is the first one's.
        return None, None, *(by_leaf.pop(each, None) for each in ctx.given)


def _of_all(ctx: Any, leaves: list[Tensor], gradient: Tensor) -> Sequence[Tensor]:
    return torch.autograd.grad(ctx.result, leaves, gradient, retain_graph=True)


def _of_few(ctx: Any, used: Tensor, leaves: list[Tensor], gradient: Tensor) -> list[Tensor]:
    """Gradients that come from some of the queries; their own attention is computed once."""
    if ctx.few is None or not torch.equal(ctx.few[0], used):
        query, key, value = (ctx.leaves[each] for each in ctx.given)
        with torch.enable_grad():
            some = query.detach().index_select(ctx.dim, used).requires_grad_()
            ctx.few = used, some, ctx.attend(some, key, value)
    _, some, result = ctx.few
    rows, *found = torch.autograd.grad(
        result,
        [some, *leaves],
        gradient.index_select(ctx.dim, used),
        retain_graph=True,
        allow_unused=True,
    )
    found = [
        torch.zeros_like(leaf) if each is None else each
        for each, leaf in zip(found, leaves, strict=True)
    ]
    query = list(ctx.leaves).index(ctx.given[0])
    found[query] = found[query].index_add(ctx.dim, used, rows)
    return found
