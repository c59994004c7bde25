"""Which classes are flagged, on evidence that is made up and on evidence of a trained layer."""

from __future__ import annotations

import numpy as np
import pytest

from camtool.report.aggregate import GRID
from camtool.report.suspicion import LEAST, PER_CLASS, PLACES, Suspicions, shares


def grid(x, y, random, width=0.2, noise=0.1):
    """Evidence around (x, y) in [0, 1], with noise."""
    places = (np.arange(GRID) + 0.5) / GRID
    distance = (places[:, None] - y) ** 2 + (places - x) ** 2
    found = np.exp(-distance / (2 * width**2)) + random.uniform(0, noise, (GRID, GRID))
    return found / found.sum()


def stamp(spot, random):
    """Evidence on a small mark."""
    return grid(spot[0], spot[1], random, 0.06, noise=0)


def objects(random, count, centre=(0.5, 0.5)):
    """Evidence on objects that lie about a centre, as in photographs."""
    spots = random.normal(centre, 0.15, (count, 2))
    return [grid(x, y, random, random.uniform(0.1, 0.25)) for x, y in spots]


def flagged(classes):
    suspicions = Suspicions()
    for key, grids in classes.items():
        for one in grids:
            suspicions.update(key, one)
    return {key: flag for key, (_, flag) in suspicions.flags().items() if flag}


def test_places_cover_what_they_are_called():
    for (name, (x0, y0, x1, y1)), place in zip(PLACES, range(len(PLACES)), strict=True):
        inside = np.zeros((GRID, GRID))
        inside[round(y0 * GRID) : round(y1 * GRID), round(x0 * GRID) : round(x1 * GRID)] = 1
        share = shares(inside / inside.sum())[place]
        assert share == pytest.approx(28 / 64 if name == "border" else 1.0), name
    names = [name for name, _ in PLACES]
    assert names[0] == "upper left"
    assert names[35] == "lower right"
    assert "middle" in names


@pytest.mark.parametrize("seed", range(5))
def test_classes_of_ordinary_objects_are_not_flagged(seed):
    random = np.random.default_rng(seed)
    # Their places differ a little, as birds fly and fish lie below: that is no mark.
    centres = random.normal(0.5, 0.04, (10, 2))
    assert flagged({k: objects(random, 20, centre) for k, centre in enumerate(centres)}) == {}


@pytest.mark.parametrize(
    ("spot", "where"),
    [((0.9, 0.9), "lower right"), ((0.1, 0.1), "upper left"), ((0.5, 0.95), "lower")],
)
@pytest.mark.parametrize("classes", [2, 3, 10])
@pytest.mark.parametrize("seed", range(3))
def test_a_mark_is_flagged_and_no_other_class(spot, where, classes, seed):
    random = np.random.default_rng(seed)
    every = {k: objects(random, 20) for k in range(classes)}
    every[1] = [0.5 * one + 0.5 * stamp(spot, random) for one in objects(random, 20)]
    found = flagged(every)
    assert list(found) == [1]
    assert found[1].where.startswith(where)
    assert found[1].share > found[1].others + 0.2
    assert found[1].by_chance <= 0.05


def test_evidence_all_along_the_border_is_flagged():
    random = np.random.default_rng(0)
    every = {k: objects(random, 20) for k in range(6)}
    ring = np.ones((GRID, GRID))
    ring[2:-2, 2:-2] = 0.1
    every[3] = [0.6 * ring / ring.sum() + 0.4 * one for one in objects(random, 20)]
    assert list(flagged(every)) == [3]
    assert flagged(every)[3].where == "border"


def test_a_handful_of_pictures_is_not_judged():
    random = np.random.default_rng(0)
    corner = [grid(0.95, 0.95, random, 0.05, noise=0) for _ in range(LEAST - 1)]
    suspicions = Suspicions()
    for key, grids in {0: objects(random, 30), 1: objects(random, 30), 2: corner}.items():
        for one in grids:
            suspicions.update(key, one)
    assert set(suspicions.flags()) == {0, 1}


def test_two_marked_classes_are_both_flagged():
    random = np.random.default_rng(0)
    every = {k: objects(random, 20) for k in range(8)}
    for key, spot in ((2, (0.1, 0.9)), (5, (0.9, 0.1))):
        every[key] = [0.5 * one + 0.5 * stamp(spot, random) for one in objects(random, 20)]
    assert list(flagged(every)) == [2, 5]


def test_nothing_and_one_class_alone_are_not_flagged():
    assert flagged({}) == {}
    random = np.random.default_rng(0)
    assert flagged({0: [grid(0.9, 0.9, random, 0.05, noise=0) for _ in range(30)]}) == {}


def test_a_large_class_is_sampled_in_fixed_memory_and_always_alike():
    def fill():
        random = np.random.default_rng(1)
        suspicions = Suspicions()
        for key in (0, 1):
            for one in objects(random, 3 * PER_CLASS, (0.3 + 0.4 * key, 0.5)):
                suspicions.update(key, one)
        return suspicions

    first = fill()
    assert [len(sample.rows) for sample in first._samples.values()] == [PER_CLASS] * 2
    assert first.flags() == fill().flags()
