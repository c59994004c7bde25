"""What lies in examples/ runs as it stands."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    "words",
    [["one_picture.py", "{folder}/espresso.jpg"], ["your_own_network.py"]],
    ids=["one_picture", "your_own_network"],
)
def test_scripts(words, tmp_path):
    folder = tmp_path / "examples"
    folder.mkdir()
    for path in EXAMPLES.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    words = [word.format(folder=folder) for word in words]
    done = subprocess.run(
        [sys.executable, folder / words[0], *words[1:]],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(EXAMPLES.parent)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout


def test_the_notebook_says_what_it_said(monkeypatch):
    nbformat = pytest.importorskip("nbformat", reason="notebooks need nbformat")
    nbclient = pytest.importorskip("nbclient", reason="notebooks need nbclient")
    monkeypatch.setenv("PYTHONPATH", str(EXAMPLES.parent))
    shown = nbformat.read(EXAMPLES / "gallery.ipynb", 4)
    again = nbformat.read(EXAMPLES / "gallery.ipynb", 4)
    resources = {"metadata": {"path": str(EXAMPLES)}}
    nbclient.NotebookClient(
        again, timeout=300, kernel_name="python3", resources=resources
    ).execute()
    # The first cell shows the panel, which is too large to be kept in the file.
    assert kinds(again)[0] >= {"text/plain", "image/png"}
    assert kinds(again)[1:] == kinds(shown)[1:]
    for words in ("8.07 = 8.07", "cam       adds up: True", "layercam  adds up: False"):
        assert words in texts(shown)
        assert words in texts(again)


def kinds(notebook):
    """What each cell of code shows besides text."""
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    return [{kind for o in cell.outputs for kind in o.get("data", ())} for cell in cells]


def texts(notebook):
    return "".join(o.get("text", "") for cell in notebook.cells for o in cell.get("outputs", ()))
