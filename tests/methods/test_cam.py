"""The laws of class activation maps: they add up, they are linear, they move with the features."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from camtool.heads.linear import pooled_logits
from camtool.methods import class_activation_map

shapes = st.tuples(*(st.integers(1, top) for top in (3, 9, 6, 7)))
seeds = st.integers(0, 10_000)


def _tensors(shape, classes: int, seed: int):
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(*shape, generator=generator)
    weight = torch.randn(classes, shape[1], generator=generator)
    return features, weight, torch.randn(classes, generator=generator)


@given(shapes, st.integers(1, 5), seeds)
def test_mean_of_the_map_and_bias_is_the_logit(shape, classes, seed) -> None:
    features, weight, bias = _tensors(shape, classes, seed)
    logits = torch.nn.functional.linear(features.mean((2, 3)), weight, bias)
    maps = class_activation_map(features, weight)
    assert maps.shape == (shape[0], classes, *shape[2:])
    torch.testing.assert_close(maps.mean((2, 3)) + bias, logits, rtol=1e-4, atol=1e-5)
    spread = class_activation_map(features, weight, bias)
    torch.testing.assert_close(spread.mean((2, 3)), logits, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(pooled_logits(features, weight, bias), logits, rtol=1e-4, atol=1e-5)


@given(shapes, st.integers(1, 5), seeds)
def test_it_is_the_sum_of_zhou_et_al(shape, classes, seed) -> None:
    features, weight, _ = _tensors(shape, classes, seed)
    expected = torch.zeros(shape[0], classes, *shape[2:])
    for k in range(shape[1]):
        expected += weight[None, :, k, None, None] * features[:, k : k + 1]
    torch.testing.assert_close(
        class_activation_map(features, weight), expected, rtol=1e-4, atol=1e-5
    )


@given(shapes, seeds, st.floats(-3, 3), st.floats(-3, 3))
def test_it_is_linear_in_features_and_in_weights(shape, seed, a, b) -> None:
    features, weight, _ = _tensors(shape, 4, seed)
    others, other_weight, _ = _tensors(shape, 4, seed + 1)
    cam = class_activation_map
    near = partial(torch.testing.assert_close, rtol=1e-4, atol=1e-4)
    near(
        cam(a * features + b * others, weight),
        a * cam(features, weight) + b * cam(others, weight),
    )
    near(
        cam(features, a * weight + b * other_weight),
        a * cam(features, weight) + b * cam(features, other_weight),
    )


@given(shapes, seeds, st.integers(-3, 3), st.integers(-3, 3))
def test_it_flips_turns_and_shifts_with_the_features(shape, seed, down, right) -> None:
    features, weight, _ = _tensors(shape, 3, seed)
    maps = class_activation_map(features, weight)
    for move in (
        lambda t: t.flip(3),
        lambda t: t.flip(2),
        lambda t: t.transpose(2, 3),
        lambda t: t.roll((down, right), (2, 3)),
    ):
        torch.testing.assert_close(class_activation_map(move(features), weight), move(maps))


@given(shapes, seeds)
def test_a_batch_is_its_pictures(shape, seed) -> None:
    features, weight, bias = _tensors(shape, 3, seed)
    maps = class_activation_map(features, weight, bias)
    for n in range(shape[0]):
        torch.testing.assert_close(class_activation_map(features[n], weight, bias), maps[n])


@given(shapes, seeds)
def test_weights_may_differ_from_picture_to_picture(shape, seed) -> None:
    features, weight, bias = _tensors(shape, 6, seed)
    chosen = torch.randint(6, (shape[0], 2), generator=torch.Generator().manual_seed(seed))
    every = class_activation_map(features, weight, bias)
    own = class_activation_map(features, weight[chosen], bias[chosen])
    for n in range(shape[0]):
        torch.testing.assert_close(own[n], every[n, chosen[n]])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_the_sum_is_float32_whatever_the_features_are(dtype) -> None:
    features, weight, _ = _tensors((2, 2048, 3, 3), 2, 0)
    half = features.to(dtype)
    maps = class_activation_map(half, weight.to(dtype))
    assert maps.dtype == torch.float32
    exact = torch.einsum("kc,nchw->nkhw", weight.to(dtype).double(), half.double())
    torch.testing.assert_close(maps.double(), exact, rtol=1e-4, atol=1e-3)


def test_autocast_outside_does_not_reach_the_sum() -> None:
    features, weight, bias = _tensors((1, 512, 3, 3), 2, 0)
    with torch.autocast("cpu", torch.bfloat16):
        maps = class_activation_map(features, weight)
        logits = pooled_logits(features, weight, bias)
    torch.testing.assert_close(maps, class_activation_map(features, weight), rtol=0, atol=0)
    assert logits.dtype == torch.float32
    torch.testing.assert_close(logits, pooled_logits(features, weight, bias), rtol=0, atol=0)


@pytest.mark.parametrize(
    ("features", "weight"),
    [((2, 8, 3, 3), (4, 7)), ((8, 3), (4, 8)), ((2, 8, 3, 3), (3, 4, 8)), ((2, 8, 3, 3), (8,))],
)
def test_shapes_that_do_not_fit_are_an_error(features, weight) -> None:
    with pytest.raises(ValueError, match=r"do not fit|weights for"):
        class_activation_map(torch.zeros(features), torch.zeros(weight))


def test_it_is_differentiable() -> None:
    features, weight, _ = _tensors((1, 4, 3, 3), 2, 0)
    class_activation_map(features.requires_grad_(), weight).sum().backward()
    torch.testing.assert_close(
        features.grad, weight.sum(0)[None, :, None, None].expand_as(features)
    )
