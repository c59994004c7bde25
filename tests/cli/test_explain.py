"""`camtool explain`: the table, the document, the files, the exit codes, one line a failure."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

import camtool
from camtool.cli import app
from camtool.networks import torchvision as zoo

MODEL = ["-m", "squeezenet1_1", "--size", "64", "--device", "cpu"]
LABELS = ["cat", "dog", "crane", "crane", "[red]cow"]


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cli")
    torch.save(zoo.random_module("squeezenet1_1", 5).state_dict(), folder / "mine.pth")
    (folder / "labels.txt").write_text("\n".join(LABELS))
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (90, 120, 3), np.uint8)).save(folder / "one.png")
    Image.fromarray(rng.integers(0, 256, (120, 90, 3), np.uint8)).save(folder / "two.jpg")
    return folder


@pytest.fixture
def here(shared: Path, tmp_path: Path) -> Path:
    for name in ("one.png", "two.jpg"):
        shutil.copy(shared / name, tmp_path)
    return tmp_path


@pytest.fixture
def explain(shared: Path):
    model = [*MODEL, "-w", shared / "mine.pth", "--labels", shared / "labels.txt"]

    def run(*arguments: object):
        return _run("explain", *model, *arguments)

    return run


def _run(*words: object):
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    assert "Traceback" not in result.output
    return result


def test_a_table_and_a_panel_beside_the_picture(explain, here: Path) -> None:
    result = explain(here / "one.png")
    assert result.exit_code == 0
    for word in ("label", "probability", "logit", "box", "%", "one.cam.png"):
        assert word in result.stdout
    assert result.stderr == ""
    with Image.open(here / "one.cam.png") as panel:
        assert panel.width > 120
    assert sorted(path.name for path in here.iterdir()) == ["one.cam.png", "one.png", "two.jpg"]


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse such names")
@pytest.mark.parametrize("name", ["a\x1b[2J\nb.png", "a" * 251 + ".png", "ü" * 127, "-a.png"])
def test_odd_names_are_explained_and_printed_on_one_line(explain, here, monkeypatch, name) -> None:
    shutil.copy(here / "one.png", here / name)
    monkeypatch.chdir(here)
    result = explain("--save", "panel,json", "--", name)
    assert result.exit_code == 0, result.stderr
    panel, record = result.stdout.splitlines()[-2:]
    assert panel.startswith("panel: ")
    assert record.startswith("json: ")
    assert all(line.isprintable() for line in (panel, record))
    made = {path.name for path in here.iterdir()} - {"one.png", "two.jpg", name}
    assert len(made) == 2


def test_labels_are_never_read_as_markup(explain, here: Path) -> None:
    assert "[red]cow" in explain(here / "one.png", "-t", 4, "--save", "none").stdout


def test_json_is_one_document_of_the_designs_shape(explain, here: Path) -> None:
    result = explain(here / "one.png", here / "two.jpg", here / "none.jpg", "--json", "-k", 2)
    assert result.exit_code == 1
    document = json.loads(result.stdout)
    assert list(document) == ["camtool", "device", "dtype", "model", "images", "failed"]
    assert document["camtool"] == camtool.__version__
    assert (document["device"], document["dtype"]) == ("cpu", "float32")
    assert set(document["model"]) == {
        "name",
        "weights",
        "sha256",
        "classes",
        "method",
        "activation",
        "head",
        "layer",
        "steps",
    }
    assert document["model"]["classes"] == 5
    assert len(document["model"]["sha256"]) == 64
    head = document["model"]["head"]
    assert set(head) == {"kind", "features", "channels", "exact", "max_error"}
    assert (head["kind"], head["exact"]) == ("maps", True)
    assert document["failed"] == [{"path": str(here / "none.jpg"), "reason": "no such file"}]
    assert [Path(image["path"]).name for image in document["images"]] == ["one.png", "two.jpg"]
    for image in document["images"]:
        assert set(image) == {
            "path", "width", "height", "geometry", "exact", "steps", "explanations", "files",
        }  # fmt: skip
        assert image["geometry"]["region"] == [0, 0, image["width"], image["height"]]
        assert set(image["geometry"]) == {"fit", "region", "input"}
        assert Path(image["files"]["panel"]).is_file()
        assert len(image["explanations"]) == 2
        for found in image["explanations"]:
            assert set(found) == {
                "index", "label", "versus", "logit", "probability", "bias", "residual", "map",
                "boxes",
            }  # fmt: skip
            assert set(found["map"]) == {"height", "width", "min", "max", "mean"}
            assert found["map"]["mean"] + found["bias"] == pytest.approx(found["logit"], abs=1e-5)
            assert all(set(box) == {"box", "threshold", "share"} for box in found["boxes"])


def test_every_file_under_output(explain, here: Path) -> None:
    out = here / "out" / "deep"
    kinds = "panel,overlay,heatmap,npz,json"
    result = explain(here / "one.png", "--save", kinds, "-o", out, "-k", 1, "--no-boxes")
    assert result.exit_code == 0
    assert sorted(path.name for path in out.iterdir()) == [
        "one.cam.json", "one.cam.npz", "one.cam.png", "one.heatmap-1.png", "one.overlay-1.png",
    ]  # fmt: skip
    assert "boxes" not in (out / "one.cam.json").read_text()


def test_output_may_name_the_panel(explain, here: Path) -> None:
    assert explain(here / "one.png", "-o", here / "mine.jpg").exit_code == 0
    with Image.open(here / "mine.jpg") as panel:
        assert panel.format == "JPEG"
    both = explain(here / "one.png", here / "two.jpg", "-o", here / "mine.jpg")
    assert both.exit_code == 2
    assert "give a folder" in both.stderr


@pytest.fixture(scope="module")
def answer(shared: Path):
    """What the API gives for the first picture."""
    labels = shared / "labels.txt"
    model = camtool.load("squeezenet1_1", shared / "mine.pth", labels, "cpu", size=64)
    return model.explain(shared / "one.png", topk=3)


@pytest.mark.parametrize(
    ("options", "look"),
    [
        (("--signed",), {"signed": True}),
        (("--smooth",), {"smooth": True}),
        (("--colormap", "jet"), {"colormap": "jet"}),
        (("--opacity", "0.2"), {"opacity": 0.2}),
        (("--normalize", "none", "--full-scale", "3"), {"normalize": "none", "full_scale": 3.0}),
    ],
)
def test_options_of_the_look_are_seen(explain, here: Path, answer, options, look) -> None:
    result = explain(here / "one.png", "--save", "overlay", "--no-boxes", *options)
    assert result.exit_code == 0, result.stderr
    written = np.asarray(Image.open(here / "one.overlay-1.png"))
    np.testing.assert_array_equal(written, np.asarray(answer.overlay(0, **look)))
    assert (written != np.asarray(answer.overlay(0))).any()


def test_a_shared_scale_is_seen(explain, here: Path, answer) -> None:
    words = ("--save", "overlay", "--no-boxes", "--normalize", "shared")
    assert explain(here / "one.png", *words).exit_code == 0
    second = int(np.argmin(answer.maps.max((1, 2))))
    written = np.asarray(Image.open(here / f"one.overlay-{second + 1}.png"))
    assert (written != np.asarray(answer.overlay(second))).any()


@pytest.mark.parametrize(
    "options",
    [
        ("--threshold", "0.7"),
        ("--threshold-rule", "otsu"),
        ("--threshold-rule", "percentile"),
        ("--threshold-rule", "ivr"),
    ],
)
def test_threshold_and_its_rule_move_the_boxes(explain, here: Path, answer, options) -> None:
    result = explain(here / "one.png", "--json", "--save", "none", *options)
    found = json.loads(result.stdout)["images"][0]["explanations"]
    boxes = [[tuple(box["box"]) for box in one["boxes"]] for one in found]
    chosen = {"--threshold": "0.2", "--threshold-rule": "max", options[0]: options[1]}
    threshold, rule = float(chosen["--threshold"]), chosen["--threshold-rule"]
    assert boxes == [answer.boxes(k, threshold, rule) for k in range(3)]
    assert boxes != [answer.boxes(k) for k in range(3)]


@pytest.mark.parametrize("size", [1, 2])
def test_the_batch_size_is_that_of_the_forward_passes(explain, here, monkeypatch, size) -> None:
    seen, explain_indices = [], camtool.CamModel.explain_indices

    def counted(self, batch, *arguments):
        seen.append(len(batch))
        return explain_indices(self, batch, *arguments)

    monkeypatch.setattr(camtool.CamModel, "explain_indices", counted)
    pictures = [here / "one.png", shutil.copy(here / "one.png", here / "copy.png")]
    assert explain(*pictures, "--save", "none", "-b", size).exit_code == 0
    assert seen == [1, 1] if size == 1 else [2]


def test_fit_dtype_and_targets_are_taken(explain, here: Path) -> None:
    words = ("--fit", "crop", "--dtype", "bfloat16", "-t", "dog", "-t", "0")
    document = json.loads(explain(here / "one.png", "--json", *words).stdout)
    assert document["dtype"] == "bfloat16"
    image = document["images"][0]
    assert image["geometry"]["fit"] == "crop"
    assert [found["label"] for found in image["explanations"]] == ["dog", "cat"]


def test_numbers_of_the_input_are_taken(explain, here: Path, shared: Path) -> None:
    words = ("--mean", "0.5,0.5,0.5", "--std", "0.25 0.25 0.25", "--interpolation", "nearest")
    document = json.loads(explain(here / "one.png", "--json", "-k", 1, *words).stdout)
    spec = camtool.Preprocessing(64, 73, (0.5,) * 3, (0.25,) * 3, "nearest")
    model = camtool.load("squeezenet1_1", shared / "mine.pth", device="cpu", preprocessing=spec)
    expected = float(model.explain(here / "one.png").logits[0])
    found = document["images"][0]["explanations"][0]["logit"]
    assert found == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    ("activation", "expected"),
    [
        ("softmax", lambda logits: np.exp(logits) / np.exp(logits).sum()),
        ("sigmoid", lambda logits: 1 / (1 + np.exp(-logits))),
        ("none", lambda logits: None),
    ],
)
def test_the_activation_makes_the_probabilities(explain, here: Path, activation, expected) -> None:
    result = explain(here / "one.png", "--json", "-k", 5, "--activation", activation)
    found = json.loads(result.stdout)["images"][0]["explanations"]
    wanted = expected(np.array([one["logit"] for one in found]))
    told = [one["probability"] for one in found]
    assert told == ([None] * 5 if wanted is None else pytest.approx(wanted, rel=1e-4))


def test_exact_refuses_what_does_not_add_up(explain, here: Path, monkeypatch) -> None:
    assert explain(here / "one.png", "--save", "none", "--exact").exit_code == 0
    other = explain(here / "one.png", "--save", "none", "--exact", "--method", "gradcam")
    monkeypatch.setattr("camtool.heads.head.TOLERANCE", 1e-12)
    for result in (other, explain(here / "one.png", "--save", "none", "--exact")):
        assert result.exit_code == 3
        assert "do not add up" in result.stderr
        assert len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (("-t", "crane"), "matches 2 classes"),
        (("-t", "zebra"), "the nearest are"),
        (("-t", "5"), "not in 0..4"),
        (("--fit", "stretch"), "--fit"),
        (("--dtype", "int8"), "--dtype"),
        (("--save", "panel,gif"), "--save takes"),
        (("--normalize", "max"), "--normalize"),
        (("--colormap", "nope"), "nope"),
        (("--method", "shap"), "--method takes auto, cam"),
        (("--mean", "a,b"), "--mean takes numbers"),
        (("--mean", "0.5,0.5", "--std", "0.5,0.5"), "mean has 2 channels, the network 3"),
        (("--size", "1000000"), "size must be 1 to 8192"),
        (("-k", "0"), "--topk"),
        (("--opacity", "2"), "--opacity"),
    ],
)
def test_wrong_usage_is_exit_code_2(explain, here: Path, options, reason: str) -> None:
    result = explain(here / "one.png", *options)
    assert result.exit_code == 2
    assert reason in result.stderr
    assert result.stdout == ""
    assert sorted(path.name for path in here.iterdir()) == ["one.png", "two.jpg"]


@pytest.mark.slow
def test_each_bad_picture_is_one_line_and_the_rest_goes_on(shared: Path, here: Path) -> None:
    tiff = here / "half.tif"
    noise = np.random.default_rng(1).integers(0, 256, (90, 90, 3), np.uint8)
    Image.fromarray(noise).save(tiff, compression="tiff_lzw")
    tiff.write_bytes(tiff.read_bytes()[:5000])
    jpeg = here / "half.jpg"
    Image.fromarray(noise).save(jpeg)
    jpeg.write_bytes(jpeg.read_bytes()[:2000])
    (here / "empty.png").touch()
    (here / "text\n.png").write_text("no picture")
    bad = [here / "empty.png", here / "text\n.png", jpeg, tiff, here / "none.png"]
    words: list[str | Path] = [
        *MODEL,
        "-w",
        shared / "mine.pth",
        bad[0],
        here / "one.png",
        *bad[1:],
        here / "two.jpg",
    ]
    done = subprocess.run(
        [sys.executable, "-m", "camtool", "explain", *words],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    lines = done.stderr.splitlines()
    assert len(lines) == len(bad), done.stderr
    assert all(line.startswith("camtool: ") for line in lines)
    assert "text\\n.png: is not a picture" in done.stderr
    assert (here / "one.cam.png").is_file()
    assert (here / "two.cam.png").is_file()


def test_what_can_not_be_written_is_a_failure(explain, here: Path) -> None:
    (here / "file").touch()
    result = explain(here / "one.png", "-o", here / "file" / "out", "--json")
    assert result.exit_code == 1
    assert "can't be written" in json.loads(result.stdout)["failed"][0]["reason"]


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("-m", "resnet5"), "did you mean"),
        (("-m", "squeezenet1_1", "-w", "none.pth"), "no such weights file"),
        (("-m", "none.pth"), "no file"),
        (("-m", "resnet18", "-w", "random", "--labels", "none.txt"), "can't be read"),
        (("-m", "resnet18", "-w", "random", "--layer", "layer9"), "no module"),
        (("-m", "squeezenet1_1", "-w", "random", "--device", "cuda:77"), "CUDA devices"),
    ],
)
def test_no_model_is_exit_code_3(here: Path, arguments, reason: str) -> None:
    result = _run("explain", here / "one.png", *arguments, "--json")
    assert result.exit_code == 3
    assert reason in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert result.stdout == ""


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="names are Unicode on this system")
def test_a_name_that_is_no_utf8_as_a_command(shared: Path, here: Path) -> None:
    name = os.fsencode(here) + b"/caf\xe9.png"
    try:
        Path(os.fsdecode(name)).write_bytes((here / "one.png").read_bytes())
    except OSError:
        pytest.skip("this file system takes Unicode names only")
    done = subprocess.run(
        [sys.executable, "-m", "camtool", "explain", *MODEL, "-w", shared / "mine.pth", name],
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == b""
    assert Path(os.fsdecode(name[:-4] + b".cam.png")).is_file()


def test_versus_shows_the_difference_and_both_alone(explain, here: Path, answer) -> None:
    document = json.loads(explain(here / "one.png", "--versus", "next", "--json").stdout)
    difference, first, second = document["images"][0]["explanations"]
    assert (first["index"], second["index"]) == tuple(answer.indices[:2])
    assert difference["versus"] == second["label"]
    assert difference["logit"] == pytest.approx(first["logit"] - second["logit"], abs=1e-5)
    mean = first["map"]["mean"] - second["map"]["mean"]
    assert difference["map"]["mean"] == pytest.approx(mean, abs=1e-5)
    named = json.loads(explain(here / "one.png", "--versus", "0", "-t", "1", "--json").stdout)
    told = [(each["index"], each["versus"]) for each in named["images"][0]["explanations"]]
    assert told == [(1, "cat"), (1, None), (0, None)]
    assert "cat rather than" in explain(here / "one.png", "--versus", "dog", "-t", "cat").stdout
    assert explain(here / "one.png", "--versus", "nonsense").exit_code == 2
    same = explain(here / "one.png", "--versus", "cat", "-t", "cat")
    assert (same.exit_code, "not of 'cat' with itself" in same.stderr) == (2, True)
    itself = explain(here / "one.png", "--versus", first["index"])
    assert f"its best class is {first['label']} itself" in itself.stderr
    assert "itself" not in explain(here / "one.png", "--versus", second["index"]).stderr


def _explored(page: Path):
    """The data of an explorer."""
    data = re.search(r'id="data">(.*?)</script>', page.read_text("utf-8"), re.DOTALL)
    return json.loads(data[1])


@pytest.mark.parametrize(
    ("name", "words", "reason"),
    [
        ("x.html", (), "is a file for --save html; give a folder"),
        ("x.png", ("--save", "html"), "is a file for --save panel; give a folder"),
        ("x.png", ("--save", "none"), "is a file for --save panel; give a folder"),
        ("x.png", ("--save", "panel,html"), "names one file; give a folder for several"),
    ],
)
def test_a_file_of_another_kind_is_wrong_usage(explain, here, name, words, reason) -> None:
    result = explain(here / "one.png", "-o", here / name, *words)
    assert (result.exit_code, result.stderr) == (2, f"camtool: --output {here / name} {reason}\n")


def test_the_explorer_holds_every_class_and_the_other_files_those_asked_for(explain, here) -> None:
    result = explain(here / "one.png", "--save", "html,npz", "-k", 2, "--json")
    image = json.loads(result.stdout)["images"][0]
    assert len(image["explanations"]) == 2
    with np.load(image["files"]["npz"]) as archive:
        assert archive["maps"].shape[0] == 2
    record = _explored(here / "one.cam.html")
    assert sorted(record["titles"]) == sorted(LABELS)
    assert record["titles"][0] == image["explanations"][0]["label"]


def test_the_explorer_opens_with_what_was_asked_for(explain, here: Path) -> None:
    page = here / "mine.html"
    result = explain(here / "one.png", "--save", "html", "-t", 4, "--versus", "dog", "-o", page)
    assert result.exit_code == 0, result.stderr
    record = _explored(page)
    assert record["titles"][0] == "[red]cow rather than dog"
    assert sorted(record["titles"][1:]) == sorted(LABELS)
    assert explain(here / "one.png", "-t", 3, "--save", "html", "-o", page).exit_code == 0
    record = _explored(page)
    assert record["indices"][0] == 3
    assert sorted(record["indices"]) == list(range(5))


def test_an_explorer_is_not_written_into_a_picture_nor_a_panel_into_a_page(explain, here) -> None:
    for words in (("--save", "html", "-o", here / "x.png"), ("-o", here / "x.html")):
        assert explain(here / "one.png", *words).exit_code == 2


@pytest.mark.parametrize(("method", "held"), [("cam", 5), ("gradcam", 2)])
def test_maps_that_cost_a_pass_each_are_fewer(explain, here, monkeypatch, method, held) -> None:
    monkeypatch.setattr("camtool.views.explorer.AFFORDABLE", 2)
    words = ("--save", "html", "--method", method, "-k", 1)
    assert explain(here / "one.png", *words).exit_code == 0
    record = _explored(here / "one.cam.html")
    assert (len(record["titles"]), record["classes"]) == (held, 5)


@pytest.mark.parametrize(("save", "topk"), [("panel,npz", 2), ("html", 5)])
def test_no_map_is_made_that_nobody_asked_for(explain, here, monkeypatch, save, topk) -> None:
    seen, explain_indices = [], camtool.CamModel.explain_indices

    def noted(self, batch, choices, topk):
        seen.append(topk)
        return explain_indices(self, batch, choices, topk)

    monkeypatch.setattr(camtool.CamModel, "explain_indices", noted)
    assert explain(here / "one.png", "--save", save, "-k", 2).exit_code == 0
    assert seen == [topk]


def test_a_class_asked_for_is_explored_however_small_its_logit(explain, here, monkeypatch) -> None:
    monkeypatch.setattr("camtool.views.explorer.MOST_CLASSES", 3)
    answers = explain(here / "one.png", "--save", "none", "-k", 5, "--json")
    found = json.loads(answers.stdout)["images"][0]["explanations"]
    best, worst = found[0]["index"], found[-1]["index"]
    words = ("--save", "html", "-t", best, "-t", worst)
    assert explain(here / "one.png", *words).exit_code == 0
    assert _explored(here / "one.cam.html")["indices"] == [best, worst, found[1]["index"]]
