"""Maps that add up to the logit whatever follows the cut."""

from __future__ import annotations

from torch import Tensor

from camtool.heads import Forward, integrate
from camtool.methods.method import Maps, Settings


def integrated(forward: Forward, classes: Tensor, settings: Settings) -> Maps:
    """Gradients of the tail integrated from no evidence to the real maps; see `camtool.heads.path`.

    For a head that is linear it is the class activation map itself.

    Args:
        forward: Of any head.
        classes: int64 [N,K].
        settings: Tolerance and most steps.
    """
    found = integrate(
        forward.tail,
        forward.features.float(),
        classes,
        settings.tolerance,
        settings.steps,
        forward.steps,
    )
    return Maps(found.maps, found.bias, found.steps.number)
