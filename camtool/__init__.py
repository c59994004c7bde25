"""Class activation maps that add up to the answer: where an image classifier looks.

>>> import camtool
>>> model = camtool.load("auto")
>>> model.explain("cat.jpg", topk=3).save("cat.cam.png")
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from camtool.engines.engine import Failed
    from camtool.errors import HeadError, ModelError, TargetError
    from camtool.explanation import Explanation
    from camtool.images import Geometry, ImageError
    from camtool.loading import load
    from camtool.methods import class_activation_map
    from camtool.model import CamModel
    from camtool.networks import Preprocessing
    from camtool.regions import Component
    from camtool.targets import BEST, NEXT
    from camtool.views.overlay import Look
    from camtool.views.plot import plot_grid

__version__ = "0.2.0"

__all__ = [
    "BEST",
    "NEXT",
    "CamModel",
    "Component",
    "Explanation",
    "Failed",
    "Geometry",
    "HeadError",
    "ImageError",
    "Look",
    "ModelError",
    "Preprocessing",
    "TargetError",
    "__version__",
    "class_activation_map",
    "load",
    "plot_grid",
]

_HOMES = {
    "BEST": "camtool.targets",
    "CamModel": "camtool.model",
    "Component": "camtool.regions",
    "Explanation": "camtool.explanation",
    "Failed": "camtool.engines.engine",
    "Geometry": "camtool.images",
    "HeadError": "camtool.errors",
    "ImageError": "camtool.images",
    "Look": "camtool.views.overlay",
    "ModelError": "camtool.errors",
    "NEXT": "camtool.targets",
    "Preprocessing": "camtool.networks",
    "TargetError": "camtool.errors",
    "class_activation_map": "camtool.methods",
    "load": "camtool.loading",
    "plot_grid": "camtool.views.plot",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used: torch alone takes seconds."""
    if name not in _HOMES:
        raise AttributeError(f"module 'camtool' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
