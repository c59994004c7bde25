"""The training script: its parts by their laws, and a whole run on a made-up data set."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from torch import nn
from typer.testing import CliRunner

import common
import measure
import muon
import release
import tinyimagenet
import train
from camtool.cli import app
from camtool.evaluate.datasets import read_dataset
from camtool.fit.training import Position, batches
from camtool.networks import load_network
from camtool.networks.gapnet import gapnet

ROOT = Path(__file__).parents[2]
CLASSES = 6
RECIPE: dict[str, Any] = {
    "widths": [4, 8, 16, 16],
    "blocks": [1, 1],
    "seed": 3,
    "epochs": 3,
    "batch": 12,
    "muon_lr": 0.1,
    "adam_lr": 0.01,
    "warmup": 0.1,
    "label_smoothing": 0.1,
    "phases": [
        {"until": 0.5, "sizes": [32], "scale": [0.6, 1.0], "zoom_out": 0.0},
        {"until": 1.0, "sizes": [32, 40], "scale": [0.6, 1.0], "zoom_out": 0.3},
    ],
}


def _picture(label: int, rng: np.random.Generator) -> tuple[np.ndarray, list[int]]:
    """A square of the class's colour on grey noise, and its inclusive box."""
    image = rng.integers(100, 140, (64, 64, 3), dtype=np.uint8)
    x, y = (int(v) for v in rng.integers(2, 28, 2))
    colour = [255 * bool(label + 1 & bit) for bit in (1, 2, 4)]
    image[y : y + 30, x : x + 30] = colour
    return image, [x, y, x + 29, y + 29]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    root = folder / "tiny"
    rng = np.random.default_rng(0)
    wnids = [f"n{i:08d}" for i in range(CLASSES)]
    rows = []
    (root / "val" / "images").mkdir(parents=True)
    for label, wnid in enumerate(wnids):
        images = root / "train" / wnid / "images"
        images.mkdir(parents=True)
        lines = []
        for i in range(8):
            picture, box = _picture(label, rng)
            cv2.imwrite(str(images / f"{wnid}_{i}.JPEG"), picture)
            lines.append("\t".join([f"{wnid}_{i}.JPEG", *map(str, box)]))
        (images.parent / f"{wnid}_boxes.txt").write_text("\n".join(lines), encoding="utf-8")
        picture, box = _picture(label, rng)
        cv2.imwrite(str(root / "val" / "images" / f"val_{label}.JPEG"), picture)
        rows.append("\t".join([f"val_{label}.JPEG", wnid, *map(str, box)]))
    (root / "wnids.txt").write_text("\n".join(wnids), encoding="utf-8")
    words = [f"{wnid}\tthing {i}, object {i}" for i, wnid in enumerate(wnids)]
    (root / "words.txt").write_text("\n".join(words), encoding="utf-8")
    (root / "val" / "val_annotations.txt").write_text("\n".join(rows), encoding="utf-8")
    return folder


@pytest.fixture
def recipe(tmp_path: Path) -> train.Recipe:
    path = tmp_path / "recipe.json"
    path.write_text(json.dumps(RECIPE), encoding="utf-8")
    return train.Recipe.read(path)


def _run(
    recipe: train.Recipe, data: Path, work: Path, stops: tuple[int, ...] = ()
) -> dict[str, torch.Tensor]:
    """Train for the recipe's epochs, starting over from the checkpoint after each of ``stops``."""
    work.mkdir()
    split = tinyimagenet.load_train(tinyimagenet.find_root(data), work / "train.npy")
    trainer = train.Trainer(recipe, split, float("inf"), work, torch.device("cpu"))
    for epoch in range(recipe.epochs):
        trainer.epoch()
        if epoch in stops:
            trainer.save()
            trainer = train.Trainer(recipe, split, float("inf"), work, torch.device("cpu"))
            trainer.resume()
    assert trainer.progress >= 1
    return trainer.model.state_dict()


