from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def _let_go(request: pytest.FixtureRequest) -> Iterator[None]:
    """Networks hold each other in circles; a hundred large ones would fill the memory."""
    yield
    if request.node.get_closest_marker("slow"):
        gc.collect()
