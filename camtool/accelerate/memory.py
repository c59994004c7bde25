"""Memory of a long run, kept between batches in place of returned and asked for again."""

from __future__ import annotations

import ctypes
import sys
from contextlib import suppress
from pathlib import Path

KEPT = 1 << 30
"""Bytes: the feature maps of a few batches, which every batch frees and the next one needs."""

LARGE = (128 << 20, 32 << 20)
"""Blocks of more bytes are returned all the same; older glibc takes the second number only.

The first feature maps of eight pictures are 38 MB in EfficientNet-Lite0, 27 MB in ResNet-50."""

# From glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8


def keep_freed_memory() -> None:
    """Let this process keep up to `KEPT` bytes that were freed; nothing is done without glibc.

    glibc returns what was freed to the kernel, which has to clear every page of it again for the
    next batch. One arena serves all threads, because those of other threads are cut into parts
    of 64 MB that are returned whatever is asked for.
    """
    adjust = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if adjust is not None:
        adjust(_M_ARENA_MAX, 1)
        any(adjust(_M_MMAP_THRESHOLD, size) for size in LARGE)
        adjust(_M_TRIM_THRESHOLD, KEPT)


def spare_memory() -> int:
    """Bytes of memory that are still to be had, as Linux tells; 0 where nothing tells.

    The lesser of what the machine has and of what a container leaves (control groups, version 2).
    """
    told = []
    with suppress(OSError, ValueError, IndexError):
        about = Path("/proc/meminfo").read_text().partition("MemAvailable:")[2]
        told.append(int(about.split()[0]) << 10)
    with suppress(OSError, ValueError):
        limits = (Path("/sys/fs/cgroup", name).read_text() for name in _LIMITS)
        most, used = map(int, limits)
        told.append(most - used)
    return max(0, min(told, default=0))


_LIMITS = ("memory.max", "memory.current")
