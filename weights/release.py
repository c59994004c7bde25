"""The file that ships: float16 weights with everything needed to use them in its metadata."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import nn

from camtool.networks.gapnet import GapNet
from tinyimagenet import MEAN, STD

LICENSE = (
    "Trained on Tiny ImageNet, whose pictures come from ImageNet: their use is granted for "
    "non-commercial research and education only (https://image-net.org/download)"
)


def average(model: GapNet, states: Sequence[Mapping[str, torch.Tensor]]) -> None:
    """Set every parameter to its mean over several ends of one training, in place.

    Izmailov et al. 2018, "Averaging weights leads to wider optima and better generalization".
    Batch-norm statistics are left as they are: `recalibrate` makes them anew.
    """
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(torch.stack([state[name] for state in states]).mean(0))


def choose_common(model: GapNet, share: float) -> None:
    """Choose what all classes' weights have in common, in place.

    Softmax does not feel what is added to all logits alike, so no probability changes; but the
    maps do. Training leaves it to chance. Here the mean over the classes is taken off, so that a
    map is the evidence for its class against the average class, and then a little of the sum of
    all feature maps is added: it is high where the network responds to anything, on objects more
    than around them.

    Args:
        model: Its classifier is changed.
        share: Added to every weight, as a share of their root mean square.
    """
    with torch.no_grad():
        for parameter in (model.fc.weight, model.fc.bias):
            parameter -= parameter.mean(0)
        model.fc.weight += share * model.fc.weight.square().mean().sqrt()


@torch.no_grad()
def recalibrate(model: GapNet, inputs: Iterable[torch.Tensor]) -> None:
    """Average the batch-norm statistics anew, over batches as the network will be used on.

    Training leaves those of its last crops, which are larger and cut differently.

    Args:
        model: Changed in place; left in evaluation mode.
        inputs: Normalised images, float ``[N, 3, H, W]``; every batch weighs the same.
    """
    layers = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    momenta = [layer.momentum for layer in layers]
    for layer in layers:
        layer.reset_running_stats()
        layer.momentum = None
    model.train()
    for batch in inputs:
        model(batch)
    for layer, momentum in zip(layers, momenta, strict=True):
        layer.momentum = momentum
    model.eval()


def round_parameters(model: GapNet) -> None:
    """Round every parameter to float16, in place, so that what is measured is what ships."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(parameter.half())


def metadata(
    recipe: dict[str, Any], classes: tuple[list[str], list[str]], size: int
) -> dict[str, str]:
    """Describe the network in strings.

    Args:
        recipe: Holds ``widths`` and ``blocks``.
        classes: Synsets and labels, in the order of the logits.
        size: Standard input size in pixels.
    """
    wnids, labels = classes
    architecture = {"widths": recipe["widths"], "blocks": recipe["blocks"], "classes": len(wnids)}
    preprocessing = {"size": size, "mean": MEAN, "std": STD, "interpolation": "bilinear"}
    return {
        "format": "camtool-gapnet",
        "version": "1",
        "architecture": json.dumps(architecture),
        "labels": json.dumps(labels),
        "wnids": json.dumps(wnids),
        "preprocessing": json.dumps(preprocessing),
        "license": LICENSE,
        "data": "Tiny ImageNet",
        "created": datetime.now(timezone.utc).date().isoformat(),
    }


def save(model: GapNet, path: Path, description: dict[str, str]) -> str:
    """Write parameters as float16 and batch-norm statistics as they are.

    Running variances span more than float16 does, and weigh nothing.

    Returns:
        The file's SHA-256.
    """
    parameters = {name for name, _ in model.named_parameters()}
    state = {
        name: (value.half() if name in parameters else value).cpu().contiguous()
        for name, value in model.state_dict().items()
    }
    partial = path.with_suffix(".partial")
    save_file(state, partial, description)
    partial.replace(path)
    return hashlib.sha256(path.read_bytes()).hexdigest()
