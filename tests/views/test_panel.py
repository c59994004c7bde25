from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from camtool.views import panel as module
from camtool.views.overlay import Look, Scale
from camtool.views.panel import Tile, draw_boxes, panel

MARGIN = 32


def photo(width=120, height=90):
    return np.random.default_rng(0).integers(40, 200, (height, width, 3), dtype=np.uint8)


def tile(image, **changes):
    given: dict[str, Any] = {
        "label": "goldfish",
        "probability": 0.99,
        "logit": 25.5,
        "boxes": [(2, 3, image.shape[1] - 1, image.shape[0] - 2)],
        "scale": Scale(0.0, 245.0),
        "rank": 1,
    }
    return Tile(image=image, **(given | changes))


def sheet(image, tiles, look=None, **words):
    made = panel(image, tiles, look or Look(), **({"title": "photo.jpg"} | words))
    assert isinstance(made, Image.Image)
    assert made.mode == "RGB"
    return np.asarray(made)


def assert_white_margins(pixels):
    for strip in (pixels[:MARGIN], pixels[-MARGIN:], pixels[:, :MARGIN], pixels[:, -MARGIN:]):
        assert np.all(strip == 255)


@pytest.mark.parametrize("count", [0, 1, 2, 3, 5, 7, 10])
@pytest.mark.parametrize("size", [(120, 90), (90, 120)])
def test_panels_of_any_count_stay_on_the_sheet_and_near_a_page(count, size):
    image = photo(*size)
    pixels = sheet(image, [tile(image, rank=k + 1) for k in range(count)], footer="network")
    assert_white_margins(pixels)
    height, width = pixels.shape[:2]
    assert 0.5 < width / height < 3.2
    assert max(height, width) < 3200


@pytest.mark.parametrize(
    "size", [(1, 1), (32, 32), (3, 500), (2000, 100), (100, 2000), (4000, 10), (3000, 2000)]
)
def test_pictures_of_any_size_and_aspect_give_a_sheet_of_reasonable_size(size):
    image = photo(*size)
    pixels = sheet(image, [tile(image)] * 3, footer="network")
    assert_white_margins(pixels)
    assert 500 < pixels.shape[1] < 3000
    assert 250 < pixels.shape[0] < 3000


@given(
    title=st.text(max_size=120),
    label=st.text(max_size=120),
    footer=st.text(max_size=200),
    portrait=st.booleans(),
)
@settings(max_examples=30)
def test_no_text_changes_the_width_of_the_sheet_or_leaves_it(title, label, footer, portrait):
    image = photo(20, 200) if portrait else photo()
    plain = sheet(image, [tile(image)])
    pixels = sheet(image, [tile(image, label=label)], title=title, footer=footer)
    assert pixels.shape[1] == plain.shape[1]
    assert_white_margins(pixels)


def test_long_labels_leave_the_gap_between_columns_white():
    image = photo(90, 120)
    pixels = sheet(image, [tile(image, label="W" * 400)] * 3, title="t")
    columns = np.flatnonzero((pixels[MARGIN + 60 :] == 255).all((0, 2)))
    runs = np.split(columns, np.flatnonzero(np.diff(columns) > 1) + 1)
    assert sum(len(run) >= 20 for run in runs) == 5


def test_each_part_of_the_caption_is_there():
    image = photo()
    full = sheet(image, [tile(image)])
    for change in ({"label": "tench"}, {"probability": 0.5}, {"logit": 3.0}, {"rank": 2}):
        assert not np.array_equal(sheet(image, [tile(image, **change)]), full)
    assert not np.array_equal(sheet(image, [tile(image)], title="other.jpg"), full)
    assert sheet(image, [tile(image)], footer="SqueezeNet").shape[0] > full.shape[0]
    bare = sheet(image, [tile(image, probability=None, rank=None)])
    assert bare.shape == full.shape


def rows_of_bars(image):
    """Count rows that hold a long run of the backdrop's grey fading into colour."""
    pixels = np.asarray(image)[:, :8].astype(int)
    return int(((np.abs(pixels - 170) <= 2).all((1, 2))).sum())


@pytest.mark.parametrize("normalize", ["image", "shared", "none"])
def test_every_map_has_its_own_bar_or_all_have_one_under_the_picture(normalize):
    image, look = photo(), Look(normalize=normalize)
    own = module._tile_cell(tile(image), look, (240, 180), 260)
    common = module._picture_cell(image, [tile(image)], look, (240, 180), 260, (240, 180), "")
    heights = (rows_of_bars(own), rows_of_bars(common))
    assert heights == ((14, 0) if normalize == "image" else (0, 14))