@pytest.mark.slow
def test_a_resumed_run_ends_where_an_uninterrupted_one_does(
    recipe: train.Recipe, data: Path, tmp_path: Path
) -> None:
    whole = _run(recipe, data, tmp_path / "a")
    parts = _run(recipe, data, tmp_path / "b", stops=(0, 1))
    for name, value in whole.items():
        torch.testing.assert_close(parts[name], value, atol=1e-4, rtol=1e-3)


def test_the_rest_of_an_epoch_is_what_it_would_have_been(
    recipe: train.Recipe, data: Path, tmp_path: Path
) -> None:
    split = tinyimagenet.load_train(tinyimagenet.find_root(data), tmp_path / "train.npy")
    schedule = recipe.schedule(float("inf"))
    full = list(batches(len(split.labels), schedule, Position(epoch=1)))
    rest = list(batches(len(split.labels), schedule, Position(epoch=1, step=2)))
    assert len(full) == len(split.labels) // recipe.batch
    assert len({int(i) for picked, _ in full for i in picked}) == len(full) * recipe.batch
    for (picked, rng), (again, same) in zip(full[2:], rest, strict=True):
        np.testing.assert_array_equal(picked, again)
        np.testing.assert_array_equal(
            train.augment(split.images[picked], recipe.phases[1], rng),
            train.augment(split.images[again], recipe.phases[1], same),
        )


@pytest.mark.parametrize(("size", "pictures"), [(48, 12), (64, 12), (96, 5), (128, 3)])
def test_a_batch_holds_no_more_pixels_than_at_the_standard_size(size: int, pictures: int) -> None:
    images = np.zeros((12, 64, 64, 3), np.uint8)
    phase = train.Phase(until=1.0, sizes=[size], scale=(0.5, 1.0), zoom_out=0.1)
    cut = train.augment(images, phase, np.random.default_rng(0))
    assert cut.shape == (pictures, size, size, 3)


def test_phases_follow_each_other(recipe: train.Recipe) -> None:
    assert recipe.phase(0.49) is recipe.phases[0]
    assert recipe.phase(0.5) is recipe.phase(1.0) is recipe.phases[1]


