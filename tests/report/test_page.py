from __future__ import annotations

import base64
import hashlib
import json
import re
import tracemalloc

import numpy as np
import pytest

from camtool.report import write_report


def named(records, kind, values):
    """A record with the names that the page itself gives for its kind."""
    fields = zip(records[kind].items(), values, strict=True)
    return {
        name: [named(records, listed, value) for value in values] if listed else values
        for (name, listed), values in fields
    }


def read(page):
    """Data of a page, found as a browser finds it: up to the first end tag."""
    text = page.read_text("utf-8")
    data = re.search(r'<script type="application/json" id="data">(.*?)</script', text, re.S)[1]
    return named(json.loads(data)["records"], "Page", json.loads(data)["page"])


def test_page_holds_what_the_rows_say(tmp_path, row):
    rows = [row("a.png"), row("a.png", label="dog", index=5, rank=1, box=None, share=float("nan"))]
    page = write_report(tmp_path, [*rows, row("b.png")], {"Source": "p"}, [("c.png", "truncated")])
    data = read(page)
    assert page == tmp_path / "report.html"
    assert data["meta"] == {"Source": "p"}
    assert data["failed"] == [{"path": "c.png", "reason": "truncated"}]
    assert data["labels"] == [{"number": 0, "label": "cat"}, {"number": 5, "label": "dog"}]
    assert [picture["path"] for picture in data["pictures"]] == ["a.png", "b.png"]
    first, second = data["pictures"][0]["classes"]
    numbers = ("probability", "logit", "peak", "share", "entropy", "residual", "box", "region")
    assert [first[name] for name in numbers] == [
        *(0.9, 7.5, 28.0, 0.8, 2.0, -3e-7),
        [90, 60, 210, 140],
        [0, 0, 300, 200],
    ]
    assert (second["position"], second["rank"]) == (1, 1)
    assert second["share"] is second["box"] is None


def test_a_picture_listed_twice_is_two_pictures(tmp_path, row):
    rows = [row("a.png"), row("a.png", thumb="report/1.png")]
    assert read(write_report(tmp_path, rows, {}))["total"] == 2


def test_only_the_predicted_class_counts(tmp_path, row):
    rows = [row("a.png"), row("a.png", label="dog", index=5, rank=1)]
    classes = read(write_report(tmp_path, rows, {}))["classes"]
    assert [(row["position"], row["pictures"]) for row in classes] == [(0, 1), (-1, 1)]


def test_an_empty_folder_has_a_page(tmp_path):
    data = read(write_report(tmp_path, [], {}))
    assert (data["total"], data["pictures"], data["classes"]) == (0, [], [])


def test_the_same_rows_give_the_same_bytes(tmp_path, row):
    rows = [row(f"{i}.png") for i in range(5)]
    first = write_report(tmp_path, rows, {"Model": "m"}).read_bytes()
    assert write_report(tmp_path, rows, {"Model": "m"}).read_bytes() == first


def test_policy_allows_this_script_and_style_and_no_network(tmp_path, row):
    text = write_report(tmp_path, [row("a.png")], {}).read_text("utf-8")
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', text)[1]
    for tag in ("style", "script"):
        body = re.search(rf"<{tag}>(.*?)</{tag}>", text, re.S)[1]
        digest = base64.b64encode(hashlib.sha256(body.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy
    assert "default-src 'none'" in policy
    assert not re.search(r"https?:|//[a-z]+\.|innerHTML|style=", text)


def test_hostile_text_can_not_leave_the_data(tmp_path, row):
    hostile = "</script><script>alert(1)</script>\u2028\udcff<!--.png"
    rows = [row(hostile, label=hostile, picture=hostile, overlay=hostile, target=hostile)]
    page = write_report(tmp_path, rows, {hostile: hostile}, [(hostile, hostile)])
    assert page.read_text("utf-8").lower().count("</script") == 2
    assert read(page)["pictures"][0]["path"].startswith("</script>")


def test_a_large_folder_is_thinned_but_counted(tmp_path, row, spot):
    odd = 17
    rows = [row(f"{i}.png", map=spot(0.1, 0.1) if i == odd else spot(0.7, 0.6)) for i in range(100)]
    data = read(write_report(tmp_path, rows, {}, limit=10))
    assert data["total"] == 100
    assert 10 <= len(data["pictures"]) <= 10 + 24
    row = data["classes"][0]
    assert row["pictures"] == 100
    assert data["pictures"][row["odd"][0]["place"]]["path"] == f"{odd}.png"


def test_nothing_is_left_when_the_rows_break(tmp_path, row):
    def broken():
        yield row("a.png")
        raise RuntimeError("lost")

    with pytest.raises(RuntimeError, match="lost"):
        write_report(tmp_path, broken(), {})
    with pytest.raises(RuntimeError, match="lost"):
        write_report(tmp_path, [row("a.png")], {}, (("x", "y") for row in broken()))
    assert list(tmp_path.iterdir()) == []


def test_an_empty_map_is_refused(tmp_path, row):
    with pytest.raises(ValueError, match="two dimensions"):
        write_report(tmp_path, [row("a.png", map=np.zeros((0, 4)))], {})


def peak_memory(folder, rows):
    tracemalloc.start()
    write_report(folder, rows, {}, limit=50)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak


@pytest.mark.slow
def test_memory_does_not_grow_with_the_folder(tmp_path, row):
    few, many = ((row(f"{i}.png") for i in range(n)) for n in (200, 2000))
    peak_memory(tmp_path, few)
    few = (row(f"{i}.png") for i in range(200))
    assert peak_memory(tmp_path, many) < peak_memory(tmp_path, few) + 50_000
