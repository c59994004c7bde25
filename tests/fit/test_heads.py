"""The heads that are compared: parameters, shapes, what each of them sees, and their maps."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from camtool.fit.heads import DECAY, HEADS, Average, ClassMaps, DenseDropout, Head, written_out

EACH = pytest.mark.parametrize("name", HEADS)
SHAPE = (4, 6)


def made(name: str, channels: int = 5, classes: int = 3) -> Head:
    torch.manual_seed(0)
    return HEADS[name](channels, SHAPE, classes).eval()


def features(*shape: int, seed: int = 1) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


@EACH
@given(channels=st.integers(1, 9), h=st.integers(1, 5), w=st.integers(1, 5), k=st.integers(2, 7))
def test_the_arithmetic_is_the_number_of_parameters(name, channels, h, w, k) -> None:
    text, count = written_out(HEADS[name], channels, (h, w), k)
    head = HEADS[name](channels, (h, w), k)
    assert count == sum(parameter.numel() for parameter in head.parameters())
    assert count == sum(np.prod([int(n) for n in t.split("·")]) for t in text.split(" + "))


def test_flattening_costs_as_many_times_more_as_there_are_positions() -> None:
    assert written_out(HEADS["gap"], 128, (8, 8), 2) == ("128·2 + 2", 258)
    text, count = written_out(HEADS["dense"], 128, (8, 8), 2)
    assert text == "128·8·8·100 + 100 + 2·100 + 100·100 + 100 + 2·100 + 100·2 + 2"
    assert count == 830_002


@EACH
def test_features_become_logits_at_other_sizes_only_where_it_says_so(name) -> None:
    head = made(name)
    assert head(features(2, 5, *SHAPE)).shape == (2, 3)
    if head.any_size:
        assert head(features(2, 5, 7, 3)).shape == (2, 3)
    else:
        with pytest.raises(RuntimeError):
            head(features(2, 5, 7, 3))


@EACH
def test_only_heads_without_place_give_the_same_for_the_picture_rolled(name) -> None:
    head, x = made(name), features(4, 5, *SHAPE)
    rolled = x.roll((1, 2), (2, 3))
    same = torch.allclose(head(x), head(rolled), atol=1e-6)
    assert same == (name in ("gap", "nin", "max"))


def test_one_map_a_class_is_average_pooling_until_it_is_rectified() -> None:
    maps, average, x = made("nin"), made("gap"), features(4, 5, *SHAPE)
    with torch.no_grad():
        assert isinstance(maps, ClassMaps)
        maps.maps.weight.copy_(average.fc.weight[:, :, None, None])
        # So high a bias that nothing is rectified.
        average.fc.bias.fill_(9)
        maps.maps.bias.fill_(9)
    torch.testing.assert_close(maps(x), average(x))
    with torch.no_grad():
        maps.maps.bias.fill_(-9)
    assert (maps(x) == 0).all()


def test_what_is_left_of_the_features() -> None:
    x = features(1, 1, 2, 2)
    a, b, c, d = x.flatten().tolist()
    left = {name: made(name, 1).reduced(x)[0] for name in ("max", "four", "ema", "channels")}
    assert left["max"].item() == pytest.approx(max(a, b, c, d))
    assert left["four"].tolist() == pytest.approx([a, b, c, d])
    assert left["channels"].tolist() == pytest.approx([a, b, c, d])
    average = a
    weights = 1.0
    for value in (b, c, d):
        average, weights = DECAY * average + value, DECAY * weights + 1
    assert left["ema"].item() == pytest.approx(average / weights)


def test_dropout_drops_only_while_it_learns_and_costs_nothing() -> None:
    head, x = made("dropout"), features(8, 5, *SHAPE)
    assert isinstance(head, DenseDropout)
    assert torch.equal(head(x), head(x))
    head.train()
    assert not torch.equal(head(x), head(x))
    plain = made("dense").train()
    assert torch.equal(plain(x), plain(x))


def test_heads_whose_maps_are_shown() -> None:
    own = {name for name in HEADS if (head := made(name)).mapped() is head}
    assert own == {"gap", "nin", "four"}
    head = made("max")
    twin = head.mapped()
    assert isinstance(twin, Average)
    x = features(2, 5, *SHAPE)
    constant = x.amax((2, 3), keepdim=True).expand_as(x)
    torch.testing.assert_close(twin(constant), head(x))
    assert made("dense").mapped() is None
