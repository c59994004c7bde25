from __future__ import annotations

import base64
import io
import json
import re
import sys

import numpy as np
import pytest
from PIL import Image

from camtool.evaluate.datasets import Record
from camtool.evaluate.output import THUMBNAIL, write_files
from camtool.evaluate.results import Case, Highlights


@pytest.fixture
def found(make_result, make_case, tmp_path):
    """A result with one picture, seen in its right half, and one that has gone."""
    folder = tmp_path / "data"
    folder.mkdir()
    path = folder / "wide.png"
    Image.fromarray(np.full((400, 800, 3), 90, np.uint8)).save(path)
    seen = np.array([[0, 1]], np.float32)
    fields = {"map": seen, "extent": (0, 0, 800, 400), "size": (800, 400), "guess": 1}
    one = make_case(0.5, **fields)
    record = Record(path, 0, ((400, 0, 800, 400),), None, (800, 400))
    cases = [Case(record, one.prediction, 0.5), make_case(0.4, path=folder / "gone.png")]
    return make_result(highlights=Highlights(best=cases), root=folder)


def test_everything_is_written_and_named(found, tmp_path):
    out = tmp_path / "new" / "out"
    assert write_files(out, found) == ["metrics.json", "cases.html", "curves.png"]
    assert json.loads((out / "metrics.json").read_text()) == json.loads(json.dumps(found.to_json()))
    assert Image.open(out / "curves.png").width > 300
    assert sorted(path.name for path in out.iterdir()) == [
        "cases.html",
        "curves.png",
        "metrics.json",
    ]


def test_without_matplotlib_the_rest_is_written(found, tmp_path, monkeypatch):
    monkeypatch.delitem(sys.modules, "camtool.evaluate.curves", raising=False)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setitem(sys.modules, "matplotlib.axes", None)
    assert write_files(tmp_path, found) == ["metrics.json", "cases.html"]
    assert not (tmp_path / "curves.png").exists()


def test_the_page_shows_a_thumbnail_with_its_map_and_boxes(found, tmp_path):
    write_files(tmp_path, found)
    page = (tmp_path / "cases.html").read_text("utf-8")
    assert page.count("<figure") == 1, "a picture that has gone is left out"
    assert "taken for dog" in page
    assert ">wide.png<" in page
    data = re.search(r"base64,([^\"]+)\"", page)[1]
    picture = np.asarray(Image.open(io.BytesIO(base64.b64decode(data)))).astype(int)
    assert picture.shape == (THUMBNAIL // 2, THUMBNAIL, 3)
    middle = picture[80]
    assert np.abs(middle[5] - 90).max() < 4, "no colour where there is no evidence"
    assert np.abs(middle[-5] - 90).max() > 40
    boxes = page[page.index("<section") :]
    assert '<g class="true"><rect x="160" y="0" width="160" height="160"/>' in boxes
    x, y, width, height = map(
        float,
        re.search(
            r'<g class="found"><rect x="(\S+)" y="(\S+)" width="(\S+)" height="(\S+)"/>', boxes
        ).groups(),
    )
    assert (y, height, x + width) == (0, 160, 320)
    # Bilinear between cell centres at 80 and 240: 20 % of the maximum is reached at 112.
    assert x == pytest.approx(112, abs=1)


def test_files_appear_whole_or_not_at_all(found, tmp_path):
    (tmp_path / "cases.html").mkdir()
    with pytest.raises(OSError, match=r"cases\.html"):
        write_files(tmp_path, found)
    left = {path.name for path in tmp_path.iterdir() if path.name != "data"}
    assert left == {"cases.html", "metrics.json"}
