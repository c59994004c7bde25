from __future__ import annotations

import csv
import json
import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from camtool.folder.entry import COLUMNS, Unexplained
from camtool.folder.results import cell, escaped, write_failed

pq = pytest.importorskip("pyarrow.parquet", reason="parquet needs pyarrow")

NAMES = ["line\nbreak.jpg", "cr\rname.jpg", 'quote".jpg', "bytes\udcff.jpg", "ü.jpg", "=1+1.jpg"]
TEXTS = st.lists(st.sampled_from(("\\", "\udcff", "udcff", "'", "=", "a", "\t", "\n"))).map("".join)


@pytest.fixture(scope="module")
def source(tmp_path_factory, make_pictures, make_picture):
    folder = make_pictures(tmp_path_factory.mktemp("results") / "photos", 6)
    for seed, name in enumerate(NAMES):
        (folder / name).write_bytes(make_picture(seed))
        (folder / f"bad {name}").write_bytes(b"")
    return folder


@pytest.fixture(scope="module")
def output(source, tiny, server, tmp_path_factory):
    folder = tmp_path_factory.mktemp("results") / "out"
    options = ("--results", "parquet,csv,jsonl", "--coco", "-k", "2", "--save", "none")
    log = folder.with_name("log")
    server.start(log, "batch", source, "-o", folder, "-m", tiny, *options)
    assert server.wait() == 1, log.read_text()
    return folder


def read_csv(path):
    """A table as its documentation says it is read."""
    with path.open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    return [{name: text.removeprefix("'") for name, text in row.items()} for row in rows]


