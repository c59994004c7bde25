"""timm's heads: average pooling is exact, the rest is refused for its true reason."""

from __future__ import annotations

import pytest

from camtool.errors import HeadError
from camtool.heads import find_head

timm = pytest.importorskip("timm", reason="timm is not installed")

EXACT = [
    ("resnet18", {}, "fc.weight"),
    ("resnet18", {"global_pool": "fast"}, "fc.weight"),
    ("efficientnet_lite0", {}, "classifier.weight"),
    pytest.param("densenet121", {}, "classifier.weight", marks=pytest.mark.slow),
    ("regnetx_002", {}, "head.fc.weight"),
    pytest.param("swin_tiny_patch4_window7_224", {}, "head.fc.weight", marks=pytest.mark.slow),
]
REFUSED = [
    ("convnext_atto", {}, "layer_norm"),
    ("mobilenetv3_small_050", {}, "further steps|lie"),
    ("resnet18", {"global_pool": "avgmax"}, "max_pool2d"),
    ("resnet18", {"global_pool": "catavgmax"}, "max_pool2d|lie cat"),
    ("resnet18", {"global_pool": "max"}, "adaptive_max_pool2d over all positions"),
    pytest.param("vit_tiny_patch16_224", {}, "nothing is pooled", marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("name", "options", "weight"), EXACT)
def test_average_pooling_is_exact(name: str, options: dict, weight: str) -> None:
    size = 224 if "224" in name else 96
    head = find_head(timm.create_model(name, num_classes=10, **options), size)
    assert (head.kind, head.layer, head.classes, head.exact) == ("linear", weight, 10, True)


@pytest.mark.parametrize(("name", "options", "reason"), REFUSED)
def test_other_pooling_is_refused(name: str, options: dict, reason: str) -> None:
    size = 224 if "224" in name else 96
    with pytest.raises(HeadError, match=reason):
        find_head(timm.create_model(name, num_classes=10, **options), size)
