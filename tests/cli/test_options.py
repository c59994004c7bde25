"""Every option of every command, each with the test that sees what it does."""

from __future__ import annotations

import csv
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
import typer
from PIL import Image
from typer.testing import CliRunner

from camtool.cli import app
from camtool.networks import modules

NETWORK = (
    "--model --weights --labels --method --layer --steps --activation --fit --size --mean --std "
    "--dtype --interpolation"
)
LOOK = (
    "--threshold --threshold-rule --signed --colormap --opacity --normalize --full-scale --smooth"
)
SEEN: dict[str, dict[str, str]] = {
    "cli/test_explain.py::test_options_of_the_look_are_seen": {
        "explain": "--signed --smooth --colormap --opacity --normalize --full-scale"
    },
    "cli/test_explain.py::test_threshold_and_its_rule_move_the_boxes": {
        "explain": "--threshold --threshold-rule"
    },
    "cli/test_explain.py::test_fit_dtype_and_targets_are_taken": {
        "explain": "--fit --dtype --target --json"
    },
    "cli/test_explain.py::test_numbers_of_the_input_are_taken": {
        "explain": "--mean --std --interpolation"
    },
    "cli/test_explain.py::test_the_activation_makes_the_probabilities": {"explain": "--activation"},
    "cli/test_explain.py::test_versus_shows_the_difference_and_both_alone": {"explain": "--versus"},
    "cli/test_explain.py::test_json_is_one_document_of_the_designs_shape": {"explain": "--topk"},
    "cli/test_explain.py::test_every_file_under_output": {"explain": "--output --save --boxes"},
    "cli/test_explain.py::test_the_batch_size_is_that_of_the_forward_passes": {
        "explain": "--batch-size"
    },
    "cli/test_pictures.py::test_the_first_file_is_opened": {"explain": "--open"},
    "cli/test_options.py::test_an_option_changes_what_it_is_about_and_nothing_else": {
        "explain": "--model --weights --labels --method --layer --steps --size"
    },
    "cli/test_options.py::test_batch_makes_of_all_options_what_explain_makes": {
        "batch": f"{NETWORK} {LOOK} --target --save --format --boxes"
    },
    "cli/test_options.py::test_evaluate_makes_of_all_options_what_explain_makes": {
        "evaluate": f"{NETWORK} --images --limit"
    },
    "cli/test_options.py::test_what_can_not_be_had_is_refused": dict.fromkeys(
        ("explain", "batch", "evaluate", "export"), "--exact --offline --device"
    ),
    "cli/test_options.py::test_one_of_several_outputs_is_explained": dict.fromkeys(
        ("explain", "batch", "evaluate", "export"), "--logits"
    ),
    "export/test_export.py::test_the_command_takes_all_options_of_a_network": {
        "export": NETWORK.replace("--dtype ", "") + " --output"
    },
    "export/test_export.py::test_the_command_and_what_it_refuses": {
        "export": "--dtype --target --json --pixels"
    },
    "cli/test_options.py::test_larger_pictures_are_refused": dict.fromkeys(
        ("explain", "batch", "evaluate"), "--max-pixels"
    ),
    "cli/test_options.py::test_sub_folders_are_left_out": {"batch": "--recursive"},
    "cli/test_options.py::test_a_finished_run_begins_anew": {"batch": "--overwrite"},
    "cli/test_batch.py::test_nothing_but_results": {"batch": "--coco --report"},
    "folder/test_yolo.py::test_boxes_are_those_of_the_coco_file": {"batch": "--yolo"},
    "cli/test_batch.py::test_a_list_with_targets": {"batch": "--results --topk"},
    "cli/test_batch.py::test_the_number_of_workers": {"batch": "--workers --batch-size"},
    "cli/test_batch.py::test_sub_folders_are_mirrored": {"batch": "--output"},
    "folder/test_truth.py::test_folders_asked_for_as_the_truth": {"batch": "--truth"},
    "engines/test_engines.py::test_an_engine_from_outside_gives_the_same_bytes": {
        "batch": "--engine"
    },
    "engines/test_cluster.py::test_an_address_where_nobody_answers_is_one_line": {
        "batch": "--ray-address"
    },
    "cli/test_evaluate.py::test_numbers_curves_and_cases_are_written_and_the_table_is_printed": {
        "evaluate": "--output --format"
    },
    "cli/test_evaluate.py::test_reference_mode_squashes": {"evaluate": "--mode --json"},
    "cli/test_evaluate.py::test_kept_maps_are_measured_again_without_naming_the_network": {
        "evaluate": "--maps --threshold"
    },
    "cli/test_compare.py::test_every_metric_is_asked_for_by_name": {"evaluate": "--metrics"},
    "cli/test_compare.py::test_explain_and_batch_cut_where_the_calibration_says": {
        "evaluate": "--calibrate",
        "explain": "--calibration",
        "batch": "--calibration",
    },
    "cli/test_options.py::test_work_is_divided_as_asked": {"evaluate": "--workers --batch-size"},
    "cli/test_options.py::test_inspect_looks_at_what_is_asked": {
        "inspect": "--weights --size --json"
    },
    "fit/test_study.py::test_the_document_is_printed_and_kept": {
        "study": "--output --heads --seeds --size --json"
    },
    "fit/test_study.py::test_which_pictures_are_taken": {"study": "--holdout --limit --validation"},
    "fit/test_study.py::test_classes_have_the_names_and_folders_that_are_asked_for": {
        "study": "--classes"
    },
    "fit/test_study.py::test_quick_is_fewer_seeds_epochs_and_pictures": {"study": "--quick"},
    "fit/test_study.py::test_other_settings_or_pictures_are_refused_in_the_same_folder": {
        "study": "--epochs"
    },
    "fit/test_study.py::test_pictures_are_read_by_so_many_threads": {"study": "--workers"},
    "fit/test_study.py::test_what_can_not_be_studied_is_refused_in_a_line": {"study": "--device"},
    "cli/test_options.py::test_the_entry_to_fetch": {"weights get": "--weights"},
    "fit/test_watermark.py::test_no_page_where_none_is_wanted": {"fit": "--report"},
    "fit/test_finetune.py::test_it_is_taken_where_it_is_better_and_explains_exactly": {
        "fit": "--finetune"
    },
    "fit/test_fit.py::test_how_pictures_meet_the_base_is_kept_in_the_file": {
        "fit": "--size --mean --std --interpolation --fit"
    },
    "fit/test_fit.py::test_what_runs_through_the_network": {
        "fit": "--batch-size --views --workers --max-pixels"
    },
    "fit/test_fit.py::test_what_can_not_be_had_is_refused": {"fit": "--base --offline --device"},
    "fit/test_fit.py::test_the_same_again_gives_the_same_bytes_and_runs_no_network": {
        "fit": "--features --seed --strength"
    },
    "fit/test_fit.py::test_other_bases": {"fit": "--weights"},
    "fit/test_fit.py::test_several_labels_and_one": {"fit": "--multi-label"},
    "fit/test_fit.py::test_pictures_of_ones_own_to_measure_on": {"fit": "--validation"},
    "fit/test_fit.py::test_uneven_classes_are_balanced_unless_told": {"fit": "--balance"},
    "fit/test_fit.py::test_json_is_one_document_with_null_for_what_is_not_known": {
        "fit": "--json --holdout"
    },
    "fit/test_fit.py::test_an_output_elsewhere_is_made": {"fit": "--output"},
    "cli/test_commands.py::test_version_and_missing_command": {"": "--version"},
    "cli/test_options.py::test_completion_is_shown_and_installed": {
        "": "--show-completion --install-completion"
    },
}
"""Which test sees the effect of which options of which command."""