def unescaped(text):
    """The name of which `escaped` made a text."""

    def byte(match):
        slashes, code = match.groups()
        literal = slashes[: len(slashes) // 2]
        return literal + (chr(int(code, 16)) if len(slashes) % 2 else f"u{code}")

    return re.sub(r"(\\+)u(d[89a-f][0-9a-f]{2})", byte, text)


@given(TEXTS)
def test_names_can_be_told_from_what_is_written(name):
    written = cell(name)
    assert written.encode("utf-8").decode() == written
    assert not written.startswith(tuple("=+-@\t\r\n"))
    # Backslashes before a byte are doubled, others are not.
    assert unescaped(written.removeprefix("'")) == name
    assert name.isascii() is False or "\\" in name or escaped(name) == name


@pytest.mark.parametrize("start", [*"=+-@\t\r\n'＝＋－＠"])
def test_no_cell_is_a_formula(tmp_path, start):
    names = [f"{start}1+1.jpg", "-", "1=1.jpg", "it's.jpg"]
    entries = [(n, Unexplained(name, f"{start}reason")) for n, name in enumerate(names)]
    assert write_failed(tmp_path / "failed.csv", lambda: iter(entries)) == 4
    with (tmp_path / "failed.csv").open(newline="", encoding="utf-8") as stream:
        raw = list(csv.reader(stream))[1:]
    assert [row[0] for row in raw] == [f"'{names[0]}", "'-", "1=1.jpg", "it's.jpg"]
    assert {row[1] for row in raw} == {f"'{start}reason"}
    assert [row["path"] for row in read_csv(tmp_path / "failed.csv")] == names


def test_the_three_formats_say_the_same(output):
    lines = (output / "results.jsonl").read_text(encoding="utf-8").split("\n")[:-1]
    rows = [json.loads(line) for line in lines]
    assert rows == pq.read_table(output / "results.parquet").to_pylist()
    assert [list(row) for row in rows] == [list(COLUMNS)] * 24
    for row, text in zip(rows, read_csv(output / "results.csv"), strict=True):
        assert {key: "" if value is None else str(value) for key, value in row.items()} == text


def test_rows_are_in_the_order_of_the_source_and_of_rank(output):
    rows = read_csv(output / "results.csv")
    paths = [row["path"] for row in rows[::2]]
    assert paths == [row["path"] for row in rows[1::2]]
    assert {*map(escaped, NAMES)} < set(paths)
    assert paths[:6] == [f"{n:04d}.jpg" for n in range(6)]
    assert [row["rank"] for row in rows] == ["1", "2"] * 12


def test_numbers_agree_with_explain(output, source, tiny):
    import camtool

    model = camtool.load(tiny, device="cpu")
    rows = pq.read_table(output / "results.parquet").to_pylist()
    for row in rows[:12]:
        k = row["rank"] - 1
        one = model.explain(source / row["path"], topk=2)
        assert row["label"] == one.labels[k]
        assert row["index"] == one.indices[k]
        assert row["logit"] == pytest.approx(one.logits[k], abs=1e-4)
        assert row["probability"] == pytest.approx(one.probabilities[k], abs=1e-5)
        assert row["peak"] == pytest.approx(one.maps[k].max(), abs=1e-4)
        assert (row["width"], row["height"]) == one.geometry.size
        assert 0 <= row["entropy"] <= 1
        assert abs(row["residual"] - one.residual[k]) <= 1e-5
        assert (row["exact"], row["method"], row["steps"]) == (True, "cam", 1)
        if row["x0"] is not None:
            assert 0 <= row["x0"] < row["x1"] <= row["width"]
            assert 0 < row["share"] <= 1


def test_failures_are_named_as_results_are(output):
    rows = read_csv(output / "failed.csv")
    assert sorted(row["path"] for row in rows) == sorted(escaped(f"bad {name}") for name in NAMES)
    assert {row["reason"] for row in rows} == {"is empty (0 bytes)"}


def test_timings_of_every_picture_that_was_explained(output):
    rows = read_csv(output / "timings.csv")
    done = {row["path"] for row in read_csv(output / "results.csv")}
    assert {row["path"] for row in rows} == done
    assert all(0 < float(row["milliseconds"]) < 1e5 for row in rows)


def test_coco_is_a_detection_file(output):
    coco = json.loads((output / "coco.json").read_text())
    images = {image["id"]: image for image in coco["images"]}
    categories = {category["id"]: category["name"] for category in coco["categories"]}
    assert len(images) == len(coco["images"]) == 12
    assert list(categories.values()) == ["ape", "bee", "cat", "dog", "elk"]
    assert coco["annotations"]
    assert len({found["id"] for found in coco["annotations"]}) == len(coco["annotations"])
    for found in coco["annotations"]:
        image = images[found["image_id"]]
        x, y, width, height = found["bbox"]
        assert found["category_id"] in categories
        assert found["area"] == width * height > 0
        assert 0 <= x <= x + width <= image["width"]
        assert 0 <= y <= y + height <= image["height"]
        assert 0 < found["score"] <= 1


def test_coco_boxes_are_those_of_the_results(output):
    rows = [row for row in read_csv(output / "results.csv") if row["x0"]]
    coco = json.loads((output / "coco.json").read_text())
    names = {image["id"]: image["file_name"] for image in coco["images"]}
    for row, found in zip(rows, coco["annotations"], strict=True):
        assert row["path"] == names[found["image_id"]]
        assert found["bbox"][:2] == [int(row["x0"]), int(row["y0"])]
        assert found["score"] == float(row["probability"])


@pytest.mark.slow
def test_coco_loads_with_pycocotools(output):
    pycocotools = pytest.importorskip("pycocotools.coco", reason="pycocotools is not installed")
    coco = pycocotools.COCO(str(output / "coco.json"))
    assert len(coco.getImgIds()) == 12


def test_the_record_of_the_run(output):
    record = json.loads((output / "run.json").read_text())
    assert (record["total"], record["done"], record["failed"], record["new"]) == (18, 12, 6, 12)
    assert record["pictures_per_second"] > 0
    assert math.isfinite(record["seconds"])
    assert len(record["settings"]["sha256"]) == 64
    assert record["settings"]["topk"] == 2
    assert {"camtool", "torch"} <= record.keys()


def test_the_report_finds_its_files(output, source):
    import re
    from urllib.parse import unquote_to_bytes

    page = (output / "report.html").read_text()
    links = set(re.findall(r'"\./([^"]+)"', page))
    assert len(links) == 24
    for link in links:
        path = (output / unquote_to_bytes(link).decode("utf-8", "surrogateescape")).resolve()
        assert path.is_file(), path
