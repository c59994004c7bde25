"""What can't be read: one line that names it and says why, whatever it is."""

from __future__ import annotations

import io
import os
import pickle
import stat
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from camtool.images import ImageError, display_name, read_image
from camtool.images import read as reading

RNG = np.random.default_rng(0)
SMOOTH = np.broadcast_to(np.linspace(0, 255, 40)[None, :, None], (24, 40, 3)).astype(np.uint8)


def _encoded(image: Image.Image, form: str, **options) -> bytes:
    stream = io.BytesIO()
    image.save(stream, form, **options)
    return stream.getvalue()


@pytest.mark.parametrize(
    ("pixels", "reason"),
    [
        (np.zeros((2, 3, 5), np.uint8), "has shape (2, 3, 5)"),
        (np.zeros(7, np.uint8), "has shape (7,)"),
        (np.zeros((0, 5, 3), np.uint8), "5×0 pixels"),
        (np.zeros((4, 5, 3), np.int64), "dtype int64"),
        (np.full((4, 5, 3), 7.0), "floats must lie in 0..1"),
        (np.full((4, 5, 3), np.nan), "floats must lie in 0..1"),
        (torch.zeros(2, 4, 5, 3), "has shape"),
        (object(), "is of type object, no path"),
        (None, "is of type NoneType, no path"),
    ],
)
def test_wrong_pixels_say_what_is_wrong(pixels, reason: str) -> None:
    with pytest.raises(ImageError) as caught:
        read_image(pixels)
    assert reason in str(caught.value)


def test_a_folder_that_can_not_be_read_is_said_to_be_one(tmp_path, monkeypatch) -> None:
    with pytest.raises(ImageError, match="is a folder; give a picture"):
        read_image(tmp_path)
    # Permissions stop no superuser, who may run this.
    monkeypatch.setattr("os.access", lambda path, mode: False)
    with pytest.raises(ImageError, match="is a folder that can't be read"):
        read_image(tmp_path)


