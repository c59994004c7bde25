"""From feature maps and head to class activation maps: one file a family, and a registry."""

from __future__ import annotations

from camtool.errors import ModelError
from camtool.heads import Head, TailHead
from camtool.methods import gradient, perturbation
from camtool.methods.cam import NOT_LINEAR, cam, class_activation_map
from camtool.methods.integrated import integrated
from camtool.methods.merge import merged
from camtool.methods.method import Maps, Method, Settings

AUTO = "auto"
STAGES = "stages"
"""The mean of the integrated maps at the ends of the last stages: finer, and as complete."""

METHODS: dict[str, Method] = {
    "cam": cam,
    "integrated": integrated,
    "gradcam": gradient.gradcam,
    "gradcam++": gradient.gradcam_plus_plus,
    "xgradcam": gradient.xgradcam,
    "hirescam": gradient.hirescam,
    "layercam": gradient.layercam,
    "eigencam": gradient.eigencam,
    "eigengradcam": gradient.eigengradcam,
    "ablationcam": perturbation.ablationcam,
    "scorecam": perturbation.scorecam,
    "reciprocam": perturbation.reciprocam,
    "finercam": gradient.finercam,
    STAGES: integrated,
}
"""Methods by the names that `--method` takes."""

COMPLETE = ["cam", "integrated", STAGES]
"""Methods by which mean(map) + bias is the logit, wherever the head lets it be."""


def find_method(name: str, head: Head) -> tuple[str, Method]:
    """The name and the method of a name.

    Args:
        name: "auto" is the class activation map where a linear layer follows the pooling, or the
            network gives its class maps itself; else the integrated map.
        head: Of the network.

    Raises:
        ModelError: There is none of that name; lists what there is. Or the head is none for it.
    """
    if name == AUTO:
        name = "cam" if head.kind in ("linear", "maps", "given") else "integrated"
    if name not in METHODS:
        raise ModelError(f"method {name!r} is none of {', '.join([AUTO, *METHODS])}")
    if name == "cam" and isinstance(head, TailHead):
        raise ModelError(NOT_LINEAR)
    return name, METHODS[name]


__all__ = [
    "AUTO",
    "COMPLETE",
    "METHODS",
    "STAGES",
    "Maps",
    "Method",
    "Settings",
    "class_activation_map",
    "find_method",
    "merged",
]
