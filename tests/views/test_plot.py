"""Maps on matplotlib's axes: what is drawn is the overlay, and the bar says its numbers."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import matplotlib as mpl
import numpy as np
import pytest
import torch
from matplotlib import pyplot
from torch import nn

import camtool

mpl.use("agg")


@pytest.fixture(autouse=True)
def _closed():
    yield
    pyplot.close("all")


@pytest.fixture(scope="module")
def explanation():
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Conv2d(3, 6, 8, 8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 4)
    )
    model = camtool.load(module, device="cpu", size=32, labels=["$x$", "b", "c", "d"])
    picture = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
    return model.explain(picture, targets=[0, 1, ("c", "d")])


@pytest.mark.parametrize("look", [{}, {"signed": True}, {"colormap": "jet", "opacity": 1.0}])
@pytest.mark.parametrize("k", [0, 1])
def test_it_is_the_overlay_with_a_bar_in_logits(explanation, k, look):
    axes = explanation.plot(k, **look)
    (drawn,) = axes.get_images()
    np.testing.assert_array_equal(drawn.get_array(), explanation.overlay(k, **look))
    assert drawn.get_extent() == [0, 60, 40, 0]
    heat, bar = explanation.heatmap(k), drawn.colorbar
    high = np.abs(heat).max() if look.get("signed") else heat.max()
    assert bar.vmax == pytest.approx(high)
    assert bar.vmin == (-bar.vmax if look.get("signed") else 0)
    assert bar.ax.get_ylabel() == "logits"


def test_titles_say_label_probability_and_logit(explanation):
    assert explanation.plot(0).get_title() == (
        f"$x$\n{100 * explanation.probabilities[0]:.1f} %, {explanation.logits[0]:.3g} logits"
    )
    assert explanation.plot(2).get_title() == (
        f"c rather than d\n{explanation.logits[2]:.3g} logits"
    )
    unsure = replace(explanation, probabilities=np.full(3, np.nan, np.float32))
    assert unsure.plot(0).get_title() == f"$x$\n{explanation.logits[0]:.3g} logits"


def test_it_draws_where_it_is_told(explanation):
    figure, (left, right) = pyplot.subplots(1, 2)
    assert explanation.plot(1, right) is right
    assert not left.get_images()
    figure.canvas.draw()
    assert explanation.plot(1).figure is not figure


def test_no_such_class_leaves_no_empty_figure(explanation):
    with pytest.raises(IndexError):
        explanation.plot(3)
    assert not pyplot.get_fignums()


@pytest.mark.parametrize(("count", "columns", "rows"), [(1, 4, 1), (4, 4, 1), (5, 2, 3)])
def test_a_grid_has_a_place_for_each(explanation, count, columns, rows):
    figure = camtool.plot_grid([explanation] * count, 1, columns)
    drawn = [axes for axes in figure.axes if axes.get_images()]
    assert len(drawn) == count
    assert drawn[0].get_gridspec().nrows == rows
    assert all(axes.get_title().startswith("b\n") for axes in drawn)
    figure.canvas.draw()


@pytest.mark.parametrize(("count", "columns"), [(0, 4), (1, 0)])
def test_an_empty_grid_is_refused(explanation, count, columns):
    with pytest.raises(ValueError, match="at least one"):
        camtool.plot_grid([explanation] * count, columns=columns)


@pytest.mark.slow
def test_without_matplotlib_it_says_what_to_install():
    code = "import sys; sys.modules['matplotlib'] = None; import camtool; camtool.plot_grid"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "pip install 'camtool[plot]'" in done.stderr.splitlines()[-1]
