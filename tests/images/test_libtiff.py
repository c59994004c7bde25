"""What libtiff says: of the picture that it belongs to, in one line, and not on the terminal."""

from __future__ import annotations

import io
import logging
import threading

import numpy as np
import pytest
from PIL import Image, TiffImagePlugin, UnidentifiedImageError

from camtool.images import ImageError, libtiff, read_image

GREY = np.add.outer(np.arange(90), np.arange(120)).astype(np.uint8)

pytestmark = pytest.mark.skipif(not libtiff.HANDLERS, reason="this Pillow's libtiff is sealed")


def _compressed(compression: str, mode: str = "L", damage: bytes = b"") -> bytes:
    """A TIFF file; of its compressed data the middle is overwritten."""
    stream = io.BytesIO()
    Image.fromarray(GREY).convert(mode).save(stream, "TIFF", compression=compression)
    content = bytearray(stream.getvalue())
    with Image.open(io.BytesIO(content)) as image:
        assert isinstance(image, TiffImagePlugin.TiffImageFile)
        (start,) = image.tag_v2[TiffImagePlugin.STRIPOFFSETS]
        (length,) = image.tag_v2[TiffImagePlugin.STRIPBYTECOUNTS]
    middle = start + length // 2
    content[middle : middle + len(damage)] = damage
    return bytes(content)


def broken() -> bytes:
    """A picture that libtiff gives up."""
    return _compressed("tiff_adobe_deflate", damage=b"\xff" * 40)


def damaged() -> bytes:
    """A fax with bad codes, which libtiff complains of and decodes all the same."""
    return _compressed("group4", "1", damage=b"\x55\xaa" * 9)


def test_a_broken_picture_says_what_libtiff_said_of_it(capfd: pytest.CaptureFixture) -> None:
    with pytest.raises(ImageError) as caught:
        read_image(broken())
    assert "Decod" in caught.value.reason
    assert len(str(caught.value).splitlines()) == 1
    assert capfd.readouterr() == ("", "")


def test_a_damaged_picture_is_read_and_one_line_names_it(
    tmp_path, capfd: pytest.CaptureFixture, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "fax\n.tif"
    path.write_bytes(damaged())
    assert read_image(path).shape == (90, 120, 3)
    (record,) = caplog.records
    line = record.getMessage()
    assert record.levelno == logging.WARNING
    assert line.startswith(f"{tmp_path}/fax\\n.tif: may be damaged (libtiff: Bad code word ")
    assert "more)" in line
    assert len(line.splitlines()) == 1
    assert capfd.readouterr().err == ""


def test_good_pictures_and_mere_warnings_say_nothing(
    capfd: pytest.CaptureFixture, caplog: pytest.LogCaptureFixture
) -> None:
    stream = io.BytesIO()
    image = Image.fromarray(GREY)
    # A private tag that libtiff knows nothing of is worth a warning to it.
    image.save(stream, "TIFF", compression="tiff_lzw", tiffinfo={60000: "mine"})
    np.testing.assert_array_equal(read_image(stream.getvalue())[..., 0], GREY)
    assert (caplog.records, capfd.readouterr().err) == ([], "")


def test_what_others_read_is_printed_as_ever(capfd: pytest.CaptureFixture) -> None:
    with pytest.raises(OSError, match="decoder error"):
        Image.open(io.BytesIO(broken())).load()
    assert "Decod" in capfd.readouterr().err


def test_every_complaint_finds_its_own_picture(caplog: pytest.LogCaptureFixture, tmp_path) -> None:
    contents = {"good": _compressed("tiff_lzw"), "damaged": damaged(), "broken": broken()}
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    failed: list[str] = []
    start = threading.Barrier(6)

    def work(name: str) -> None:
        start.wait()
        for _ in range(30):
            try:
                read_image(tmp_path / name)
            except ImageError as error:
                failed.append(str(error))

    threads = [threading.Thread(target=work, args=(name,)) for name in [*contents] * 2]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    logged = [record.getMessage() for record in caplog.records]
    assert len(failed) == len(logged) == 60
    assert all(line.startswith(f"{tmp_path}/damaged: ") and "Bad code" in line for line in logged)
    assert all(
        line.startswith(f"{tmp_path}/broken: ") and "Decoding error" in line for line in failed
    )


def test_pillows_own_log_belongs_to_the_picture_too(
    capfd: pytest.CaptureFixture, caplog: pytest.LogCaptureFixture
) -> None:
    content = bytearray(_compressed("raw", "RGB"))
    entry = content.index(b"\x15\x01\x03\x00")
    content[entry + 8 : entry + 10] = b"\xff\xff"
    with pytest.raises(ImageError, match="is not a picture"):
        read_image(bytes(content))
    assert (caplog.records, capfd.readouterr().err) == ([], "")
    with pytest.raises(UnidentifiedImageError):
        Image.open(io.BytesIO(content))
    assert [record.name for record in caplog.records] == ["PIL.TiffImagePlugin"]
