from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from camtool.evaluate.iou import box_iou

BOXES = st.tuples(
    st.integers(0, 20), st.integers(0, 20), st.integers(1, 20), st.integers(1, 20)
).map(lambda b: (b[0], b[1], b[0] + b[2], b[1] + b[3]))


def test_half_overlap():
    assert box_iou([(0, 0, 2, 2)], [(1, 0, 3, 2)])[0, 0] == pytest.approx(1 / 3)


def test_closed_counts_both_ends():
    assert box_iou([(1, 2, 5, 6)], [(3, 1, 4, 5)], closed=True)[0, 0] == 8 / 27
    assert box_iou([(0, 0, 0, 0)], [(0, 0, 0, 0)], closed=True)[0, 0] == 1
    assert box_iou([(0, 0, 0, 0)], [(0, 0, 0, 0)])[0, 0] == 0


@given(BOXES, BOXES)
def test_symmetric_bounded_and_one_only_for_itself(one, other):
    value = box_iou([one], [other])[0, 0]
    assert value == box_iou([other], [one])[0, 0]
    assert 0 <= value <= 1
    assert (value == 1) == (one == other)


@given(BOXES, BOXES, st.integers(1, 9), st.integers(1, 9))
def test_stretching_both_changes_nothing(one, other, sx, sy):
    stretched = [tuple(v * s for v, s in zip(b, (sx, sy) * 2, strict=True)) for b in (one, other)]
    assert box_iou(stretched[:1], stretched[1:])[0, 0] == pytest.approx(
        box_iou([one], [other])[0, 0]
    )


def test_shapes_are_checked():
    with pytest.raises(ValueError, match="N, 4"):
        box_iou([1, 2, 3, 4], [[0, 0, 1, 1]])
