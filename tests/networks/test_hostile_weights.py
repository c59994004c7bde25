"""Weights that were made to do harm: one line each, before anything large is allocated."""

from __future__ import annotations

import io
import json
import os
import pickle
import re
import struct
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

from camtool.errors import ModelError
from camtool.networks import load_network
from camtool.networks.gapnet import gapnet
from camtool.networks.state import FREE_INFLATION, MAX_DEPTH, MAX_INFLATION, read_state

LEGACY = b"".join(
    pickle.dumps(part, protocol=2)
    for part in (0x1950A86A20F9469CFC6C, 1001, {"protocol_version": 1001, "little_endian": True})
)
"""How torch.save began before torch 1.6; the object's pickle and a list of keys follow."""


def _archive(path: Path, pickled: bytes) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", pickled)
        archive.writestr("archive/version", "3\n")


def _bomb(path: Path) -> None:
    """A state dict's archive whose one storage is 300 MiB of zeros in a third of a megabyte."""
    torch.save({"fc.weight": torch.zeros(8)}, path)
    with zipfile.ZipFile(path) as archive:
        entries = {entry.filename: archive.read(entry) for entry in archive.infolist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in entries.items():
            if "/data/" not in name:
                archive.writestr(name, content)
                continue
            with archive.open(name, "w", force_zip64=True) as stream:
                for _ in range(300):
                    stream.write(bytes(1 << 20))


def _expanded(path: Path) -> None:
    state = gapnet().state_dict()
    state["fc.weight"] = torch.zeros(1, 1).expand(100_000_000, 512)
    state["fc.bias"] = torch.zeros(1).expand(100_000_000)
    torch.save(state, path)


def _deep(wrap: Callable[[Path, bytes], object]) -> Callable[[Path], object]:
    """A dictionary whose key is a tuple in a tuple in a tuple, a million times."""
    pickled = b"\x80\x02}()" + b"\x85" * 1_000_000 + b"K\x01u."
    return lambda path: wrap(path, pickled)


def _deep_by_memo(path: Path) -> None:
    """The same, where each level lies in the memo and comes from there."""
    levels = b"".join(
        b"r" + struct.pack("<I", n) + b"0j" + struct.pack("<I", n) + b"\x85" for n in range(300_000)
    )
    _archive(path, b"\x80\x02}()" + levels + b"K\x01u.")


def _refers_to_itself(path: Path) -> None:
    state: dict[str, object] = {}
    for key in ("state_dict", "model", "ema", "model_ema"):
        state[key] = state
    torch.save(state, path)


HOSTILE: dict[str, tuple[Callable[[Path], object], str]] = {
    "a bomb": (_bomb, r"holds 0\.3 GB in a file of 0\.3 MB; more than 16 times"),
    "100 million classes": (_expanded, r"holds 205\.2 GB in a file of .* more than 16 times"),
    "a deep key": (_deep(_archive), "is nested more than 100 levels deep"),
    "a deep key of old": (
        _deep(lambda path, pickled: path.write_bytes(LEGACY + pickled)),
        "is nested more than 100 levels deep",
    ),
    "a deep key from the memo": (_deep_by_memo, "is nested more than 100 levels deep"),
    "a plain deep pickle": (
        _deep(lambda path, pickled: path.write_bytes(pickled)),
        "is nested more than 100 levels deep",
    ),
    "itself in itself": (_refers_to_itself, "holds no state dict"),
    "deep dictionaries": (
        lambda path: _archive(
            path, b"\x80\x02" + b"}X\x05\0\0\0model" * 9999 + b"}" + b"s" * 9999 + b"."
        ),
        "holds no state dict",
    ),
    "an endless name": (
        lambda path: torch.save({"a." * 300_000 + "b": torch.zeros(1)}, path),
        "fits no torchvision architecture",
    ),
    "a name of nothing": (lambda path: torch.save({"": torch.zeros(1)}, path), "fits no"),
    "a terabyte in one call": (
        lambda path: _archive(path, b"\x80\x02ctorch\nTensor\n\x8a\x06\0\0\0\0\0\x01\x85R."),
        "is not a weights file|holds no state dict",
    ),
    "a memo that is not there": (lambda path: _archive(path, b"\x80\x02h\x07."), "damaged"),
    "more taken than given": (lambda path: _archive(path, b"\x80\x02\x85\x86\x87u."), "damaged"),
}


LOADING = """
import json, resource, sys
from camtool.errors import ModelError
from camtool.networks import load_network
from camtool.networks.torchvision import names
names()
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for path in sys.argv[1:]:
    try:
        load_network(path)
    except ModelError as error:
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        print(json.dumps([path, str(error), grown]), flush=True)
"""


@pytest.fixture(scope="module")
def told(tmp_path_factory) -> dict[str, tuple[str, int]]:
    """What each case is told, and how much the process has grown by then, in KiB.

    In a process of its own: a crash is what some of them are made for.
    """
    folder = tmp_path_factory.mktemp("hostile")
    paths = {str(folder / f"{number}.pth"): case for number, case in enumerate(HOSTILE)}
    for path, case in paths.items():
        HOSTILE[case][0](Path(path))
    command = [sys.executable, "-c", LOADING, *paths]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stderr == ""
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert all(line.startswith(path) for path, line, _ in lines)
    return {paths[path]: (line.removeprefix(path), grown) for path, line, grown in lines}


@pytest.mark.slow
@pytest.mark.parametrize("case", HOSTILE)
def test_is_one_line_and_little_memory(case: str, told: dict) -> None:
    line, grown = told[case]
    assert re.search(HOSTILE[case][1], line), line
    assert line.isprintable()
    assert len(line) < 500
    # A deep pickle is read in pieces; the harm would be gigabytes.
    assert grown < 500_000


def test_the_limits_are_above_what_is_ordinary(tmp_path: Path) -> None:
    """All zeros, recompressed, pruned and shared tensors are no bombs as long as they are small."""
    zeros = torch.zeros(1000, 1000)
    path = tmp_path / "mine.pth"
    torch.save({f"a{n}": zeros.expand(1000, 1000) for n in range(30)}, path)
    assert len(read_state(path)) == 30
    assert 30 * zeros.numel() * 4 > MAX_INFLATION * path.stat().st_size
    assert 30 * zeros.numel() * 4 < FREE_INFLATION


@given(st.recursive(st.integers() | st.text(max_size=3), lambda inner: st.tuples(inner, inner)))
def test_what_is_not_too_deep_is_let_through(content: object) -> None:
    def depth(value: object) -> int:
        return 1 + max(map(depth, value)) if isinstance(value, tuple) else 0

    assert depth(content) < MAX_DEPTH
    from camtool.networks.state import _check_depth

    for protocol in range(6):
        stream = io.BytesIO(pickle.dumps({"a": content, "b": [content]}, protocol))
        _check_depth(Path("mine"), stream)
        assert stream.read() == b""


@pytest.mark.parametrize("depth", [MAX_DEPTH - 1, MAX_DEPTH + 1])
@pytest.mark.parametrize("protocol", range(6))
def test_the_depth_that_is_counted_is_the_depth_that_is_there(depth: int, protocol: int) -> None:
    from camtool.networks.state import _check_depth

    value: object = 1
    for _ in range(depth):
        value = (value, 2)
    stream = io.BytesIO(pickle.dumps({"a": value}, protocol))
    if depth < MAX_DEPTH:
        _check_depth(Path("mine"), stream)
    else:
        with pytest.raises(ModelError, match="more than 100 levels"):
            _check_depth(Path("mine"), stream)


def test_pipes_and_devices_are_no_weights(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe.pth"
    os.mkfifo(pipe)
    for arguments in ((pipe,), ("squeezenet1_1", pipe), ("gapnet", pipe), ("auto", pipe)):
        with pytest.raises(ModelError, match=r"no (regular|such weights)? ?file"):
            load_network(*arguments)
    with pytest.raises(ModelError, match="no such weights file"):
        load_network("squeezenet1_1", "/dev/zero")
    for name in ("x" * 5000, "a\0b", "\n", ""):
        with pytest.raises(ModelError) as caught:
            load_network(name)
        assert str(caught.value).isprintable()


def _gapnet_file(path: Path, state: dict | None = None, **facts: object) -> Path:
    """A small gapnet file, with what it says of itself replaced."""
    architecture: dict[str, Any] = _architecture()
    preprocessing = {"size": 64, "mean": [0.5] * 3, "std": [0.25] * 3, "interpolation": "bilinear"}
    said = {"architecture": architecture, "labels": ["a", "b", "c"], "preprocessing": preprocessing}
    metadata = {
        key: value if isinstance(value, str) else json.dumps(value)
        for key, value in (said | facts).items()
    }
    torch.manual_seed(0)
    module = gapnet(**architecture)
    save_file(state or module.state_dict(), path, {"format": "camtool-gapnet", **metadata})
    return path


def _architecture(**changes: object) -> dict:
    return {"widths": [4, 4, 4, 4], "blocks": [1, 1], "classes": 3, **changes}


@pytest.mark.parametrize(
    ("facts", "reason"),
    [
        ({"architecture": _architecture(widths=[4, 4, 4, 8])}, "does not fit the gapnet"),
        ({"architecture": _architecture(widths=[10**9] * 4)}, "larger than it is"),
        ({"architecture": _architecture(blocks=[10**9, 1])}, "larger than it is"),
        ({"architecture": _architecture(classes=0)}, "must be positive"),
        ({"architecture": _architecture(classes=10**9)}, "larger than it is"),
        ({"architecture": _architecture(widths=[4])}, "two widths more than stages"),
        ({"architecture": _architecture(widths="many")}, "damaged gapnet file"),
        ({"architecture": _architecture(depth=3)}, "damaged gapnet file"),
        ({"architecture": []}, "damaged gapnet file"),
        ({"architecture": "[" * 100_000}, "damaged gapnet file"),
        ({"architecture": "{"}, "damaged gapnet file"),
        ({"preprocessing": {}}, "damaged gapnet file"),
        ({"preprocessing": {"size": 64, "mean": 3, "std": [1], "interpolation": "x"}}, "damaged"),
        ({"labels": 5}, "damaged gapnet file"),
        ({"state": {"fc.weight": torch.zeros(3, 4)}}, "missing|damaged"),
    ],
)
def test_a_gapnet_file_that_lies(tmp_path: Path, facts: dict, reason: str) -> None:
    path = _gapnet_file(tmp_path / "mine.safetensors", **facts)
    with pytest.raises(ModelError, match=reason) as caught:
        load_network(path)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


def test_a_gapnet_of_four_channels_or_other_classes_is_none(tmp_path: Path) -> None:
    state = gapnet((4, 4, 4, 4), (1, 1), 3).state_dict()
    for key, shape in (("features.0.0.weight", (4, 4, 4, 4)), ("fc.weight", (9, 4))):
        wrong = state | {key: torch.zeros(shape)}
        if key == "fc.weight":
            wrong["fc.bias"] = torch.zeros(9)
        path = _gapnet_file(tmp_path / "mine.safetensors", wrong)
        with pytest.raises(ModelError, match="damaged gapnet file"):
            load_network(path)
