"""The files of an explanation: their names, that they never collide, and what they hold."""

from __future__ import annotations

import json
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import camtool
from camtool.choices import Kind
from camtool.views.overlay import Look
from camtool.views.save import Places, Views, files_of, save_views


@pytest.fixture(scope="module")
def explanation():
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Conv2d(3, 6, 8, 8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 4)
    )
    model = camtool.load(module, device="cpu", size=32)
    picture = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
    return model.explain(picture, topk=2)


def test_every_kind_is_written_where_it_says(explanation, tmp_path: Path) -> None:
    base = tmp_path / "new" / "cat.v2"
    views = Views(get_args(Kind), Look())
    written = save_views(explanation, base, views)
    assert set(written) == set(get_args(Kind))
    assert written["panel"] == f"{base}.cam.png"
    assert written["npz"] == f"{base}.cam.npz"
    assert written["json"] == f"{base}.cam.json"
    assert written["html"] == f"{base}.cam.html"
    for kind in get_args(Kind):
        if kind not in ("panel", "npz", "json", "html"):
            assert written[kind] == [f"{base}.{kind}-{k}.png" for k in (1, 2)]
    said = {str(path) for _, path in files_of(explanation, base, views)}
    assert said == {str(path) for path in base.parent.iterdir()}
    with np.load(written["npz"]) as data:
        np.testing.assert_array_equal(data["maps"], explanation.maps)
    record = json.loads(Path(written["json"]).read_text())
    assert record == explanation.to_dict()


def test_overlays_and_heatmaps_have_the_pictures_size(explanation, tmp_path: Path) -> None:
    written = save_views(explanation, tmp_path / "a", Views(("overlay", "heatmap"), Look(), False))
    for kind, names in written.items():
        for k, name in enumerate(names):
            with Image.open(name) as image:
                assert image.size == (60, 40)
                pixels = np.asarray(image.convert("RGB")).astype(int)
            if kind == "overlay":
                np.testing.assert_array_equal(pixels, np.asarray(explanation.overlay(k)))
            else:
                without = explanation.heatmap(k) <= 0
                assert (pixels[without] == 0).all()


def test_boxes_may_be_left_out(explanation, tmp_path: Path) -> None:
    kinds: tuple[Kind, ...] = ("overlay", "json")
    with_boxes = save_views(explanation, tmp_path / "a", Views(kinds, Look()))
    without = save_views(explanation, tmp_path / "b", Views(kinds, Look(), boxes=False))
    first, second = (Path(files["overlay"][0]).read_bytes() for files in (with_boxes, without))
    assert (first == second) == (explanation.boxes() == [])
    record = json.loads(Path(str(without["json"])).read_text())
    assert all("boxes" not in found for found in record["explanations"])


def test_the_panel_may_have_a_name_of_its_own(explanation, tmp_path: Path) -> None:
    panel = tmp_path / "mine.jpg"
    written = save_views(explanation, tmp_path / "a", Views(("panel",), Look()), panel)
    assert written == {"panel": str(panel)}
    with Image.open(panel) as image:
        assert image.format == "JPEG"


def test_overlays_in_another_format(explanation, tmp_path: Path) -> None:
    written = save_views(explanation, tmp_path / "a", Views(("overlay",), Look(), picture=".jpg"))
    with Image.open(written["overlay"][0]) as image:
        assert image.format == "JPEG"


def test_what_can_not_be_written_leaves_nothing_half(explanation, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OSError, match=r"file|director"):
        save_views(explanation, tmp_path / "file" / "a", Views(("panel",), Look()))
    with pytest.raises(ValueError, match="no picture format"):
        save_views(explanation, tmp_path / "a", Views(("panel",), Look()), tmp_path / "a.xyz")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_places_beside_the_picture_or_under_one_folder() -> None:
    assert Places(None).base(Path("in/a.jpg")) == Path("in/a")
    assert Places(Path("out")).base(Path("in/a.jpg")) == Path("out/a")


def test_places_never_give_one_name_twice() -> None:
    places = Places(Path("out"))
    sources = ["x/a.jpg", "x/a.png", "y/a.jpg", "y/a.jpg", "a", "z/a.jpg"]
    found = [places.base(Path(source)) for source in sources]
    assert len(set(found)) == len(sources)
    assert found[:2] == [Path("out/a"), Path("out/a.png")]
