"""Resizing on a device: Pillow's levels, every one."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from camtool.images import FITS, geometry_of, prepare
from camtool.images.resize import resizable, resized, weights
from camtool.networks import Preprocessing

SPEC = Preprocessing(size=48, resize=56)
KINDS = ("bilinear", "bicubic", "lanczos")
SIDES = st.integers(1, 400)


def picture(width, height, seed):
    random = np.random.default_rng(seed)
    pixels = random.integers(0, 256, (height, width, 3), np.uint8)
    # Edges from black to white ring most, and are clipped.
    pixels[:, : width // 2] = random.integers(0, 2, (height, width // 2, 1), np.uint8) * 255
    return pixels


@given(SIDES, SIDES, st.sampled_from(KINDS), st.sampled_from(FITS), st.integers(0, 9))
def test_every_level_is_pillows(width, height, kind, fit, seed):
    spec, pixels = replace(SPEC, interpolation=kind), picture(width, height, seed)
    expected, geometry = prepare(pixels, spec, fit, 16)
    if not resizable(pixels, geometry, spec):
        assert fit == "crop"
        return
    found = resized(torch.from_numpy(pixels), geometry, spec)
    np.testing.assert_array_equal(found.numpy(), expected)


@given(SIDES, st.integers(1, 900), st.sampled_from(KINDS))
def test_weights_are_pillows(samples, cells, kind):
    # A picture of one white pixel shows the weight that each sample gives it.
    method = Image.Resampling[kind.upper()]
    place = cells // 3
    row = np.zeros((1, cells), np.uint8)
    row[0, place] = 255
    seen = np.asarray(Image.fromarray(row).resize((samples, 1), method))[0]
    places, parts = weights(cells, samples, kind)
    levels = np.floor(255 * (parts * (places == place)).sum(1) + 0.5)
    np.testing.assert_array_equal(seen, np.clip(levels, 0, 255))


@pytest.mark.parametrize("kind", KINDS)
def test_photographs_large_and_small(kind):
    spec = replace(SPEC, size=224, resize=256, interpolation=kind)
    for width, height in ((500, 375), (3000, 2000), (100, 80), (224, 224), (256, 300)):
        pixels = picture(width, height, 1)
        for fit in FITS:
            expected, geometry = prepare(pixels, spec, fit)
            found = resized(torch.from_numpy(pixels), geometry, spec)
            np.testing.assert_array_equal(found.numpy(), expected)


def test_what_is_left_to_pillow():
    pixels = picture(60, 50, 0)
    geometry = geometry_of((60, 50), SPEC, "whole")
    assert resizable(pixels, geometry, SPEC)
    assert not resizable(pixels, geometry, replace(SPEC, interpolation="nearest"))
    assert not resizable(pixels.astype(np.float32), geometry, SPEC)
    assert not resizable(pixels[:25, :30], geometry, SPEC)
    assert not resizable(pixels, geometry_of((4000, 20), SPEC, "crop"), SPEC)
