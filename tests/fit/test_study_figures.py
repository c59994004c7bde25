"""Figures over seeds and pictures, and what becomes of claims, on made-up numbers."""

from __future__ import annotations

import numpy as np
import pytest

from camtool.evaluate.figures import Figure
from camtool.fit.heads import HEADS
from camtool.fit.study_figures import CLAIMS, Claim, Table, judge, mean_of
from camtool.fit.study_runs import Run

CLAIM = Claim("a text", "a is ahead", "accuracy", "gap", "max", 8)
LABELS = np.repeat([0, 1], [40, 80])
NONE = np.empty(0, np.int64)


def run(head: str, seed: int, right: np.ndarray, training: float = 1.0, moved: float = 0.0) -> Run:
    scores: dict[str, list[float] | None] = {
        "accuracy": right.tolist(),
        "shifted": (right - moved).tolist(),
        "localization": None,
    }
    rows = [{"accuracy": 0.5}, {"accuracy": float(right.mean())}]
    return Run(head, seed, rows, 1.0, {"accuracy": training, "loss": 0.1}, scores)


def drawn(share: float, seed: int) -> np.ndarray:
    return (np.random.default_rng(seed).random(len(LABELS)) < share).astype(float)


@pytest.mark.parametrize(
    ("low", "high", "order", "size"),
    [
        (2.0, 6.0, "held", "refuted"),
        (2.0, 9.0, "held", "held"),
        (9.0, 12.0, "held", "refuted"),
        (-1.0, 9.0, "not decided", "not decided"),
        (-1.0, 3.0, "not decided", "refuted"),
        (-9.0, -2.0, "refuted", "refuted"),
        (0.0, 3.0, "not decided", "refuted"),
    ],
)
def test_claims_are_held_against_the_interval(low, high, order, size) -> None:
    judged = judge(CLAIM, Figure((low + high) / 2, low, high))
    assert (judged.order, judged.size) == (order, size)


def test_without_a_number_only_the_order_is_judged() -> None:
    plain = Claim("a text", "a is ahead", "accuracy", "gap", "max")
    assert judge(plain, Figure(2, 1, 3)).size is None
    assert judge(plain, None).order == "not decided"
    assert judge(CLAIM, None).size == "not decided"


def test_of_networks_that_learned_nothing_nothing_is_decided() -> None:
    judged = judge(CLAIM, Figure(2, 1, 3), learned=False)
    assert (judged.order, judged.size) == ("not decided", "not decided")
    shares = {"gap": 0.4, **dict.fromkeys(set(HEADS) - {"gap"}, 0.1)}
    table = Table([run(head, 0, drawn(shares[head], 1)) for head in HEADS], LABELS, NONE)
    assert table.figure("gap", "accuracy", "max").low > 0
    assert {judged.order for judged in table.judged()} == {"not decided"}


def test_claims_are_of_heads_and_measures_that_are_there() -> None:
    table = Table([run(head, 0, drawn(0.8, 1)) for head in HEADS], LABELS, NONE)
    measured = [judged.lead is not None for judged in table.judged()]
    assert measured == [claim.measure != "localization" for claim in CLAIMS]
    missing = Table([run("gap", 0, drawn(0.8, 1))], LABELS, NONE)
    assert all(judged.lead is None for judged in missing.judged())


def test_every_class_counts_the_same() -> None:
    right = np.where(LABELS == 0, 1.0, 0.0)
    figure = mean_of(right[None], LABELS)
    assert (figure.value, figure.low, figure.high) == (50, 50, 50)


def test_the_interval_is_that_of_the_pictures_with_one_seed_and_wider_with_several() -> None:
    one = drawn(0.7, 0)
    alone = mean_of(one[None], LABELS)
    halves = [one[:40], one[40:]]
    shares = [half.mean() for half in halves]
    assert alone.value == pytest.approx(50 * sum(shares))
    spread = 50 * np.sqrt(sum(half.var() / len(half) for half in halves))
    assert (alone.high - alone.low) / 3.92 == pytest.approx(spread, rel=0.15)
    same = mean_of(np.stack([one] * 3), LABELS)
    assert (same.low, same.high) == pytest.approx((alone.low, alone.high))
    unlike = mean_of(np.stack([one, np.ones_like(one), np.zeros_like(one)]), LABELS)
    assert unlike.high - unlike.low > 2 * (alone.high - alone.low)


def test_the_variance_of_seeds_is_that_of_a_sample() -> None:
    means = np.array([0.2, 0.5, 0.8, 0.9])
    figure = mean_of(np.tile(means[:, None], len(LABELS)), LABELS)
    error = 100 * means.std(ddof=1) / 2
    assert (figure.high - figure.low) / 3.92 == pytest.approx(error, rel=0.08)


def test_a_lead_is_paired_by_picture_and_seed() -> None:
    runs = []
    for seed in range(3):
        right = drawn(0.6 + 0.1 * seed, seed)
        better = right.copy()
        better[np.flatnonzero(right == 0)[:6]] = 1
        runs += [run("gap", seed, better), run("max", seed, right)]
    table = Table(runs, LABELS, NONE)
    lead = table.figure("gap", "accuracy", "max")
    alone = table.figure("gap", "accuracy")
    assert lead.value == pytest.approx(alone.value - table.figure("max", "accuracy").value)
    assert 0 < lead.low < lead.high
    assert lead.high - lead.low < 0.6 * (alone.high - alone.low)
    backwards = table.figure("max", "accuracy", "gap")
    assert (backwards.value, backwards.low) == pytest.approx((-lead.value, -lead.high))


def test_what_is_made_of_two_measures() -> None:
    table = Table([run("gap", 0, drawn(0.7, 0), 0.9, 0.25)], LABELS, NONE)
    accuracy = table.figure("gap", "accuracy").value
    assert table.figure("gap", "generalization").value == pytest.approx(accuracy - 90)
    assert table.figure("gap", "steadiness").value == pytest.approx(-25)
    assert table.figure("gap", "localization") is None
    assert run("gap", 0, drawn(0.9, 0)).best == 2
