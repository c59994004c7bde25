from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

import camtool
from camtool.evaluate.datasets import read_dataset
from camtool.evaluate.datasets.masks import MaskFiles
from camtool.evaluate.predictions import EvaluationError, MapSettings, MapStore, Prediction
from camtool.evaluate.run import evaluate

SIDE = 64


class Bright(nn.Module):
    """Pools brightness: class "bright" is seen where the picture is, "dark" where it is not."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.AvgPool2d(8)
        self.fc = nn.Linear(1, 2)
        with torch.no_grad():
            self.fc.weight.copy_(torch.tensor([[1.0], [-1.0]]))
            self.fc.bias.zero_()

    def forward(self, x: Tensor) -> Tensor:
        features = self.blocks((x.mean(1, keepdim=True) + 2.1).clamp(min=0))
        return self.fc(features.mean((2, 3)))


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Twelve dark pictures of one bright square each, its box in boxes.csv, and two bad rows."""
    folder = tmp_path / "data" / "bright"
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    rows = []
    for n in range(12):
        x, y = (8 * rng.integers(0, 5, 2)).tolist()
        pixels = np.zeros((SIDE, SIDE, 3), np.uint8)
        pixels[y : y + 24, x : x + 24] = 255
        Image.fromarray(pixels).save(folder / f"{n}.png")
        rows.append((f"bright/{n}.png", x, y, x + 24, y + 24))
    rows.append(("bright/gone.png", 0, 0, 8, 8))
    rows.append(("bright/0.png", 90, 90, 99, 99))
    with (folder.parent / "boxes.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("path", "x0", "y0", "x1", "y1"), *rows])
    return folder.parent


@pytest.fixture
def model() -> camtool.CamModel:
    return camtool.load(Bright(), labels=["bright", "dark"], size=SIDE)


SETTINGS = MapSettings({"name": "net"}, "whole", SIDE, "float32", ("bright", "dark"), ())


def run(data: Path, model: camtool.CamModel | None, folder: Path | None = None, **options: Any):
    def load() -> camtool.CamModel:
        assert model is not None, "the network was asked for although all maps are kept"
        return model

    dataset = read_dataset(data, "csv")
    return evaluate(dataset, SETTINGS, MapStore(folder, data), load, **options)


def test_a_network_that_sees_the_object_localizes_it(data, model):
    result = run(data, model)
    assert result.localization.images == 12
    assert (result.top1, result.top5) == (100, 100)
    metrics = result.localization.metrics
    assert metrics["max_box_acc"].network.value == 100
    assert metrics["pointing"].network.value == 100
    centre = metrics["max_box_acc"].centre_box.value
    assert centre < 100, "a constant box can't follow a square that moves"
    assert (result.data_format, result.root) == ("csv", data)


def test_bad_data_is_named_and_the_rest_is_measured(data, model):
    problems = run(data, model).problems
    assert {Path(problem.path).name for problem in problems} == {"gone.png", "0.png"}
    assert any("missing" in problem.reason for problem in problems)
    assert any("outside" in problem.reason for problem in problems)


def test_a_picture_that_can_not_be_read_is_named_and_the_rest_is_measured(data, model):
    path = data / "bright" / "3.png"
    path.write_bytes(path.read_bytes()[:100])
    result = run(data, model)
    assert result.localization.images == 11
    assert [Path(p.path).name for p in result.problems].count("3.png") == 1


def test_a_mask_that_can_not_be_read_is_named(data, model):
    dataset = read_dataset(data, "csv")
    (data / "mask.png").write_bytes(b"no picture")
    first, *others = dataset.records
    broken = replace(first, mask=MaskFiles((data / "mask.png",)))
    dataset = replace(dataset, records=[broken, *others])
    result = evaluate(dataset, SETTINGS, MapStore(None, data), lambda: model)
    assert result.localization.images == 11
    assert "mask can't be used" in result.problems[-1].reason


def test_unknown_labels_are_named(data, model):
    settings = replace(SETTINGS, labels=("cat", "dog"))
    with pytest.raises(EvaluationError, match="bright"):
        evaluate(read_dataset(data, "csv"), settings, MapStore(None, data), lambda: model)


@pytest.mark.slow
def test_kept_maps_give_the_same_figures_without_the_network(data, model, tmp_path):
    first = run(data, model, tmp_path / "maps")
    again = run(data, None, tmp_path / "maps")
    assert again.to_json() == first.to_json()


@pytest.mark.slow
def test_a_damaged_kept_map_is_computed_again(data, model, tmp_path):
    first = run(data, model, tmp_path / "maps")
    next((tmp_path / "maps" / "bright").glob("3.png*")).write_bytes(b"torn")
    assert run(data, model, tmp_path / "maps").to_json() == first.to_json()


def test_maps_made_otherwise_are_refused(data, model, tmp_path):
    store, settings = MapStore(tmp_path / "maps", data), MapSettings.of(model)
    assert store.settings() is None
    store.claim(settings)
    store.claim(settings)
    assert store.settings() == settings
    with pytest.raises(EvaluationError, match="dtype"):
        store.claim(replace(settings, dtype="bfloat16"))
    (tmp_path / "maps" / "maps.json").write_text("[]")
    with pytest.raises(EvaluationError, match="damaged"):
        store.settings()


@pytest.mark.parametrize("mode", ["plain", "reference"])
def test_modes_agree_on_a_clear_case(data, model, mode):
    metrics = run(data, model, mode=mode).localization.metrics
    assert metrics["max_box_acc"].network.value > 90


def test_predictions_round_trip(data, model, tmp_path):
    explanation = model.explain(data / "bright" / "0.png", targets=["bright"])
    prediction = Prediction.of(explanation)
    path = tmp_path / "one.npz"
    path.write_bytes(prediction.to_npz())
    again = Prediction.from_npz(path)
    assert np.array_equal(again.map, prediction.map)
    assert (again.extent, again.size, again.rank) == (prediction.extent, prediction.size, 0)
    assert again.probability == pytest.approx(float(explanation.probabilities[0]), rel=1e-5)
    assert np.allclose(prediction.heatmap(), explanation.heatmap(), atol=1e-5)


def test_highlights_are_of_the_pictures_that_were_measured(data, model):
    result = run(data, model)
    assert len(result.highlights.best) == 12
    assert result.highlights.wrong == []
    assert all(case.iou == 1 for case in result.highlights.best) or result.highlights.worst
