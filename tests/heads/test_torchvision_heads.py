"""Every classification architecture of torchvision: which head it has, and that maps add up."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torchvision
from torch import Tensor, nn

from camtool.errors import HeadError
from camtool.heads import Head, find_head
from camtool.methods import Settings, find_method

LINEAR = {
    ("relu(features)", "classifier.weight"): "densenet121 densenet161 densenet169 densenet201",
    ("features", "classifier.1.weight"): "mobilenet_v2 efficientnet_b0 efficientnet_b1 "
    "efficientnet_b2 efficientnet_b3 efficientnet_b4 efficientnet_b5 efficientnet_b6 "
    "efficientnet_b7 efficientnet_v2_l efficientnet_v2_m efficientnet_v2_s",
    ("inception5b", "fc.weight"): "googlenet",
    ("Mixed_7c", "fc.weight"): "inception_v3",
    ("layers", "classifier.1.weight"): "mnasnet0_5 mnasnet0_75 mnasnet1_0 mnasnet1_3",
    ("trunk_output", "fc.weight"): "regnet_x_16gf regnet_x_1_6gf regnet_x_32gf regnet_x_3_2gf "
    "regnet_x_400mf regnet_x_800mf regnet_x_8gf regnet_y_128gf regnet_y_16gf regnet_y_1_6gf "
    "regnet_y_32gf regnet_y_3_2gf regnet_y_400mf regnet_y_800mf regnet_y_8gf",
    ("layer4", "fc.weight"): "resnet18 resnet34 resnet50 resnet101 resnet152 resnext50_32x4d "
    "resnext101_32x8d resnext101_64x4d wide_resnet50_2 wide_resnet101_2",
    ("conv5", "fc.weight"): "shufflenet_v2_x0_5 shufflenet_v2_x1_0 shufflenet_v2_x1_5 "
    "shufflenet_v2_x2_0",
    ("permute", "head.weight"): "swin_t swin_s swin_b swin_v2_t swin_v2_s swin_v2_b",
}
MAPS = {"classifier.2": "squeezenet1_0 squeezenet1_1"}
OTHER = {
    ("positional", "features"): "alexnet vgg11 vgg11_bn vgg13 vgg13_bn vgg16 vgg16_bn vgg19 "
    "vgg19_bn",
    ("norm", "features"): "convnext_tiny convnext_small convnext_base convnext_large",
    ("nonlinear", "blocks.3"): "maxvit_t",
    ("nonlinear", "features"): "mobilenet_v3_large mobilenet_v3_small",
    ("tokens", "encoder.layers.encoder_layer_10"): "vit_b_16 vit_b_32",
    ("tokens", "encoder.layers.encoder_layer_22"): "vit_l_16 vit_l_32",
    ("tokens", "encoder.layers.encoder_layer_30"): "vit_h_14",
}
"""Their maps are integrals along the path from no evidence."""
SIZES = {
    "inception_v3": 128,
    "maxvit_t": 224,
    **{name: 224 for names in OTHER.values() for name in names.split() if "vit_" in name},
    **dict.fromkeys(["alexnet", "vgg11", "vgg13", "vgg16", "vgg19"], 128),
}


def _by_name(table: dict) -> dict:
    return {name: outcome for outcome, names in table.items() for name in names.split()}


EXPECTED = {
    **{name: ("linear", *found) for name, found in _by_name(LINEAR).items()},
    **{name: ("maps", found, "") for name, found in _by_name(MAPS).items()},
    **{name: (*found, "") for name, found in _by_name(OTHER).items()},
}
NAMES = torchvision.models.list_models(module=torchvision.models)
QUICK = {"mobilenet_v3_small", "resnet18", "regnet_x_400mf", "squeezenet1_1"}
"""One of each outcome, and of several families, for the fast tier."""

# No period of the layers' sizes, so that no two rows of a weight are the same.
_NOISE = torch.rand(1_000_003, generator=torch.Generator().manual_seed(0)) * 2 - 1


def _leave(tensor: Tensor, *_args: object, **_kwargs: object) -> Tensor:
    return tensor


@pytest.fixture(autouse=True)
def _without_initialisation(monkeypatch: pytest.MonkeyPatch) -> None:
    """Building takes long for 600 million random weights, which are replaced anyway."""
    for name in ("normal_", "uniform_", "trunc_normal_"):
        monkeypatch.setattr(nn.init, name, _leave)
    for name in ("kaiming_normal_", "kaiming_uniform_", "xavier_normal_", "xavier_uniform_"):
        monkeypatch.setattr(nn.init, name, _leave)


def _fill(tensor: Tensor) -> None:
    """Uniform noise with the variance of He et al. 2015, equation 10."""
    bound = (6 / tensor[0].numel()) ** 0.5
    for piece in tensor.view(-1).split(len(_NOISE)):
        torch.mul(_NOISE[: len(piece)], bound, out=piece)


def _network(name: str) -> nn.Module:
    options = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
    module = torchvision.models.get_model(name, weights=None, **options)
    for key, tensor in module.state_dict().items():
        if not tensor.is_floating_point() or key.endswith("relative_coords_table"):
            continue
        if tensor.ndim > 1:
            _fill(tensor)
        else:
            tensor.fill_(0.0 if key.endswith(("bias", "running_mean")) else 1.0)
    return module.eval()


def test_every_architecture_has_its_outcome_written_down() -> None:
    # A newer torchvision may know more; none of those of today may go unnoticed.
    assert len(EXPECTED) == 80
    assert set(EXPECTED) <= set(NAMES)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in NAMES]
)
def test_maps_of_every_architecture_add_up(name: str) -> None:
    module = _network(name)
    size = SIZES.get(name, 64)
    expected = EXPECTED.get(name)
    head = find_head(module, size)
    assert expected is None or (head.kind, head.features, head.layer) == expected
    assert 0 <= head.max_error <= (1e-3 if head.kind == "tokens" else 1e-5)
    _check_from_outside(module, head, size)


def _check_from_outside(module: nn.Module, head: Head, size: int) -> None:
    """The same law on another input, with another size of the batch."""
    inputs = torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        logits = module(inputs)
        forward = head.forward(module, module, inputs)
        classes = logits.topk(5, dim=1).indices
        _, method = find_method("auto", head)
        spread = logits.max() - logits.min()
        for settings, most in (
            (Settings(), 1e-3 if head.kind == "tokens" else 1e-5),
            (Settings(1e-5, 256), 1e-5),
        ):
            maps, bias, _ = method(forward, classes, settings)
            missing = logits.gather(1, classes) - maps.mean((2, 3)) - bias
            assert missing.abs().max() <= most * spread


@pytest.mark.parametrize(
    ("build", "reason"),
    [
        (torchvision.models.segmentation.lraspp_mobilenet_v3_large, "no logits were found"),
        (torchvision.models.detection.ssdlite320_mobilenet_v3_large, "no logits were found"),
    ],
)
def test_what_does_not_classify_is_refused_in_a_line(build: Any, reason: str) -> None:
    with pytest.raises(HeadError, match=reason) as caught:
        find_head(build(weights=None, weights_backbone=None).eval(), 64)
    assert "\n" not in str(caught.value)