INPUT = ("--size", "48", "--mean", ".4,.5,.6", "--std", ".2,.3,.4", "--interpolation", "nearest")
MAPS = ("--method", "integrated", "--layer", "features.9", "--steps", "1", "--activation", "none")
DRAWN = (
    *("--threshold", "0.7", "--threshold-rule", "percentile", "--signed", "--smooth"),
    *("--colormap", "turbo", "--opacity", "0.4", "--normalize", "none", "--full-scale", "4"),
)
FIELDS = ("label", "logit", "probability", "map", "boxes")


def commands(command, name: str = "") -> Iterator[tuple[str, typer.core.TyperCommand]]:
    for part, inner in getattr(command, "commands", {}).items():
        yield from commands(inner, f"{name} {part}".strip())
    yield name, command


def options() -> set[tuple[str, str]]:
    """Every command with each of its options, by its first long name."""
    found = set()
    for name, command in commands(typer.main.get_command(app)):
        for parameter in command.params:
            if parameter.param_type_name == "option":
                found.add((name, next(o for o in parameter.opts if o.startswith("--"))))
    return found


def test_every_option_has_a_test_that_sees_what_it_does() -> None:
    seen = [
        (command, option)
        for shown in SEEN.values()
        for command, names in shown.items()
        for option in names.split()
    ]
    assert set(seen) == options()
    assert len(seen) == len(set(seen))
    short = {"--target": "-t", "--topk": "-k", "--output": "-o", "--batch-size": "-b"}
    short |= {"--model": "-m", "--weights": "-w"}
    for test, shown in SEEN.items():
        path, name = test.split("::")
        source = (Path(__file__).parents[1] / path).read_text()
        assert re.search(rf"^def {name}\(", source, re.MULTILINE), test
        for option in " ".join(shown.values()).split():
            spelled = {option, short.get(option, option), option.replace("--", "--no-")}
            assert any(f'"{word}"' in source for word in spelled), (test, option)


