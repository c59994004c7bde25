"""Methods by name give what those of pytorch-grad-cam and torch-cam give, after their scaling."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torchvision.models import VisionTransformer

import camtool
from camtool.heads import TailHead, find_head, heads_at
from camtool.methods import METHODS, Settings
from camtool.methods.gradient import gradients
from camtool.networks.source import woken

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

    def __init__(self, positional: bool, strides: tuple[int, int] = (4, 2), cells: int = 8) -> None:
        super().__init__()
        torch.manual_seed(0)
        first, second = strides
        self.body = nn.Sequential(
            nn.Conv2d(3, 8, 3, first, 1), nn.ReLU(), nn.Conv2d(8, 12, 3, second, 1), nn.ReLU()
        )
        self.head = (
            nn.Sequential(nn.Flatten(), nn.Linear(12 * cells**2, 10), nn.Tanh(), nn.Linear(10, 5))
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


def scaled(maps: Tensor, size: int = SIZE) -> np.ndarray:
    """As pytorch-grad-cam does it: cut off below zero, min-max, OpenCV's resize, min-max."""
    from pytorch_grad_cam.utils.image import scale_cam_image

    return scale_cam_image(scale_cam_image(np.maximum(maps.numpy(), 0), (size, size)))


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
    peer = pytest.importorskip("torchcam.methods", reason="needs torch-cam: pip install torchcam")
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
    peer = pytest.importorskip("torchcam.methods", reason="needs torch-cam: pip install torchcam")
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


@pytest.mark.slow
@pytest.mark.parametrize("positional", [False, True])
@pytest.mark.parametrize(("name", "theirs"), [("scorecam", "ScoreCAM"), ("finercam", "FinerCAM")])
def test_maps_from_scores_are_those_of_torch_cam(name: str, theirs: str, positional: bool) -> None:
    peer = pytest.importorskip("torchcam.methods", reason="needs torch-cam: pip install torchcam")
    # They scale Score-CAM's masks before they enlarge them, not after. Enlarged by an odd factor a
    # map keeps its least and its largest value, and both orders give the same.
    module, size = Small(positional, strides=(3, 3), cells=7).eval(), 63
    inputs = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(1))
    (head,) = heads_at(module, ["body"], size)
    with torch.no_grad():
        forward = head.forward(module, module, inputs)
        ours = METHODS[name](forward, torch.tensor([[3], [1]]), Settings()).maps[:, 0]
    with getattr(peer, theirs)(module, target_layer="body") as extractor:
        (expected,) = extractor([3, 1], module(inputs))
    assert (scaled_as_torch_cam(ours) - expected).abs().max() <= 1e-4


def on_a_grid(tokens: Tensor) -> Tensor:
    """[N,1+16,C] without the class token as [N,C,4,4]: what both peers have to be told."""
    return tokens[:, 1:].transpose(1, 2).unflatten(2, (4, 4))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["gradcam", "xgradcam", "layercam"])
def test_tokens_lie_on_their_grid_without_being_told(name: str) -> None:
    reason = "needs grad-cam and torch-cam: pip install grad-cam torchcam"
    torch_cam = pytest.importorskip("torchcam.methods", reason=reason)
    grad_cam = pytest.importorskip("pytorch_grad_cam", reason=reason)
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    torch.manual_seed(0)
    module = woken(VisionTransformer(32, 8, 2, 2, 16, 32, num_classes=5)).requires_grad_(True)
    inputs = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    layer = "encoder.layers.encoder_layer_0"
    (head,) = heads_at(module, [layer], 32)
    with torch.no_grad():
        forward = head.forward(module, module, inputs)
        ours = METHODS[name](forward, torch.tensor([[3], [1]]), Settings()).maps[:, 0]
    kind = getattr(torch_cam, NAMES[name])
    with kind(module, target_layer=layer, reshape_transform=on_a_grid) as extractor:
        (expected,) = extractor([3, 1], module(inputs))
    assert (scaled_as_torch_cam(ours) - expected).abs().max() <= 1e-4
    kind, layers = getattr(grad_cam, NAMES[name]), [module.get_submodule(layer)]
    targets = [ClassifierOutputTarget(3), ClassifierOutputTarget(1)]
    with kind(module, layers, on_a_grid) as theirs:
        np.testing.assert_allclose(scaled(ours, 32), theirs(inputs, targets), atol=1e-4)
    if name == "gradcam":
        with pytest.raises(ValueError, match="Invalid grads shape"):
            kind(module, layers)(inputs, targets)


@pytest.mark.slow
def test_the_map_of_a_cropped_picture_lies_on_what_was_seen() -> None:
    """Theirs is stretched over the whole picture, of which the network saw the middle alone."""
    utils = pytest.importorskip("torchcam.utils", reason="needs torch-cam: pip install torchcam")
    picture = np.zeros((64, 192, 3), np.uint8)
    picture[24:40, 104:120] = 255
    module = nn.Sequential(
        nn.Conv2d(3, 1, 8, 8, bias=False), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(1, 2)
    )
    for parameter in module.parameters():
        nn.init.ones_(parameter)
    explanation = camtool.load(module, device="cpu", size=64, fit="crop").explain(picture, 0)
    ours = explanation.heatmap()[32]
    assert np.isnan(ours[[0, 60, 130, 191]]).all()
    assert 104 <= np.nanargmax(ours) < 120
    scaled = explanation.maps[0].clip(0) / explanation.maps[0].max()
    mask, plain = Image.fromarray(np.uint8(255 * scaled)), Image.new("RGB", (192, 64))
    theirs = np.asarray(utils.overlay_mask(plain, mask, colormap="gray", alpha=0.5))[..., 0]
    assert theirs.mean(0).argmax() > 130
