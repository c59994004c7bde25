"""How many pictures a device likes at once, found by trying."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from camtool.model import CamModel

LARGEST = 256
WORTH = 1.1
"""A doubled batch has to be so much faster for each picture to be worth its memory."""


def measure_batch_size(model: CamModel) -> int:
    """Double the batch while that makes a picture's share of the forward pass shorter.

    Args:
        model: On CUDA or MPS.

    Returns:
        A power of two from 8 to `LARGEST`.
    """
    size, share = 8, _share(model, 8)
    while size < LARGEST:
        try:
            doubled = _share(model, size * 2)
        except torch.OutOfMemoryError:
            torch.cuda.empty_cache()
            break
        if doubled * WORTH > share:
            break
        size, share = size * 2, doubled
    return size


def _share(model: CamModel, batch: int) -> float:
    """Seconds of a forward pass for each picture; the better of two after one to warm up."""
    side = model.preprocessing.size
    inputs = torch.zeros(batch, 3, side, side, device=model.device)
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        # Reading a value back waits for the device.
        model.features(inputs).float().sum().item()
        seconds.append(time.perf_counter() - start)
    return min(seconds[1:]) / batch