def run(*words: object):
    result = CliRunner().invoke(app, [os.fspath(word) for word in map(str, words)])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


@pytest.fixture
def photo(tmp_path: Path, make_picture) -> Path:
    path = tmp_path / "photos" / "one.jpg"
    path.parent.mkdir()
    path.write_bytes(make_picture(1))
    return path


@pytest.fixture(scope="module")
def names(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("labels") / "names.txt"
    path.write_text("\n".join(("wolf", "pig", "ox", "eel", "ant")))
    return path


@pytest.fixture(scope="module")
def other(tmp_path_factory) -> Path:
    from camtool.networks import torchvision as zoo

    path = tmp_path_factory.mktemp("weights") / "other.pth"
    torch.save(zoo.random_module("squeezenet1_1", 5).state_dict(), path)
    return path


@pytest.fixture
def data(photo: Path, make_picture) -> Path:
    """A list of boxes, and the pictures somewhere else: those of the class "ox" in one folder."""
    folder = photo.parents[1] / "boxes"
    folder.mkdir()
    rows: list[tuple[object, ...]] = [("path", "label", "x0", "y0", "x1", "y1")]
    for n in range(3):
        (photo.parent / f"{n}.jpg").write_bytes(make_picture(n))
        rows.append((f"{n}.jpg", "ox", 8, 8, 60, 60))
    with (folder / "boxes.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    return folder


LAYER = ("--method", "integrated", "--layer", "features.2")
SQUEEZED = ("-m", "squeezenet1_1", "--size", "64")


@pytest.mark.parametrize(
    ("usual", "given", "changed"),
    [
        ((), ("--labels", "names"), {"label"}),
        ((), ("--size", "32"), {"logit", "probability", "map"}),
        ((), ("--method", "gradcam"), {"map"}),
        ((), LAYER, {"map", "boxes"}),
        (LAYER[:2], LAYER[2:], {"map", "boxes"}),
        (("-m", "timm/test_vit", "-w", "random"), ("--steps", "1"), {"map", "boxes"}),
        (
            (),
            ("-m", "other", "--labels", "names"),
            {"label", "logit", "probability", "map", "boxes"},
        ),
        (
            (*SQUEEZED, "-w", "other"),
            ("-w", "random"),
            {"label", "logit", "probability", "map", "boxes"},
        ),
    ],
)
def test_an_option_changes_what_it_is_about_and_nothing_else(
    photo, tiny, names, other, usual, given, changed
) -> None:
    files = {"names": names, "other": other}

    def explained(*words):
        named = [files.get(word, word) for word in words]
        every = [word for index in range(5) for word in ("-t", index)]
        done = run("explain", photo, "--save", "none", "--json", "-m", tiny, *every, *named)
        assert done.exit_code == 0, done.stderr
        return json.loads(done.stdout)["images"][0]["explanations"]

    before, after = explained(*usual), explained(*usual, *given)
    differing = {
        name
        for name in FIELDS
        if any(one[name] != two[name] for one, two in zip(before, after, strict=True))
    }
    assert differing == changed


def everything(other: Path, names: Path) -> list[object]:
    network = ["-m", "squeezenet1_1", "--weights", other, "--labels", names, "--dtype", "bfloat16"]
    return [*network, *INPUT, *MAPS, "--fit", "crop"]


def test_batch_makes_of_all_options_what_explain_makes(photo, other, names, tmp_path) -> None:
    shown = ["--save", "overlay,npz,json", "--boxes", "-t", "ox", "-t", "wolf", *DRAWN]
    words = [*everything(other, names), *shown]
    one, many = tmp_path / "explain", tmp_path / "batch"
    assert run("explain", photo, "-o", one, *words).exit_code == 0
    done = run("batch", photo, "-o", many, *words, "--format", "png", "--results", "jsonl")
    assert done.exit_code == 0, done.output
    for place in (1, 2):
        picture = Image.open(many / f"one.jpg.overlay-{place}.png")
        assert picture == Image.open(one / f"one.overlay-{place}.png")
    with np.load(one / "one.cam.npz") as mine, np.load(many / "one.jpg.cam.npz") as theirs:
        np.testing.assert_array_equal(mine["maps"], theirs["maps"])
    records = [json.loads(p.read_text()) for p in (one / "one.cam.json", many / "one.jpg.cam.json")]
    assert records[0]["explanations"] == records[1]["explanations"]
    assert [found["label"] for found in records[0]["explanations"]] == ["ox", "wolf"]


def test_evaluate_makes_of_all_options_what_explain_makes(data, other, names, tmp_path) -> None:
    words, photos, maps = everything(other, names), tmp_path / "photos", tmp_path / "maps"
    evaluate = ["evaluate", data, "--format", "csv", "--images", photos, "--json", "--maps", maps]
    done = run(*evaluate, "--limit", "2", *words)
    assert done.exit_code == 0, done.stderr
    assert json.loads(done.stdout)["images"] == 2
    kept = sorted(maps.rglob("*.npz"))
    assert len(kept) == 2
    out = tmp_path / "explain"
    assert run("explain", photos, "-o", out, "--save", "npz", "-t", "ox", *words).exit_code == 0
    explained = []
    for path in out.iterdir():
        with np.load(path) as archive:
            explained.append(archive["maps"][0])
    for path in kept:
        with np.load(path) as archive:
            # Two commands use other numbers of torch's threads, and sum in another order.
            heat = archive["map"]
            assert any(np.allclose(heat, one, atol=1e-5 * np.ptp(heat)) for one in explained)


@pytest.fixture
def invoke(photo, data, names, tmp_path):
    """A command, most on the same pictures: its name and options to the result."""
    rest: dict[str, tuple[object, ...]] = {
        "explain": (photo, "--json", "--save", "none"),
        "batch": (photo, "-o", tmp_path / "out", "--results", "jsonl", "--save", "none"),
        "evaluate": (data, "--format", "csv", "--images", photo.parent, "--json"),
        "export": ("-o", tmp_path / "out" / "net.pt2", "--json"),
    }
    return lambda command, *words: run(command, *rest[command], "--labels", names, *words)


COMMANDS = pytest.mark.parametrize("command", ["explain", "batch", "evaluate"])
WITH_EXPORT = pytest.mark.parametrize("command", ["explain", "batch", "evaluate", "export"])


@WITH_EXPORT
@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("--method", "gradcam", "--exact"), "do not add up"),
        (("-m", "squeezenet1_1", "--offline"), "are not on this machine"),
        (("--device", "cuda:77"), "CUDA devices"),
    ],
)
def test_what_can_not_be_had_is_refused(
    invoke, tiny, command, words, reason, tmp_path, monkeypatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "empty"))
    monkeypatch.setenv("CAMTOOL_HUB", "http://127.0.0.1:9")
    refused = invoke(command, "-m", tiny, *words)
    assert reason in refused.stderr
    assert refused.exit_code == 3
    assert refused.stdout == ""
    assert not (tmp_path / "out").exists()


