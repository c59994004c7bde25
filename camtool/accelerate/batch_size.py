"""How many pictures to a forward pass suit a device, found by trying."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

LARGEST = 256
WORTHWHILE = 1.1
"""A doubled batch has to be so much faster for each picture to be worth its memory."""


def measure_batch_size(run_once: Callable[[int], None]) -> int:
    """Double the batch while that makes a picture's share of the forward pass shorter.

    Args:
        run_once: Runs a batch of that many pictures and waits for it, on CUDA or MPS.

    Returns:
        A power of two from 8 to `LARGEST`.
    """
    size, share = 8, _share(run_once, 8)
    while size < LARGEST:
        try:
            doubled = _share(run_once, size * 2)
        except torch.OutOfMemoryError:
            torch.cuda.empty_cache()
            break
        if doubled * WORTHWHILE > share:
            break
        size, share = size * 2, doubled
    return size


def _share(run_once: Callable[[int], None], batch: int) -> float:
    """Seconds of a forward pass for each picture; the better of two after one to warm up."""
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        run_once(batch)
        seconds.append(time.perf_counter() - start)
    return min(seconds[1:]) / batch
