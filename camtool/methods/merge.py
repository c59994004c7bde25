"""Maps of several cuts brought to one grid and averaged: the mean of complete maps is complete."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from camtool.methods.method import Maps


def merged(found: Sequence[Maps]) -> Maps:
    """The mean of maps, on the finest of their grids.

    Args:
        found: Of the same pictures and classes, at several cuts.

    Returns:
        Maps [N,K,h,w] and biases, both means; the most steps that one of them took.
    """
    rows, columns = (max(each.maps.shape[axis] for each in found) for axis in (2, 3))
    maps = torch.stack([spread(each.maps, rows, columns) for each in found]).mean(0)
    bias = torch.stack([each.bias for each in found]).mean(0)
    return Maps(maps, bias, max(each.steps for each in found))


def spread(maps: Tensor, rows: int, columns: int) -> Tensor:
    """Maps [...,h,w] on another grid, by area, so that the mean stays."""
    down, across = (
        _areas(before, after).to(maps)
        for before, after in ((maps.shape[-2], rows), (maps.shape[-1], columns))
    )
    result: Tensor = down @ maps @ across.T
    return result


def _areas(before: int, after: int) -> Tensor:
    """Averaging matrix [after, before]: shares of the old cells in each new one."""
    old = torch.arange(before + 1, dtype=torch.float64) / before
    new = torch.arange(after + 1, dtype=torch.float64) / after
    shared = torch.minimum(new[1:, None], old[None, 1:]) - torch.maximum(
        new[:-1, None], old[None, :-1]
    )
    return shared.clamp_min(0) * after
