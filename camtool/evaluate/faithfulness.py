"""Faithfulness: does the answer hang on what a map says it hangs on?

A picture is changed as its map says, and the confidence in the class is looked at. Every version of
one picture is made here; `confidences` is all that knows a network. Maps are [H,W] at the size of
the input, scaled to 0..1; inputs are normalised, so that 0 is the mean colour.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from camtool.evaluate.imputation import Pixels, impute, noises
from camtool.regions.boxes import FloatMap

STEPS = 5
"""Parts in which pixels are taken away and put back.

With a quarter of the forward passes of 20 parts, areas of single pictures correlate with theirs to
0.98 (deletion, 1 point larger) and 0.997 (insertion), and methods come in the same order.
"""
ROAD_SHARES = (0.2, 0.5, 0.8)
"""Of the pixels, removed and imputed."""
_KERNEL, _DEVIATION, _REACH = 11, 5.0, 20

Confidences = Callable[[Tensor], Tensor]
"""From inputs [V,C,H,W] to the confidence in the class of each, [V]."""


def scaled(heat: FloatMap) -> FloatMap:
    """The positive part of a map, from its minimum at 0 to its maximum at 1.

    As pytorch-grad-cam and the code of Poppi et al. 2021 scale maps before they measure them. A map
    whose positive part is constant becomes 0 throughout.
    """
    positive = np.maximum(heat, 0)
    low, high = float(positive.min()), float(positive.max())
    raised: FloatMap = positive - np.float32(low)
    return raised / np.float32(high - low) if high > low else np.zeros_like(raised)


@dataclass(frozen=True, eq=False)
class Subject:
    """One picture, and all that is the same for every map of it.

    Attributes:
        inputs: [1,C,H,W], normalised.
        blurred: As insertion begins, likewise.
        confidences: Of the class that maps are of.
        ends: Confidence in the picture, in nothing, and in the blurred picture.
        noise: That imputation adds, [H,W,C] for each of its versions.
    """

    inputs: Tensor
    blurred: Tensor
    confidences: Confidences
    ends: tuple[float, float, float]
    noise: list[Pixels]

    @classmethod
    def of(cls, inputs: Tensor, confidences: Confidences, seed: int = 0) -> Subject:
        """From a picture."""
        blurred = blur(inputs)
        ends = confidences(torch.cat([inputs, torch.zeros_like(inputs), blurred])).tolist()
        noise = noises(tuple(inputs[0].permute(1, 2, 0).shape), 2 * len(ROAD_SHARES), seed)
        return cls(inputs, blurred, confidences, tuple(ends), noise)


def faithfulness(subject: Subject, heat: FloatMap) -> dict[str, float]:
    """What a picture's confidences say of one map, float32 [H,W], from `scaled`.

    Returns:
        "deletion", "insertion", "drop" and "increase", in [0, 1], and "road", in [-0.5, 0.5].
    """
    inputs, (whole, nothing, hazy) = subject.inputs, subject.ends
    map_ = torch.from_numpy(heat).to(inputs)
    steps = removed_first(map_, [n / STEPS for n in range(1, STEPS)])[:, None]
    versions = (
        inputs * map_,
        torch.where(steps, 0, inputs),
        torch.where(steps, inputs, subject.blurred),
        road_versions(inputs, heat, subject.noise),
    )
    found = subject.confidences(torch.cat(versions)).double().cpu().numpy()
    lengths = np.cumsum([len(some) for some in versions[:-1]])
    (seen,), away, back, road = np.split(found, lengths)
    most, least = np.split(road, 2)
    return {
        "deletion": area_under([whole, *away, nothing]),
        "insertion": area_under([hazy, *back, whole]),
        "drop": average_drop(whole, seen),
        "increase": float(seen > whole),
        "road": float((least - most).mean() / 2),
    }


def removed_first(heat: Tensor, shares: list[float]) -> Tensor:
    """Which pixels are among the most important ones, bool [S,H,W], for shares of all pixels.

    Of equal pixels those come first that stand first, row by row.
    """
    order = heat.flatten().argsort(descending=True, stable=True)
    place = torch.empty_like(order)
    place[order] = torch.arange(len(order), device=order.device)
    counts = torch.tensor([round(share * len(order)) for share in shares], device=order.device)
    return (place < counts[:, None]).view(-1, *heat.shape)


def area_under(curve: list[float]) -> float:
    """Area under a curve over 0..1 that is known at even steps, by trapezoids.

    Deletion and insertion (Petsiuk et al. 2018, RISE, 3.4, and its code): the confidence while the
    most important pixels are set to 0 one after the other, and while they are put into the blurred
    picture. A good map lets the first fall and the second rise early: a small and a large area.
    """
    return float((sum(curve) - (curve[0] + curve[-1]) / 2) / (len(curve) - 1))


def blur(inputs: Tensor) -> Tensor:
    """Inputs as insertion begins with them: the Gaussian filter of RISE's code.

    11 x 11 pixels of standard deviation 5, whose tails are reflected into them; 0 beyond the edges.
    """
    channels = inputs.shape[1]
    kernel = _gaussian().to(inputs).expand(channels, 1, -1, -1)
    return functional.conv2d(inputs, kernel, padding=_KERNEL // 2, groups=channels)


@cache
def _gaussian() -> Tensor:
    at = np.pad(np.arange(_KERNEL), _REACH, mode="symmetric")[_KERNEL // 2 :][: 2 * _REACH + 1]
    weight = np.exp(-0.5 * (np.arange(-_REACH, _REACH + 1) / _DEVIATION) ** 2)
    row = np.bincount(at, weight / weight.sum(), minlength=_KERNEL)
    return torch.from_numpy(np.outer(row, row))


def average_drop(before: float, after: float) -> float:
    """Share of the confidence that is lost where only the map is seen, never below 0.

    ``max(0, Y - O) / Y`` (Chattopadhay et al. 2018, section 4.1): Y of the picture, O of the
    normalised input times the map. Its mean over pictures is the Average Drop. pytorch-grad-cam's
    `DropInConfidence` leaves out the division, so that its drops are Y times these.
    """
    return float(max(0.0, before - after) / before) if before > 0 else 0.0


def coherency(one: FloatMap, other: FloatMap) -> float:
    """How alike two maps are, in [0, 1]: Pearson's correlation, from -1..1 (Poppi et al. 2021).

    1/2 where one of them is constant and nothing correlates with it.
    """
    first, second = (each.astype(np.float64) - each.mean(dtype=np.float64) for each in (one, other))
    norm = np.sqrt((first**2).sum() * (second**2).sum())
    return float(0.5 + 0.5 * (first * second).sum() / norm) if norm > 0 else 0.5


def complexity(heat: FloatMap) -> float:
    """Mean of a map in 0..1, its L1 norm for each pixel (Poppi et al. 2021, eq. 6)."""
    return float(heat.mean(dtype=np.float64))


def adcc(drop: float, coherent: float, complex_: float) -> float:
    """Harmonic mean of coherency, simplicity and what does not drop (Poppi et al. 2021, eq. 7).

    Args:
        drop: `average_drop`.
        coherent: `coherency` of the map of the picture times the map with the map itself.
        complex_: `complexity`.
    """
    parts = (coherent, 1 - complex_, 1 - drop)
    return 3 / sum(1 / part for part in parts) if min(parts) > 0 else 0.0


def road_versions(inputs: Tensor, heat: FloatMap, noise: Sequence[Pixels]) -> Tensor:
    """Inputs [2S,C,H,W] without the most important pixels, for S shares, then without the least.

    ROAD (Rong et al. 2022) removes pixels so that the shape of what was removed tells nothing
    (`impute`). The figure is half the difference of the two mean confidences, as the
    `ROADCombined` of pytorch-grad-cam has it: above 0 where important pixels matter more.
    Which pixels go is decided by percentiles, as there: equal ones go together.
    """
    values = np.ascontiguousarray(inputs[0].permute(1, 2, 0).float().cpu().numpy())
    filled = [impute(values, *pair) for pair in zip(road_masks(heat), noise, strict=True)]
    stacked = torch.from_numpy(np.stack(filled)).permute(0, 3, 1, 2)
    return stacked.to(inputs)


def road_masks(heat: FloatMap) -> Iterator[np.ndarray[tuple[int, int], np.dtype[np.bool_]]]:
    """Which pixels are removed: the most important ones, share by share, then the least."""
    for values in (heat, 1 - heat):
        for share in ROAD_SHARES:
            yield values >= np.percentile(values, 100 * (1 - share))
