from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from camtool.evaluate.calibrate import CHOICES, DEFAULT, Calibrator
from camtool.evaluate.datasets import Record
from camtool.evaluate.iou import box_iou
from camtool.evaluate.predictions import MapSettings
from camtool.regions.boxes import components_from_map

SETTINGS = MapSettings(
    {"name": "net", "method": "cam", "layer": "x"}, "whole", 64, "float32", (), ()
)


def record(box=(8, 8, 24, 24)) -> Record:
    return Record(Path("a.png"), 0, (box,), None, (32, 32))


def on_a_plateau(height: float, seed: int) -> np.ndarray:
    """A square of evidence whose surroundings hold `height` of it, and a little noise."""
    heat = np.full((32, 32), height, np.float32)
    heat[8:24, 8:24] = 1
    noise = np.random.default_rng(seed).random((32, 32), dtype=np.float32)
    return heat + noise / 100


def calibrated(height: float, pictures: int = 20):
    calibrator = Calibrator()
    for seed in range(pictures):
        calibrator.add(on_a_plateau(height, seed), record())
    return calibrator.result(SETTINGS, "csv")


def test_a_threshold_above_the_surroundings_is_chosen_and_measured_on_the_others():
    found = calibrated(0.5)
    assert found.choice != DEFAULT
    rule, threshold = found.choice
    heat = on_a_plateau(0.5, 99)
    assert components_from_map(heat, threshold, rule=rule)[0].box == (8, 8, 24, 24)
    assert (found.chosen_on, found.measured_on) == (10, 10)
    figures = found.figures
    assert (figures["default"].value, figures["chosen"].value) == (0, 100)
    assert (figures["gain"].value, figures["gain"].low) == (100, 100)


def test_the_default_stays_where_nothing_is_better():
    found = calibrated(0.0)
    assert found.choice == DEFAULT
    assert found.figures["gain"].value == found.figures["gain_mean"].value == 0


def test_pictures_that_choose_do_not_measure():
    calibrator = Calibrator()
    for n in range(20):
        # By the default right on the second, fourth, ... picture alone, which do not choose.
        calibrator.add(on_a_plateau(0.5 if n % 2 == 0 else 0.0, n), record())
    found = calibrator.result(SETTINGS, "csv")
    assert found.choice != DEFAULT
    assert found.figures["default"].value == 100


def test_a_gain_that_may_be_chance_changes_nothing():
    calibrator = Calibrator()
    for n in range(40):
        calibrator.add(on_a_plateau(0.5 if n == 0 else 0.0, n), record())
    assert calibrator.result(SETTINGS, "csv").choice == DEFAULT


def test_one_picture_is_too_few():
    with pytest.raises(ValueError, match="two pictures"):
        calibrated(0.5, 1)


@given(seed=st.integers(0, 999), number=st.integers(0, len(CHOICES) - 1))
def test_every_choice_has_the_box_of_the_regions(seed, number):
    random = np.random.default_rng(seed)
    heat = random.normal(size=(9, 12)).astype(np.float32)
    truth = Record(Path("a.png"), 0, ((2, 3, 9, 8),), None, (12, 9))
    calibrator = Calibrator()
    calibrator.add(heat, truth)
    rule, threshold = CHOICES[number]
    found = components_from_map(heat, threshold, rule=rule, components="largest")
    expected = box_iou([found[0].box], truth.boxes)[0, 0] if found else 0
    assert calibrator.ious[0][number] == pytest.approx(expected)
