"""One way in for pictures: whatever it is, out come pixels or an `ImageError`."""

from __future__ import annotations

import io
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TypeAlias

import numpy as np
from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile

from camtool.images import libtiff
from camtool.images.arrays import NPY_MAGIC, array_from, array_in, bands_from, rgb_from
from camtool.images.errors import ImageError, display_name, printable
from camtool.images.formats import open_picture
from camtool.images.geometry import LARGE, Size
from camtool.images.pixels import Pixels, array_of, bands_of, grey_of, to_rgb, upright, upright_size

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from camtool.remote import Stored

ImageSource: TypeAlias = (
    "str | os.PathLike[str] | bytes | bytearray | memoryview | BinaryIO | Image.Image "
    "| NDArray[Any] | Tensor | Stored"
)

__all__ = [
    "MAX_PIXELS",
    "ImageError",
    "ImageSource",
    "display_name",
    "printable",
    "read_image",
    "read_levels",
    "read_pixels",
    "read_reduced",
    "read_size",
]

MAX_PIXELS = 100_000_000
"""Pictures with more pixels than this are refused unless the caller raises the limit."""

_log = logging.getLogger(__name__)


def read_image(source: ImageSource, *, max_pixels: int = MAX_PIXELS) -> NDArray[np.uint8]:
    """Read any picture as RGB.

    Files are recognised by content, not by name. EXIF rotation is applied, animations give
    their first frame, transparent pixels are composed on white. Embedded colour profiles are not
    applied, as torchvision's own loaders do not.

    Files of more than 8 bits become levels of 8: values of 16 bits are divided by 257 (of 12 by
    16.06), floats in 0..1 are multiplied by 255, whole numbers in 0..255 stay. All others, which
    do not say what is black and what white, are stretched from the least to the greatest of the
    picture's finite values; what is not finite is black.

    Args:
        source: A path, encoded bytes, a binary file object, a PIL image, or decoded pixels: an
            array [H,W], [H,W,1], [H,W,3] or [H,W,4], also in an .npy file, or a tensor [H,W] or
            [1|3|4,H,W]. Pixels are RGB(A); integers are uint8 or uint16, floats lie in 0..1.
        max_pixels: Refuse pictures with more pixels than this, before decoding them.

    Returns:
        uint8 [H,W,3], RGB, contiguous, in the orientation in which people see it.

    Raises:
        ImageError: The picture is missing, empty, broken, truncated, too large, or no picture.
    """
    name = display_name(source)
    with _opened(source, name, 4 * max_pixels) as found:
        return _whole(found, name, max_pixels)


def read_reduced(
    source: ImageSource, enough: Callable[[Size], Size], *, max_pixels: int = MAX_PIXELS
) -> tuple[NDArray[np.uint8], Size]:
    """Read any picture as RGB; one that is `LARGE` only as large as is needed.

    Such a picture is reduced by a whole factor, by the decoder itself where that can do it (JPEG),
    which spares most of the time and nearly all of the memory. Arrays, tensors and PIL images are
    in memory anyway, and left as they are.

    Args:
        source: As for `read_image`.
        enough: Told (W, H) of the original picture, gives (width, height) that suffice.
        max_pixels: Refuse pictures with more pixels than this, before decoding them.

    Returns:
        uint8 [h,w,3], where w is W divided by a whole factor and rounded up, and (W, H).

    Raises:
        ImageError: As `read_image`.
    """
    name = display_name(source)
    with _opened(source, name, 4 * max_pixels) as found:
        if isinstance(found, Image.Image) and found is not source:
            _check_size(found, name, max_pixels)
            if found.width * found.height > LARGE:
                return _reduced(found, name, enough)
        pixels = _whole(found, name, max_pixels)
    return pixels, (pixels.shape[1], pixels.shape[0])