class Several(torch.nn.Module):
    """Two classes, and five others."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body = torch.nn.Conv2d(3, 8, 3, stride=4, padding=1)
        self.two, self.five = torch.nn.Linear(8, 2), torch.nn.Linear(8, 5)

    def forward(self, x):
        pooled = self.body(x).relu().mean((2, 3))
        return {"two": self.two(pooled), "five": self.five(pooled)}


@WITH_EXPORT
def test_one_of_several_outputs_is_explained(invoke, command, monkeypatch, tmp_path) -> None:
    monkeypatch.setattr("camtool.loading.before_download", lambda *_, **__: None)
    network = modules.given(Several().eval())
    monkeypatch.setattr("camtool.loading.load_network", lambda *_, **__: network)
    done = invoke(command, "--size", "32", "--logits", "five")
    assert done.exit_code == 0, done.stderr
    if command == "batch":
        found = json.loads((tmp_path / "out" / "run.json").read_text())["settings"]
    else:
        found = json.loads(done.stdout)["model"]
    assert found["classes"] == 5


@COMMANDS
def test_larger_pictures_are_refused(invoke, tiny, command, tmp_path) -> None:
    done = invoke(command, "-m", tiny, "--max-pixels", "5000")
    failed = tmp_path / "out" / "failed.csv"
    told = failed.read_text() if command == "batch" else done.output
    assert "5,000" in told


def test_sub_folders_are_left_out(batch, make_pictures, tmp_path) -> None:
    photos = make_pictures(tmp_path / "photos", 2)
    make_pictures(photos / "deep", 1)
    words = ("--save", "none", "--no-report")
    assert "3 of 3" in batch(photos, tmp_path / "all", *words).output
    assert "2 of 2" in batch(photos, tmp_path / "some", *words, "--no-recursive").output


def test_a_finished_run_begins_anew(batch, make_pictures, tmp_path) -> None:
    photos, output = make_pictures(tmp_path / "photos", 2), tmp_path / "out"
    words = ("--save", "none", "--no-report")
    assert "2 now" in batch(photos, output, *words).output
    assert "0 now" in batch(photos, output, *words).output
    assert "2 now" in batch(photos, output, *words, "--overwrite").output


def test_work_is_divided_as_asked(invoke, tiny, monkeypatch) -> None:
    from camtool.engines import ENGINES

    asked, threads = [], ENGINES["threads"]

    def noted(model, request, workers, warn):
        asked.append((workers, request.batch_size))
        return threads(model, request, workers, warn)

    monkeypatch.setitem(ENGINES, "threads", noted)
    invoke("evaluate", "-m", tiny, "--workers", "3", "--batch-size", "2")
    assert asked == [(3, 2)]


def test_inspect_looks_at_what_is_asked(tiny, other) -> None:
    plain, small = (
        json.loads(run("inspect", tiny, "--json", *words).stdout) for words in ((), ("--size", 32))
    )
    assert (plain["input"], small["input"]) == ([64, 64], [32, 32])
    assert plain["head"]["shape"] != small["head"]["shape"]
    words = ("inspect", "squeezenet1_1", "--size", "64", "--json", "--weights")
    mine, none = (json.loads(run(*words, weights).stdout) for weights in (other, "random"))
    assert (mine["classes"], none["classes"]) == (5, 1000)


def test_the_entry_to_fetch(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setenv("CAMTOOL_HUB", "http://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    first, second = (
        run("weights", "get", "resnet50", "--weights", f"IMAGENET1K_V{n}").stderr for n in (1, 2)
    )
    assert "resnet50-0676ba61.pth" in first
    assert "resnet50-11ad3fa6.pth" in second


def test_completion_is_shown_and_installed(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION", "1")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert "complete -o default" in run("--show-completion", "bash").stdout
    assert run("--install-completion", "bash").exit_code == 0
    assert ".bash_completions" in (tmp_path / ".bashrc").read_text()


@pytest.mark.parametrize(
    "words",
    [
        ("fit", "s3://bucket/photos", "-o", "new.safetensors"),
        ("fit", "photos", "-o", "s3://bucket/new.safetensors"),
        ("evaluate", "https://me:hush@host/boxes?hush", "--format", "csv"),
        ("evaluate", "boxes", "--format", "csv", "--maps", "az://bucket/maps"),
    ],
)
def test_what_works_here_alone_refuses_addresses_in_one_line(words) -> None:
    done = run(*words)
    assert done.exit_code == 2
    told = r"camtool: (s3|https|az)://(bucket|host)/[\w.]+: is an address; .* a folder here\n"
    assert re.fullmatch(told, done.output)
