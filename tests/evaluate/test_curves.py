from __future__ import annotations

import io
import subprocess
import sys

import numpy as np
import pytest
from matplotlib.colors import to_hex
from PIL import Image

from camtool.evaluate.curves import STYLES, draw_curves, encode

HOSTILE = "$\\frac{1}{0}$ \n\t\udcff\u202e 猫 " + "word " * 60


def lines(axes):
    """The curves of a diagram by the first word of their label, without the marked points."""
    return {
        line.get_label().split(":")[0]: line
        for line in axes.get_lines()
        if not line.get_label().startswith("_")
    }


def pixels(sheet):
    return np.asarray(Image.open(io.BytesIO(encode(sheet))).convert("RGB")).astype(int)


def test_every_swept_metric_is_drawn_and_precision_over_recall(make_result):
    titles = [axes.get_title(loc="left") for axes in draw_curves(make_result()).axes]
    assert titles == ["MaxBoxAcc", "MaxBoxAccV2 at IoU 0.3", "MaxBoxAccV2 at IoU 0.7", "PxAP"]


def test_curves_hold_the_figures(make_result):
    result = make_result()
    metric = result.localization.metrics["max_box_acc"]
    axes = draw_curves(result).axes[0]
    found = lines(axes)
    assert set(found) == {"network", "centre box"}
    for name, figure in (("network", metric.network), ("centre box", metric.centre_box)):
        x, y = found[name].get_data()
        np.testing.assert_array_equal(x, figure.thresholds)
        np.testing.assert_array_equal(y, figure.curve)
    assert "best 63.5 % at 0.2" in found["network"].get_label()
    assert axes.get_ylim() == (0, 100)


def test_the_best_point_is_marked_where_it_is(make_result):
    axes = draw_curves(make_result()).axes[0]
    points = [line.get_xydata() for line in axes.get_lines() if line.get_marker() == "o"]
    assert [tuple(point) for (point,) in map(np.asarray, points)] == [(0.2, 63.5), (0.76, 57)]


def test_precision_and_recall_are_in_percent(make_result):
    found = lines(draw_curves(make_result(["pxap"])).axes[0])
    assert list(found) == ["network", "centre box", "whole image"]
    x, y = found["network"].get_data()
    assert x.tolist() == [25, 50, 75, 100]
    assert y == pytest.approx([100, 70, 40, 30])
    assert "area 70.0 %" in found["network"].get_label()


def test_curves_differ_in_colour_and_without_it(make_result):
    styles = list(STYLES.values())
    assert len({style["color"] for style in styles}) == 3
    assert len({str(style["linestyle"]) for style in styles}) == 3
    sheet = draw_curves(make_result(["pxap"]))
    seen = {tuple(row) for row in pixels(sheet).reshape(-1, 3)}
    for line in lines(sheet.axes[0]).values():
        colour = to_hex(line.get_color())
        assert tuple(bytes.fromhex(colour[1:])) in seen


@pytest.mark.parametrize(
    ("names", "shape"),
    [
        (["pxap"], (1, 1)),
        (["max_box_acc", "max_box_acc_v2_30", "max_box_acc_v2_70"], (3, 1)),
        (["max_box_acc", "max_box_acc_v2_30", "max_box_acc_v2_70", "pxap"], (2, 2)),
    ],
)
def test_diagrams_stand_side_by_side_and_wrap(make_result, names, shape):
    one, many = (draw_curves(make_result(some)) for some in (["pxap"], names))
    assert many.get_figwidth() / one.get_figwidth() == pytest.approx(shape[0])
    assert many.get_figheight() / one.get_figheight() == pytest.approx(shape[1], rel=0.2)


def test_nothing_swept_is_a_sheet_without_a_diagram(make_result):
    assert draw_curves(make_result([])).axes == []


@pytest.mark.parametrize("names", [["pxap"], ["max_box_acc", "max_box_acc_v2_30"]])
def test_hostile_and_long_names_stay_on_the_sheet(make_result, names):
    sheet = draw_curves(make_result(names, name=HOSTILE))
    image = pixels(sheet)
    for edge in (image[:2], image[-2:], image[:, :2], image[:, -2:]):
        assert (edge == 255).all()
    # Shown, not set as a formula, and no mark of direction is obeyed.
    assert "$\\frac{1}{0}$" in sheet.get_suptitle()
    assert "\u202e" not in sheet.get_suptitle()


@pytest.mark.slow
def test_pyplot_and_its_state_are_left_alone():
    code = "import sys, camtool.evaluate.curves; sys.exit('matplotlib.pyplot' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
