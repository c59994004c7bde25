from __future__ import annotations

import csv

import numpy as np
import pytest

import camtool
from camtool.engines.engine import Failed
from camtool.errors import TargetError


@pytest.fixture(scope="module")
def model(tiny):
    return camtool.load(tiny, device="cpu")


@pytest.fixture
def sources(tmp_path, make_pictures):
    return sorted(make_pictures(tmp_path / "photos", 12).iterdir())


def test_explain_folder_yields_paths_with_their_results(model, sources):
    folder = sources[0].parent
    (folder / "zz.jpg").write_bytes(b"")
    found = list(model.explain_folder(folder, topk=2))
    assert [path for path, _ in found] == [*sources, folder / "zz.jpg"]
    assert isinstance(found[-1][1], Failed)
    for path, other in found[:-1]:
        one = model.explain(path, topk=2)
        assert one.labels == other.labels
        np.testing.assert_allclose(one.logits, other.logits, atol=1e-4)


def test_explain_folder_takes_the_targets_of_a_list(model, sources, tmp_path):
    listed = tmp_path / "list.csv"
    with listed.open("w", newline="") as stream:
        csv.writer(stream).writerows([("path", "target"), (sources[0], "bee"), (sources[1], "")])
    found = [result.labels for _, result in model.explain_folder(listed, targets=["ape", "cat"])]
    assert found == [("bee",), ("ape", "cat")]


def test_explain_folder_refuses_at_the_call(model, tmp_path):
    with pytest.raises(ValueError, match="no such folder"):
        model.explain_folder(tmp_path / "missing")
    with pytest.raises(ValueError, match="topk"):
        model.explain_folder(tmp_path, topk=0)
    (tmp_path / "x.jpg").touch()
    with pytest.raises(TargetError):
        model.explain_folder(tmp_path, targets="no such class")
