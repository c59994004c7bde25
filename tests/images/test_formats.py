"""What a file is by its content: a picture, or a hint at what would make it one."""

from __future__ import annotations

import importlib
import io

import numpy as np
import pytest
from PIL import Image, features

from camtool.images import ImageError, formats, read_image

# All of Pillow's formats, before a test replaces their list.
Image.init()

SMOOTH = np.broadcast_to(np.linspace(0, 255, 40)[None, :, None], (24, 40, 3)).astype(np.uint8)
HEIC = b"\0\0\0\x1cftypheic\0\0\0\0mif1heicmiaf\0\0\1|meta"
DRAWING = b'<svg xmlns="http://www.w3.org/2000/svg"><rect width="5"/></svg>'


def _refusal(content: bytes) -> str:
    with pytest.raises(ImageError) as caught:
        read_image(content)
    assert len(str(caught.value).splitlines()) == 1
    return caught.value.reason


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pillow alone, without any plugin that is installed here."""

    def missing(name: str) -> None:
        raise ImportError(name)

    monkeypatch.setattr(importlib, "import_module", missing)
    own = [form for form in Image.ID if form not in ("HEIF", "JXL")]
    monkeypatch.setattr(Image, "ID", own)


@pytest.mark.usefixtures("bare")
@pytest.mark.parametrize(
    ("content", "what", "way"),
    [
        (HEIC, "a HEIC picture", "pip install pillow-heif"),
        (HEIC.replace(b"heic", b"mif1", 1), "a HEIC picture", "pip install pillow-heif"),
        (b"\xff\x0a" + bytes(50), "a JPEG XL picture", "pip install pillow-jxl-plugin"),
        (b"\0\0\0\x0cJXL \r\n\x87\n" + bytes(50), "a JPEG XL picture", "pillow-jxl-plugin"),
        (DRAWING, "an SVG drawing", "cairosvg"),
        (b"\xef\xbb\xbf\n " + DRAWING, "an SVG drawing", "cairosvg"),
        (b"<?xml version='1.0'?>\n<!-- by hand -->\n" + DRAWING, "an SVG drawing", "cairosvg"),
        (b"<!DOCTYPE svg PUBLIC '-//W3C//DTD SVG 1.1//EN'>" + DRAWING, "an SVG drawing", "cairo"),
        (b"%PDF-1.7\n%\xe2\xe3", "a PDF document", "pdftoppm"),
        (b"\n\njunk\n%PDF-1.4", "a PDF document", "pdftoppm"),
        (b"\0\0\0\x18ftypisom\0\0\0\1", "a video (MP4 or QuickTime)", "ffmpeg"),
        (b"\0\0\0\x14ftypqt  \0\0\0\1", "a video (MP4 or QuickTime)", "ffmpeg"),
        (b"\x1a\x45\xdf\xa3\1\0\0\0", "a video (Matroska or WebM)", "ffmpeg"),
        (b"RIFF\x10\x20\0\0AVI LIST", "a video (AVI)", "ffmpeg"),
        (b"\0\0\1\xba!\0\1", "a video (MPEG)", "ffmpeg"),
        (b"\x30\x26\xb2\x75\x8e\x66\xcf\x11\xa6\xd9", "a video (Windows Media)", "ffmpeg"),
        (b"FLV\1\5\0\0\0\t", "a video (Flash)", "ffmpeg"),
    ],
)
def test_a_known_format_is_named_with_what_to_do(content: bytes, what: str, way: str) -> None:
    reason = _refusal(content)
    assert reason.startswith(f"is {what}; ")
    assert way in reason


@pytest.mark.usefixtures("bare")
@pytest.mark.parametrize(
    "content",
    [
        b"no picture",
        b"<!doctype html><html><svg></svg></html>",
        b"<?xml version='1.0'?><note/>",
        b"RIFF\x10\x20\0\0WAVEfmt ",
        b"\0\0\0\x18ftypcrx \0\0\0\1",
        bytes(2000) + b"%PDF-1.4",
    ],
)
def test_anything_else_is_no_picture(content: bytes) -> None:
    assert _refusal(content) == "is not a picture in a format that Pillow reads"


def test_a_heic_picture_is_read_where_its_plugin_is_installed() -> None:
    plugin = pytest.importorskip("pillow_heif")
    stream = io.BytesIO()
    plugin.from_pillow(Image.fromarray(SMOOTH)).save(stream, quality=95)
    content = stream.getvalue()
    assert np.abs(read_image(content).astype(int) - SMOOTH).mean() < 4
    assert "broken" in _refusal(HEIC + bytes(40))


@pytest.mark.skipif(not features.check("avif"), reason="this Pillow has no AVIF")
def test_a_broken_avif_is_no_video() -> None:
    assert "AVIF" in _refusal(b"\0\0\0\x1cftypavif\0\0\0\0avifmif1" + bytes(30))


def _dds(flags: int, form: bytes = b"\0\0\0\0", dxgi: int = 0) -> bytes:
    """A header of a DDS file (Microsoft's DDS_HEADER and DDS_HEADER_DXT10)."""
    words = np.zeros(31, "<u4")
    words[[0, 1, 2, 3, 18, 19]] = 124, 0x1007, 4, 4, 32, flags
    words[20:21] = np.frombuffer(form, "<u4")
    return b"DDS " + words.tobytes() + np.array([dxgi, 3, 0, 1, 0], "<u4").tobytes() + bytes(64)


@pytest.mark.parametrize(
    "content",
    [_dds(4, b"ABCD"), _dds(4, b"DX10", 93), _dds(8)],
    ids=["four letters", "DXGI format", "flags"],
)
def test_what_pillow_leaves_unimplemented_is_an_image_error(content: bytes) -> None:
    assert _refusal(content).startswith("is of a kind that Pillow does not decode (")


@pytest.mark.parametrize(
    "error", [RuntimeError, AssertionError, ZeroDivisionError, RecursionError, Exception]
)
@pytest.mark.parametrize("stage", ["open", "decode"])
def test_whatever_a_decoder_raises_is_an_image_error(
    monkeypatch: pytest.MonkeyPatch, stage: str, error: type[Exception]
) -> None:
    class Decoder(Image.Image):
        def load(self) -> None:
            raise error("no\nsuch luck")

    def opened(stream, name: str) -> Image.Image:
        if stage == "open":
            raise error("no\nsuch luck")
        image = Decoder()
        image._size, image._mode = (3, 4), "RGB"
        return image

    monkeypatch.setattr(Image, "ID", ["ODD", *Image.ID])
    monkeypatch.setitem(Image.OPEN, "ODD", (opened, None))
    assert _refusal(b"anything") == r"is broken or truncated (no\nsuch luck)"


def test_memory_that_does_not_suffice_is_not_the_files_fault(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def opened(stream, name: str) -> Image.Image:
        raise MemoryError

    monkeypatch.setattr(Image, "ID", ["ODD", *Image.ID])
    monkeypatch.setitem(Image.OPEN, "ODD", (opened, None))
    assert _refusal(b"anything") == "needs more memory than there is (MemoryError)"


def test_pillows_own_limit_inside_a_decoder_says_how_to_raise_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stream = io.BytesIO()
    Image.fromarray(SMOOTH).save(stream, "WEBP", lossless=True)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    assert "raise PIL.Image.MAX_IMAGE_PIXELS" in _refusal(stream.getvalue())


def test_no_hint_needs_more_than_its_first_bytes() -> None:
    for known in formats._KNOWN:
        assert known.pattern.match(b"<" * 100_000) is None
