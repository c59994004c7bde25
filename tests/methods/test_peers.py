"""Methods by name give what pytorch-grad-cam's of that name give, after its own scaling."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from camtool.heads import TailHead, find_head
from camtool.methods import METHODS, Settings

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
