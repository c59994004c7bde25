"""How a map's evidence is spread."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def entropy(maps: NDArray[np.float32]) -> NDArray[np.float64]:
    """Entropy of where the positive evidence of each map lies, relative to an even spread.

    ``-sum p log p / log(h*w)`` (Shannon 1948) with p the positive part of the map, scaled to sum
    to 1: 0 where one cell holds everything, 1 where every cell holds the same.

    Args:
        maps: float32 [K,h,w], in logits.

    Returns:
        float64 [K]; 1 for a map without positive evidence, which points nowhere.
    """
    positive = np.maximum(maps.reshape(len(maps), -1), 0).astype(np.float64)
    total = positive.sum(1, keepdims=True)
    cells = positive.shape[1]
    if cells == 1:
        return np.zeros(len(maps))
    with np.errstate(divide="ignore", invalid="ignore"):
        share = positive / total
        terms = np.where(share > 0, -share * np.log(share), 0.0)
    return np.where(total[:, 0] > 0, terms.sum(1) / np.log(cells), 1.0)
