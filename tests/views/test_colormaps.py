from __future__ import annotations

import numpy as np
import pytest

from camtool.views.colormaps import COLORMAPS, DIVERGING, POSITIVE_DEFAULT, SIGNED_DEFAULT, table

# Linear sRGB to CIE XYZ with white D65: IEC 61966-2-1, annex F.
RGB_TO_XYZ = np.array(
    [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
)
# Viénot, Brettel and Mollon (1999): linear RGB to LMS, and the loss of the M or the L cones.
RGB_TO_LMS = np.array(
    [[17.8824, 43.5161, 4.11935], [3.45565, 27.1554, 3.86714], [0.0299566, 0.184309, 1.46709]]
)
DEUTERANOPE = np.array([[1.0, 0.0, 0.0], [0.494207, 0.0, 1.24827], [0.0, 0.0, 1.0]])
PROTANOPE = np.array([[0.0, 2.02344, -2.52581], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])


def linear(colours):
    encoded = np.asarray(colours) / 255.0
    return np.where(encoded <= 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4)


def lab(linear_rgb):
    """CIE L*a*b* (CIE 15:2004, section 8.2.1) of linear sRGB."""
    xyz = linear_rgb @ RGB_TO_XYZ.T / RGB_TO_XYZ.sum(1)
    f = np.where(xyz > (6 / 29) ** 3, np.cbrt(xyz), xyz * (29 / 6) ** 2 / 3 + 4 / 29)
    x, y, z = np.moveaxis(f, -1, 0)
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], -1)


def seen_by(loss, colours):
    return linear(colours) @ (np.linalg.inv(RGB_TO_LMS) @ loss @ RGB_TO_LMS).T


@pytest.mark.parametrize("name", COLORMAPS)
def test_every_table_has_256_colours_and_cannot_be_changed(name):
    colours = table(name)
    assert colours.shape == (256, 3)
    assert colours.dtype == np.uint8
    with pytest.raises(ValueError, match="read-only"):
        colours[0, 0] = 1


def test_tables_are_in_rgb_order():
    assert table("jet")[0, 2] > table("jet")[0, 0]
    assert table("jet")[-1, 0] > table("jet")[-1, 2]
    assert tuple(table("viridis")[-1]) == pytest.approx((253, 231, 37), abs=3)


@pytest.mark.parametrize("name", ["inferno", "magma", "plasma", "viridis", "cividis"])
def test_sequential_tables_rise_in_lightness(name):
    lightness = lab(linear(table(name)))[:, 0]
    # Eight bits a channel leave a jitter of about half a unit.
    assert np.all(np.diff(lightness[::8]) > 0)
    assert lightness[-1] - lightness[0] > 50


def test_positive_default_is_sequential_and_signed_default_diverging():
    assert POSITIVE_DEFAULT not in DIVERGING
    assert SIGNED_DEFAULT in DIVERGING


def test_diverging_table_is_symmetric_in_lightness_and_neutral_in_the_middle():
    values = lab(linear(table(SIGNED_DEFAULT)))
    lightness, chroma = values[:, 0], np.hypot(values[:, 1], values[:, 2])
    # OKLab, in which the table is drawn, and CIELAB disagree on the lightness of saturated blue.
    assert np.abs(lightness - lightness[::-1]).max() < 6
    assert lightness[127:129].min() > lightness[[0, -1]].max() + 20
    assert chroma[127:129].max() < 5
    assert chroma[[0, -1]].min() > 50


@pytest.mark.parametrize("loss", [DEUTERANOPE, PROTANOPE], ids=["deuteranope", "protanope"])
def test_both_ends_of_the_diverging_table_stay_apart_for_colour_blind_eyes(loss):
    colours = lab(seen_by(loss, table(SIGNED_DEFAULT)).clip(0, 1))
    apart = np.linalg.norm(colours - colours[::-1], axis=1)
    # About 2.3 is a just noticeable difference.
    assert apart[0] > 60
    assert np.all(apart[:96] > 20)
    red_green = lab(seen_by(DEUTERANOPE, [[200, 60, 60], [110, 120, 50]]).clip(0, 1))
    assert np.linalg.norm(red_green[0] - red_green[1]) < apart[0] / 2


def test_an_unknown_name_is_refused_with_those_that_exist():
    with pytest.raises(ValueError, match="unknown colour map 'rainbow': choose from inferno"):
        table("rainbow")
