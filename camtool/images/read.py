"""One way in for pictures: whatever it is, out comes RGB uint8 or an `ImageError`."""

from __future__ import annotations

import io
import os
import struct
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TypeAlias

import numpy as np
from PIL import ExifTags, Image, ImageOps

from camtool.images.errors import ImageError, display_name, printable
from camtool.images.formats import open_picture

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

ImageSource: TypeAlias = (
    "str | os.PathLike[str] | bytes | BinaryIO | Image.Image | NDArray[Any] | Tensor"
)

__all__ = ["MAX_PIXELS", "ImageError", "ImageSource", "display_name", "printable", "read_image"]

MAX_PIXELS = 100_000_000
"""Pictures with more pixels than this are refused unless the caller raises the limit."""


def read_image(source: ImageSource, *, max_pixels: int = MAX_PIXELS) -> NDArray[np.uint8]:
    """Read any picture as RGB.

    Files are recognised by content, not by name. EXIF rotation is applied, animations give
    their first frame, transparent pixels are composed on white, 16-bit values are scaled to 8
    bits. Embedded colour profiles are not applied, as torchvision's own loaders do not.

    Args:
        source: A path, encoded bytes, a binary file object, a PIL image, or decoded pixels: an
            array [H,W], [H,W,1], [H,W,3] or [H,W,4], or a tensor [H,W] or [1|3|4,H,W]. Pixels
            are RGB(A); integers are uint8 or uint16, floats lie in 0..1.
        max_pixels: Refuse pictures with more pixels than this, before decoding them.

    Returns:
        uint8 [H,W,3], RGB, contiguous, in the orientation in which people see it.

    Raises:
        ImageError: The picture is missing, empty, broken, truncated, too large, or no picture.
    """
    name = display_name(source)
    if isinstance(source, Image.Image):
        return _decode(source, name, max_pixels)
    if isinstance(source, (str, os.PathLike)):
        return _read_file(Path(source), name, max_pixels)
    if isinstance(source, (bytes, bytearray, memoryview)):
        return _read_stream(io.BytesIO(source), name, max_pixels)
    if hasattr(source, "read"):
        return _read_stream(io.BytesIO(_all_of(source, name)), name, max_pixels)
    return _from_pixels(source, name, max_pixels)


def _all_of(stream: Any, name: str) -> bytes:
    try:
        content = stream.read()
    except (OSError, ValueError) as error:
        raise ImageError(name, f"can't be read ({printable(str(error))})") from None
    if not isinstance(content, bytes):
        raise ImageError(name, "is open as text; open it in binary mode")
    return content


def _read_file(path: Path, name: str, max_pixels: int) -> NDArray[np.uint8]:
    try:
        if path.is_dir():
            raise ImageError(name, "is a folder; give a picture, or use `camtool batch`")
        if path.exists() and not path.is_file():
            raise ImageError(name, "is not a regular file")
        with path.open("rb") as stream:
            return _read_stream(stream, name, max_pixels)
    except FileNotFoundError:
        raise ImageError(name, "no such file") from None
    except OSError as error:
        raise ImageError(name, f"can't be read ({error.strerror or error})") from None
    except ValueError as error:
        if isinstance(error, ImageError):
            raise
        raise ImageError(name, f"is not a usable path ({error})") from None


def _read_stream(stream: BinaryIO, name: str, max_pixels: int) -> NDArray[np.uint8]:
    if not stream.read(1):
        raise ImageError(name, "is empty (0 bytes)")
    stream.seek(0)
    try:
        image = open_picture(stream, name)
    except ImageError:
        raise
    except Exception as error:
        raise ImageError(name, f"is broken ({printable(str(error))})") from None
    with image:
        return _decode(image, name, max_pixels)


def _decode(image: Image.Image, name: str, max_pixels: int) -> NDArray[np.uint8]:
    width, height = image.size
    if width * height == 0:
        raise ImageError(name, f"has no pixels ({width}×{height})")
    if width * height > max_pixels:
        raise ImageError(
            name,
            f"has {width}×{height} = {width * height:,} pixels, more than the limit of "
            f"{max_pixels:,}; raise --max-pixels (max_pixels=) if you trust it",
        )
    try:
        image.load()
        # exif_transpose copies a picture that is upright already.
        turned = ExifTags.Base.Orientation in image.getexif()
        return np.array(_to_rgb(ImageOps.exif_transpose(image) if turned else image))
    except (
        OSError,
        ValueError,
        SyntaxError,
        struct.error,
        EOFError,
        IndexError,
        KeyError,
        TypeError,
        OverflowError,
        MemoryError,
        Image.DecompressionBombError,
    ) as error:
        reason = printable(str(error)) or type(error).__name__
        raise ImageError(name, f"is broken or truncated ({reason})") from None


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith(("I", "F")):
        image = Image.fromarray(_to_uint8(np.asarray(image)))
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, "white")
        return Image.alpha_composite(white, rgba).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")


def _to_uint8(pixels: NDArray[Any]) -> NDArray[np.uint8]:
    """Grey levels of any depth to 8 bits: 0..1 floats, else 16-bit where 8 don't suffice."""
    if pixels.dtype == np.uint8:
        return pixels
    if pixels.dtype == np.bool_:
        return pixels.astype(np.uint8) * np.uint8(255)
    values: NDArray[Any] = np.nan_to_num(pixels.astype(np.float32), posinf=0.0, neginf=0.0)
    if np.issubdtype(pixels.dtype, np.floating) and values.max(initial=0) <= 1:
        values = values * 255
    elif pixels.dtype.type is np.uint16 or values.max(initial=0) > 255:
        values = values / 257
    levels: NDArray[np.uint8] = np.clip(np.rint(values), 0, 255).astype(np.uint8)
    return levels


def _from_pixels(source: Any, name: str, max_pixels: int) -> NDArray[np.uint8]:
    pixels = _as_array(source, name)
    if pixels.ndim == 2:
        pixels = pixels[..., None]
    if pixels.ndim != 3 or pixels.shape[2] not in (1, 3, 4):
        raise ImageError(
            name,
            f"has shape {tuple(pixels.shape)}; an array is [H,W], [H,W,1|3|4], a tensor "
            "[H,W] or [1|3|4,H,W]",
        )
    height, width, channels = pixels.shape
    if not 0 < height * width <= max_pixels:
        raise ImageError(name, f"has {width}×{height} pixels; the limit is {max_pixels:,}")
    if np.issubdtype(pixels.dtype, np.floating):
        low, high = float(np.min(pixels)), float(np.max(pixels))
        if not (low >= 0 and high <= 1):
            raise ImageError(name, f"floats must lie in 0..1, these span {low:g}..{high:g}")
    elif pixels.dtype.type not in (np.uint8, np.uint16, np.bool_):
        raise ImageError(name, f"has dtype {pixels.dtype}; use uint8, uint16, bool or floats")
    levels = _to_uint8(pixels)
    if channels == 1:
        return np.repeat(levels, 3, axis=2)
    if channels == 3:
        return np.ascontiguousarray(levels)
    return np.array(_to_rgb(Image.fromarray(np.ascontiguousarray(levels), "RGBA")))


def _as_array(source: Any, name: str) -> NDArray[Any]:
    if isinstance(source, np.ndarray):
        return source
    if hasattr(source, "detach") and hasattr(source, "cpu"):
        tensor = source.detach().cpu()
        array: NDArray[Any] = (tensor.float() if tensor.is_floating_point() else tensor).numpy()
        return array.transpose(1, 2, 0) if array.ndim == 3 else array
    raise ImageError(name, f"is a {type(source).__name__}, not a path, bytes, picture or array")
