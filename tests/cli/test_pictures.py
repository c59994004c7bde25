"""What `camtool explain` takes besides files, and what it says of what it was told."""

from __future__ import annotations

import io
import json
import os
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from camtool.cli import app, pictures

MODEL = ("-m", "squeezenet1_1", "-w", "random", "--size", "64", "--device", "cpu")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    rng = np.random.default_rng(0)
    for name in ("one.png", "deep/two.jpg"):
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (60, 80, 3), np.uint8)).save(path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def address(here: Path):
    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_arguments: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=here)) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def explain(*words: object, stdin: bytes | None = None):
    arguments = ["explain", *MODEL, *map(str, words)]
    result = CliRunner().invoke(app, arguments, input=stdin)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def explained(*words: object, stdin: bytes | None = None) -> list[str]:
    result = explain("--json", "--save", "none", *words, stdin=stdin)
    return [image["path"] for image in json.loads(result.stdout)["images"]]


@pytest.mark.parametrize("words", [("photos",), ("photos/**/*.*",), ("photos", "photos/*.bmp")])
def test_a_folder_and_a_pattern_mean_all_their_pictures(here: Path, words) -> None:
    if len(words) > 1:
        result = explain(*words)
        assert result.exit_code == 2
        assert "holds no pictures" in result.stderr
    else:
        assert sorted(explained(*words)) == ["photos/deep/two.jpg", "photos/one.png"]


def test_panels_of_before_are_left_out_unless_they_are_all_that_is_asked(here: Path) -> None:
    assert explain("photos/one.png").exit_code == 0
    assert "1 of camtool's own pictures were left out" in explain("photos").stderr
    several = ("photos/one.png", "photos/one.cam.png")
    assert explained(*several) == ["photos/one.png"]
    assert explained("photos/one.cam.png") == ["photos/one.cam.png"]


def test_standard_input_is_a_picture(here: Path) -> None:
    content = (here / "photos" / "one.png").read_bytes()
    result = explain("-", stdin=content)
    assert result.exit_code == 0
    assert (here / "stdin.cam.png").is_file()
    assert explain("-", stdin=b"no picture").exit_code == 1


def test_a_picture_on_a_server(here: Path, address: str, monkeypatch) -> None:
    result = explain(f"{address}/photos/one.png?size=large", f"{address}/none.png")
    assert result.exit_code == 1
    assert (here / "one.cam.png").is_file()
    assert f"{address}/none.png: can't be read (HTTP Error 404" in result.stderr
    monkeypatch.setattr(pictures, "MOST_BYTES", 100)
    result = explain(f"{address}/photos/one.png")
    assert "can't be read (more than 0 MB)" in result.stderr


def test_what_is_no_address_is_one_line(here: Path) -> None:
    for url in ("http://", "http://[", "https://127.0.0.1:1/a.png", "http://a b/ü.png"):
        result = explain(url)
        assert result.exit_code == 1
        assert result.stderr.count("\n") <= 2


def test_the_first_file_is_opened(here: Path, monkeypatch) -> None:
    for program in ("xdg-open", "open"):
        opener = here / "bin" / program
        opener.parent.mkdir(exist_ok=True)
        opener.write_text(f'#!/bin/sh\necho "$1" > {here / "opened"}\n')
        opener.chmod(0o755)
    monkeypatch.setenv("PATH", f"{here / 'bin'}{os.pathsep}{os.environ['PATH']}")
    assert explain("photos", "--open").exit_code == 0
    for _ in range(100):
        if (here / "opened").is_file() and (here / "opened").read_text():
            break
        threading.Event().wait(0.1)
    assert (here / "opened").read_text().strip().endswith(".cam.png")
    assert "nothing was written" in explain("photos/one.png", "--open", "--save", "none").stderr


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (("-k", 2, "-t", "5"), "--topk has no effect with --target"),
        (("--full-scale", 5), "--full-scale has no effect without --normalize none"),
        (("--threshold", 0.5, "--threshold-rule", "otsu"), "--threshold has no effect with"),
        (("--signed", "--save", "json"), "--signed has no effect where no map is drawn"),
    ],
)
def test_options_without_effect_say_so(here: Path, words, line: str) -> None:
    result = explain("photos/one.png", *words)
    assert result.exit_code == 0
    assert line in result.stderr
    assert "no effect" not in explain("photos/one.png").stderr


def test_an_unlikely_best_class_is_told(here: Path) -> None:
    assert "none of the 1,000 classes is likely" in explain("photos/one.png").stderr
    assert "likely" not in explain("photos/one.png", "-t", "5").stderr


def test_wrong_usage_is_told_before_which_network_it_is(here: Path, monkeypatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(here))
    monkeypatch.delenv("CAMTOOL_WEIGHTS", raising=False)
    words = ("explain", "photos/one.png", "--save", "none")
    assert "embedded network" in CliRunner().invoke(app, words).stderr
    for wrong in (("-t", "nonsense"), ("--save", "nonsense")):
        result = CliRunner().invoke(app, [*words, *wrong])
        assert result.exit_code == 2
        assert "embedded network" not in result.stderr


def test_help_is_in_groups_with_examples() -> None:
    for command in ("explain", "batch", "evaluate"):
        text = CliRunner().invoke(app, [command, "-h"]).stdout
        places = [text.index(f"\n{heading}:") for heading in ("Options", "Network and input")]
        assert places == sorted(places)
        assert text.index("Examples:") < text.index(f"  camtool {command} ")


def test_every_help_has_two_examples_of_its_command() -> None:
    commands = ("explain", "batch", "evaluate", "inspect", "weights")
    for words in (
        (),
        *((c,) for c in commands),
        *(("weights", w) for w in ("list", "get", "verify")),
    ):
        text = CliRunner().invoke(app, [*words, "-h"]).stdout
        name = " ".join(("camtool", *words))
        assert text.split("Examples:")[1].count(f"  {name}") >= 2, text


def test_completion_knows_the_commands() -> None:
    result = CliRunner().invoke(
        app,
        [],
        prog_name="camtool",
        env={"_CAMTOOL_COMPLETE": "complete_bash", "COMP_WORDS": "camtool e", "COMP_CWORD": "1"},
    )
    assert {"explain", "evaluate"} <= set(result.stdout.split())


def test_a_terminal_is_no_picture(monkeypatch) -> None:
    class Terminal(io.BytesIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr("sys.stdin", Terminal())
    with pytest.raises(Exception, match="2"):
        pictures.sources_of(["-"])
