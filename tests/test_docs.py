"""What the documentation says is so: it builds, its commands run, its messages are real."""

from __future__ import annotations

import ast
import importlib.util
import os
import re
import shlex
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

import camtool
from camtool.cli import app
from camtool.networks import torchvision as zoo

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def blocks(language: str) -> list[tuple[str, str]]:
    """Every block of code in a language, with the name of its page."""
    fence = re.compile(rf"^```{language}\n(.*?)^```", re.MULTILINE | re.DOTALL)
    return [(page.name, block) for page in PAGES for block in fence.findall(page.read_text())]


COMMANDS = [
    line.partition("  #")[0].strip()
    for _, block in blocks("sh")
    for line in block.replace("\\\n", " ").splitlines()
    if line.startswith("camtool ")
]


@pytest.fixture(scope="module")
def sandbox(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with everything that the commands of the documentation speak of."""
    folder = tmp_path_factory.mktemp("docs")
    photo = folder / "photo.jpg"
    shutil.copy(ROOT / "examples" / "espresso.jpg", photo)
    (folder / "photos" / "deep").mkdir(parents=True)
    shutil.copy(photo, folder / "photos")
    for name in ("espresso", "n02123045"):
        (folder / "val" / name).mkdir(parents=True)
        shutil.copy(photo, folder / "val" / name)
    with Image.open(photo) as picture:
        picture.resize((90, 60)).save(folder / "photos" / "deep" / "small.png")
    for name, turn in (("cat", 0), ("dog", 180)):
        (folder / "pets" / name).mkdir(parents=True)
        for number in range(4):
            with Image.open(photo) as picture:
                turned = picture.resize((100 + 7 * number, 80)).rotate(turn + 9 * number)
                turned.save(folder / "pets" / name / f"{number}.jpg")
    # As a fit writes it, for the commands after it, wherever they are run.
    shutil.copy(ROOT / "weights" / "gapnet-1.safetensors", folder / "pets.safetensors")
    for name, corner in (("cat", 0), ("dog", 200)):
        (folder / "animals" / name).mkdir(parents=True)
        with Image.open(photo) as picture:
            for n in range(0, 80, 10):
                part = picture.crop((corner + n, n, corner + n + 90, n + 90))
                part.save(folder / "animals" / name / f"{n}.png")
    (folder / "shards").mkdir()
    for number in range(2):
        with tarfile.open(folder / "shards" / f"train-{number:04d}.tar", "w") as tar:
            tar.add(photo, "espresso.jpg")
    torch.save(zoo.random_module("resnet18", 2).state_dict(), folder / "mine.pth")
    (folder / "cut.json").write_text('{"threshold_rule": "ivr", "threshold": 0.3}')
    (folder / "labels.txt").write_text("cat\ndog\n")
    (folder / "weights").symlink_to(ROOT / "weights")
    for name, script in (("xdg-open", "exit 0"), ("open", "exit 0")):
        (folder / "bin").mkdir(exist_ok=True)
        (folder / "bin" / name).write_text(f"#!/bin/sh\n{script}\n")
        (folder / "bin" / name).chmod(0o755)
    _tiny_imagenet(folder / "tiny-imagenet-200", photo)
    _imagenet(folder / "DATA", photo)
    return folder


def _tiny_imagenet(folder: Path, photo: Path) -> None:
    gapnet = camtool.load(ROOT / "weights" / "gapnet-1.safetensors", device="cpu")
    synset = gapnet.network.synsets[0]
    (folder / "val" / "images").mkdir(parents=True)
    names = ("val_0.JPEG", "val_1.JPEG")
    with Image.open(photo) as picture:
        for name in names:
            picture.resize((64, 64)).save(folder / "val" / "images" / name)
    lines = ("\t".join((name, synset, "10", "12", "50", "55")) for name in names)
    (folder / "val" / "val_annotations.txt").write_text("".join(f"{line}\n" for line in lines))
    (folder / "wnids.txt").write_text(f"{synset}\n")
    (folder / "words.txt").write_text(f"{synset}\t{gapnet.labels[0]}\n")


def _imagenet(folder: Path, photo: Path) -> None:
    (folder / "n07920052").mkdir(parents=True)
    shutil.copy(photo, folder / "n07920052" / "one.jpg")
    corners = "".join(
        f"<{name}>{value}</{name}>"
        for name, value in zip(("xmin", "ymin", "xmax", "ymax"), (150, 20, 400, 300), strict=True)
    )
    (folder / "n07920052" / "one.xml").write_text(
        "<annotation><filename>one</filename><object><name>n07920052</name>"
        f"<bndbox>{corners}</bndbox></object></annotation>"
    )


@pytest.fixture
def inside(sandbox: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(sandbox)
    monkeypatch.setenv("CAMTOOL_OFFLINE", "1")
    monkeypatch.setenv("TORCH_HOME", str(sandbox / "torch"))
    monkeypatch.delenv("CAMTOOL_WEIGHTS", raising=False)
    monkeypatch.setenv("PATH", f"{sandbox / 'bin'}{os.pathsep}{os.environ['PATH']}")
    return sandbox


@pytest.mark.slow
@pytest.mark.parametrize("command", dict.fromkeys(COMMANDS))
def test_every_command_runs(inside: Path, command: str) -> None:
    words = shlex.split(command)[1:]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, (command, result.output, result.exception)


@pytest.mark.slow
def test_every_block_of_python_runs(inside: Path) -> None:
    net = zoo.random_module("resnet18", 2)
    x = torch.zeros(2, 3, 224, 224)
    for name, block in blocks("python"):
        block = block.replace('camtool.load("resnet50")', 'camtool.load("resnet18", "random")')
        known = {"camtool": camtool, "net": net, "x": x, "model": camtool.load("auto")}
        for node in ast.parse(block).body:
            try:
                exec(compile(ast.Module([node], []), name, "exec"), known)
            except Exception as error:
                raise AssertionError(f"{name}: {ast.unparse(node)}") from error


@pytest.mark.slow
def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "-d", str(tmp_path)],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    reference = (tmp_path / "python" / "index.html").read_text()
    for name in set(camtool.__all__) - {"__version__", "BEST", "NEXT"}:
        assert f'id="camtool.{name}"' in reference, name
    assert "--threshold-rule" in (tmp_path / "command-line" / "index.html").read_text()


def test_every_message_of_the_troubleshooting_page_is_the_programs() -> None:
    # Literals that stand next to each other are one.
    source = "".join(path.read_text() for path in sorted((ROOT / "camtool").rglob("*.py")))
    source = re.sub(r'"\s*\n\s*(\+ )?f?"', "", source)
    headings = re.findall(r'^## "(.*)"$', (ROOT / "docs" / "troubleshooting.md").read_text(), re.M)
    headings += re.findall(
        r'^## ".*", "(.*)"$', (ROOT / "docs" / "troubleshooting.md").read_text(), re.M
    )
    assert len(headings) > 10
    for heading in headings:
        for part in re.split('…|", "', heading):
            assert part.strip() in source, heading


@pytest.mark.slow
def test_every_picture_is_made_by_the_script(tmp_path: Path, monkeypatch) -> None:
    spec = importlib.util.spec_from_file_location("pictures", ROOT / "docs" / "pictures.py")
    assert spec is not None
    assert spec.loader is not None
    pictures = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(pictures)
    kept = pictures.FOLDER
    monkeypatch.setattr(pictures, "FOLDER", tmp_path)
    pictures.main()
    made = {path.name for path in tmp_path.iterdir()}
    assert made <= {path.name for path in kept.iterdir()}
    shown = {
        Path(link).name
        for page in PAGES
        for link in re.findall(r"!\[.*?\]\((.*?)\)", page.read_text())
    }
    assert shown == {path.name for path in kept.iterdir()}
    for name in made:
        with Image.open(tmp_path / name) as new, Image.open(kept / name) as old:
            assert new.size == old.size
            difference = np.abs(np.asarray(new, np.int16) - np.asarray(old, np.int16))
            assert difference.mean() < 2, f"{name} is not what the script makes now"


def test_links_between_pages_lead_somewhere() -> None:
    for page in PAGES:
        for link in re.findall(r"\]\(([^)#:]+?)(?:#.*?)?\)", page.read_text()):
            assert (page.parent / link).exists(), f"{page.name}: {link}"


def test_commands_are_found() -> None:
    assert len(COMMANDS) > 15
