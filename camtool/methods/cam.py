"""Class activation maps from feature maps and a linear layer (Zhou et al. 2016)."""

from __future__ import annotations

import torch
from torch import Tensor

from camtool.errors import ModelError
from camtool.heads import Forward
from camtool.methods.method import Maps, Settings

NOT_LINEAR = (
    "method cam needs global average pooling and one linear layer; take integrated, whose maps "
    "add up for every network, or auto"
)


def class_activation_map(features: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Class activation maps of a network that ends in global average pooling and a linear layer.

    ``M[n,c,y,x] = sum_k weight[c,k] * features[n,k,y,x]`` (Zhou et al. 2016, eq. 2). Pooling and
    the linear layer commute, so ``M[n,c].mean() + bias[c]`` is the logit of class c (eq. 1).

    Args:
        features: The feature maps that are pooled, [N,C,h,w] or [C,h,w]; any float dtype.
        weight: Rows of the linear layer's weight: [K,C] for the same classes in every picture,
            or [N,K,C] for each picture's own.
        bias: [K] or [N,K]. Where given it is spread evenly, so that the map's mean alone is the
            logit; where left out (the usual form) add it to the mean.

    Returns:
        float32 [N,K,h,w] (or [K,h,w]), signed, in logits, at feature resolution.

    Raises:
        ValueError: The shapes do not fit together.
    """
    if features.ndim == 3:
        return class_activation_map(features[None], weight, bias)[0]
    if features.ndim != 4 or weight.ndim not in (2, 3) or weight.shape[-1] != features.shape[1]:
        raise ValueError(
            f"features {tuple(features.shape)} and weight {tuple(weight.shape)} do not fit: "
            "need [N,C,h,w] and [K,C] or [N,K,C]"
        )
    n, _, h, w = features.shape
    if weight.ndim == 3 and weight.shape[0] != n:
        raise ValueError(f"weights for {weight.shape[0]} pictures, features of {n}")
    # Sums in float32 whatever the forward's dtype: 2,048 half-precision terms lose digits.
    with torch.autocast(features.device.type, enabled=False):
        sums = torch.matmul(weight.float(), features.float().flatten(2))
        maps = sums.reshape(n, weight.shape[-2], h, w)
        return maps if bias is None else maps + bias.float()[..., None, None]


def cam(forward: Forward, classes: Tensor, settings: Settings) -> Maps:
    """The class activation maps of some classes, which may differ from picture to picture.

    Args:
        forward: Of a head whose logits are linear in the pooled features.
        classes: int64 [N,K].
        settings: Not used.

    Raises:
        ModelError: The head is of another kind.
    """
    if forward.linear is None:
        raise ModelError(NOT_LINEAR)
    weight, bias = forward.linear(classes)
    return Maps(class_activation_map(forward.features, weight), bias)