def _refusal(source) -> str:
    """Why a picture is refused; empty if it is read."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            assert read_image(source, max_pixels=10**6).dtype == np.uint8
        except ImageError as error:
            return str(error)
    return ""


def _bad_files(folder: Path) -> dict[str, tuple[Path, str]]:
    jpeg = _encoded(Image.fromarray(RNG.integers(0, 255, (90, 90, 3), np.uint8)), "JPEG")
    png = _encoded(Image.fromarray(RNG.integers(0, 255, (90, 90, 3), np.uint8)), "PNG")
    contents = {
        "empty.jpg": (b"", "is empty"),
        "truncated.jpg": (jpeg[: len(jpeg) // 2], "broken or truncated"),
        "truncated.png": (png[: len(png) // 2], "broken or truncated"),
        "header-only.png": (png[:20], "is "),
        "flipped.png": (png[:60] + bytes(b ^ 0xFF for b in png[60:]), "is "),
        "text.jpg": (b"this is no picture\n" * 20, "is not a picture"),
        "page.png": (b"<!doctype html><html></html>", "is not a picture"),
        "noise.webp": (RNG.bytes(500), "is not a picture"),
        "noise.tiff": (b"II*\0" + RNG.bytes(300), "is "),
        "noise.gif": (b"GIF89a" + RNG.bytes(300), ": "),
        "noise.bmp": (b"BM" + RNG.bytes(300), "is "),
        "with\nnewline.jpg": (b"x", "is not a picture"),
    }
    found = {}
    for name, (content, reason) in contents.items():
        (folder / name).write_bytes(content)
        found[name] = (folder / name, reason)
    return found | {
        "missing": (folder / "missing.jpg", "no such file"),
        "folder": (folder, "is a folder"),
        "null": (folder / "a\0b.jpg", "is not a usable path"),
        "long name": (folder / ("x" * 5000), "can't be read"),
    }


def test_each_bad_file_gives_one_line_with_its_name_and_the_reason(tmp_path: Path) -> None:
    for name, (path, reason) in _bad_files(tmp_path).items():
        line = _refusal(path)
        assert line.startswith(display_name(path) + ": "), name
        assert reason in line, (name, line)
        assert len(line.splitlines()) == 1, (name, line)
    assert read_image(_encoded(Image.fromarray(SMOOTH), "PNG")).shape == SMOOTH.shape


@pytest.mark.parametrize("form", ["JPEG", "PNG", "GIF", "TIFF", "WEBP", "BMP"])
def test_every_truncation_is_a_picture_or_an_image_error(form: str) -> None:
    content = _encoded(Image.fromarray(SMOOTH), form)
    for end in range(0, len(content), max(1, len(content) // 40)):
        assert len(_refusal(content[:end]).splitlines()) <= 1


@pytest.mark.parametrize("form", ["JPEG", "PNG", "GIF", "TIFF", "WEBP", "BMP"])
def test_every_damage_is_a_picture_or_an_image_error(form: str) -> None:
    content = _encoded(Image.fromarray(SMOOTH), form)
    rng = np.random.default_rng(1)
    for _ in range(60):
        damaged = bytearray(content)
        for place in rng.integers(0, min(len(content), 200), 4):
            damaged[place] = rng.integers(256)
        assert len(_refusal(bytes(damaged)).splitlines()) <= 1


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no FIFOs on this system")
def test_a_fifo_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    assert stat.S_ISFIFO((tmp_path / "pipe.jpg").stat().st_mode)
    with pytest.raises(ImageError, match="not a regular file"):
        read_image(tmp_path / "pipe.jpg")


@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="no /proc on this system")
def test_a_file_that_gives_an_error_when_read() -> None:
    with pytest.raises(ImageError, match=r"/proc/self/mem: can't be read \(Input/output error\)"):
        read_image("/proc/self/mem")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root reads all files")
def test_an_unreadable_file(tmp_path: Path) -> None:
    path = tmp_path / "secret.png"
    path.write_bytes(_encoded(Image.fromarray(SMOOTH), "PNG"))
    path.chmod(0)
    with pytest.raises(ImageError, match="Permission denied"):
        read_image(path)


@pytest.mark.skipif(os.name != "posix", reason="names are Unicode on this system")
def test_a_name_that_is_no_utf8_is_read_and_printed(tmp_path: Path) -> None:
    name = os.fsencode(tmp_path) + b"/caf\xe9.png"
    try:
        Path(os.fsdecode(name)).write_bytes(_encoded(Image.fromarray(SMOOTH), "PNG"))
    except OSError:
        pytest.skip("this file system takes Unicode names only")
    np.testing.assert_array_equal(read_image(os.fsdecode(name)), SMOOTH)
    Path(os.fsdecode(name)).write_bytes(b"no picture")
    with pytest.raises(ImageError) as caught:
        read_image(os.fsdecode(name))
    assert "caf\\udce9.png: is not a picture" in str(caught.value).encode("utf-8").decode()


def test_text_streams_and_broken_streams_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(_encoded(Image.fromarray(SMOOTH), "PNG"))
    with path.open(encoding="latin-1") as stream, pytest.raises(ImageError, match="binary mode"):
        read_image(stream)  # type: ignore[arg-type]
    closed = path.open("rb")
    closed.close()
    with pytest.raises(ImageError, match="can't be read"):
        read_image(closed)


def test_a_closed_pil_image_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(_encoded(Image.fromarray(SMOOTH), "PNG"))
    image = Image.open(path)
    image.close()
    with pytest.raises(ImageError):
        read_image(image)


def test_a_bomb_is_refused_before_it_is_decoded(tmp_path: Path) -> None:
    content = bytearray(_encoded(Image.new("1", (1, 1)), "PNG"))
    # Width and height in the header, and the header's checksum (PNG specification, section 11.2.1).
    content[16:24] = struct.pack(">II", 30_000, 30_000)
    content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
    bomb = tmp_path / "bomb.png"
    bomb.write_bytes(content)
    with pytest.raises(ImageError, match="900,000,000 pixels, more than the limit of 100,000,000"):
        read_image(bomb)


def test_the_limit_is_adjustable_both_ways() -> None:
    content = _encoded(Image.fromarray(SMOOTH), "PNG")
    pixels = SMOOTH.shape[0] * SMOOTH.shape[1]
    for source in (content, SMOOTH, Image.fromarray(SMOOTH)):
        assert read_image(source, max_pixels=pixels).shape == SMOOTH.shape
        with pytest.raises(ImageError, match="limit"):
            read_image(source, max_pixels=pixels - 1)


def test_the_error_travels_between_processes() -> None:
    error = ImageError("a.jpg", "is empty (0 bytes)")
    again = pickle.loads(pickle.dumps(error))
    assert (str(again), again.name, again.reason) == (str(error), "a.jpg", "is empty (0 bytes)")


def test_names() -> None:
    assert display_name("a\nb\x1b[31m.jpg") == "a\\nb\\x1b[31m.jpg"
    assert display_name("käse 猫.jpg") == "käse 猫.jpg"
    assert display_name(b"abc") == "<bytes>"
    assert display_name(io.BytesIO()) == "<file object>"
    assert display_name(SMOOTH) == "<array>"
    assert display_name(Image.fromarray(SMOOTH)) == "<PIL image>"
    assert reading.printable("tab\t") == "tab\\t"
