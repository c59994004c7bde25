"""The solver against scikit-learn's, and the laws of its objective."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from camtool.fit.solver import (
    Examples,
    Scale,
    cross_validate,
    fitted_layer,
    losses,
    one_thread,
    solve,
)


def problem(seed: int, count: int = 60, channels: int = 20, classes: int = 4):
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(classes, channels, generator=generator)
    labels = torch.arange(count) % classes
    features = centres[labels] + 1.5 * torch.randn(count, channels, generator=generator)
    return features, labels, torch.eye(classes, dtype=torch.float64)[labels]


def objective(found, features, truth, form, strength, shares) -> float:
    logits = features @ found[:, :-1].T + found[:, -1]
    loss = (losses(logits, truth, form) * shares).sum()
    return float(found[:, :-1].square().sum() / 2 + strength * loss)


@pytest.mark.slow
@pytest.mark.parametrize("strength", [0.003, 0.1, 3.0])
@pytest.mark.parametrize("balanced", [False, True])
def test_the_loss_is_that_of_scikit_learn(strength, balanced) -> None:
    linear_model = pytest.importorskip("sklearn.linear_model")
    features, labels, truth = problem(0)
    labels, truth = labels[:50], truth[:50]
    keep = torch.tensor([n for n in range(50) if labels[n] or n < 20])
    labels, truth, standard = labels[keep], truth[keep], Scale.of(features[:50][keep])
    inputs = standard(features[:50][keep])
    examples = Examples(features[:50][keep].numpy()[:, None], truth, "softmax", balanced)
    shares = examples.shares()
    found = solve(inputs, truth, "softmax", strength, shares)
    theirs = linear_model.LogisticRegression(
        C=strength, max_iter=5000, tol=1e-8, class_weight="balanced" if balanced else None
    ).fit(inputs.numpy(), labels.numpy())
    other = torch.from_numpy(np.c_[theirs.coef_, theirs.intercept_])
    mine, their = (
        objective(one, inputs, truth, "softmax", strength, shares) for one in (found, other)
    )
    assert mine == pytest.approx(their, rel=1e-6)
    torch.testing.assert_close(found[:, :-1], other[:, :-1], atol=1e-3, rtol=1e-3)


@pytest.mark.slow
def test_one_logit_is_that_of_scikit_learn() -> None:
    linear_model = pytest.importorskip("sklearn.linear_model")
    features, labels, _ = problem(1, classes=2)
    inputs = Scale.of(features)(features)
    found = solve(inputs, labels[:, None].double(), "sigmoid", 0.2, torch.ones(60, 1))
    theirs = linear_model.LogisticRegression(C=0.2, tol=1e-8, max_iter=5000)
    theirs.fit(inputs.numpy(), labels.numpy())
    other = torch.from_numpy(np.c_[theirs.coef_, theirs.intercept_])
    torch.testing.assert_close(found, other, atol=1e-4, rtol=1e-4)


@given(seed=st.integers(0, 10**6), form=st.sampled_from(["softmax", "sigmoid"]))
def test_nothing_nearby_is_less(seed, form) -> None:
    features, _, truth = problem(seed, 24, 6, 3)
    inputs, shares = Scale.of(features)(features), torch.ones(24, dtype=torch.float64)
    found = solve(inputs, truth, form, 0.5, shares[:, None].expand(24, 3))
    least = objective(found, inputs, truth, form, 0.5, shares)
    step = torch.randn(found.shape, generator=torch.Generator().manual_seed(seed)).double()
    for size in (1e-3, 1e-1, 1):
        assert objective(found + size * step, inputs, truth, form, 0.5, shares) >= least - 1e-9


@given(seed=st.integers(0, 10**6), views=st.integers(2, 4))
def test_the_same_view_again_changes_nothing(seed, views) -> None:
    features, _, truth = problem(seed, 24, 6, 3)
    one = Examples(features.numpy()[:, None], truth, "softmax", False)
    several = Examples(features.numpy()[:, None].repeat(views, 1), truth, "softmax", False)
    first, second = (fitted_layer(examples, 0.3) for examples in (one, several))
    torch.testing.assert_close(first.weight, second.weight, atol=1e-4, rtol=1e-4)


def test_a_feature_that_never_changes_counts_for_nothing() -> None:
    features, _, truth = problem(2)
    features[:, 3] = 0.7
    layer = fitted_layer(Examples(features.numpy()[:, None], truth, "softmax", False), 1.0)
    assert layer.weight[:, 3].abs().max() == 0
    assert layer.weight.isfinite().all()


def test_a_feature_that_hardly_changes_is_not_blown_up() -> None:
    features, _, truth = problem(2)
    features[:, 3] = 0
    features[0, 3] = 0.01
    layer = fitted_layer(Examples(features.numpy()[:, None], truth, "softmax", False), 1.0)
    assert layer.weight[:, 3].abs().max() < 0.05 * layer.weight.abs().max()


def test_neither_threads_nor_workers_change_a_bit() -> None:
    features, _, truth = problem(3, 200, 64)
    examples = Examples(features.numpy()[:, None], truth, "softmax", True)
    folds = {number: number % 5 for number in range(150)}
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            with one_thread():
                layer = fitted_layer(examples, 0.1)
            assert torch.get_num_threads() == threads
            found.append(
                (layer.weight.numpy().tobytes(), cross_validate(examples, folds, 5, threads))
            )
    finally:
        torch.set_num_threads(before)
    assert found[0] == found[1]


def test_cross_validation_sees_what_is_too_strong() -> None:
    """Pure noise is best told apart by nothing, and well separated classes by a lot."""
    _, _, truth = problem(4, 80)
    noise = torch.randn(80, 40, generator=torch.Generator().manual_seed(0)).numpy()
    clear = noise[:, None] * np.float32(0.01)
    clear[:, 0, :4] += truth.float().numpy()
    folds = {number: (number // 4) % 4 for number in range(80)}
    cases: list[tuple[npt.NDArray[np.float32], int]] = [(noise[:, None], 0), (clear, -1)]
    for features, at in cases:
        examples = Examples(features, truth, "softmax", False)
        tried = cross_validate(examples, folds, 4, 1)
        assert min(tried, key=lambda one: one.loss) is tried[at]
    assert tried[-1].accuracy > 95
