"""Near-duplicates are on one side, classes on both, and the order of the files does not matter."""

from __future__ import annotations

import hashlib
from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from camtool.fit.split import first_share, folds_of, groups_of, held_out, shuffled

DATA = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 20)), min_size=1, max_size=60)


def digest(value) -> bytes:
    return hashlib.sha256(str(value).encode()).digest()


def described(data):
    """Pictures of a class and a content: groups are those of one content and class."""
    first: dict[tuple[int, int], int] = {}
    groups = np.array([first.setdefault(one, n) for n, one in enumerate(data)])
    return [digest(one) for one in data], groups, [one[0] for one in data]


def ordered(data, seed):
    digests, groups, truths = described(data)
    return shuffled(digests, groups, truths, seed)


@given(data=DATA, share=st.floats(0.05, 0.9), seed=st.integers(-5, 5))
def test_groups_are_whole_and_every_class_that_can_be_is_on_both_sides(data, share, seed) -> None:
    digests, groups, truths = described(data)
    held = held_out(shuffled(digests, groups, truths, seed), share)
    for group in set(groups.tolist()):
        assert len({n in held for n in np.flatnonzero(groups == group).tolist()}) == 1
    for truth in set(truths):
        members = [n for n, its in enumerate(truths) if its == truth]
        sides = {n in held for n in members}
        assert sides == ({True, False} if len({groups[n] for n in members}) > 1 else {False})


@given(data=DATA, seed=st.integers(0, 5), order=st.randoms(use_true_random=False))
def test_which_are_held_out_hangs_on_content_alone(data, seed, order) -> None:
    moved = [*data]
    order.shuffle(moved)
    found = [sorted(some[n] for n in held_out(ordered(some, seed), 0.3)) for some in (data, moved)]
    assert found[0] == found[1]


@given(data=DATA, count=st.integers(2, 5))
def test_folds_hold_whole_groups_and_leave_no_class_out(data, count) -> None:
    digests, groups, truths = described(data)
    folds = folds_of(shuffled(digests, groups, truths, 0), count)
    for group in set(groups.tolist()):
        assert len({folds.get(n) for n in np.flatnonzero(groups == group).tolist()}) == 1
    for fold in range(count):
        left = {truths[n] for n in range(len(data)) if folds.get(n) != fold}
        assert left == set(truths)


@given(data=DATA)
def test_a_larger_share_holds_the_smaller_one(data) -> None:
    kinds = ordered(data, 0)
    parts = [set(first_share(kinds, share)) for share in (1 / 8, 1 / 4, 1 / 2, 1)]
    assert all(small <= large for small, large in pairwise(parts))
    assert parts[-1] == {*range(len(data))}
    truths = [one[0] for one in data]
    assert {truths[n] for n in parts[0]} == set(truths)


def test_near_duplicates_are_found_and_a_class_that_looks_alike_is_not_one() -> None:
    random = np.random.default_rng(0)
    apart = random.integers(0, 256, (30, 16, 16, 3), np.uint8)
    background = random.integers(0, 256, (16, 16, 3), np.uint8)
    alike = np.stack([background] * 30)
    alike[:, 5:8, 5:8] = random.integers(0, 256, (30, 3, 3, 3), np.uint8)
    thumbs = np.concatenate([apart, alike])
    features = random.random((60, 64)).astype(np.float32)
    features[30:] += 5
    wanted = np.arange(60)
    # A copy that is darker, one that is mirrored, and one among those that all look alike.
    for copy, original in ((7, 3), (9, 4), (40, 35)):
        thumbs[copy] = thumbs[original] // 2
        features[copy] = features[original] + 0.05 * random.random(64)
        wanted[copy] = original
    thumbs[9] = thumbs[9, :, ::-1]
    # The same features of another picture are no copy.
    features[20] = features[21]
    groups = groups_of([digest(n) for n in range(60)], thumbs, features, [0] * 30 + [1] * 30)
    np.testing.assert_array_equal(groups, wanted)


def test_the_same_bytes_are_one_group_whatever_they_are_said_to_show() -> None:
    thumbs = np.random.default_rng(1).integers(0, 256, (6, 16, 16, 3), np.uint8)
    digests = [digest(n) for n in (0, 1, 2, 0, 4, 1)]
    features = np.eye(6, dtype=np.float32)
    groups = groups_of(digests, thumbs, features, [0, 0, 0, 1, 1, 0])
    assert groups.tolist() == [0, 1, 2, 0, 4, 1]
