"""Explanations made by hand."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from camtool.explanation import Explanation
from camtool.images import Geometry


def _explanation(
    held: int,
    classes: int = 0,
    shape: tuple[int, int] = (5, 7),
    size: tuple[int, int] = (300, 200),
    extent: tuple[float, float, float, float] | None = None,
    method: str = "cam",
    labels: tuple[str, ...] = (),
    picture: np.ndarray | None = None,
) -> Explanation:
    """The `held` best of `classes` classes with random maps that add up, blobs on a ground."""
    rng, classes = np.random.default_rng(held), classes or held
    every = np.sort(rng.normal(0, 3, classes).astype(np.float32))[::-1].copy()
    maps = rng.normal(0, 6, (held, *shape)).astype(np.float32)
    maps += (every[:held] - maps.mean((1, 2)) - 0.25)[:, None, None]
    logits, bias = every[:held], np.full(held, 0.25, np.float32)
    residual = (logits - maps.mean((1, 2), dtype=np.float64) - bias).astype(np.float32)
    odds = np.exp(every.astype(np.float64))
    if picture is None:
        picture = rng.integers(0, 256, (size[1], size[0], 3), np.uint8)
    return Explanation(
        name="folder/cat.jpg",
        image=picture,
        geometry=Geometry(
            "whole", size, extent or (0.0, 0.0, float(size[0]), float(size[1])), (160, 224)
        ),
        maps=maps,
        indices=np.arange(held),
        labels=labels or tuple(f"class {k}" for k in range(held)),
        versus=("",) * held,
        logits=logits,
        bias=bias,
        residual=residual,
        exact=True,
        probabilities=(odds / odds.sum())[:held].astype(np.float32),
        all_logits=every,
        model="net",
        method=method,
        layer="layer4",
    )


@pytest.fixture(scope="session")
def explained() -> Callable[..., Explanation]:
    return _explanation
