"""One run of a head: built, trained, measured, kept; killed and gone on with."""

from __future__ import annotations

import json
from collections.abc import Callable

import numpy as np
import pytest
import torch

from camtool.fit.heads import HEADS
from camtool.fit.study_data import read, split
from camtool.fit.study_runs import (
    Ground,
    Run,
    Settings,
    balanced,
    batch_for,
    build,
    camera,
    centre_box,
    learn,
    logits_of,
    measured,
    moved,
    shape_of,
    trained,
    with_boxes,
)

SMALL = Settings(size=32, epochs=3, batch=8, widths=(4, 8, 8, 8))


@pytest.fixture(scope="module")
def ground(squares) -> Ground:
    found = split(squares, holdout=1 / 3)
    assert not found.problems
    training = read(found.training, SMALL.sides[:1], [], 1)
    validation = read(found.validation, SMALL.sides, [], 1)
    return Ground(SMALL, found.labels, training, validation, torch.device("cpu"))


@pytest.fixture
def go(ground, tmp_path) -> Callable[..., Run]:
    def run(head: str, folder: str = "runs", stop: Callable[[], bool] = lambda: False) -> Run:
        made = Run(head, 1)
        learn(made, ground, tmp_path / folder, stop)
        return made

    return run


def timeless(run: Run) -> dict:
    return {**run.__dict__, "seconds": 0}


@pytest.mark.parametrize("head", ["gap", "dropout"])
def test_killed_after_any_epoch_it_ends_the_same_to_the_last_bit(go, head, tmp_path) -> None:
    whole = go(head, "whole")
    for kept in (1, 2):
        left = iter([False] * kept)
        go(head, f"killed{kept}", lambda: next(left, True))  # noqa: B023
        assert not (tmp_path / f"killed{kept}" / f"{head}-1.json").exists()
        again = go(head, f"killed{kept}")
        assert json.dumps(timeless(again)) == json.dumps(timeless(whole))
        name = f"{head}-1.safetensors"
        one, other = (tmp_path / folder / name for folder in ("whole", f"killed{kept}"))
        assert one.read_bytes() == other.read_bytes()


def test_what_is_finished_is_taken_as_it_was_kept(go, tmp_path) -> None:
    first = go("gap")
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "runs").iterdir()}
    assert {path.name for path in times} == {"gap-1.json", "gap-1.safetensors"}
    again = go("gap", stop=lambda: True)
    assert again.__dict__ == first.__dict__
    assert times == {path: path.stat().st_mtime_ns for path in (tmp_path / "runs").iterdir()}


@pytest.mark.parametrize("head", HEADS)
def test_every_head_is_measured_by_what_it_can(go, ground, head) -> None:
    run = go(head)
    count = len(ground.validation.samples)
    assert [set(row) for row in run.epochs] == [
        {"train_loss", "train_accuracy", "loss", "accuracy"}
    ] * 3
    assert run.epochs[-1]["accuracy"] == pytest.approx(
        float(np.array(run.scores["accuracy"]) @ balanced(ground.validation.labels))
    )
    other_sizes = [run.scores[f"at {side}"] for side in (24, 48)]
    assert [one is not None for one in other_sizes] == [HEADS[head].any_size] * 2
    mapped = head in ("gap", "nin", "max", "four")
    assert (run.scores["localization"] is not None) == mapped == (run.threshold is not None)
    assert all(len(one) == count for one in run.scores.values() if one is not None)


def test_one_seed_gives_all_heads_the_same_front_end() -> None:
    bodies = [build(head, SMALL, 2, seed=3).body.state_dict() for head in HEADS]
    for body in bodies[1:]:
        assert all(torch.equal(body[name], value) for name, value in bodies[0].items())
    other = build("gap", SMALL, 2, seed=4).body.state_dict()
    assert not torch.equal(other["0.0.weight"], bodies[0]["0.0.weight"])


@pytest.mark.parametrize(("size", "cells"), [(32, 4), (64, 8), (72, 9)])
def test_the_features_are_an_eighth_of_the_picture(size, cells) -> None:
    settings = Settings(size=size)
    assert shape_of(settings) == (cells, cells)
    assert settings.sides == (size, size * 3 // 4, size * 3 // 2)


def test_a_network_comes_back_from_its_file(go, ground, tmp_path) -> None:
    run = go("four")
    net = trained(run, tmp_path / "runs", ground)
    assert measured(net, ground.validation, SMALL) == pytest.approx(
        {key: run.epochs[-1][key] for key in ("loss", "accuracy")}
    )


@pytest.mark.parametrize("head", ["gap", "nin", "four"])
def test_maps_are_the_packages_own_and_add_up(go, ground, tmp_path, head) -> None:
    net = trained(go(head), tmp_path / "runs", ground)
    cam = camera(net, ground)
    found = cam.explain(ground.validation.samples[0].path, 1)
    assert found.exact
    logits = logits_of(net, ground.validation.pixels[32][:1], SMALL)
    assert found.logits[0] == pytest.approx(logits[0, 1], abs=1e-4)
    assert found.maps.shape == (1, 4, 4)


def test_pictures_are_moved_and_reflected() -> None:
    x = torch.arange(20.0).view(1, 1, 4, 5)
    down = moved(x, 1, 0)[0, 0]
    assert torch.equal(down[1:], x[0, 0, :-1])
    assert torch.equal(down[0], x[0, 0, 1])
    left = moved(x, 0, -2)[0, 0]
    assert torch.equal(left[:, :3], x[0, 0, :, 2:])
    assert torch.equal(left[:, 3], x[0, 0, :, 3])
    assert torch.equal(moved(moved(x, 0, 1), 0, -1)[..., :4], x[..., :4])
    assert moved(x, 0, 0) is x


def test_the_box_in_the_middle_at_its_best_size(ground) -> None:
    right = centre_box(ground.validation)
    assert len(right) == len(with_boxes(ground.validation)) == 8
    assert set(right) <= {0.0, 1.0}


def test_few_pictures_make_small_batches() -> None:
    settings = Settings()
    sizes = [batch_for(count, settings) for count in (5, 40, 320, 1800, 10**6)]
    assert sizes == [5, 8, 20, 64, 64]


def test_classes_weigh_the_same_however_many_pictures_they_have() -> None:
    labels = np.array([0, 1, 1, 1, 2, 2])
    weights = balanced(labels)
    assert weights.sum() == pytest.approx(1)
    for label in range(3):
        assert weights[labels == label].sum() == pytest.approx(1 / 3)


def test_it_learns(go) -> None:
    run = go("gap")
    assert run.training["loss"] < run.epochs[0]["train_loss"]
