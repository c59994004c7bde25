from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import camtool
from camtool.evaluate.ways import Seen, at_size, cost_of, edges, random_map, ways_of


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(nn.Conv2d(3, 6, 3, 8, 1), nn.ReLU())
        self.fc = nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.body(x).mean((2, 3)))


def model(method: str) -> camtool.CamModel:
    return camtool.load(Net(), labels=list("abcd"), size=32, method=method)


def test_costs_are_counted_in_forward_passes():
    convolution, linear = 2 * 6 * 27 * 16, 2 * 6 * 4
    # The head makes its own logits, and the map of one class is a product over all 16 places.
    expected = (convolution + 2 * linear + 2 * 6 * 16) / (convolution + linear)
    assert cost_of(model("cam")) == pytest.approx(expected, rel=1e-3)
    assert cost_of(model("cam")) == cost_of(model("cam"))
    scored = cost_of(model("scorecam"))
    assert scored is not None
    assert 7 <= scored < 7.1


def test_methods_come_first_and_say_what_their_maps_lack():
    inputs = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    ways = ways_of([model("cam"), model("layercam")])
    assert [way.name for way in ways[:2]] == ["cam", "layercam"]
    assert all(way.baseline for way in ways[2:])
    seen = Seen(inputs)
    maps, missing = ways[0].explain(seen, [2, 0])
    assert maps.shape == (2, 4, 4)
    assert missing is not None
    assert missing.max() < 1e-5
    assert np.array_equal(ways[0].heat(seen, 0), at_size(maps[1], inputs))
    for way in ways[2:]:
        maps, missing = way.explain(seen, [2, 0])
        assert missing is None
        assert np.array_equal(maps[0], maps[1])


def test_edges_are_where_the_picture_changes():
    inputs = torch.zeros(1, 3, 16, 16)
    inputs[..., 8:] = 1
    found = edges(inputs)
    assert np.array_equal(np.unique(np.nonzero(found)[1]), [7, 8])
    assert np.array_equal(edges(inputs + 5), found)


def test_the_random_map_is_as_coarse_as_the_networks_and_the_pictures_own():
    inputs = torch.randn(1, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    found = random_map(32, inputs)
    assert found.shape == (2, 3)
    assert np.array_equal(random_map(32, inputs), found)
    assert not np.array_equal(random_map(32, inputs + 1), found)


def test_methods_of_one_cut_share_a_forward_pass_and_change_nothing(monkeypatch):
    inputs = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    net, runs = Net(), []
    names = ("cam", "gradcam", "stages", "ablationcam")
    models = [camtool.load(net, size=32, method=name) for name in names]
    alone = [model.explain_tensor(inputs, [[1, 3]])[0] for model in models]
    ways, plain = ways_of(models), camtool.CamModel.forwards

    def counted(*given):
        runs.append(given)
        return plain(*given)

    monkeypatch.setattr(camtool.CamModel, "forwards", counted)
    seen = Seen(inputs)
    found = [way.explain(seen, [1, 3]) for way in ways[: len(names)]]
    assert [model for model, _ in runs] == [models[0], models[2]]
    for (maps, missing), expected in zip(found, alone, strict=True):
        assert np.array_equal(maps, expected.maps)
        spread = np.ptp(expected.all_logits)
        assert missing == pytest.approx(np.abs(expected.residual) / spread, abs=1e-6)
