"""Sanity: does a map hang on the network's weights, and on the class, at all?

A map that looks right and is the same for a network that has learned nothing, or for any class,
explains nothing (Adebayo et al. 2018, "Sanity checks for saliency maps").
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from camtool.evaluate.figures import Figure, Floats

STAGES = (0.0, 1 / 3, 2 / 3, 1.0)
"""Shares of the layers, from the top, whose weights are drawn anew; the last layer at the least."""
PICTURES = 50
"""On which the weights are randomised, evenly spaced among all."""
ALIKE = 50.0
"""Rank correlation in percent: half of what a map has that ignores the weights, or the class."""
_DEVIATION = 0.02


def randomise(module: nn.Module, seed: int = 0) -> Iterator[float]:
    """Draw a module's weights anew in place, from the top down: the cascade of Adebayo et al. 2018.

    Layers are set as they are when they are made (`reset_parameters`); weights that are no layer's
    (a class token, a scale) are drawn from a normal distribution. What was randomised stays so.

    Args:
        module: Changed in place; give a copy.
        seed: Of the weights.

    Yields:
        The share of the layers that is randomised now, as in `STAGES`.
    """
    layers = [layer for layer in module.modules() if any(True for _ in layer.parameters(False))]
    done = 0
    for share in STAGES:
        wanted = max(1, math.ceil(share * len(layers)))
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            torch.manual_seed(seed + done)
            for layer in layers[::-1][done:wanted]:
                _reset(layer)
        done = wanted
        yield share


def _reset(layer: nn.Module) -> None:
    # Drawn on the CPU, so that every device has the same.
    device = next(layer.parameters()).device
    if callable(getattr(layer, "reset_parameters", None)):
        layer.cpu().reset_parameters()  # type: ignore[operator]
        layer.to(device)
        return
    for parameter in layer.parameters(recurse=False):
        parameter.copy_(torch.randn(parameter.shape) * _DEVIATION)


def rank_correlation(one: npt.ArrayLike, other: npt.ArrayLike) -> float:
    """Spearman's rank correlation of two maps of one shape, in [-1, 1].

    Equal values share their mean rank; 0 where one map is constant and ranks nothing.
    """
    one, other = np.asarray(one), np.asarray(other)
    if np.array_equal(one, other):
        return float(one.size > 0 and np.ptp(one) > 0)
    first, second = (_ranks(each.ravel()) for each in (one, other))
    norm = math.sqrt((first @ first) * (second @ second))
    return float(first @ second / norm) if norm > 0 else 0.0


def _ranks(values: npt.NDArray[np.float32]) -> Floats:
    """Mean ranks, with their own mean taken off."""
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return np.asarray((last - (counts - 1) / 2)[place] - (len(values) + 1) / 2)


def passes(*correlations: Figure | None) -> bool:
    """Whether a map passes: every correlation is below `ALIKE` by all of its 95 % interval.

    Args:
        correlations: With the map of another network, or of another class, in percent; None where
            it could not be measured.
    """
    return all(one.high < ALIKE for one in correlations if one is not None)
