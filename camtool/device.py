"""Which device and number format a model runs on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from camtool.errors import ModelError

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def pick_device(name: str) -> torch.device:
    """The device of a name; "auto" takes CUDA, then MPS, then the CPU.

    Raises:
        ModelError: There is no such device on this machine.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ModelError(f"device {name!r} is none of auto, cpu, cuda, cuda:N, mps") from None
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ModelError(f"device {name!r}: {torch.cuda.device_count()} CUDA devices were found")
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise ModelError("device 'mps': Apple's Metal is not available here")
    if device.type not in ("cpu", "cuda", "mps"):
        raise ModelError(f"device {name!r} is none of auto, cpu, cuda, cuda:N, mps")
    return device


def pick_dtype(name: str) -> torch.dtype:
    """The number format of a name.

    Raises:
        ModelError: It is none of float32, bfloat16, float16.
    """
    if name not in DTYPES:
        raise ModelError(f"dtype {name!r} is none of {', '.join(DTYPES)}")
    return DTYPES[name]


@contextmanager
def true_float32(device: torch.device) -> Iterator[None]:
    """float32 products in full precision on CUDA, whatever the process allows outside.

    torch lets cuDNN's convolutions run in TF32 (10 bits of mantissa) unless told otherwise.
    """
    holders: list[Any] = [
        getattr(backend, operation)
        for backend, operation in (
            (torch.backends.cudnn, "conv"),
            (torch.backends.cuda, "matmul"),
        )
    ]
    before = [holder.fp32_precision for holder in holders]
    if device.type != "cuda" or set(before) == {"ieee"}:
        yield
        return
    try:
        for holder in holders:
            holder.fp32_precision = "ieee"
        yield
    finally:
        for holder, precision in zip(holders, before, strict=True):
            holder.fp32_precision = precision
