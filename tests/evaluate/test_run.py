from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from typer.testing import CliRunner

import camtool
from camtool.cli import app
from camtool.evaluate.datasets import read_dataset
from camtool.evaluate.run import EvaluationError, Extremes, Measured, Store, evaluate, settings_of

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


def run(data: Path, model: camtool.CamModel | None, store: Store, **options: object):
    def load() -> camtool.CamModel:
        assert model is not None, "the network was asked for although all maps are kept"
        return model

    dataset = read_dataset(data, "csv")
    return evaluate(dataset, ["bright", "dark"], (), store, load, **options)


def test_a_network_that_sees_the_object_localizes_it(data, model):
    outcome = run(data, model, Store(None, data))
    result = outcome.evaluation.result()
    assert result["images"] == 12
    assert outcome.top == [12, 12]
    assert result["metrics"]["max_box_acc"]["network"]["value"] == 100
    assert result["metrics"]["pointing"]["network"]["value"] == 100
    centre = result["metrics"]["max_box_acc"]["centre_box"]["value"]
    assert centre < 100, "a constant box can't follow a square that moves"


def test_bad_data_is_named_and_the_rest_is_measured(data, model):
    problems = run(data, model, Store(None, data)).problems
    assert {Path(problem.path).name for problem in problems} == {"gone.png", "0.png"}
    assert any("missing" in problem.reason for problem in problems)
    assert any("outside" in problem.reason for problem in problems)


def test_unknown_labels_are_named(data, model):
    dataset = read_dataset(data, "csv")
    with pytest.raises(EvaluationError, match="bright"):
        evaluate(dataset, ["cat", "dog"], (), Store(None, data), lambda: model)


def test_kept_maps_give_the_same_figures_without_the_network(data, model, tmp_path):
    store = Store(tmp_path / "maps", data)
    first = run(data, model, store)
    again = run(data, None, store)
    assert again.evaluation.result() == first.evaluation.result()


def test_a_damaged_kept_map_is_computed_again(data, model, tmp_path):
    store = Store(tmp_path / "maps", data)
    first = run(data, model, store)
    next((tmp_path / "maps" / "bright").glob("3.png*")).write_bytes(b"torn")
    assert run(data, model, store).evaluation.result() == first.evaluation.result()


def test_maps_made_otherwise_are_refused(data, model, tmp_path):
    store = Store(tmp_path / "maps", data)
    store.claim(settings_of(model, "float32"))
    store.claim(settings_of(model, "float32"))
    with pytest.raises(EvaluationError, match="dtype"):
        store.claim(settings_of(model, "bfloat16"))


@pytest.mark.parametrize("mode", ["plain", "reference"])
def test_modes_agree_on_a_clear_case(data, model, mode):
    result = run(data, model, Store(None, data), mode=mode).evaluation.result()
    assert result["metrics"]["max_box_acc"]["network"]["value"] > 90


def test_measured_round_trip(data, model, tmp_path):
    explanation = model.explain(data / "bright" / "0.png", targets=["bright"])
    measured = Measured.of(explanation)
    path = tmp_path / "one.npz"
    path.write_bytes(measured.to_npz())
    again = Measured.from_npz(path)
    assert np.array_equal(again.map, measured.map)
    assert (again.extent, again.size, again.rank) == (measured.extent, measured.size, 0)
    assert again.probability == pytest.approx(float(explanation.probabilities[0]), rel=1e-5)
    assert np.allclose(measured.heatmap(), explanation.heatmap(), atol=1e-5)


def test_extremes_keep_a_fixed_number():
    extremes = Extremes(keep=3)
    from camtool.evaluate.run import Case

    measured = Measured(np.zeros((1, 1), np.float32), (0, 0, 1, 1), (1, 1), 1, 0, 0.5)
    for n in range(10):
        extremes.add(Case(None, measured, n / 10))
    assert [case.overlap for case in extremes.best] == [0.9, 0.8, 0.7]
    assert [case.overlap for case in extremes.worst] == [0.0, 0.1, 0.2]
    assert len(extremes.wrong) == 3


def test_the_command_writes_numbers_curves_and_cases(data, tmp_path):
    torch.manual_seed(0)
    labels = tmp_path / "labels.txt"
    labels.write_text("bright\n" + "\n".join(f"other {n}" for n in range(999)))
    out = tmp_path / "out"
    arguments = ["evaluate", str(data), "--format", "csv", "-m", "squeezenet1_1", "-w", "random"]
    arguments += ["--labels", str(labels), "--size", "64", "-o", str(out)]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    assert "MaxBoxAccV2" in done.output
    assert "centre box" in done.output
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["images"] == 12
    assert len(metrics["problems"]) == 2
    assert len(metrics["metrics"]["max_box_acc"]["network"]["curve"]) == len(metrics["thresholds"])
    assert Image.open(out / "curves.png").size[0] > 300
    assert "Worst boxes" in (out / "cases.html").read_text()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--format", "nonsense"], "unknown format"),
        (["--format", "coco"], ""),
        (["--format", "csv", "--mode", "exact"], "plain or reference"),
        (["--format", "csv", "--mode", "reference", "--fit", "crop"], "squash"),
    ],
)
def test_wrong_usage_is_one_line_and_exit_code_2(data, arguments, said):
    command = ["evaluate", str(data), "-m", "squeezenet1_1", "-w", "random", *arguments]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 2
    assert said in done.stderr
    assert "Traceback" not in done.output
