"""The command line as a whole, `inspect` and `weights`."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

import camtool
from camtool.cli import app
from camtool.networks import hub
from camtool.networks import torchvision as zoo


def _run(*words: str):
    result = CliRunner().invoke(app, list(words))
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


@pytest.fixture
def no_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    return tmp_path / "hub" / "checkpoints"


@pytest.mark.parametrize("words", [["--help"], ["explain", "--help"], ["weights", "--help"]])
def test_help_imports_neither_torch_nor_pillow(words: list[str]) -> None:
    code = (
        "import sys; sys.argv = ['camtool', *sys.argv[1:]]\n"
        "from camtool.cli import main\n"
        "try:\n    main()\n"
        "except SystemExit as left:\n"
        "    heavy = {'torch', 'numpy', 'PIL', 'cv2', 'torchvision'} & set(sys.modules)\n"
        "    sys.exit(f'imported {heavy}' if heavy or left.code else 0)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *words], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "Usage" in done.stdout


def test_version_and_missing_command() -> None:
    assert _run("--version").stdout.strip() == camtool.__version__
    assert _run("nonsense").exit_code == 2
    assert _run("explain").exit_code == 2


@pytest.mark.slow
def test_a_reader_that_leaves_is_no_error(no_cache: Path) -> None:
    command = [sys.executable, "-m", "camtool", "weights", "list"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as running:
        running.stdout.close()
        assert b"Traceback" not in running.stderr.read()


@pytest.mark.slow
def test_inspect_shows_the_head_of_resnet50(no_cache: Path) -> None:
    result = _run("inspect", "resnet50")
    assert result.exit_code == 0, result.stderr
    for words in ("layer4", "fc.weight", "2,049,000", "100,353,000", "exact", "stride 32"):
        assert words in result.stdout
    assert not no_cache.exists()


@pytest.mark.slow
def test_inspect_as_json() -> None:
    facts = json.loads(_run("inspect", "squeezenet1_1", "-w", "random", "--json").stdout)
    assert facts["classes"] == 1000
    assert facts["head"]["kind"] == "maps"
    assert facts["head"]["exact"] is True
    assert facts["head"]["max_error"] <= facts["head"]["tolerance"]


@pytest.mark.slow
def test_inspect_tells_what_follows_the_features() -> None:
    result = _run("inspect", "mobilenet_v3_small", "-w", "random")
    assert result.exit_code == 0
    for words in ("features: 576 maps", "nonlinearity", "auto takes integrated", "exact"):
        assert words in result.stdout
    for words in ("pool", "parameters on the same features"):
        assert words not in result.stdout


@pytest.mark.slow
def test_inspect_lists_the_cuts_that_layer_may_name() -> None:
    facts = json.loads(_run("inspect", "mobilenet_v3_small", "-w", "random", "--json").stdout)
    layers = [cut["layer"] for cut in facts["cuts"]]
    assert layers[:3] == ["features", "features.11", "features.8"]
    assert [cut["shape"] for cut in facts["cuts"][:3]] == [[7, 7], [7, 7], [14, 14]]
    assert max(cut["residual"] for cut in facts["cuts"]) <= 1e-5
    assert (facts["head"]["method"], facts["head"]["pool"]) == ("integrated", None)
    shown = _run("inspect", "mobilenet_v3_small", "-w", "random").stdout
    assert all(layer in shown for layer in layers)


@pytest.mark.slow
def test_inspect_refuses_with_the_reason(tmp_path: Path) -> None:
    path = tmp_path / "other.pth"
    torch.save({"weight": torch.zeros(3)}, path)
    result = _run("inspect", str(path))
    assert result.exit_code == 3
    assert len(result.stderr.splitlines()) == 1


@pytest.mark.slow
def test_a_graph_that_can_not_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    path = tmp_path / "file" / "net.pt2"
    result = _run("export", "squeezenet1_1", "-w", "random", "--size", "64", "-o", str(path))
    assert result.exit_code == 2
    assert result.stderr.splitlines()[-1] == f"camtool: {path}: can't be written (Not a directory)"


def test_a_program_of_torch_export_is_named_as_one(tmp_path: Path) -> None:
    path = tmp_path / "net.pt2"
    program = torch.export.export(torch.nn.Linear(2, 2), (torch.zeros(1, 2),))
    torch.export.save(program, path)
    result = _run("inspect", str(path))
    assert result.exit_code == 3
    assert "is a program of torch.export" in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_weights_list(no_cache: Path) -> None:
    every = _run("weights", "list")
    assert every.exit_code == 0
    for name in zoo.names():
        assert name in every.stdout
    one = _run("weights", "list", "resnet50")
    assert "IMAGENET1K_V2" in one.stdout
    assert "resnet18" not in one.stdout
    wrong = _run("weights", "list", "resnet5")
    assert (wrong.exit_code, len(wrong.stderr.splitlines())) == (3, 1)


def test_weights_get_without_a_hub(no_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CAMTOOL_HUB", "http://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    result = _run("weights", "get", "resnet18")
    assert result.exit_code == 3
    assert "can't be downloaded" in result.stderr
    assert result.stdout == ""
    assert _run("weights", "get", "resnet18", "-w", "V7").exit_code == 3


def test_weights_verify_finds_the_damaged_file(no_cache: Path) -> None:
    path = hub.cached_path(zoo.entries("resnet18")[0].url)
    path.parent.mkdir(parents=True)
    assert _run("weights", "verify", "resnet18").exit_code == 0
    path.write_bytes(b"damaged")
    result = _run("weights", "verify", "resnet18")
    assert result.exit_code == 3
    assert str(path) in result.stderr
    got = _run("weights", "get", "resnet18")
    assert got.exit_code == 3
    assert "is damaged" in got.stderr
