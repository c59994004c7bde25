"""Confidence intervals of figures over a data set that is seen once and not kept.

The Poisson bootstrap (Hanley and MacGibbon 2006; Chamandy et al. 2012): instead of drawing
images again afterwards, each image is counted in every replicate as often as a Poisson variable
of mean 1 says. Memory is that of the sums, whatever the number of images.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from camtool.evaluate.figures import Floats

REPLICATES = 500
_BLOCK = 128
_TAILS = (2.5, 97.5)


class BootstrapSums:
    """Sums of a row of scores over images, plain and in every replicate.

    Args:
        size: K, the number of scores of an image.
        replicates: R, the number of replicates.
        seed: Seed of the weights; with equal seeds the same images get the same weights.
    """

    def __init__(self, size: int, *, replicates: int = REPLICATES, seed: int = 0) -> None:
        self.count = 0
        self._random = np.random.default_rng(seed)
        self._sums = np.zeros(size)
        # Only the width of an interval hangs on these: single precision is enough.
        self._replicates = np.zeros((replicates, size + 1), dtype=np.float32)
        self._block = np.ones((_BLOCK, size + 1), dtype=np.float32)
        self._weights = np.zeros((replicates, _BLOCK), dtype=np.float32)
        self._filled = 0

    def add(self, scores: npt.ArrayLike) -> None:
        """Add an image's scores [K]."""
        self._sums += np.asarray(scores, dtype=np.float64)
        self._block[self._filled, :-1] = scores
        self._weights[:, self._filled] = self._random.poisson(1.0, len(self._weights))
        self._filled += 1
        self.count += 1
        if self._filled == _BLOCK:
            self._flush()

    def totals(self) -> tuple[Floats, Floats]:
        """Sums [R + 1, K] and numbers of images [R + 1]; row 0 is the data as it is.

        Raises:
            ValueError: If no image was added.
        """
        if self.count == 0:
            raise ValueError("no image was evaluated")
        self._flush()
        sums = np.concatenate([self._sums[None], self._replicates[:, :-1]])
        return sums, np.concatenate([[float(self.count)], self._replicates[:, -1]])

    def _flush(self) -> None:
        self._replicates += self._weights[:, : self._filled] @ self._block[: self._filled]
        self._filled = 0


def estimate(values: Floats) -> tuple[float, float, float]:
    """The figure in `values[0]`, with its 95 % interval from the replicates in `values[1:]`."""
    low, high = np.nanpercentile(values[1:], _TAILS) if len(values) > 1 else (values[0],) * 2
    return float(values[0]), float(low), float(high)
