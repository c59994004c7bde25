"""`camtool study` from end to end: its files, its options, what it says of bad data."""

from __future__ import annotations

import csv
import html
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from camtool.cli import app, stop
from camtool.fit import study_data
from camtool.fit.study_page import sentences
from camtool.fit.study_tables import claim_rows, shown, table_rows
from camtool.fit.training import Trainer
from tests.fit.conftest import boxed_by_class

pytestmark = pytest.mark.slow

FAST = ("--size", 32, "--epochs", 2, "--seeds", 1, "--device", "cpu")


def study(data: Path, output: Path, *words: object) -> Result:
    given = ["study", data, "-o", output, *words]
    result = CliRunner().invoke(app, [str(word) for word in given])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def document(output: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((output / "study.json").read_text())
    return found


def timeless(output: Path) -> dict[str, Any]:
    found = document(output)
    for head in found["heads"]:
        del head["seconds"]
    return found


@pytest.fixture(scope="module")
def whole(squares, tmp_path_factory) -> tuple[Path, Result]:
    """A study of four heads and two seeds, and what was printed."""
    output = tmp_path_factory.mktemp("study") / "out"
    words = ("--heads", "gap,dense,max,nin", *FAST, "--seeds", 2, "--json")
    return output, study(squares, output, *words)


def test_the_document_is_printed_and_kept(whole) -> None:
    output, done = whole
    assert done.exit_code == 0
    found = json.loads(done.stdout)
    assert found == document(output)
    assert [head["head"] for head in found["heads"]] == ["gap", "dense", "max", "nin"]
    assert found["seeds"] == [0, 1]
    assert found["settings"]["size"] == 32
    assert found["pictures"] == {"training": [10, 10], "validation": [2, 2], "with_boxes": 4}
    dense = found["heads"][1]
    assert dense["arithmetic"].startswith("128·4·4·100 + 100")
    assert dense["figures"]["at 48"] is None is dense["figures"]["localization"]
    assert found["heads"][0]["figures"]["at 48"] is not None
    assert found["centre_box"]["value"] >= 0
    for head in found["heads"]:
        assert {len(values) for values in head["curves"].values()} == {2}
        assert len(head["best_epochs"]) == len(head["seconds"]) == 2
        figure = head["figures"]["accuracy"]
        assert figure["low"] <= figure["value"] <= figure["high"]
        assert figure["value"] == pytest.approx(100 * head["curves"]["accuracy"][-1])
    assert found["heads"][0]["lead"]["accuracy"] is None
    lead = dense["lead"]["accuracy"]["value"]
    plain = [head["figures"]["accuracy"]["value"] for head in found["heads"]]
    assert lead == pytest.approx(plain[1] - plain[0])


def test_page_and_tables_hold_what_the_document_holds(whole) -> None:
    output, _ = whole
    found = document(output)
    page = html.unescape((output / "study.html").read_text("utf-8"))
    text = re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", page))
    for sentence in sentences(found):
        assert sentence in text
    for row in list(table_rows(found))[1:]:
        for cell in row:
            assert all(part in text for part in re.split(r" \(|\)", cell)), cell
    for claim in found["claims"]:
        assert claim["text"] in text
        assert shown(claim["lead"], "+") in text or claim["lead"] is None
    verdicts = [claim[key] for claim in found["claims"] for key in ("order", "size")]
    for verdict in ("held", "refuted", "not decided"):
        drawn = f'class="verdict {verdict.replace(" ", "-")}"'
        assert page.count(drawn) == verdicts.count(verdict)
    for head in found["heads"]:
        assert head["formula"] in text
        assert head["arithmetic"] in text
    markdown = (output / "study.md").read_text("utf-8")
    for line in claim_rows(found):
        assert f"| {' | '.join(line)} |" in markdown
    for line in table_rows(found):
        assert all(f" {cell} |" in markdown for cell in line)
    assert "<script" not in page
    assert page.count("data:image/jpeg") == 4 * 4
    table = list(csv.DictReader((output / "study.csv").open()))
    assert [row["head"] for row in table] == [head["head"] for head in found["heads"]]
    for record, head in zip(table, found["heads"], strict=True):
        assert float(record["accuracy"]) == pytest.approx(
            head["figures"]["accuracy"]["value"], abs=0.01
        )
        assert int(record["parameters"]) == head["parameters"]
        assert (record["at 24"] == "") == (not head["any_size"])
    with Image.open(output / "curves.png") as picture:
        assert picture.width > 600


def test_without_json_tables_are_printed(whole, squares) -> None:
    output, _ = whole
    before = timeless(output)
    done = study(squares, output, "--heads", "gap,dense,max,nin", *FAST, "--seeds", 2)
    assert done.exit_code == 0
    assert timeless(output) == before
    for row in claim_rows(before):
        assert row[1] in done.stdout
    assert "study.json, study.csv, study.md, study.html, curves.png are in" in done.stdout


def test_heads_and_seeds_are_added_to_what_is_there(squares, tmp_path, monkeypatch) -> None:
    study(squares, tmp_path, "--heads", "gap", *FAST)
    trained: list[Path] = []
    epoch = Trainer.epoch

    def noted(self: Trainer) -> dict[str, float]:
        trained.append(self.checkpoint)
        return epoch(self)

    monkeypatch.setattr(Trainer, "epoch", noted)
    assert study(squares, tmp_path, "--heads", "gap,four", *FAST).exit_code == 0
    assert [path.name for path in trained] == ["four-0.checkpoint"] * 2
    assert [head["head"] for head in document(tmp_path)["heads"]] == ["gap", "four"]


def test_a_signal_stops_after_the_epoch_and_the_same_command_goes_on(
    whole, squares, tmp_path, monkeypatch
) -> None:
    words = ("--heads", "gap,dense,max,nin", *FAST, "--seeds", 2)
    epoch, count = Trainer.epoch, iter(range(1000))

    def interrupted(self: Trainer) -> dict[str, float]:
        if next(count) == 4:
            os.kill(os.getpid(), signal.SIGINT)
        return epoch(self)

    with monkeypatch.context() as patched:
        patched.setattr(Trainer, "epoch", interrupted)
        done = study(squares, tmp_path, *words)
    assert done.exit_code == stop.INTERRUPTED
    assert not (tmp_path / "study.json").exists()
    assert (tmp_path / "runs" / "max-0.checkpoint").exists()
    assert study(squares, tmp_path, *words).exit_code == 0
    assert timeless(tmp_path) == timeless(whole[0])


def test_killed_without_warning_it_ends_the_same(whole, squares, tmp_path) -> None:
    words = ("--heads", "gap,dense,max,nin", *FAST, "--seeds", "2")
    line = [sys.executable, "-m", "camtool", "study", squares, "-o", tmp_path / "out", *words]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    for kept in ("runs/gap-0.json", "runs/dense-1.checkpoint"):
        process = subprocess.Popen([str(word) for word in line], env=environment)
        while process.poll() is None and not (tmp_path / "out" / kept).exists():
            time.sleep(0.01)
        process.kill()
        process.wait()
    done = subprocess.run([str(word) for word in line], env=environment, check=False)
    assert done.returncode == 0
    assert timeless(tmp_path / "out") == timeless(whole[0])


def test_other_settings_or_pictures_are_refused_in_the_same_folder(whole, squares) -> None:
    output, _ = whole
    kept = timeless(output)
    for words in (("--epochs", 3), ("--size", 40), ("--holdout", 0.5), ("--limit", 4)):
        done = study(squares, output, "--heads", "gap", *FAST, *words)
        assert done.exit_code == 2
        assert "another --output" in done.stderr
    assert timeless(output) == kept


@pytest.fixture
def pictures_of(squares, tmp_path) -> Callable[..., dict[str, list[int]]]:
    """Pictures of each half after a study with some options."""

    def run(*words: object) -> dict[str, list[int]]:
        output = tmp_path / str(len(list(tmp_path.iterdir())))
        done = study(squares, output, "--heads", "gap", *FAST, *words)
        assert done.exit_code == 0, done.stderr
        found: dict[str, list[int]] = document(output)["pictures"]
        return found

    return run


def test_which_pictures_are_taken(pictures_of, tmp_path) -> None:
    assert pictures_of("--holdout", 0.5)["training"] == [6, 6]
    assert pictures_of("--limit", 3)["training"] == [3, 3]
    assert pictures_of("--classes", "both=cat,dog")["training"] == [10, 10]
    other = boxed_by_class(tmp_path / "other", 3)
    assert pictures_of("--validation", other)["validation"] == [3, 3]


def test_classes_have_the_names_and_folders_that_are_asked_for(squares, tmp_path) -> None:
    data = boxed_by_class(tmp_path / "data", 6, ("cat", "dog", "ape"))
    out = tmp_path / "out"
    study(data, out, "--heads", "gap", *FAST, "--classes", "pet=cat+dog,ape")
    found = document(out)
    assert found["labels"] == ["pet", "ape"]
    assert found["pictures"]["training"] == [10, 5]
    for wrong in ("cat,cat", "=cat", "wolf,cat"):
        refused = study(data, tmp_path / "no", "--classes", wrong)
        assert refused.exit_code == 2
        assert "--classes" in refused.stderr


def test_quick_is_fewer_seeds_epochs_and_pictures(squares, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(sys.modules["camtool.cli.study"], "QUICK_PICTURES", 8)
    done = study(squares, tmp_path, "--heads", "gap", "--quick", "--size", 32, "--device", "cpu")
    assert done.exit_code == 0
    found = document(tmp_path)
    assert (found["seeds"], found["settings"]["epochs"]) == ([0, 1], 10)
    assert found["pictures"]["training"] == [4, 4]


def test_results_do_not_go_among_the_pictures(squares) -> None:
    for place in (squares, squares / "deep" / "out"):
        done = study(squares, place, "--heads", "gap", *FAST)
        assert done.exit_code == 2
        assert "among the pictures" in done.stderr
    assert not (squares / "deep").exists()


def test_pictures_are_read_by_so_many_threads(squares, tmp_path, monkeypatch) -> None:
    asked: list[int] = []

    def noted(workers: int) -> ThreadPoolExecutor:
        asked.append(workers)
        return ThreadPoolExecutor(workers)

    monkeypatch.setattr(study_data, "ThreadPoolExecutor", noted)
    study(squares, tmp_path, "--heads", "gap", *FAST, "--workers", 3)
    assert asked == [3, 3]


def test_bad_data_is_named_and_the_rest_is_studied(tmp_path) -> None:
    data = boxed_by_class(tmp_path / "data", 6)
    (data / "boxes.csv").unlink()
    for name in ("bee", "one"):
        (data / name).mkdir()
    Image.fromarray(np.zeros((9, 9, 3), np.uint8)).save(data / "one" / "0.png")
    broken = {data / "cat" / "00.png", data / "dog" / "03.png"}
    for path in broken:
        path.write_bytes(path.read_bytes()[:50])
    done = study(data, tmp_path / "out", "--heads", "gap,max", *FAST)
    assert done.exit_code == 1
    lines = [line for line in done.stderr.splitlines() if "epochs" not in line]
    for path in broken:
        assert sum(str(path) in line for line in lines) == 1
    assert any(line.startswith("camtool: bee: the class is left out") for line in lines)
    assert any(line.startswith("camtool: one: the class is left out") for line in lines)
    found = document(tmp_path / "out")
    assert len(found["problems"]) == 4
    assert sum(map(sum, list(found["pictures"].values())[:2])) == 10
    assert found["centre_box"] is None
    page = (tmp_path / "out" / "study.html").read_text("utf-8")
    assert all(path.name in page for path in broken)
    assert "Localization, %" not in page


@pytest.mark.parametrize(
    ("words", "code", "reason"),
    [
        (("--heads", "gap,mean"), 2, "--heads takes gap"),
        (("--device", "cuda:77"), 3, "CUDA devices"),
        (("--classes", "cat"), 2, "two are needed"),
        (("--validation", "nowhere"), 2, "nowhere: is no folder"),
    ],
)
def test_what_can_not_be_studied_is_refused_in_a_line(
    squares, tmp_path, words, code, reason
) -> None:
    done = study(squares, tmp_path / "out", *words)
    assert done.exit_code == code
    assert reason in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()
