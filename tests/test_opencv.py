from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import camtool


def test_a_missing_libgl_is_one_sentence_that_names_the_headless_build(tmp_path):
    """A bare server's OpenCV is played by a package of that name that fails as the real one."""
    (tmp_path / "cv2").mkdir()
    failing = 'raise ImportError("libGL.so.1: cannot open shared object file")\n'
    (tmp_path / "cv2" / "__init__.py").write_text(failing)
    root = Path(camtool.__file__).parents[1]
    path = os.pathsep.join([str(tmp_path), str(root)])
    command = [sys.executable, "-m", "camtool", "explain", "x.jpg", "-m", "squeezenet1_1"]
    done = subprocess.run(
        [*command, "-w", "random"],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 3
    assert "opencv-python-headless" in done.stderr
    assert "libGL" in done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
