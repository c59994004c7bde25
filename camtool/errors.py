"""What can go wrong, one class for each kind of cause."""

from __future__ import annotations


class ModelError(RuntimeError):
    """The model could not be had or is not what was asked; the message is one line or a list."""


class HeadError(ModelError):
    """The network has no head from which an exact class map follows; the message says why."""


class TargetError(ValueError):
    """A class that was asked for matches nothing, or several; the message lists the nearest."""


class EngineError(RuntimeError):
    """The work can't be divided as asked, or nobody is left to do it; the message is one line."""
