"""Rows to fill a report with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from camtool.report import ReportRow


def _spot(x: float, y: float, shape: tuple[int, int] = (7, 9), noise: int = 0) -> np.ndarray:
    """Blob of evidence around (x, y), both in [0, 1], on a negative ground."""
    rows, columns = (np.arange(side)[:, None] + 0.5 for side in shape)
    distance = (rows / shape[0] - y) ** 2 + (columns.T / shape[1] - x) ** 2
    heatmap = 30 * np.exp(-distance / 0.03) - 2
    return (heatmap + np.random.default_rng(noise).normal(0, 0.5, shape)).astype(np.float32)


_PLAIN = ReportRow(
    path="a.png",
    label="cat",
    index=0,
    probability=0.9,
    logit=7.5,
    peak=28.0,
    share=0.8,
    entropy=2.0,
    residual=-3e-7,
    box=(90, 60, 210, 140),
    width=300,
    height=200,
    rank=0,
    thumb="report/0.png",
    map=_spot(0.5, 0.5),
)


@pytest.fixture(scope="session")
def spot() -> Callable[..., np.ndarray]:
    return _spot


@pytest.fixture(scope="session")
def row() -> Callable[..., ReportRow]:
    return lambda path, **fields: replace(_PLAIN, path=path, **fields)
