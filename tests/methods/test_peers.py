"""Methods by name give what pytorch-grad-cam's of that name give, after its own scaling."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from camtool.heads import TailHead, find_head
from camtool.methods import METHODS, Settings
from camtool.methods.gradient import gradients

SIZE = 64
NAMES = {
    "gradcam": "GradCAM",
    "gradcam++": "GradCAMPlusPlus",
    "xgradcam": "XGradCAM",
    "hirescam": "HiResCAM",
    "layercam": "LayerCAM",
    "eigencam": "EigenCAM",
    "eigengradcam": "EigenGradCAM",
    "scorecam": "ScoreCAM",
    "ablationcam": "AblationCAM",
}


class Small(nn.Module):
    """Convolutions, and a head with a hidden layer: gradients differ from place to place never."""

    def __init__(self, positional: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(
            nn.Conv2d(3, 8, 3, 4, 1), nn.ReLU(), nn.Conv2d(8, 12, 3, 2, 1), nn.ReLU()
        )
        self.head = (
            nn.Sequential(nn.Flatten(), nn.Linear(12 * 8 * 8, 10), nn.Tanh(), nn.Linear(10, 5))
            if positional
            else nn.Sequential(
                nn.AdaptiveAvgPool2d(1),
                nn.Flatten(),
                nn.Linear(12, 10),
                nn.ReLU(),
                nn.Linear(10, 5),
            )
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x))


def scaled(maps: Tensor) -> np.ndarray:
    """As pytorch-grad-cam does it: cut off below zero, min-max, OpenCV's resize, min-max."""
    from pytorch_grad_cam.utils.image import scale_cam_image

    return scale_cam_image(scale_cam_image(np.maximum(maps.numpy(), 0), (SIZE, SIZE)))


@pytest.mark.slow
@pytest.mark.parametrize("positional", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_maps_are_those_of_pytorch_grad_cam(name: str, positional: bool) -> None:
    peer = pytest.importorskip("pytorch_grad_cam", reason="needs grad-cam: pip install grad-cam")
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    module = Small(positional).eval()
    if name == "gradcam++":
        # Their alpha has 1e-6 added below, which small gradients to the second power feel.
        last = module.head[-1]
        assert isinstance(last, nn.Linear)
        nn.init.normal_(last.weight, std=100)
    inputs = torch.randn(2, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1))
    head = find_head(module, SIZE)
    assert isinstance(head, TailHead)
    assert head.features == "body"
    classes = torch.tensor([[3], [1]])
    with torch.no_grad():
        forward = head.forward(module, module, inputs)
        found = METHODS[name](forward, classes, Settings()).maps[:, 0]
    kind = getattr(peer, NAMES[name])
    with kind(model=module, target_layers=[module.body[-1]]) as theirs:
        if name == "ablationcam":
            theirs.batch_size = 4
        expected = theirs(inputs, [ClassifierOutputTarget(3), ClassifierOutputTarget(1)])
    ways = [scaled(found)]
    if "eigen" in name:
        # A principal component has no sign of its own, and theirs is left to chance.
        ways.append(scaled(-found))
    for n, peers in enumerate(expected):
        # Their Score-CAM stretches its masks to the corners (align_corners=True).
        tolerance = 1e-2 if name == "scorecam" else 1e-4
        assert min(np.abs(way[n] - peers).max() for way in ways) <= tolerance


def scaled_as_torch_cam(maps: Tensor) -> Tensor:
    """Cut off below zero and min-max, at the resolution of the features."""
    positive = maps.clamp(min=0)
    low, high = (end(positive, dim=(-2, -1), keepdim=True) for end in (torch.amin, torch.amax))
    scaled: Tensor = (positive - low) / (high - low + 1e-8)
    return scaled


@pytest.mark.slow
@pytest.mark.parametrize("positional", [False, True])
@pytest.mark.parametrize(
    ("name", "theirs"),
    [
        ("gradcam", "GradCAM"),
        ("gradcam++", "GradCAMpp"),
        ("xgradcam", "XGradCAM"),
        ("layercam", "LayerCAM"),
    ],
)
def test_maps_are_those_of_torch_cam(name: str, theirs: str, positional: bool) -> None:
    peer = pytest.importorskip("torchcam.methods", reason="needs torch-cam: pip install torch-cam")
    module = Small(positional).eval()
    inputs = torch.randn(2, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1))
    head = find_head(module, SIZE)
    classes = [3, 1]
    with torch.no_grad():
        forward = head.forward(module, module, inputs)
        ours = METHODS[name](forward, torch.tensor(classes)[:, None], Settings()).maps[:, 0]
    with getattr(peer, theirs)(module, target_layer="body") as extractor:
        (expected,) = extractor(classes, module(inputs.requires_grad_()))
    apart = (scaled_as_torch_cam(ours) - expected).abs().max()
    if name == "gradcam++":
        # Their division by the denominator of equation 19 is done on a copy and lost: the weights
        # that they take are sums of relu(G)^3.
        assert apart > 1e-3
        gradient = gradients(forward, torch.tensor(classes)[:, None])[:, 0]
        weight = gradient.relu().pow(3).sum((2, 3), keepdim=True)
        ours = (weight * forward.features).sum(1)
    assert (scaled_as_torch_cam(ours) - expected).abs().max() <= 1e-4


@pytest.mark.slow
def test_the_class_activation_map_is_that_of_torch_cam() -> None:
    peer = pytest.importorskip("torchcam.methods", reason="needs torch-cam: pip install torch-cam")
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Conv2d(3, 8, 3, 4, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5)
    ).eval()
    inputs = torch.randn(2, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        forward = find_head(module, SIZE).forward(module, module, inputs)
        maps = METHODS["cam"](forward, torch.tensor([[3], [1]]), Settings()).maps[:, 0]
        with peer.CAM(module, target_layer="1", fc_layer="4") as extractor:
            module(inputs)
            (expected,) = extractor([3, 1])
    # Theirs leaves negative evidence in and stretches it to 0..1 as well.
    low, high = maps.amin((1, 2), keepdim=True), maps.amax((1, 2), keepdim=True)
    ways = [(maps - low) / (high - low), scaled_as_torch_cam(maps)]
    assert min((way - expected).abs().max() for way in ways) <= 1e-4
