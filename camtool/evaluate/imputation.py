"""Noisy linear imputation: what a removed pixel becomes so that its removal does not show."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from camtool.opencv import cv2

Pixels = npt.NDArray[np.float32]

NOISE = 0.01
"""Standard deviation of what is added, in units of the normalised input."""
ROUNDS = 5
"""Of the solver; what is missing then lies far below the noise."""
_WEIGHTS = np.array([[1, 2, 1], [2, 0, 2], [1, 2, 1]], dtype=np.float32) / 12
_COARSEST = 4
_LAST_SWEEPS = 8


def impute(
    values: Pixels,
    removed: npt.NDArray[np.bool_],
    noise: Pixels | None = None,
    rounds: int = ROUNDS,
) -> Pixels:
    """Fill removed pixels from those that are left (Rong et al. 2022, ROAD, section 4.2).

    Every removed pixel is the weighted mean of its eight neighbours, 1/6 for those that share an
    edge and 1/12 for the diagonal ones, those outside the picture left out: one linear system
    for all removed pixels. Normal noise of standard deviation `NOISE` is added to them.

    The system is solved by conjugate gradients that are preconditioned by a multigrid cycle
    (Briggs et al. 2000): a direct solver takes half a second for what takes 10 milliseconds here.

    Args:
        values: float32 [H,W,C], the normalised input.
        removed: bool [H,W].
        noise: float32 [H,W,C], from `noises`; None for none.
        rounds: Of the solver.

    Returns:
        float32 [H,W,C]; zeros where nothing is left to fill from.
    """
    if removed.all():
        return np.zeros_like(values)
    mask = removed[..., None].astype(np.float32)
    # OpenCV resizes four channels at a time, no more.
    groups = [values[..., first : first + 4] for first in range(0, values.shape[2], 4)]
    filled = np.concatenate([_solve(group, mask, rounds) for group in groups], axis=2)
    if noise is not None:
        filled += noise
    return np.where(mask > 0, filled, values)


def noises(shape: tuple[int, ...], count: int, seed: int) -> list[Pixels]:
    """What `impute` adds to pixels [H,W,C], so many times; the same for the same seed."""
    random = np.random.default_rng(seed)
    return [
        np.float32(NOISE) * random.standard_normal(shape, dtype=np.float32) for _ in range(count)
    ]


def _solve(values: Pixels, mask: Pixels, rounds: int) -> Pixels:
    grids = _grids(mask, values.shape[2])
    filled = _spread(values, grids[0].mask)
    left = -grids[0].image(filled)
    search, before, product = np.zeros_like(left), left, 0.0
    for _ in range(rounds):
        step = _cycle(left, grids)
        last, product = product, _dot(step, left)
        # Polak and Ribière's form: the cycle is no symmetric operator.
        search = _sum(step, _ratio(product - _dot(step, before), last), search)
        image = grids[0].image(search)
        length = _ratio(_dot(search, left), _dot(search, image))
        filled = _sum(filled, length, search)
        before, left = left, _sum(left, -length, image)
    return filled


@dataclass(frozen=True, eq=False)
class _Grid:
    """One grid of the multigrid cycle.

    Attributes:
        mask: [h,w,C], 1 where a value is sought.
        pull: [h,w,C], mask * total, the sum of the weights of the neighbours that there are.
        share: [h,w,C], mask / total.
    """

    mask: Pixels
    pull: Pixels
    share: Pixels

    def image(self, values: Pixels) -> Pixels:
        """What the system makes of values: total * values - neighbours, where they are sought."""
        around = _neighbours(values)
        around *= self.mask
        return np.asarray(np.subtract(self.pull * values, around, out=around))

    def smooth(self, right: Pixels, values: Pixels) -> Pixels:
        """One sweep of Jacobi's method, which leaves a third of what varies quickly."""
        found = _neighbours(values)
        found += right
        found *= self.share
        return found


def _grids(mask: Pixels, channels: int) -> list[_Grid]:
    """The grid of the pixels, and coarser ones while a cell holds nothing but sought values."""
    grids: list[_Grid] = []
    while True:
        total = _neighbours(np.ones_like(mask))
        parts = (np.repeat(each, channels, axis=2) for each in (mask, mask * total, mask / total))
        grids.append(_Grid(*parts))
        half = _resized(mask, _halved(mask), cv2.INTER_AREA)
        if min(mask.shape[:2]) <= _COARSEST or not (half >= 1).any():
            return grids
        mask = (half >= 1).astype(np.float32)


def _cycle(right: Pixels, grids: list[_Grid]) -> Pixels:
    """What has to be added to make up for `right`, nearly."""
    grid, coarser = grids[0], grids[1:]
    found = grid.share * right
    if not coarser:
        for _ in range(_LAST_SWEEPS):
            found = grid.smooth(right, found)
        return found
    # All of `right` that its share leaves is what the neighbours have become. Cells twice as wide
    # have differences four times as large.
    left = _neighbours(found)
    left *= grid.mask
    half = _resized(left, coarser[0].mask.shape, cv2.INTER_AREA)
    half *= 4
    below = _resized(_cycle(half, coarser), found.shape, cv2.INTER_LINEAR)
    below *= grid.mask
    found += below
    return grid.smooth(right, found)


def _spread(values: Pixels, mask: Pixels) -> Pixels:
    """A first guess: means of what is left, over squares as large as it takes."""
    known = 1 - mask
    if not mask.any():
        return values
    half = _halved(mask)
    share = _resized(known, half, cv2.INTER_AREA)
    some = np.maximum(share, np.float32(1e-6))
    mean = _resized(values * known, half, cv2.INTER_AREA) / some
    filled = _spread(np.asarray(mean, dtype=np.float32), (share <= 0).astype(np.float32))
    return values * known + mask * _resized(filled, values.shape, cv2.INTER_LINEAR)


def _neighbours(values: Pixels) -> Pixels:
    found = cv2.filter2D(values, -1, _WEIGHTS, borderType=cv2.BORDER_CONSTANT)
    return np.asarray(found, dtype=np.float32).reshape(values.shape)


def _halved(values: Pixels) -> tuple[int, ...]:
    return (values.shape[0] + 1) // 2, (values.shape[1] + 1) // 2


def _resized(values: Pixels, shape: tuple[int, ...], interpolation: int) -> Pixels:
    found = cv2.resize(values, (shape[1], shape[0]), interpolation=interpolation)
    return np.asarray(found, dtype=np.float32).reshape(shape[0], shape[1], values.shape[2])


def _sum(one: Pixels, factor: float, other: Pixels) -> Pixels:
    """One plus some of the other."""
    return np.asarray(cv2.scaleAdd(other, factor, one), dtype=np.float32).reshape(one.shape)


def _dot(one: Pixels, other: Pixels) -> float:
    return float(np.vdot(one, other))


def _ratio(above: float, below: float) -> float:
    """A quotient, 0 where there is nothing left to divide by."""
    return above / below if below > 0 else 0.0