@settings(max_examples=40)
@given(
    size=st.integers(24, 96),
    low=st.floats(0.2, 3.0),
    spread=st.floats(0, 0.8),
    seed=st.integers(0, 2**32 - 1),
)
def test_a_crop_shows_nothing_but_the_picture(
    size: int, low: float, spread: float, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    image = np.full((64, 64, 3), (10, 120, 250), np.uint8)
    crop = tinyimagenet.random_crop(image, size, (low, min(3.0, low + spread)), rng)
    assert crop.shape == (size, size, 3)
    assert (crop == (10, 120, 250)).all()


def test_zooming_out_shrinks_the_object() -> None:
    image = np.zeros((64, 64, 3), np.uint8)
    image[24:40, 24:40] = 255
    rng = np.random.default_rng(0)

    def share(scale: tuple[float, float]) -> float:
        crops = [tinyimagenet.random_crop(image, 64, scale, rng) for _ in range(50)]
        return float(np.mean([(crop > 127).mean() for crop in crops]))

    assert share((0.35, 0.5)) > share((1.0, 1.0)) > share((2.5, 3.0)) > 0


@settings(max_examples=30)
@given(rows=st.integers(2, 24), columns=st.integers(2, 24), seed=st.integers(0, 999))
def test_orthogonalize_keeps_the_axes_and_levels_the_lengths(
    rows: int, columns: int, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    u, _, v = torch.linalg.svd(torch.randn(rows, columns, generator=generator), full_matrices=False)
    lengths = 0.5 + torch.rand(min(rows, columns), generator=generator)
    levelled = muon.orthogonalize(u * lengths @ v, steps=5)
    inside = u.T @ levelled @ v.T
    assert (inside - torch.diag(inside.diag())).abs().max() < 1e-3
    assert 0.5 < inside.diag().min() <= inside.diag().max() < 1.4


def test_muon_keeps_the_norm_and_takes_steps_of_the_rate() -> None:
    weight = torch.nn.Parameter(torch.randn(8, 4, 3, 3, generator=torch.Generator().manual_seed(0)))
    optimizer = muon.Muon([weight], lr=0.01)
    for _ in range(5):
        before = weight.detach() * (8**0.5 / weight.detach().norm())
        weight.grad = torch.randn(8, 4, 3, 3)
        optimizer.step()
        assert (weight.detach() - before).norm() == pytest.approx(0.01 * 8**0.5, rel=1e-3)
        assert weight.detach().norm() == pytest.approx(8**0.5, rel=0.02)


def test_a_file_gives_back_the_rounded_network(recipe: train.Recipe, tmp_path: Path) -> None:
    model = gapnet(recipe.widths, recipe.blocks, CLASSES)
    model(torch.randn(8, 3, 64, 64))
    release.round_parameters(model)
    classes = ([f"n{i}" for i in range(CLASSES)], ["a, b"] * CLASSES)
    description = release.metadata(asdict(recipe), classes, 96)
    release.save(model, tmp_path / "net.safetensors", description)
    network = load_network(tmp_path / "net.safetensors")
    assert (network.labels, network.synsets) == (("a, b",) * CLASSES, tuple(classes[0]))
    assert network.preprocessing.size == 96
    assert network.preprocessing.mean == tinyimagenet.MEAN
    for name, value in model.state_dict().items():
        assert torch.equal(value, network.module.state_dict()[name]), name


def test_what_classes_have_in_common_changes_no_probability(recipe: train.Recipe) -> None:
    model = gapnet(recipe.widths, recipe.blocks, CLASSES).eval()
    # Features are positive: the mean logit is so too, and more than the bias's half.
    torch.nn.init.uniform_(model.fc.weight, 0, 1)
    torch.nn.init.uniform_(model.fc.bias, 0.5, 1)
    images = torch.randn(4, 3, 64, 64)
    with torch.no_grad():
        before = model(images)
        release.choose_common(model, 0.0)
        centred = model(images)
        weight = model.fc.weight.clone()
        release.choose_common(model, 0.2)
        after = model(images)
    assert before.mean(1).min() > 0.5
    assert centred.mean(1).abs().max() < 1e-5
    torch.testing.assert_close(after.softmax(1), before.softmax(1))
    added = model.fc.weight - weight
    torch.testing.assert_close(added, 0.2 * weight.square().mean().sqrt().expand_as(added))


def test_the_average_of_several_ends(recipe: train.Recipe) -> None:
    one, other, third = (gapnet(recipe.widths, recipe.blocks, CLASSES) for _ in range(3))
    expected = (one.fc.weight + other.fc.weight + third.fc.weight).detach() / 3
    target = gapnet(recipe.widths, recipe.blocks, CLASSES)
    release.average(target, [model.state_dict() for model in (one, other, third)])
    torch.testing.assert_close(target.fc.weight.detach(), expected)


@pytest.mark.slow
def test_checkpoints_are_published_as_their_mean(
    recipe: train.Recipe, data: Path, tmp_path: Path
) -> None:
    for name, factor in (("a", 1.0), ("b", 3.0)):
        model = gapnet(recipe.widths, recipe.blocks, CLASSES)
        torch.nn.init.constant_(model.features[0][0].weight, factor)
        torch.save({"model": model.state_dict()}, tmp_path / f"{name}.pt")
    config = tmp_path / "recipe.json"
    config.write_text(json.dumps(RECIPE))
    options = train.parse(
        [
            str(data),
            "--config",
            str(config),
            "--output",
            str(tmp_path),
            "--device",
            "cpu",
            "--publish",
        ]
        + [str(tmp_path / name) for name in ("a.pt", "b.pt")]
    )
    root = tinyimagenet.find_root(data)
    train.run(options, root)
    path = tmp_path / "gapnet-1.safetensors"
    network = load_network(path)
    assert (network.module.features[0][0].weight == 2.0).all()
    # The file says of itself what an evaluation finds.
    found = measure.measure(network, read_dataset(root, "tiny-imagenet"))
    with safe_open(path, "pt") as file:
        said = [float(file.metadata()[key]) for key in ("top1", "top5")]
    assert said == pytest.approx([found.top1 / 100, found.top5 / 100], abs=1e-4)


def test_recalibrated_statistics_are_those_of_the_batches(recipe: train.Recipe) -> None:
    model = gapnet(recipe.widths, recipe.blocks, CLASSES)
    inputs = [torch.randn(4, 3, 64, 64) + shift for shift in (0.0, 3.0)]
    release.recalibrate(model, inputs)
    first = model.features[0]
    assert isinstance(first, nn.Sequential)
    conv, norm = first
    with torch.no_grad():
        means = [conv(batch).mean((0, 2, 3)) for batch in inputs]
    torch.testing.assert_close(norm.running_mean, torch.stack(means).mean(0))
    assert norm.momentum == 0.1
    assert not model.training


def test_training_pictures_with_their_boxes(data: Path) -> None:
    pictures = common.boxed(tinyimagenet.find_root(data))
    assert [record.label for record in pictures.records] == ["n00000000", "n00000005"]
    for record in pictures.records:
        ((x0, y0, x1, y1),) = (tuple(map(int, box)) for box in record.boxes)
        assert (x1 - x0, y1 - y0) == (30, 30)
        blue_green_red = [255 * bool(int(record.label[1:]) + 1 & bit) for bit in (1, 2, 4)]
        colour = tinyimagenet.read_rgb(record.path)[y0:y1, x0:x1].mean((0, 1))
        np.testing.assert_allclose(colour, blue_green_red[::-1], atol=20)


def test_accuracy_while_training_is_that_of_the_logits(recipe: train.Recipe, data: Path) -> None:
    torch.manual_seed(0)
    model = gapnet(recipe.widths, recipe.blocks, CLASSES).eval()
    split = tinyimagenet.load_val(tinyimagenet.find_root(data))
    with torch.inference_mode():
        logits = model(tinyimagenet.to_input(split.images)).numpy()
    ranks = (logits > logits[np.arange(CLASSES), split.labels][:, None]).sum(1)
    expected = (float((ranks < 1).mean()), float((ranks < 5).mean()))
    assert train.accuracy(model, split, 64, batch=4) == expected


def test_measures_are_those_of_the_command(data: Path, tmp_path: Path, tiny: Path) -> None:
    root = tinyimagenet.find_root(data)
    words = ["evaluate", str(root), "--format", "tiny-imagenet", "-m", str(tiny), "--json"]
    labels = tmp_path / "labels.txt"
    network = load_network(tiny)
    dataset = read_dataset(root, "tiny-imagenet")
    names = [str(record.label) for record in dataset.records][: len(network.labels)]
    labels.write_text("\n".join(names))
    printed = CliRunner().invoke(app, [*words, "--labels", str(labels), "--device", "cpu"])
    found = measure.measure(replace(network, labels=tuple(names)), dataset)
    document = found.to_json()
    assert json.loads(printed.stdout) == document
    line = measure.line(found)
    assert line.startswith(f"size 64: top-1 {found.top1:.2f} %, top-5 {found.top5:.2f} %; ")
    best = document["metrics"]["max_box_acc"]["network"]
    assert f"label given {best['value']:.2f} % (threshold {best['threshold']:.3f})" in line


def test_a_folder_without_the_layout_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"wnids\.txt"):
        tinyimagenet.find_root(tmp_path)


@pytest.mark.slow
def test_one_command_trains_and_another_measures(
    data: Path, recipe: train.Recipe, tmp_path: Path
) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    base = [sys.executable, str(ROOT / "weights" / "train.py"), str(data), "--device", "cpu"]
    path = tmp_path / "gapnet-1.safetensors"
    options = ["--output", str(tmp_path), "--config", str(tmp_path / "recipe.json")]
    trained = subprocess.run(
        [*base, *options, "--epochs", "12"],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    measured = subprocess.run(
        [*base, "--evaluate", str(path), "--size", "64"],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    log = [json.loads(line) for line in (tmp_path / "gapnet-1.jsonl").read_text().splitlines()]
    assert [row["epoch"] for row in log] == list(range(1, 13))
    assert log[-1]["loss"] < log[0]["loss"]
    assert "SHA-256" in trained.stdout
    assert measured.stdout.startswith("size 64: top-1 ")
