"""gapnet: a small residual network that ends in GAP and one linear layer, and its files.

The residual block is the basic block of He et al., "Deep Residual Learning for Image
Recognition" (2016), section 3, with the average-pooled shortcut of He et al., "Bag of Tricks"
(2019), section 4.2 (ResNet-D). Nothing stands between the pooled features and the classifier, so
class activation maps (Zhou et al. 2016, equation 2) are exact.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from camtool.errors import ModelError
from camtool.networks.fitting import fit
from camtool.networks.hub import sha256
from camtool.networks.preprocessing import Preprocessing
from camtool.networks.source import Network
from camtool.networks.state import State, line_of, read_state, safetensors_metadata


def _conv_bn(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Sequential:
    """A convolution without bias, padded to keep ``size / stride``, and its batch norm."""
    padding = (kernel - 1) // 2
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, padding, bias=False), nn.BatchNorm2d(outputs)
    )


def _shortcut(inputs: int, outputs: int, stride: int) -> nn.Module:
    """The identity where shapes agree, else pooling and a 1x1 projection."""
    if inputs == outputs and stride == 1:
        return nn.Identity()
    projection = _conv_bn(inputs, outputs, kernel=1)
    if stride == 1:
        return projection
    # The padded 3x3 convolution beside it keeps an odd row or column; so must the pooling.
    return nn.Sequential(nn.AvgPool2d(stride, ceil_mode=True), projection)


class Residual(nn.Module):
    """Two 3x3 convolutions with batch norm, added to a shortcut; ReLU last.

    Args:
        inputs: Channels of the input.
        outputs: Channels of the output.
        stride: Stride of the first convolution and of the shortcut.
    """

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.first = _conv_bn(inputs, outputs, 3, stride)
        self.second = _conv_bn(outputs, outputs, 3)
        self.shortcut = _shortcut(inputs, outputs, stride)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map float ``[N, inputs, H, W]`` to ``[N, outputs, H / stride, W / stride]``, >= 0."""
        y: torch.Tensor = self.second(self.relu(self.first(x)))
        y = y + self.shortcut(x)
        return torch.relu_(y)


class GapNet(nn.Module):
    """A residual network of stride 8, global average pooling and one linear layer.

    Attributes:
        architecture: The arguments that it was made with, without the classes.
        features: The body, float ``[N, 3, H, W]`` to non-negative ``[N, C, H // 8, W // 8]``.
        pool: Global average pooling.
        fc: The classifier, ``C`` to ``classes``.

    Args:
        widths: Channels of the stem, of each stage, and of the 1x1 convolution that ends the
            body; at least four numbers.
        blocks: Residual blocks in each stage, two numbers fewer than ``widths``. The stem and
            the first two stages halve the resolution, later stages keep it.
        classes: Number of classes.

    Raises:
        ValueError: If the lengths do not fit, or a number is not positive.
    """

    def __init__(self, widths: Sequence[int], blocks: Sequence[int], classes: int) -> None:
        super().__init__()
        _check(widths, blocks, classes)
        self.architecture = {"widths": [*widths], "blocks": [*blocks]}
        layers: list[nn.Module] = [_conv_bn(3, widths[0], kernel=4, stride=2), nn.ReLU(True)]
        for stage, count in enumerate(blocks):
            inputs, outputs = widths[stage], widths[stage + 1]
            layers.append(Residual(inputs, outputs, stride=2 if stage < 2 else 1))
            layers += [Residual(outputs, outputs) for _ in range(count - 1)]
        layers += [_conv_bn(widths[-2], widths[-1], kernel=1), nn.ReLU(True)]
        self.features = nn.Sequential(*layers)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(widths[-1], classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map normalised images, float ``[N, 3, H, W]``, to logits ``[N, classes]``."""
        logits: torch.Tensor = self.fc(self.pool(self.features(x)).flatten(1))
        return logits


def _check(widths: Sequence[int], blocks: Sequence[int], classes: int) -> None:
    if len(blocks) < 2 or len(widths) != len(blocks) + 2:
        raise ValueError(
            f"gapnet needs two stages or more, and two widths more than stages; "
            f"got {len(widths)} widths and {len(blocks)} stages"
        )
    if min(*widths, *blocks, classes) < 1:
        raise ValueError("widths, blocks and classes must be positive")


def gapnet(
    widths: Sequence[int] = (32, 128, 256, 512),
    blocks: Sequence[int] = (1, 3),
    classes: int = 200,
) -> GapNet:
    """Build an untrained :class:`GapNet`; the defaults are those of the embedded weights.

    Args:
        widths: Channels of the stem, of each stage and of the last convolution.
        blocks: Residual blocks in each stage.
        classes: Number of classes.

    Returns:
        The network, in training mode, with torch's default initialisation.

    Raises:
        ValueError: If ``widths`` and ``blocks`` do not fit together.
    """
    return GapNet(widths, blocks, classes)


def metadata(path: Path) -> dict[str, Any] | None:
    """What a gapnet file says of itself; None if the file is no gapnet.

    Returns:
        "architecture", "labels", "wnids" and "preprocessing" as parsed JSON, the rest as text.

    Raises:
        ModelError: It says that it is one, and the rest is damaged.
    """
    facts: dict[str, Any] = safetensors_metadata(path)
    if facts.get("format") != "camtool-gapnet":
        return None
    try:
        for key in {"architecture", "labels", "wnids", "preprocessing"} & facts.keys():
            facts[key] = json.loads(facts[key])
    except (ValueError, RecursionError) as error:
        raise _damaged(path, error) from None
    return facts


def load(path: Path) -> Network:
    """A gapnet from its file.

    Raises:
        ModelError: The file is no gapnet, or damaged.
    """
    facts = metadata(path)
    if facts is None:
        raise ModelError(f"{path}: is no gapnet file")
    state = read_state(path)
    try:
        spec = _preprocessing(**facts["preprocessing"])
        labels, wnids = (tuple(map(str, facts.get(key, ()))) for key in ("labels", "wnids"))
        module = built(state, facts["architecture"], path)
    except ModelError:
        raise
    except (LookupError, TypeError, ValueError, RuntimeError) as error:
        raise _damaged(path, error) from None
    return Network(module, "gapnet", path.name, sha256(path), labels, spec, wnids)


def built(state: State, architecture: dict[str, Any], path: Path) -> nn.Module:
    """The gapnet that a file says it holds, with the file's tensors.

    Raises:
        ModelError, ValueError, TypeError: The tensors do not fit, or no gapnet is like that.
    """
    _check_claim(state, **architecture)
    build = partial(gapnet, **architecture)
    module, _ = fit(lambda *_: build(), state, str(path), "the gapnet that it says it is")
    return module


def _check_claim(state: State, widths: list[int], blocks: list[int], classes: int) -> None:
    """Refuse an architecture that is larger than the file, before any of it is built."""
    widest = max(tensor.numel() for tensor in state.values())
    if sum(blocks) > len(state) or max(*widths, classes) > widest:
        raise ValueError("it says that it is larger than it is")


def _preprocessing(
    size: int, mean: Sequence[float], std: Sequence[float], interpolation: str, resize: int = 0
) -> Preprocessing:
    return Preprocessing(size, resize or size, tuple(mean), tuple(std), interpolation)


def _damaged(path: Path, error: Exception) -> ModelError:
    return ModelError(f"{path}: is a damaged gapnet file ({line_of(error)})")
