"""`camtool.load`: from what a user names to a model that is ready."""

from __future__ import annotations

import logging
import os
from dataclasses import replace
from typing import TYPE_CHECKING

from torch import nn

from camtool.choices import Activation, Exactness, Fit
from camtool.heads import find_head
from camtool.model import CamModel
from camtool.networks import Network, Preprocessing, before_download, load_network
from camtool.networks.modules import answering

if TYPE_CHECKING:
    from camtool.networks.load import Labels

_log = logging.getLogger(__name__)


def load(
    model: str | os.PathLike[str] | nn.Module = "auto",
    weights: str | os.PathLike[str] | None = None,
    labels: Labels = None,
    device: str = "auto",
    dtype: str = "float32",
    fit: Fit = "whole",
    size: int | None = None,
    *,
    preprocessing: Preprocessing | None = None,
    method: str = "auto",
    exact: Exactness = "measure",
    activation: Activation = "auto",
    layer: str | None = None,
    steps: int | None = None,
    output: int | str | None = None,
    offline: bool = False,
) -> CamModel:
    """Load a network and find the head that its class activation maps come from.

    Args:
        model: "auto" (ResNet-50 if its weights are on this machine, else the embedded network),
            an architecture of torchvision ("resnet50") or "timm/NAME", "efficientnet_lite0",
            "hf/NAME", the path of a checkpoint, or a module, which is left as it is.
        weights: None for the published default, a published entry's name ("IMAGENET1K_V1"),
            "random", or a checkpoint (.pth, .pt, .safetensors).
        labels: One for each class, or a file: one a line, or JSON. For a single logit also two, of
            which the second is its own.
        device: "auto" takes CUDA, then MPS, then the CPU; a module stays where it is.
        dtype: Number format of the body: "float32" (never TF32), "bfloat16" or "float16".
        fit: "whole": the whole picture, aspect kept; "crop": as the weights were evaluated;
            "squash": square, aspect lost.
        size: Side of the input in pixels; None for that of the weights.
        preprocessing: What the network expects of its input; None for what is known of it.
        method: What makes the maps; "auto" takes the class activation map where one linear layer
            follows the pooling, else the integrated map. See `camtool.methods.METHODS`.
        exact: "measure": every explanation says how far its maps are from adding up; "require":
            refuse a network whose maps do not.
        activation: What makes probabilities of the logits; "auto" is what a fitted file says, else
            sigmoid for a single logit and softmax for several. "none" gives no probabilities.
        layer: The module whose output the maps are made of; None for the last feature maps from
            which the logits come.
        steps: Of an integration at the most, for maps that miss no more than 1e-5 of the logits'
            spread; None for at most 32 that miss no more than 1e-3.
        output: Which of a network's several outputs are the logits, by number or name; None for
            the one called "logits", or the first.
        offline: Download nothing.

    Returns:
        The model. What had to be assumed of the network, and which one "auto" took, is logged.

    Raises:
        ModelError: The network can't be had, or is not what was asked.
        HeadError: Its head gives no class maps; says what was found.
    """
    network = network_of(model, weights, output, offline)
    cam = CamModel(
        network,
        labels,
        device,
        dtype,
        fit,
        size,
        preprocessing=preprocessing,
        method=method,
        exact=exact,
        activation=activation,
        layer=layer,
        steps=steps,
    )
    for note in cam.network.notes:
        _log.warning("camtool: %s", note)
    return cam


def network_of(
    model: str | os.PathLike[str] | nn.Module,
    weights: str | os.PathLike[str] | None,
    output: int | str | None,
    offline: bool,
) -> Network:
    """A network as for `load`; one without places is refused before its weights are downloaded.

    Raises:
        ModelError: There is no such network, or it can't be had.
        HeadError: Nothing in it says where its logits come from.
    """
    first = before_download(model, weights, offline=offline)
    if first is not None:
        module = _answering(first.module, output)
        find_head(module, first.preprocessing.size, first.channels)
    network = load_network(model, weights, offline=offline)
    return replace(network, module=_answering(network.module, output))


def _answering(module: nn.Module, output: int | str | None) -> nn.Module:
    return module if output is None else answering(module, output)
