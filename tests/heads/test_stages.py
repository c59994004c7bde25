"""The ends of a network's stages, found for `--method stages`."""

from __future__ import annotations

import pytest
from torch import nn

from camtool.errors import HeadError
from camtool.heads import heads_at
from camtool.networks.efficientnet_lite0 import EfficientNetLite0


@pytest.mark.slow
def test_what_lies_inside_a_block_ends_no_stage() -> None:
    """The last block has no shortcut, so its widened maps are all that the logits come from."""
    heads = heads_at(EfficientNetLite0(), [], 64)
    assert [head.channels for head in heads] == [320, 192, 112]
    assert [head.features for head in heads] == ["blocks", "blocks.5", "blocks.4"]


def test_inner_modules_give_stages_where_outer_ones_are_too_few() -> None:
    def stage(inputs: int, outputs: int) -> nn.Module:
        return nn.Sequential(nn.Conv2d(inputs, outputs, 3, 2, 1), nn.ReLU())

    body = nn.Sequential(stage(3, 4), stage(4, 6), stage(6, 8))
    network = nn.Sequential(body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5))
    assert [head.channels for head in heads_at(network, [], 32)] == [8, 6, 4]


def test_a_network_without_feature_maps_has_no_stages() -> None:
    with pytest.raises(HeadError, match="no module's output"):
        heads_at(nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 5)), [], 16)
