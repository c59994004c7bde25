"""What can go wrong with a network."""

from __future__ import annotations


class ModelError(RuntimeError):
    """The model could not be had or is not what was asked; the message is one line or a list."""


class HeadError(ModelError):
    """The network has no head from which an exact class map follows; the message says why."""
