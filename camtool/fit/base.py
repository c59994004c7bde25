"""Networks that a last layer can be fitted to, and the file of one that has it."""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from camtool.errors import ModelError
from camtool.fit.data import Classes
from camtool.heads import evaluating, probe_input
from camtool.heads.linear import LinearHead
from camtool.networks import fitted

if TYPE_CHECKING:
    from camtool.fit.outcome import Form
    from camtool.model import CamModel


def linear_head(cam: CamModel) -> LinearHead:
    """The head of a base.

    Raises:
        ModelError: No last layer can be fitted there; says why in one line.
    """
    head, name = cam.head, cam.network.name
    if not isinstance(head, LinearHead) or not head.exact:
        raise ModelError(
            f"{name} can't be the base: what is fitted is one linear layer behind global average "
            f"pooling, and its head is {head.kind}; efficientnet_lite0 and resnet50 have one"
        )
    if not head.bias or cam.network.channels != 3:
        lack = "its last layer has no bias" if not head.bias else "it takes no RGB pictures"
        raise ModelError(f"{name} can't be the base: {lack}")
    return head


def with_layer(cam: CamModel, weight: Tensor, bias: Tensor) -> nn.Module:
    """A copy of a network with another last layer.

    Args:
        cam: The network.
        weight: float32 [classes,C].
        bias: float32 [classes].
    """
    head, module = linear_head(cam), copy.deepcopy(cam.network.module)
    old = module.get_parameter(head.layer)
    laid = weight.T if head.transposed else weight
    for name, value in ((head.layer, laid.reshape(*laid.shape, *old.shape[2:])), (head.bias, bias)):
        parent, _, leaf = name.rpartition(".")
        parameter = nn.Parameter(value.to(old.device).contiguous(), requires_grad=False)
        setattr(module.get_submodule(parent), leaf, parameter)
    return module


def file_of(
    cam: CamModel,
    weight: Tensor,
    bias: Tensor,
    classes: Classes,
    form: Form,
    made: Mapping[str, Any],
) -> bytes:
    """The file of a network with a last layer for some classes.

    Args:
        cam: The base.
        weight: float32 [classes,C].
        bias: float32 [classes].
        classes: That the layer is for.
        form: What makes probabilities of its logits.
        made: How it was made, for people.
    """
    module = with_layer(cam, weight, bias)
    network = replace(
        cam.network,
        module=module,
        labels=classes.labels,
        synsets=classes.synsets,
        activation=form,
    )
    facts = fitted.facts_of(network, cam.head.bias, cam.preprocessing, made)
    return fitted.to_bytes(module, facts)


def check_base(cam: CamModel) -> None:
    """Refuse a base before anything is computed on it, if its file would not load as it is.

    Raises:
        ModelError: It can't be the base.
    """
    head, two = linear_head(cam), ("this", "that")
    weight, bias = torch.zeros(2, head.channels), torch.zeros(2)
    weight[0] = 1
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "base.safetensors"
        file.write_bytes(file_of(cam, weight, bias, Classes(two, two, ()), "softmax", {}))
        try:
            again = fitted.load(file).module.to(cam.device)
        except ModelError as error:
            reason = str(error).removeprefix(f"{file}: ")
            raise ModelError(f"{cam.network.name} can't be the base: {reason}") from None
    module = with_layer(cam, weight, bias)
    sample = probe_input(module, cam.preprocessing.size)
    with torch.no_grad(), evaluating(module), evaluating(again):
        same = torch.allclose(again(sample), module(sample), 1e-4, 1e-5)
    if not same:
        raise ModelError(
            f"{cam.network.name} can't be the base: its name and its tensors do not make it again"
        )
