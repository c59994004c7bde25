"""Folders by class that a tiny network can tell apart."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from camtool.cli import app

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
