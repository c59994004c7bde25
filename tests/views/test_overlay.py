from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from camtool.images import FITS, geometry_of, resample
from camtool.images.resample import upsample
from camtool.networks.preprocessing import Preprocessing
from camtool.views import overlay
from camtool.views.colormaps import COLORMAPS, SIGNED_DEFAULT, table
from camtool.views.overlay import (
    NO_EVIDENCE,
    Look,
    Scale,
    paint,
    paint_map,
    ramp,
    scale_of,
    scale_of_maps,
)

SIGNED = (False, True)
SEEDS = st.integers(0, 2**31 - 1)


def picture(height=9, width=13, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def maps(count=2, height=9, width=13, seed=0, spread=20.0):
    normal = np.random.default_rng(seed).standard_normal((count, height, width))
    return (spread * normal).astype(np.float32)


def painted(image, heats, look):
    return paint(image, heats, scale_of(heats, look), look)


@given(
    seed=SEEDS,
    height=st.integers(1, 20),
    width=st.integers(1, 20),
    signed=st.booleans(),
    opacity=st.floats(0, 1),
)
def test_where_no_evidence_is_the_picture_stays_to_the_bit(seed, height, width, signed, opacity):
    image, heats = picture(height, width, seed), maps(1, height, width, seed)
    empty = heats[0] > 0 if signed else heats[0] > 3
    heats[0][empty] = 0.0 if signed else -5.0
    result = painted(image, heats, Look(signed=signed, opacity=opacity))
    assert np.array_equal(result[0][empty], image[empty])


@pytest.mark.parametrize("signed", SIGNED)
@pytest.mark.parametrize("name", COLORMAPS)
def test_opacity_zero_is_the_picture(name, signed):
    image = picture()
    look = Look(signed=signed, colormap=name, opacity=0.0)
    for result in painted(image, maps(), look):
        assert np.array_equal(result, image)


@pytest.mark.parametrize("signed", SIGNED)
def test_opacity_one_shows_nothing_but_the_ends_of_the_table(signed):
    heats = np.array([[[-30.0, 30.0]]], np.float32)
    look = Look(signed=signed, opacity=1.0, normalize="none", full_scale=10.0)
    result = painted(picture(1, 2), heats, look)[0, 0]
    colours = table(look.table_name)
    assert result[1].tolist() == colours[-1].tolist()
    expected = colours[0] if signed else picture(1, 2)[0, 0]
    assert result[0].tolist() == expected.tolist()


@pytest.mark.parametrize("signed", SIGNED)
@pytest.mark.parametrize("name", [n for n in COLORMAPS if n != "jet"])
def test_opacity_rises_with_evidence_to_the_look_s_own(name, signed):
    positions = np.linspace(0, 1, 200)
    look = Look(signed=signed, colormap=name, opacity=0.7)
    opacity = ramp(look, positions)[:, 3]
    assert opacity[0] == 0
    assert opacity[-1] == pytest.approx(0.7)
    assert np.all(np.diff(opacity) >= 0)
    assert np.diff(opacity).max() < 0.02
    assert np.array_equal(ramp(look, -positions)[:, 3], opacity)


def test_jet_covers_the_picture_evenly():
    opacity = ramp(Look(colormap="jet", opacity=0.4), np.linspace(0, 1, 50))[:, 3]
    assert np.all(opacity == np.float32(0.4))


@given(seed=SEEDS)
def test_blend_is_the_mean_of_colour_and_picture_weighted_by_opacity(seed):
    image, heats = picture(seed=seed), maps(1, seed=seed)
    for signed in SIGNED:
        look = Look(signed=signed, opacity=0.8)
        high = scale_of(heats, look)
        share = (heats[0] / high[0]).clip(-1.0 if signed else 0.0, 1.0).astype(np.float64)
        rgba = ramp(look, share.ravel()).reshape(*share.shape, 4)
        expected = image + (rgba[..., :3] - image) * rgba[..., 3:]
        # Colour, rest of the picture and product are rounded to half a level each, and a step of
        # the table moves a colour by less than one.
        assert np.abs(paint(image, heats, high, look)[0] - expected).max() < 2.5


@given(seed=SEEDS)
def test_signed_look_of_the_opposite_map_mirrors_the_table(seed):
    heats = maps(1, seed=seed)
    look = Look(signed=True)
    assert np.array_equal(scale_of(heats, look), scale_of(-heats, look))
    share = np.linspace(-1, 1, 101)
    assert np.array_equal(ramp(look, share)[:, 3], ramp(look, -share)[:, 3])
    image = np.full((9, 13, 3), 128, np.uint8)
    blue_minus_red = [
        (p[..., 2].astype(int) - p[..., 0])
        for p in (painted(image, heats, look)[0], painted(image, -heats, look)[0])
    ]
    strong = np.abs(heats[0]) > 0.3 * np.abs(heats).max()
    assert np.all((blue_minus_red[0] > 0)[strong] == (heats[0] < 0)[strong])
    assert np.all((blue_minus_red[1] > 0)[strong] == (heats[0] > 0)[strong])


def test_a_diverging_table_starts_from_its_middle_in_the_positive_look():
    rgba = ramp(Look(colormap=SIGNED_DEFAULT), np.array([0.0, 1.0]))
    middle = table(SIGNED_DEFAULT)[127:129].mean(0)
    assert rgba[0, :3] == pytest.approx(middle)
    assert rgba[1, :3] == pytest.approx(table(SIGNED_DEFAULT)[-1])


@given(seed=SEEDS, height=st.integers(1, 20), width=st.integers(1, 20))
def test_dimming_is_the_plain_formula_wherever_the_network_saw_nothing(seed, height, width):
    image, heats = picture(height, width, seed), maps(1, height, width, seed)
    unseen = np.random.default_rng(seed).random((height, width)) < 0.4
    seen_alone = painted(image, heats, Look(normalize="none"))[0]
    heats[0][unseen] = np.nan
    result = painted(image, heats, Look(normalize="none"))[0]
    grey = image @ np.array([0.299, 0.587, 0.114])
    plain = 0.45 * (0.25 * image + 0.75 * grey[..., None])
    # OpenCV takes the matrix in fixed point: half a level of rounding, and a little more.
    assert np.abs(result.astype(float) - plain)[unseen].max(initial=0) <= 1.0
    assert np.array_equal(result[~unseen], seen_alone[~unseen])


@pytest.mark.parametrize("signed", SIGNED)
def test_what_was_not_seen_is_dimmed_and_drained_and_nothing_else_changes(signed):
    image = np.full((6, 8, 3), (250, 40, 10), np.uint8)
    heats = maps(2, 6, 8)
    look = Look(signed=signed)
    high = scale_of(heats, look)
    whole = paint(image, heats, high, look)
    heats[0, :, :3] = np.nan
    result = paint(image, heats, high, look)
    assert np.array_equal(result[1], whole[1])
    assert np.array_equal(result[0, :, 3:], whole[0, :, 3:])
    unseen = result[0, :, :3].astype(int)
    assert np.all(unseen.mean(-1) < 0.6 * image[0, 0].mean())
    assert np.all((unseen.max(-1) - unseen.min(-1)) < 60)
    assert np.all(unseen[..., 0] > unseen[..., 2])


@given(seed=SEEDS, count=st.integers(0, 4))
def test_ends_of_the_scale_per_map_shared_and_fixed(seed, count):
    heats = maps(count, seed=seed)
    own = scale_of(heats, Look())
    assert np.array_equal(own, heats.max((1, 2)).clip(NO_EVIDENCE))
    assert own.shape == (count,)
    shared = scale_of(heats, Look(normalize="shared", signed=True))
    assert shared.tolist() == [np.abs(heats).max()] * count if count else True
    fixed = scale_of(heats, Look(normalize="none", full_scale=12.5))
    assert fixed.tolist() == [12.5] * count


def test_values_that_are_not_finite_do_not_set_the_scale():
    heats = np.array([[[np.nan, 3.0, np.inf, -8.0]]], np.float32)
    assert scale_of(heats, Look()).item() == 3.0
    assert scale_of(heats, Look(signed=True)).item() == 8.0
    result = painted(picture(1, 4), heats, Look(opacity=1.0))
    assert result[0, 0, 2].tolist() == table("inferno")[-1].tolist()


@pytest.mark.parametrize("value", [0.0, -7.0, 1e-9, float("nan")])
def test_a_map_without_evidence_gets_a_tiny_end_and_leaves_no_trace(value):
    heats = np.full((1, 9, 13), value, np.float32)
    high = scale_of(heats, Look())
    assert high.item() == pytest.approx(NO_EVIDENCE)
    assert Scale(0.0, high.item()).empty
    if value == value:
        assert np.array_equal(paint(picture(), heats, high, Look())[0], picture())


def test_a_scale_of_zero_does_not_divide_by_it():
    result = paint(picture(), maps(1) * 0, np.zeros(1, np.float32), Look(signed=True))
    assert np.array_equal(result[0], picture())


def test_strips_do_not_show(monkeypatch):
    image, heats = picture(50, 31), maps(2, 50, 31)
    heats[:, :4] = np.nan
    whole = painted(image, heats, Look())
    monkeypatch.setattr(overlay, "_PIXELS_AT_ONCE", 64)
    assert np.array_equal(painted(image, heats, Look()), whole)


SPEC = Preprocessing(size=16, resize=20)
LOOKS = [Look(), Look(signed=True, normalize="shared"), Look(normalize="none", full_scale=12.5)]


@given(seed=SEEDS, height=st.integers(1, 40), width=st.integers(1, 40), fit=st.sampled_from(FITS))
@pytest.mark.parametrize("look", LOOKS)
def test_a_small_map_is_painted_as_it_is_when_brought_to_the_picture(
    look, seed, height, width, fit
):
    image, small = picture(height, width, seed), maps(3, 4, 5, seed)
    geometry = geometry_of((width, height), SPEC, fit, 4)
    heats = np.stack([upsample(m, geometry.extent, geometry.size) for m in torch.from_numpy(small)])
    high = scale_of(heats, look)
    assert np.array_equal(scale_of_maps(small, geometry, look), high)
    expected = paint(image, heats, high, look)
    for heat, end, whole in zip(small, high, expected, strict=True):
        assert np.array_equal(paint_map(image, heat, geometry, end, look), whole)


def test_a_large_picture_is_painted_in_strips_that_do_not_show(monkeypatch):
    geometry = geometry_of((90, 70), SPEC, "crop", 4)
    image, small = picture(70, 90), maps(1, 4, 5)
    whole = paint_map(image, small[0], geometry, 30.0, Look(signed=True))
    monkeypatch.setattr(resample, "LARGE", 1000)
    monkeypatch.setattr(resample, "_PIXELS_AT_ONCE", 2000)
    strips = paint_map(image, small[0], geometry, 30.0, Look(signed=True))
    assert np.abs(strips.astype(int) - whole).max() <= 2
    assert (strips != whole).mean() < 0.01


def test_a_reduced_picture_gets_the_same_colours_in_the_same_places():
    geometry = geometry_of((180, 140), SPEC, "whole", 4)
    image = np.full((140, 180, 3), 120, np.uint8)
    small = maps(1, 4, 5)
    large = paint_map(image, small[0], geometry, 30.0, Look(signed=True)).astype(int)
    found = paint_map(image[::4, ::4], small[0], geometry, 30.0, Look(signed=True))
    apart = np.abs(large.reshape(35, 4, 45, 4, 3).mean((1, 3)) - found)
    assert apart.mean() < 1.5


def test_a_picture_that_is_not_the_maps_own_is_refused():
    with pytest.raises(ValueError, match="uint8 picture"):
        painted(picture(9, 12), maps(), Look())
    with pytest.raises(ValueError, match="float32"):
        painted(picture().astype(np.float32), maps(), Look())


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"opacity": 1.2}, "opacity"),
        ({"opacity": float("nan")}, "opacity"),
        ({"normalize": "percentile"}, "normalize"),
        ({"full_scale": 0.0}, "full_scale"),
        ({"colormap": "grey"}, "unknown colour map"),
    ],
)
def test_a_look_that_makes_no_sense_is_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        Look(**wrong)
