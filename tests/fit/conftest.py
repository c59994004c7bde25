"""Folders by class that a tiny network can tell apart, and outcomes to make pages of."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from camtool.cli import app
from camtool.evaluate.figures import Figure
from camtool.fit.outcome import Answer, Outcome, Penalty, Point

CLASSES = 4
COLOURS = {"blue": (40, 60, 200), "green": (50, 180, 60), "red": (210, 50, 40)}


def picture(path: Path, colour: str, seed: int) -> Path:
    """A noisy picture of a colour."""
    random = np.random.default_rng([seed, *colour.encode()])
    coarse = random.normal(COLOURS[colour], 60, (6, 6, 3)).clip(0, 255).astype(np.uint8)
    side = (72, 64) if seed % 4 else (64, 88)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(coarse).resize(side, Image.Resampling.BICUBIC).save(path)
    return path


@pytest.fixture
def coloured(tmp_path) -> Callable[..., Path]:
    """Makes a folder with so many pictures of each colour."""

    def make(count: int = 12, name: str = "data", first: int = 0, **counts: int) -> Path:
        for colour in COLOURS:
            for seed in range(first, first + counts.get(colour, count)):
                picture(tmp_path / name / colour / f"{seed}.png", colour, seed)
        return tmp_path / name

    return make


@pytest.fixture
def fitting(tiny, tmp_path):
    """`camtool fit` in this process on the tiny network: data and words to a result."""

    def run(data, *words, output="mine.safetensors", base=tiny):
        line = ["fit", data, "-o", tmp_path / output, "--base", base, *words]
        result = CliRunner().invoke(app, [os.fspath(word) for word in line])
        if result.exception and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result

    return run


@pytest.fixture
def fitted(fitting):
    """The JSON document of a fit, by the same words; and it has to succeed."""

    def run(data, *words, code=0, **options):
        result = fitting(data, "--json", *words, **options)
        assert result.exit_code == code, result.output
        return json.loads(result.stdout)

    return run


def _answered(seed, number, form="softmax", classes=CLASSES, name="{:04d}.jpg"):
    """Answers of a network that is right more often than not."""
    random = np.random.default_rng(seed)
    found = []
    for n in range(number):
        logits = random.normal(0, 2, classes)
        if form == "softmax":
            shown = [int(random.integers(classes))]
            logits[shown] += 2
            probabilities = np.exp(logits) / np.exp(logits).sum()
        else:
            shown = np.flatnonzero(random.random(classes) < 0.4).tolist()
            probabilities = 1 / (1 + np.exp(-logits))
        found.append(Answer(name.format(n), tuple(shown), probabilities.astype(np.float32)))
    return tuple(found)


@pytest.fixture(scope="session")
def answered() -> Callable[..., tuple[Answer, ...]]:
    return _answered


@pytest.fixture(scope="session")
def outcome_of() -> Callable[..., Outcome]:
    """An outcome with these answers."""

    def make(answers, form="softmax", labels=tuple("abcd"), **changes):
        held = tuple(sum(k in one.truth for one in answers) for k in range(len(labels)))
        outcome = Outcome(
            labels=tuple(labels),
            form=form,
            base="efficientnet_lite0",
            fitted=(9,) * len(labels),
            held=held,
            penalties=tuple(Penalty(10.0**n, 1 + 0.1 * n * n, 70 - n) for n in range(-2, 3)),
            strength=1.0,
            answers=answers,
            accuracy=Figure(71.2, 60.1, 80.3),
            majority=25.0,
            curve=tuple(
                Point(9 * 2**n, Figure(v, v - 2, v + 2)) for n, v in enumerate((50, 65, 75))
            ),
            duplicates=(),
            problems=(),
        )
        return replace(outcome, **changes)

    return make


def boxed_by_class(root: Path, count: int = 12, classes: tuple[str, ...] = ("cat", "dog")) -> Path:
    """Pictures of a bright square of the class's colour on noise, and boxes.csv."""
    rng = np.random.default_rng(0)
    rows: list[tuple[object, ...]] = [("path", "x0", "y0", "x1", "y1")]
    for label, name in enumerate(classes):
        (root / name).mkdir(parents=True)
        for n in range(count):
            picture = rng.integers(90, 150, (40, 40, 3), np.uint8)
            x, y = (int(v) for v in rng.integers(2, 18, 2))
            picture[y : y + 20, x : x + 20, label] = 255
            Image.fromarray(picture).save(root / name / f"{n:02d}.png")
            rows.append((f"{name}/{n:02d}.png", x, y, x + 20, y + 20))
    with (root / "boxes.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    return root


@pytest.fixture(scope="session")
def squares(tmp_path_factory) -> Path:
    """Two classes of twelve pictures."""
    return boxed_by_class(tmp_path_factory.mktemp("squares") / "data")
