"""What a process has to be told before it imports torch."""

from __future__ import annotations

import os

SETTINGS = {
    # Threads that wait for each other between two layers sleep rather than spin. Where other
    # processes use the cores, spinning threads were seen to keep each other from running: the
    # first picture then took seconds in place of a tenth of one. Where nothing else runs, a
    # forward pass on all cores takes up to a quarter longer.
    "OMP_WAIT_POLICY": "passive",
    # Large tensors on huge pages: 5 % faster, as there are 512 times fewer of them to look up.
    "THP_MEM_ALLOC_ENABLE": "1",
}
"""Environment variables of the OpenMP runtime and of torch, which read them once."""


def prepare_environment() -> None:
    """Set `SETTINGS` for this process, but for those that the user has set."""
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
