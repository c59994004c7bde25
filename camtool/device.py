"""Which device and number format a model runs on."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor

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


def onto(tensor: Tensor, device: torch.device) -> Tensor:
    """A tensor of the CPU on a device; a GPU that is at work is not waited for."""
    if device.type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


class Held:
    """A context that the first of several holders enters and the last one leaves.

    What it sets holds for a whole process or network. Threads that set and restored it each for
    themselves would take it from one another in the middle of their work.
    """

    def __init__(self, context: Callable[[], AbstractContextManager[None]]) -> None:
        self._context = context
        self._lock = threading.Lock()
        self._holders = 0
        self._entered = ExitStack()

    @contextmanager
    def __call__(self) -> Iterator[None]:
        """Hold it inside."""
        with self._lock:
            if self._holders == 0:
                self._entered.enter_context(self._context())
            self._holders += 1
        try:
            yield
        finally:
            with self._lock:
                self._holders -= 1
                if self._holders == 0:
                    self._entered.close()


@contextmanager
def _true_float32() -> Iterator[None]:
    backends: Any = torch.backends
    holders = [backends.cudnn.conv, backends.cuda.matmul]
    before = [holder.fp32_precision for holder in holders]
    try:
        for holder in holders:
            holder.fp32_precision = "ieee"
        yield
    finally:
        for holder, precision in zip(holders, before, strict=True):
            holder.fp32_precision = precision


true_float32 = Held(_true_float32)
"""float32 products in full precision on CUDA, whatever the process allows outside.

torch lets cuDNN's convolutions run in TF32 (10 bits of mantissa) unless told otherwise.
"""