def read_size(source: ImageSource) -> Size:
    """(W, H) of a picture in the orientation in which people see it; a file is not decoded.

    Raises:
        ImageError: As `read_image`, but for what only decoding shows.
    """
    name = display_name(source)
    with _opened(source, name, 4 * MAX_PIXELS) as found:
        if isinstance(found, Image.Image):
            with _decoding(name):
                return upright_size(found)
        height, width, _ = rgb_from(found, name, MAX_PIXELS).shape
    return width, height


def read_levels(source: ImageSource, *, max_pixels: int = MAX_PIXELS) -> NDArray[np.uint8]:
    """The numbers of a grey or palette picture as they stand, uint8 [H,W]; of others their grey.

    Raises:
        ImageError: As `read_image`.
    """
    name = display_name(source)
    with _opened(source, name, max_pixels) as found:
        if not isinstance(found, Image.Image):
            return grey_of(_whole(found, name, max_pixels))[..., 0]
        _check_size(found, name, max_pixels)
        with _decoding(name):
            plain = found if found.mode in ("L", "P") else found.convert("L")
            return np.array(upright(plain))


def _whole(found: Image.Image | NDArray[Any], name: str, max_pixels: int) -> NDArray[np.uint8]:
    if not isinstance(found, Image.Image):
        return rgb_from(found, name, max_pixels)
    _check_size(found, name, max_pixels)
    with _decoding(name):
        return array_of(to_rgb(upright(found)))


