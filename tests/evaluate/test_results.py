from __future__ import annotations

import json

import camtool
from camtool.evaluate.datasets import READERS
from camtool.evaluate.figures import TITLES
from camtool.evaluate.results import HEADINGS, PUBLISHED, Highlights


def test_the_document_holds_every_number_as_it_was_found(make_result):
    result = make_result()
    found = json.loads(json.dumps(result.to_json(), allow_nan=False))
    assert list(found) == [
        "camtool", "model", "format", "fit", "top1", "top5", "mode", "images", "threshold",
        "thresholds", "metrics", "published", "problems",
    ]  # fmt: skip
    assert found["camtool"] == camtool.__version__
    assert found["model"] == {
        "name": "gapnet",
        "weights": "x.pth",
        "head": {"kind": "linear"},
        "fit": "whole",
        "size": 72,
        "dtype": "float32",
    }
    assert found["thresholds"] == [0, 0.2, 0.4, 0.6, 0.8]
    assert found["metrics"]["max_box_acc"]["network"] == {
        "value": 63.5,
        "low": 62.5,
        "high": 64.5,
        "threshold": 0.2,
        "curve": [10, 63.5, 30, 20, 0],
    }
    assert len(found["metrics"]["max_box_acc"]["centre_box"]["curve"]) == 100
    assert found["metrics"]["pxap"]["whole_image"] == {
        "value": 50,
        "low": 49,
        "high": 51,
        "threshold": None,
        "precision": [1, 0.5, 0.4, 0.3],
        "recall": [0.25, 0.5, 0.75, 1],
    }
    assert found["problems"] == [{"path": "b.png", "reason": "the picture is missing"}]


def test_a_table_has_a_row_for_every_metric(make_result):
    headings, *rows = make_result().table()
    assert headings == HEADINGS[:-1]
    assert [row[0] for row in rows][:2] == ["GT-known localization", "MaxBoxAcc"]
    assert rows[1] == ("MaxBoxAcc", "63.5 (62.5 to 64.5)", "0.200", "57.0", "52.0")
    assert rows[2][2] == ""


def test_published_figures_stand_in_a_column_of_their_own(make_result):
    result = make_result(data_format="imagenet")
    assert result.to_json()["published"] == PUBLISHED["imagenet"]
    headings, *rows = result.table()
    assert headings == HEADINGS
    assert [row[0] for row in rows if row[-1]] == ["MaxBoxAccV2"]
    # Other data has this format too.
    assert all("(ImageNet, " in row[-1] for row in rows if row[-1])


def test_every_published_figure_belongs_to_a_format_and_a_metric():
    assert set(PUBLISHED) <= set(READERS)
    assert all(set(figures) <= set(TITLES) for figures in PUBLISHED.values())


def test_highlights_keep_a_fixed_number_in_order(make_case):
    highlights = Highlights(keep=3)
    for n in range(10):
        highlights.add(make_case(n / 10, probability=n / 20, rank=n % 2))
    highlights.add(make_case(None, rank=0))
    highlights.add(make_case(1.0, rank=0))
    assert [case.iou for case in highlights.best] == [1.0, 0.9, 0.8]
    assert [case.iou for case in highlights.worst] == [0.0, 0.1, 0.2]
    assert [case.prediction.probability for case in highlights.wrong] == [9 / 20, 7 / 20, 5 / 20]


def test_of_equal_cases_the_first_is_kept(make_case):
    highlights = Highlights(keep=1)
    for name in ("first.png", "second.png"):
        highlights.add(make_case(0.5, path=name))
    for cases in (highlights.best, highlights.worst, highlights.wrong):
        assert [case.record.path.name for case in cases] == ["first.png"]