@pytest.mark.parametrize("normalize", ["image", "shared"])
def test_a_map_without_positive_evidence_says_so_instead_of_a_bar(normalize):
    image, look = photo(), Look(normalize=normalize)
    empty = tile(image, scale=Scale(0.0, 1e-6)) if normalize == "image" else tile(image, peak=-3.0)
    assert empty.empty
    assert not tile(image, peak=3.0).empty
    said = np.asarray(module._tile_cell(empty, look, (240, 180), 260))
    usual = np.asarray(module._tile_cell(tile(image), look, (240, 180), 260))
    below = said[-20:]
    assert below.min() < 180
    assert np.all(np.ptp(below.astype(int), axis=-1) < 20)
    assert (said.shape[0] < usual.shape[0]) == (normalize == "image")


@given(width=st.integers(1, 5000), height=st.integers(1, 5000))
def test_tiles_keep_the_aspect_and_a_bounded_size(width, height):
    across, down = module._tile_size(width, height)
    assert min(across, down) >= 1
    assert 240 <= max(across, down) <= 1200
    if min(across, down) > 20:
        assert across / down == pytest.approx(width / height, rel=0.05)


@given(count=st.integers(1, 11), width=st.integers(250, 1200), height=st.integers(100, 1300))
def test_grids_have_a_cell_for_each_and_no_empty_column(count, width, height):
    columns = module._columns(count, width, height)
    assert 1 <= columns <= count
    assert columns * (math.ceil(count / columns) - 1) < count


def test_tiny_pictures_stay_crisp():
    image = np.zeros((2, 2, 3), np.uint8)
    image[0, 0] = image[1, 1] = 255
    enlarged = module._resample(image, module._tile_size(2, 2))
    assert enlarged.shape == (480, 480, 3)
    assert set(np.unique(enlarged)) == {0, 255}


@pytest.mark.parametrize("background", [0, 128, 255])
def test_boxes_show_on_any_background_and_lie_within_their_edges(background):
    image = np.full((100, 200, 3), background, np.uint8)
    drawn = draw_boxes(image, [(30, 20, 150, 80)])
    assert np.all(image == background)
    rows, columns = np.nonzero((drawn != image).any(-1))
    assert rows.min() == 20
    assert rows.max() == 79
    assert columns.min() == 30
    assert columns.max() == 149
    assert np.all(drawn[40:60, 40:140] == background)
    edge = drawn[50, 30:40]
    assert edge.min() < 60
    assert edge.max() == 255


def test_lines_of_boxes_grow_with_the_picture():
    def line(side):
        image = np.full((side, side, 3), 128, np.uint8)
        drawn = draw_boxes(image, [(0, 0, side, side)])
        return int((drawn[side // 2, : side // 2] != 128).any(-1).sum())

    assert line(32) == 3
    assert line(500) < line(2000) < line(4000) == 40


@given(
    box=st.tuples(*[st.integers(-5, 25)] * 4),
)
def test_boxes_of_any_kind_are_drawn_or_left_out(box):
    image = np.full((20, 20, 3), 128, np.uint8)
    drawn = draw_boxes(image, [box])
    assert drawn.shape == image.shape
    if box[0] >= box[2] or box[1] >= box[3]:
        assert np.array_equal(drawn, image)


def test_boxes_of_a_tile_are_scaled_with_it():
    assert module._scaled([(10, 5, 60, 50)], photo(120, 60), (480, 240)) == [(40, 20, 240, 200)]


def test_several_boxes_are_numbered_and_one_is_not():
    image = photo(400, 300)
    one, two = [(10, 10, 150, 120)], [(10, 10, 150, 120), (200, 150, 380, 280)]

    def cell(boxes):
        return np.asarray(module._tile_cell(tile(image, boxes=boxes), Look(), (400, 300), 420))

    changed = (cell(two) != cell(one)).any(-1)
    corner = changed[11 : 11 + 20, 11 : 11 + 14]
    assert corner.mean() > 0.5
    assert not changed[40:140, 20:140].any()


def test_no_box_is_drawn_where_there_is_no_evidence():
    image = photo(400, 300)
    empty = {"scale": Scale(0.0, 1e-9)}

    def cell(boxes):
        return np.asarray(
            module._tile_cell(tile(image, boxes=boxes, **empty), Look(), (400, 300), 420)
        )

    assert np.array_equal(cell([(10, 10, 150, 120)]), cell([]))


def test_a_signed_map_that_holds_nothing_against_its_class_has_half_a_bar():
    heat = np.array([[0.0, 3.0]], np.float32)
    assert module._scale(heat, 3.0, Look(signed=True)) == Scale(0.0, 3.0)
    assert module._scale(-heat, 3.0, Look(signed=True)) == Scale(-3.0, 3.0)
    assert module._scale(heat, 3.0, Look(signed=True, normalize="shared")) == Scale(-3.0, 3.0)
    assert module._scale(-heat, 3.0, Look()) == Scale(0.0, 3.0)


@pytest.mark.parametrize("rule", ["max", "percentile", "otsu", "ivr"])
def test_the_panel_says_where_boxes_were_cut(rule):
    said = module._cut(0.35, rule)
    assert ("35 %" in said) == (rule != "otsu")
    assert said.startswith("boxes: above")