def _reduced(
    image: Image.Image, name: str, enough: Callable[[Size], Size]
) -> tuple[NDArray[np.uint8], Size]:
    size = _draft(image, name, enough) if isinstance(image, JpegImageFile) else None
    with _decoding(name):
        image = to_rgb(upright(image))
    size = size or image.size
    needed = enough(size)
    factor = min(image.width // needed[0], image.height // needed[1])
    return array_of(image.reduce(factor) if factor > 1 else image), size


def _draft(image: JpegImageFile, name: str, enough: Callable[[Size], Size]) -> Size:
    """Have a JPEG decoded at a half, quarter or eighth if that suffices; (W, H) of all of it."""
    with _decoding(name):
        size = upright_size(image)
    needed = enough(size)
    image.draft(None, needed if size == image.size else needed[::-1])
    return size


def read_pixels(source: ImageSource, channels: int, *, max_pixels: int = MAX_PIXELS) -> Pixels:
    """Read what a network of any number of channels takes.

    Arrays, .npy files and tensors of that many channels are taken as they are, in whichever unit
    the network's mean and standard deviation speak of. For three channels all else, and for one
    channel every picture, is read by `read_image`; for one it is turned to grey (ITU-R BT.601). For
    other numbers a picture needs as many bands (grey with alpha, RGBA or CMYK), or as many pages
    of one band.

    Args:
        source: As for `read_image`; arrays [H,W,C] or [C,H,W] of any kind of numbers, also in an
            .npy file; TIFF files of C grey pages.
        channels: C.
        max_pixels: Refuse pictures with more pixels than this, before decoding them.

    Returns:
        [H,W,C]: uint8, or float32 where the values are not 8-bit levels.

    Raises:
        ImageError: As `read_image`, or the number of channels is another.
    """
    if channels == 3:
        return read_image(source, max_pixels=max_pixels)
    name = display_name(source)
    with _opened(source, name, max(4, channels) * max_pixels) as found:
        if not isinstance(found, Image.Image):
            bands = bands_from(found, channels, name, max_pixels)
            if bands is not None:
                return bands
            if channels != 1:
                has = tuple(found.shape)
                raise ImageError(name, f"has shape {has}; the network takes {channels} channels")
        elif channels != 1:
            _check_size(found, name, max_pixels)
            with _decoding(name):
                return bands_of(found, channels, name)
        return grey_of(_whole(found, name, max_pixels))


@contextmanager
def _opened(source: ImageSource, name: str, most: int) -> Iterator[Image.Image | NDArray[Any]]:
    """A picture, not yet decoded, or an array; of an .npy file at most that many numbers."""
    if isinstance(source, Image.Image):
        yield source
    elif isinstance(source, (str, os.PathLike, bytes, bytearray, memoryview)) or hasattr(
        source, "read"
    ):
        with _stream(source, name) as stream:
            if _start(stream, name) == NPY_MAGIC:
                with _decoding(name):
                    array = array_in(stream, name, most)
                yield array
                return
            with _decoding(name):
                image = open_picture(stream, name)
            with image:
                yield image
    else:
        yield array_from(source, name)


def _stream(source: Any, name: str) -> BinaryIO:
    if isinstance(source, (bytes, bytearray, memoryview)):
        return io.BytesIO(source)
    if hasattr(source, "read"):
        return io.BytesIO(_all_of(source, name))
    return _file(source, name)


def _all_of(stream: Any, name: str) -> bytes:
    try:
        content = stream.read()
    except (OSError, ValueError) as error:
        raise ImageError(name, f"can't be read ({printable(str(error))})") from None
    if not isinstance(content, bytes):
        raise ImageError(name, "is open as text; open it in binary mode")
    return content


def _file(source: str | os.PathLike[str], name: str) -> BinaryIO:
    try:
        path = Path(source)
        if path.is_dir():
            if not os.access(path, os.R_OK | os.X_OK):
                raise ImageError(name, "is a folder that can't be read")
            raise ImageError(name, "is a folder; give a picture, or use `camtool batch`")
        if path.exists() and not path.is_file():
            raise ImageError(name, "is not a regular file")
        return path.open("rb")
    except FileNotFoundError:
        raise ImageError(name, "no such file") from None
    except OSError as error:
        raise ImageError(name, f"can't be read ({error.strerror or error})") from None
    except ValueError as error:
        if isinstance(error, ImageError):
            raise
        raise ImageError(name, f"is not a usable path ({error})") from None


def _start(stream: BinaryIO, name: str) -> bytes:
    """The first bytes of a stream, which is left at its start."""
    try:
        start = stream.read(len(NPY_MAGIC))
    except OSError as error:
        raise ImageError(name, f"can't be read ({error.strerror or error})") from None
    if not start:
        raise ImageError(name, "is empty (0 bytes)")
    stream.seek(0)
    return start


def _check_size(image: Image.Image, name: str, max_pixels: int) -> None:
    width, height = image.size
    if width * height == 0:
        raise ImageError(name, f"has no pixels ({width}×{height})")
    if width * height > max_pixels:
        raise ImageError(
            name,
            f"has {width}×{height} = {width * height:,} pixels, more than the limit of "
            f"{max_pixels:,}; raise --max-pixels (max_pixels=) if you trust it",
        )


@contextmanager
def _decoding(name: str) -> Iterator[None]:
    """Whatever goes wrong while a picture is decoded is an `ImageError`; what is odd is logged."""
    with libtiff.heard() as complaints:
        try:
            yield
        except ImageError:
            raise
        except Exception as error:
            # Decoders meet broken files with whatever they happen to raise.
            reason = printable(str(error)) or type(error).__name__
            if complaints.count:
                reason = f"{reason}; {complaints}"
            raise ImageError(name, f"{_problem(error)} ({printable(reason)})") from None
    if complaints.count:
        _log.warning("%s: may be damaged (%s)", name, printable(str(complaints)))


def _problem(error: Exception) -> str:
    if isinstance(error, MemoryError):
        return "needs more memory than there is"
    if isinstance(error, Image.DecompressionBombError):
        return "is larger than Pillow's own limit; raise PIL.Image.MAX_IMAGE_PIXELS if you trust it"
    if isinstance(error, NotImplementedError) or str(error).startswith(_NOT_DECODED):
        return "is of a kind that Pillow does not decode"
    return "is broken or truncated"


_NOT_DECODED = ("Unsupported", "cannot find loader", "Unable to locate Ghostscript")
