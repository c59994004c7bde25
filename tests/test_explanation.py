"""Every view of a result: heatmap, boxes, overlay, panel, files."""

from __future__ import annotations

import io
import json
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import camtool
from camtool.choices import Fit
from camtool.images import encode


def _model(fit: Fit = "whole") -> camtool.CamModel:
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Conv2d(3, 6, 8, 8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 4)
    )
    return camtool.load(module, labels=["a", "b, bee", "ça", "猫"], device="cpu", fit=fit, size=64)


@pytest.fixture(scope="module")
def picture() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (90, 150, 3), np.uint8)


@pytest.fixture(scope="module")
def whole(picture):
    return _model().explain(picture, topk=3)


@pytest.fixture(scope="module")
def crop(picture):
    return _model("crop").explain(picture, topk=3)


def test_heatmap_is_the_map_at_original_size(whole) -> None:
    heat = whole.heatmap(1)
    assert heat.shape == (90, 150)
    assert heat.dtype == np.float32
    expected = torch.nn.functional.interpolate(
        torch.from_numpy(whole.maps[1])[None, None], (90, 150), mode="bilinear"
    )[0, 0]
    np.testing.assert_allclose(heat, expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(whole.heatmap(-1), whole.heatmap(2))


def test_crop_has_nan_outside_its_region(crop) -> None:
    x0, y0, x1, y1 = crop.geometry.region
    assert (x1 - x0, y1 - y0) != (150, 90)
    seen = np.zeros((90, 150), bool)
    seen[y0:y1, x0:x1] = True
    np.testing.assert_array_equal(~np.isnan(crop.heatmap()), seen)
    for box in crop.boxes():
        assert x0 <= box[0] < box[2] <= x1
        assert y0 <= box[1] < box[3] <= y1


def test_crop_dims_what_was_not_seen(crop, picture) -> None:
    overlay = np.asarray(crop.overlay()).astype(int)
    unseen = np.isnan(crop.heatmap())
    assert overlay[unseen].mean() < 0.6 * picture[unseen].mean()


def test_boxes_are_largest_first_and_inside(whole) -> None:
    components = whole.components(0)
    areas = [component.area for component in components]
    assert areas == sorted(areas, reverse=True)
    assert whole.boxes(0) == [component.box for component in components]
    for x0, y0, x1, y1 in whole.boxes(0, 0.6):
        assert 0 <= x0 < x1 <= 150
        assert 0 <= y0 < y1 <= 90
    with pytest.raises(ValueError, match="threshold"):
        whole.boxes(0, 1.5)


def test_overlay_has_the_pictures_size(whole) -> None:
    assert whole.overlay().size == (150, 90)
    assert whole.overlay(2, boxes=True, signed=True).size == (150, 90)
    with pytest.raises(IndexError):
        whole.overlay(len(whole.labels))
    assert np.any(np.asarray(whole.overlay(0)) != np.asarray(whole.overlay(2)))
    last, same = (np.asarray(whole.overlay(k)) for k in (-1, 2))
    np.testing.assert_array_equal(last, same)
    with pytest.raises(ValueError, match="opacity"):
        whole.overlay(opacity=2)


def test_panel_and_notebook_display(whole) -> None:
    panel = whole.panel()
    assert panel.mode == "RGB"
    shown = Image.open(io.BytesIO(whole._repr_png_()))
    assert shown.format == "PNG"
    assert shown.size == panel.size


def test_repr_names_the_classes(whole) -> None:
    assert repr(whole).startswith("<Explanation of <array>: ")
    assert "%" in repr(whole)


def test_npz(whole, tmp_path: Path) -> None:
    path = whole.save(tmp_path / "deep" / "out.npz")
    with np.load(path) as data:
        assert set(data.files) == {
            "maps", "indices", "labels", "logits", "bias", "residual", "probabilities",
            "region", "size",
        }  # fmt: skip
        np.testing.assert_array_equal(data["maps"], whole.maps)
        assert data["maps"].dtype == np.float32
        assert data["indices"].dtype == np.int64
        assert data["labels"].dtype.kind == "U"
        assert tuple(data["labels"]) == whole.labels
        for name in ("logits", "bias", "residual", "probabilities"):
            assert data[name].dtype == np.float32
            np.testing.assert_array_equal(data[name], getattr(whole, name))
        assert data["region"].tolist() == [0, 0, 150, 90]
        assert data["size"].tolist() == [150, 90]
        assert data["region"].dtype == data["size"].dtype == np.int64
        total = data["maps"].mean((1, 2)) + data["bias"]
        np.testing.assert_allclose(total, data["logits"], atol=1e-5)


def test_json(whole, crop, tmp_path: Path) -> None:
    record = json.loads(whole.save(tmp_path / "out.json").read_text())
    assert list(record) == [
        "path", "width", "height", "geometry", "exact", "steps", "explanations",
    ]  # fmt: skip
    assert (record["width"], record["height"]) == (150, 90)
    assert record["geometry"] == {"fit": "whole", "region": [0, 0, 150, 90], "input": [64, 104]}
    assert len(record["explanations"]) == 3
    for k, found in enumerate(record["explanations"]):
        assert found["label"] == whole.labels[k]
        assert found["map"]["mean"] + found["bias"] == pytest.approx(found["logit"], abs=1e-5)
        assert (found["map"]["height"], found["map"]["width"]) == whole.maps.shape[1:]
        assert found["map"]["max"] == pytest.approx(whole.maps[k].max())
        assert [tuple(box["box"]) for box in found["boxes"]] == whole.boxes(k)
        assert all(0 < box["share"] <= 1 + 1e-6 for box in found["boxes"])
    assert "boxes" not in whole.to_dict(boxes=False)["explanations"][0]
    assert crop.to_dict()["geometry"]["region"] == list(crop.geometry.region)


@pytest.mark.parametrize("name", ["out.png", "out.jpg", "out.webp", "out.PNG"])
def test_pictures(whole, tmp_path: Path, name: str) -> None:
    with Image.open(whole.save(tmp_path / name)) as saved:
        assert saved.size == whole.panel().size
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_an_unknown_ending_is_an_error_and_leaves_nothing(whole, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no picture format has the ending '\.xyz'"):
        whole.save(tmp_path / "out.xyz")
    assert list(tmp_path.iterdir()) == []


def test_encode_takes_arrays_and_images(picture) -> None:
    for given in (picture, Image.fromarray(picture)):
        with Image.open(io.BytesIO(encode(given, ".png"))) as image:
            np.testing.assert_array_equal(np.asarray(image), picture)


def test_a_jpeg_keeps_the_colours() -> None:
    flat = np.full((32, 48, 3), (200, 120, 40), np.uint8)
    with Image.open(io.BytesIO(encode(flat, ".JPG"))) as decoded:
        assert decoded.format == "JPEG"
        # One colour survives but for its rounding to YCbCr and back.
        assert np.abs(np.asarray(decoded).astype(int) - flat).max() <= 3


def test_a_picture_too_large_for_a_jpeg_is_an_error_that_says_what_to_do() -> None:
    with pytest.raises(OSError, match="65501×1 pixels are too many for a JPEG; choose PNG"):
        encode(np.zeros((1, 65_501, 3), np.uint8), ".jpg")


ELSEWHERE = """
import pickle, sys
import numpy as np
explanation = pickle.loads(sys.stdin.buffer.read())
found = {
    "overlay": np.asarray(explanation.overlay()).tobytes(),
    "panel": explanation._repr_png_(),
    "boxes": [explanation.boxes(k, 0.3) for k in range(3)],
    "record": explanation.to_dict(),
    "heat": explanation.heatmap(1).tobytes(),
}
sys.stdout.buffer.write(pickle.dumps(found))
"""


@pytest.mark.slow
@pytest.mark.parametrize("fit", ["whole", "crop"])
def test_another_process_draws_and_boxes_a_pickled_one_the_same(fit, whole, crop) -> None:
    explanation = whole if fit == "whole" else crop
    content = pickle.dumps(explanation)
    done = subprocess.run(
        [sys.executable, "-c", ELSEWHERE], input=content, capture_output=True, check=True
    )
    assert pickle.loads(done.stdout) == {
        "overlay": np.asarray(explanation.overlay()).tobytes(),
        "panel": explanation._repr_png_(),
        "boxes": [explanation.boxes(k, 0.3) for k in range(3)],
        "record": explanation.to_dict(),
        "heat": explanation.heatmap(1).tobytes(),
    }


def test_it_is_frozen_and_holds_data_alone(whole) -> None:
    with pytest.raises(AttributeError):
        whole.maps = None
    kinds = {type(value) for value in vars(whole).values()}
    assert kinds <= {str, bool, int, tuple, np.ndarray, type(whole.geometry)}


def test_the_mask_is_what_the_components_cover(whole) -> None:
    for rule in ("max", "percentile", "otsu", "ivr"):
        mask = whole.mask(0, 0.5, rule)
        assert mask.sum() == sum(one.area for one in whole.components(0, 0.5, rule))
        for x0, y0, x1, y1 in whole.boxes(0, 0.5, rule):
            assert mask[y0:y1, x0:x1].any()
