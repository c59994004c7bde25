"""Streaming: results in order, bad pictures as results, bounded memory."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import camtool
from camtool.engines.engine import Failed
from camtool.engines.stream import explain_stream
from camtool.images.read import ImageSource


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Conv2d(3, 6, 8, 8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 4)
    )
    return camtool.load(module, device="cpu", size=32)


def _picture(number: int) -> np.ndarray:
    shape = [(40, 60, 3), (60, 40, 3), (50, 50, 3)][number % 3]
    return np.random.default_rng(number).integers(0, 256, shape, np.uint8)


@pytest.mark.parametrize("batch_size", [1, 3, 8])
def test_results_come_in_order_and_are_those_of_explain(model, batch_size: int) -> None:
    pictures = [_picture(n) for n in range(20)]
    results = list(explain_stream(model, pictures, topk=2, batch_size=batch_size))
    assert len(results) == 20
    for picture, (source, explanation) in zip(pictures, results, strict=True):
        assert source is picture
        alone = model.explain(picture, topk=2)
        np.testing.assert_array_equal(explanation.indices, alone.indices)
        np.testing.assert_allclose(explanation.maps, alone.maps, atol=1e-5)


def test_a_bad_picture_is_a_result_and_harms_no_other(model, tmp_path: Path) -> None:
    good, bad = tmp_path / "good.png", tmp_path / "bad\n.png"
    Image.fromarray(_picture(0)).save(good)
    bad.write_bytes(b"no picture")
    sources: list[ImageSource] = [
        good,
        bad,
        tmp_path / "none.png",
        good,
        _picture(1),
        np.zeros((0, 3, 3), np.uint8),
    ]
    results = [result for _, result in explain_stream(model, sources, batch_size=2)]
    assert [isinstance(result, Failed) for result in results] == [0, 1, 1, 0, 0, 1]
    assert (
        str(results[1]) == f"{tmp_path}/bad\\n.png: is not a picture in a format that Pillow reads"
    )
    assert results[2].reason == "no such file"
    np.testing.assert_array_equal(results[0].maps, results[3].maps)


def test_a_shape_that_the_network_can_not_take_fails_alone() -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 8, 8), nn.AvgPool2d(4), nn.Flatten(), nn.Linear(4, 2))
    model = camtool.load(module, device="cpu", size=32)
    results = [result for _, result in explain_stream(model, [_picture(2), _picture(0)])]
    assert not isinstance(results[0], Failed)
    assert "--fit squash" in results[1].reason


def test_targets_are_checked_before_anything_is_read(model) -> None:
    def never():
        raise AssertionError("a picture was taken")
        yield

    with pytest.raises(camtool.TargetError):
        explain_stream(model, never(), targets="nothing like it")


def test_an_endless_source_is_read_as_results_are_taken(model) -> None:
    taken = itertools.count()
    sources = (_picture(next(taken)) for _ in itertools.repeat(None))
    stream = explain_stream(model, sources, batch_size=2)
    found = list(itertools.islice(stream, 10))
    stream.close()
    assert len(found) == 10
    assert next(taken) < 200


def test_the_limit_in_pixels_is_passed_on(model) -> None:
    ((_, result),) = explain_stream(model, [_picture(0)], max_pixels=100)
    assert "the limit is 100" in result.reason


def test_nothing_gives_nothing(model) -> None:
    assert list(explain_stream(model, [])) == []
