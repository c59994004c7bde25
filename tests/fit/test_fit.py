"""`camtool fit` from end to end: what it writes explains, exactly, and is the same every time."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from threading import Event

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import camtool
from camtool.cli import app
from camtool.engines.stream import explain_stream
from camtool.fit import features
from camtool.fit.base import check_base
from camtool.folder import workspace
from camtool.images import read_reduced
from camtool.loading import load
from camtool.networks import fitted as files
from camtool.networks import torchvision as zoo
from camtool.prepared import Prepared, from_tensor

ROOT = Path(__file__).parents[2]


def held(document) -> list[str]:
    return [answer["path"] for answer in document["held"]]


def test_the_file_says_what_was_measured_and_where(coloured, fitted, tmp_path) -> None:
    data = coloured()
    found = fitted(data)
    assert [one["label"] for one in found["classes"]] == ["blue", "green", "red"]
    assert [(one["fitted"], one["held"]) for one in found["classes"]] == [(10, 2)] * 3
    assert found["accuracy"]["value"] > 80 > found["majority"]
    assert [point["pictures"] for point in found["curve"]] == []
    cam = camtool.load(tmp_path / "mine.safetensors", device="cpu")
    assert cam.labels == ("blue", "green", "red")
    assert cam.activation == "softmax"
    assert cam.preprocessing.size == 64
    for answer in found["held"]:
        e = cam.explain(answer["path"], topk=3)
        assert e.exact
        assert np.abs(e.residual).max() < 1e-5 * np.ptp(e.all_logits)
        probabilities = dict(zip(e.indices.tolist(), e.probabilities.tolist(), strict=True))
        wanted = [probabilities[k] for k in range(3)]
        assert answer["probabilities"] == pytest.approx(wanted, abs=2e-5)


@pytest.mark.slow
def test_a_process_that_has_only_camtool_loads_it_and_runs_nothing(fitted, coloured, tmp_path):
    fitted(coloured(4))
    script = (
        "import sys; sys.path.insert(0, sys.argv[2]); import camtool; "
        "print(camtool.load(sys.argv[1], offline=True).labels)"
    )
    line = [sys.executable, "-c", script, "mine.safetensors", str(ROOT)]
    done = subprocess.run(line, capture_output=True, text=True, cwd=tmp_path, check=True)
    assert done.stdout.strip() == "('blue', 'green', 'red')"
    content = (tmp_path / "mine.safetensors").read_bytes()
    assert str(tmp_path).encode() not in content


@pytest.mark.slow
def test_explain_batch_evaluate_and_inspect_take_it(fitted, coloured, tmp_path) -> None:
    data = coloured(6)
    fitted(data)
    with (data / "boxes.csv").open("w", newline="") as file:
        rows = [(f"red/{n}.png", 4, 4, 60, 60) for n in range(6)]
        csv.writer(file).writerows([("path", "x0", "y0", "x1", "y1"), *rows])
    mine = ("-m", str(tmp_path / "mine.safetensors"))
    for words in (
        ("explain", str(data / "red" / "0.png"), "-o", str(tmp_path / "panels")),
        ("batch", str(data), "-o", str(tmp_path / "out")),
        ("evaluate", str(data), "--format", "csv"),
        ("inspect",),
    ):
        if words == ("inspect",):
            result = CliRunner().invoke(app, ["inspect", mine[1]])
        else:
            result = CliRunner().invoke(app, [*words, *mine])
        assert result.exit_code == 0, result.output
    assert (tmp_path / "out" / "report.html").exists()


def test_features_are_what_the_network_pools(coloured, tiny) -> None:
    cam = load(tiny, device="cpu")
    path = coloured(1) / "red" / "0.png"
    [(_, explained)] = explain_stream(features.pooling(cam), [path])
    inputs = cam.inputs([cam.prepare(path)])
    with torch.no_grad():
        pooled = cam.network.module.get_submodule("features")(inputs).mean((2, 3))
    # Fused convolutions round otherwise than plain ones; the identity adds nothing to that.
    np.testing.assert_allclose(explained.all_logits, pooled[0].numpy(), rtol=1e-4, atol=1e-6)


def test_views_are_of_the_pictures_own_aspect_and_seeded() -> None:
    image = np.random.default_rng(0).integers(0, 256, (60, 90, 3), np.uint8)
    np.testing.assert_array_equal(features.changed(image, b"a" * 32, 1), image[:, ::-1])
    crops = [features.changed(image, bytes([n]) * 32, view) for n in (0, 1) for view in (2, 3)]
    for crop in crops:
        assert 0.7 * 60 - 1 <= crop.shape[0] <= 60
        assert crop.shape[1] / crop.shape[0] == pytest.approx(1.5, abs=0.03)
    assert len({crop.tobytes() for crop in crops}) == 4
    again = features.changed(image, bytes(32), 2)
    np.testing.assert_array_equal(crops[0], again)


def test_a_picture_is_decoded_once_for_all_its_views(
    coloured, fitted, fitting, monkeypatch
) -> None:
    data, read = coloured(5), []

    def counted(source, *rest, **options):
        read.append(source)
        return read_reduced(source, *rest, **options)

    monkeypatch.setattr("camtool.prepared.read_reduced", counted)
    words = ("--views", "4", "-j", "1", "--no-report")
    fitted(data, *words)
    assert sorted(read) == sorted(data.glob("*/*.png"))
    (data / "red" / "0.png").write_bytes(b"\x89PNG\r\n broken")
    assert fitting(data, *words).exit_code == 1


def test_what_memory_does_not_hold_is_refused_before_anything_is_computed(
    coloured, fitting, monkeypatch
) -> None:
    monkeypatch.setattr("camtool.fit.run.spare_memory", lambda: 10_000)
    data = coloured(5)
    result = fitting(data, "--no-report")
    assert result.exit_code == 2
    assert result.output.splitlines()[-1].endswith(
        "of memory, and 0.0 are free; take fewer views (--views 1)"
    )
    assert not list(data.parent.rglob("*.features"))


def prepared() -> Prepared:
    return from_tensor("a", torch.zeros(3, 4, 4))


def test_views_that_are_read_at_once_wait_for_one_another() -> None:
    recent, begun, go = features.Recent(1), Event(), Event()
    path, found, other = Path("a"), prepared(), prepared()

    def slow():
        begun.set()
        go.wait()
        return found

    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(recent.get, path, slow)
        begun.wait()
        second = pool.submit(recent.get, path, pytest.fail)
        go.set()
        assert first.result() is second.result() is found
    for name in "bc":
        recent.get(Path(name), prepared)
    assert recent.get(path, lambda: other) is other


@pytest.mark.slow
def test_the_same_again_gives_the_same_bytes_and_runs_no_network(
    coloured, fitted, tmp_path, monkeypatch
) -> None:
    data, kept = coloured(), ("--features", tmp_path / "kept")
    first = fitted(data, *kept, "-j", "1", output="a.safetensors")
    again = fitted(data, *kept, "-j", "3", output="b.safetensors")
    assert {**first, "file": ""} == {**again, "file": ""}
    anew = fitted(data, output="c.safetensors")
    assert {**first, "file": ""} == {**anew, "file": ""}
    contents = {(tmp_path / f"{name}.safetensors").read_bytes() for name in "abc"}
    assert len(contents) == 1
    monkeypatch.setattr(features, "ENGINES", {})
    other = fitted(data, *kept, "--seed", "1", "--strength", "0.01", output="d.safetensors")
    assert held(other) != held(first)
    assert other["strength"] == 0.01
    assert other["penalties"] == []


@pytest.mark.slow
def test_killed_and_started_again_it_ends_with_the_same_file(
    coloured, tiny, server, tmp_path, wait_until
) -> None:
    data = coloured(60)
    line = ("fit", data, "--base", tiny, "-b", "2", "-o")
    server.start(tmp_path / "log", *line, tmp_path / "whole.safetensors")
    assert server.wait() == 0
    output, kept = tmp_path / "mine.safetensors", tmp_path / "mine.features"

    def size() -> int:
        return sum(file.stat().st_size for file in kept.glob("*"))

    whole = sum(file.stat().st_size for file in (tmp_path / "whole.features").glob("*"))
    in_the_middle = 0
    for _ in range(4):
        before = size()
        pid = server.start(tmp_path / "log", *line, output)
        wait_until(lambda before=before: size() > before or output.exists())
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        server.wait()
        in_the_middle += 0 < size() < whole
        # As a crash of the machine may leave it: a record torn in its middle.
        for file in kept.glob("*"):
            os.truncate(file, max(0, file.stat().st_size - 7))
    assert in_the_middle >= 2
    before = size()
    pid = server.start(tmp_path / "log", *line, output)
    wait_until(lambda: size() > before)
    os.kill(pid, signal.SIGINT)
    assert server.wait() == 130, (tmp_path / "log").read_text()
    assert "the same command continues" in (tmp_path / "log").read_text()
    assert not output.exists()
    server.start(tmp_path / "log", *line, output)
    assert server.wait() == 0, (tmp_path / "log").read_text()
    assert output.read_bytes() == (tmp_path / "whole.safetensors").read_bytes()


@pytest.mark.slow
def test_a_damaged_record_is_computed_anew(coloured, fitted, tmp_path) -> None:
    data, kept = coloured(5), tmp_path / "kept"
    fitted(data, "--features", kept, output="a.safetensors")
    [file] = kept.iterdir()
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    fitted(data, "--features", kept, output="b.safetensors")
    both = [(tmp_path / f"{name}.safetensors").read_bytes() for name in "ab"]
    assert both[0] == both[1]


def test_two_at_once_do_not_share_a_file(coloured, fitted, fitting, tmp_path) -> None:
    data, kept = coloured(3), tmp_path / "kept"
    fitted(data, "--features", kept)
    [file] = kept.iterdir()
    with file.open("ab") as stream:
        workspace.lock(stream, kept)
        refused = fitting(data, "--features", kept)
    assert refused.exit_code == 2
    assert "another run is writing there" in refused.stderr


def test_pictures_of_ones_own_to_measure_on(coloured, fitted) -> None:
    data, other = coloured(6), coloured(4, "other", first=50)
    shutil.copy(data / "red" / "0.png", other / "red" / "known.png")
    (other / "pink").mkdir()
    shutil.copy(other / "red" / "50.png", other / "pink" / "p.png")
    (other / "red" / "50.png").unlink()
    found = fitted(data, "--validation", other)
    assert sorted(held(found)) == sorted(map(str, [*other.glob("[bgr]*/*.png")]))
    assert [(one["fitted"], one["held"]) for one in found["classes"]] == [(6, 4), (6, 4), (5, 4)]
    said = {problem["path"]: problem["reason"] for problem in found["problems"]}
    assert "one held out; not fitted on" in said[str(data / "red" / "0.png")]
    assert "no class is called 'pink'" in said[str(other / "pink" / "p.png")]
    assert [str(data / "red" / "0.png"), str(other / "red" / "known.png")] in found["duplicates"]


def test_several_labels_and_one(coloured, fitted, tmp_path) -> None:
    data = coloured(10)
    rows = [("path", "label")]
    for colour, label in (("red", "warm;loud"), ("green", "loud"), ("blue", "")):
        rows += [(f"{colour}/{n}.png", label) for n in range(10)]
    for name, chosen in (("two", rows), ("one", [(a, b[:4].strip(";")) for a, b in rows])):
        with (data / f"{name}.csv").open("w", newline="") as file:
            csv.writer(file).writerows(chosen if name == "two" else _loud_alone(rows))
    found = fitted(data / "two.csv", "--multi-label")
    assert found["form"] == "sigmoid"
    assert [one["label"] for one in found["classes"]] == ["loud", "warm"]
    assert found["accuracy"]["value"] > 60
    cam = camtool.load(tmp_path / "mine.safetensors", device="cpu")
    e = cam.explain(data / "red" / "0.png", topk=2)
    assert e.probabilities.sum() > 1.2
    found = fitted(data / "one.csv", "--multi-label", output="one.safetensors")
    cam = camtool.load(tmp_path / "one.safetensors", device="cpu")
    assert cam.labels == ("loud",)
    assert cam.activation == "sigmoid"
    likely = [float(cam.explain(data / c / "1.png").probabilities[0]) for c in ("red", "blue")]
    assert likely[0] > 0.5 > likely[1]


def _loud_alone(rows):
    return [rows[0], *((path, "loud" if "loud" in label else "") for path, label in rows[1:])]


@pytest.mark.slow
def test_uneven_classes_are_balanced_unless_told(coloured, fitted, tmp_path) -> None:
    data = coloured(5, blue=16)
    made = {}
    for words in ((), ("--balance", "no"), ("--balance", "yes")):
        fitted(data, *words, "--strength", "0.001", "--features", tmp_path / "kept")
        made[words] = files.metadata(tmp_path / "mine.safetensors").made["balanced"]
    assert [*made.values()] == [True, False, True]
    assert fitted(coloured(6, "even"))["classes"][0]["fitted"] == 5
    assert not files.metadata(tmp_path / "mine.safetensors").made["balanced"]


def test_all_that_is_wrong_is_told_and_the_rest_is_fitted(coloured, fitting, tmp_path) -> None:
    data = coloured(5, red=1)
    (data / "blue" / "broken.png").write_bytes(b"\x89PNG\r\n broken")
    (data / "grey").mkdir()
    shutil.copy(data / "green" / "0.png", data / "green" / "\x1b[31m.png")
    result = fitting(data)
    assert "1 groups of pictures are nearly the same" in result.stderr
    assert "\x1b" not in result.output
    assert result.exit_code == 1, result.output
    said = result.stderr
    assert "broken.png" in said
    assert f"{data / 'grey'}: holds no pictures; the class is left out" in said
    assert "red: has one picture alone" in said
    assert camtool.load(tmp_path / "mine.safetensors", device="cpu").labels[-1] == "red"


@pytest.mark.slow
def test_what_people_read(coloured, fitting, tmp_path) -> None:
    result = fitting(coloured())
    assert "36 pictures of 3 classes, 12 of each" in result.stderr
    assert "Fitted on 30 pictures; strength " in result.stdout
    assert "95% interval" in result.stdout
    assert "the most frequent answer alone would be on 33.3 %" in result.stdout
    assert f"camtool explain -m {tmp_path / 'mine.safetensors'} photo.jpg" in result.stdout
    assert "nothing is known" in fitting(coloured(), "--holdout", "0").stdout


def test_the_learning_curve_grows_to_all_pictures(coloured, fitted) -> None:
    found = fitted(coloured(24), "--holdout", "0.4")
    counts = [point["pictures"] for point in found["curve"]]
    assert counts == sorted(counts)
    assert counts[-1] == sum(one["fitted"] for one in found["classes"])
    assert found["curve"][-1]["accuracy"] == found["accuracy"]


@pytest.mark.parametrize(
    ("words", "code", "reason"),
    [
        (("--base", "squeezenet1_1", "--weights", "random"), 3, "its head is"),
        (("--base", "mobilenet_v3_small", "--weights", "random"), 3, "can't be the base"),
        (("--base", "nonsense"), 3, "is no architecture"),
    ],
)
def test_a_base_that_can_not_be_is_refused_in_a_line(coloured, fitting, words, code, reason):
    result = fitting(coloured(1), *words)
    assert result.exit_code == code
    assert reason in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1


def test_a_module_of_ones_own_is_no_base() -> None:
    cam = load(zoo.random_module("shufflenet_v2_x0_5", 3), device="cpu")
    with pytest.raises(camtool.ModelError, match="ShuffleNetV2 can't be the base: its base is"):
        check_base(cam)


def test_wrong_usage_is_one_line(coloured, fitting, tmp_path) -> None:
    data = coloured(2)
    for source, words in (
        (data / "red", ()),
        (tmp_path / "gone", ()),
        (data, ("--multi-label",)),
        (data, ("-o", tmp_path / "mine.pth")),
        (data, ("-o", data / "red" / "0.png" / "mine.safetensors")),
    ):
        result = fitting(source, *words)
        assert result.exit_code == 2, result.output
        assert "Traceback" not in result.output


@pytest.mark.slow
def test_other_bases(coloured, fitted, fitting, tmp_path) -> None:
    torch.save(zoo.random_module("resnet18").state_dict(), tmp_path / "body.pth")
    data = coloured(4)
    words = ("--weights", tmp_path / "body.pth", "--size", "64", "--fit", "squash")
    found = fitted(data, *words, base="resnet18")
    assert found["base"] == "resnet18"
    first = camtool.load(tmp_path / "mine.safetensors", device="cpu")
    assert first.preprocessing.size == 64
    assert first.explain(data / "red" / "0.png").exact
    # What was fitted can be the base of another fit, of other classes.
    fitted(data, "-w", "random", base="timm/test_resnet", output="timm.safetensors")
    assert camtool.load(tmp_path / "timm.safetensors", device="cpu").network.name.startswith(
        "timm/"
    )
    shutil.rmtree(data / "green")
    done = fitting(data, base=tmp_path / "mine.safetensors", output="next.safetensors")
    assert "maps of two classes show what tells one from the other" in done.stderr
    assert camtool.load(tmp_path / "next.safetensors", device="cpu").labels == ("blue", "red")


def test_an_output_inside_the_data_is_no_class(coloured, fitted) -> None:
    data = coloured(4)
    for _ in range(2):
        found = fitted(data, output=data / "mine.safetensors")
        assert {problem["path"] for problem in found["problems"]} <= {str(data)}
        assert len(found["classes"]) == 3


def test_an_output_elsewhere_is_made(coloured, tiny, tmp_path) -> None:
    output = tmp_path / "new" / "deep" / "mine.safetensors"
    words = ("fit", coloured(3), "--base", tiny, "--output", output)
    result = CliRunner().invoke(app, [os.fspath(word) for word in words])
    assert result.exit_code == 0, result.output
    assert output.exists()


def test_json_is_one_document_with_null_for_what_is_not_known(coloured, fitting) -> None:
    result = fitting(coloured(3), "--json", "--holdout", "0")
    found = json.loads(result.stdout, parse_constant=pytest.fail)
    assert found["accuracy"] is None is found["majority"]
    assert Path(found["file"]).exists()


@pytest.mark.slow
def test_how_pictures_meet_the_base_is_kept_in_the_file(coloured, fitted, tmp_path) -> None:
    data = coloured(4)
    words = (
        "--size",
        "48",
        "--mean",
        ".4,.5,.6",
        "--std",
        ".2,.3,.4",
        "--interpolation",
        "nearest",
    )
    first = fitted(data, *words)
    spec = camtool.load(tmp_path / "mine.safetensors", device="cpu").preprocessing
    assert (spec.size, spec.mean, spec.std) == (48, (0.4, 0.5, 0.6), (0.2, 0.3, 0.4))
    assert spec.interpolation == "nearest"
    second = fitted(data, *words, "--fit", "squash")
    assert files.metadata(tmp_path / "mine.safetensors").made["fit"] == "squash"
    assert held(first) == held(second)
    assert first["penalties"] != second["penalties"]


@pytest.mark.slow
def test_what_runs_through_the_network(coloured, fitted, fitting, tmp_path, monkeypatch) -> None:
    data, sizes = coloured(5), []
    explain = camtool.CamModel.explain_indices

    def counted(self, batch, *rest):
        sizes.append(len(batch))
        return explain(self, batch, *rest)

    monkeypatch.setattr(camtool.CamModel, "explain_indices", counted)
    fitted(data, "--batch-size", "3", "--views", "4", "--workers", "1", "--no-report")
    assert max(sizes) == 3
    assert sum(sizes) == 3 * 5 * 4
    assert files.metadata(tmp_path / "mine.safetensors").made["views"] == 4
    failed = fitting(data, "--max-pixels", str(72 * 64))
    assert failed.exit_code == 1
    assert "0.png" in failed.stderr
    assert "1.png" not in failed.stderr


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("--base", "resnet18", "--offline"), "are not on this machine"),
        (("--device", "cuda:77"), "CUDA devices"),
    ],
)
def test_what_can_not_be_had_is_refused(coloured, fitting, words, reason, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "empty"))
    monkeypatch.setenv("CAMTOOL_HUB", "http://127.0.0.1:9")
    refused = fitting(coloured(1), *words)
    assert refused.exit_code == 3
    assert reason in refused.stderr
