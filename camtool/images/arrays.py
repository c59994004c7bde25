"""From arrays and tensors to pixels: RGB of 8 bits, or as they are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
from numpy.lib import format as npy
from PIL import Image

from camtool.images.errors import ImageError
from camtool.images.pixels import Pixels, array_of, rounded, to_rgb

if TYPE_CHECKING:
    from numpy.typing import NDArray

NPY_MAGIC = npy.MAGIC_PREFIX


def array_from(source: Any, name: str) -> NDArray[Any]:
    """The array itself, or that of a tensor, with the channels of three dimensions last.

    Raises:
        ImageError: It is neither.
    """
    if isinstance(source, np.ndarray):
        return source
    if hasattr(source, "detach") and hasattr(source, "cpu"):
        tensor = source.detach().cpu()
        array: NDArray[Any] = (tensor.float() if tensor.is_floating_point() else tensor).numpy()
        return array.transpose(1, 2, 0) if array.ndim == 3 else array
    raise ImageError(name, f"is of type {type(source).__name__}, no path, bytes, picture or array")


def array_in(stream: BinaryIO, name: str, most: int) -> NDArray[Any]:
    """The array in an .npy file of at most `most` numbers.

    Raises:
        ImageError: It holds more, or objects.
        ValueError: It is broken.
    """
    version = npy.read_magic(stream)
    header = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    shape, _, dtype = header(stream)
    if dtype.hasobject or dtype.kind not in "biuf":
        raise ImageError(name, f"holds {dtype}, not numbers")
    if np.prod(shape, dtype=np.float64) > most:
        raise ImageError(name, f"has shape {shape}, more than the limit of {most:,} numbers")
    stream.seek(0)
    return np.asarray(npy.read_array(stream, allow_pickle=False))


def rgb_from(pixels: NDArray[Any], name: str, max_pixels: int) -> NDArray[np.uint8]:
    """An array as a picture [H,W,3].

    Args:
        pixels: [H,W], [H,W,1], [H,W,3] or [H,W,4], in RGB(A); uint8, uint16, bool, or floats in
            0..1.
        name: What it is called.
        max_pixels: The most that it may have.

    Raises:
        ImageError: It is none of these.
    """
    if pixels.ndim == 2:
        pixels = pixels[..., None]
    if pixels.ndim != 3 or pixels.shape[2] not in (1, 3, 4):
        raise ImageError(
            name,
            f"has shape {tuple(pixels.shape)}; an array is [H,W], [H,W,1|3|4], a tensor "
            "[H,W] or [1|3|4,H,W]",
        )
    _check_size(pixels, name, max_pixels)
    levels, channels = _levels(pixels, name), pixels.shape[2]
    if channels == 1:
        return np.repeat(levels, 3, axis=2)
    if channels == 3:
        return np.ascontiguousarray(levels)
    return array_of(to_rgb(Image.fromarray(np.ascontiguousarray(levels), "RGBA")))


def _check_size(pixels: NDArray[Any], name: str, max_pixels: int) -> None:
    height, width = pixels.shape[:2]
    if not pixels.size:
        raise ImageError(name, f"has {width}×{height} pixels: none at all")
    if height * width > max_pixels:
        raise ImageError(name, f"has {width}×{height} pixels; the limit is {max_pixels:,}")


def _levels(pixels: NDArray[Any], name: str) -> NDArray[np.uint8]:
    if pixels.dtype == np.uint8:
        return pixels
    if pixels.dtype == np.bool_:
        return pixels.astype(np.uint8) * np.uint8(255)
    if pixels.dtype.type is np.uint16:
        return rounded(pixels.astype(np.float32) / 257)
    if not np.issubdtype(pixels.dtype, np.floating):
        raise ImageError(name, f"has dtype {pixels.dtype}; use uint8, uint16, bool or floats")
    low, high = float(np.min(pixels)), float(np.max(pixels))
    if not (low >= 0 and high <= 1):
        raise ImageError(name, f"floats must lie in 0..1, these span {low:g}..{high:g}")
    return rounded(pixels.astype(np.float32) * 255)


def bands_from(pixels: NDArray[Any], channels: int, name: str, max_pixels: int) -> Pixels | None:
    """An array as it is, where it has as many channels as are asked for.

    Args:
        pixels: [H,W,C] or [C,H,W], numbers of any kind; [H,W] for one channel.
        channels: C.
        name: What it is called.
        max_pixels: The most that it may have.

    Returns:
        [H,W,C]: uint8 as it is, True as 255, all else as float32; None where C is another.

    Raises:
        ImageError: It is too large, or holds values that are not finite.
    """
    if channels == 1 and pixels.ndim == 2:
        pixels = pixels[..., None]
    if pixels.ndim != 3 or channels not in (pixels.shape[2], pixels.shape[0]):
        return None
    if pixels.shape[2] != channels:
        pixels = pixels.transpose(1, 2, 0)
    _check_size(pixels, name, max_pixels)
    if pixels.dtype in (np.uint8, np.bool_):
        return np.ascontiguousarray(_levels(pixels, name))
    with np.errstate(over="ignore"):
        values = np.ascontiguousarray(pixels, np.float32)
    if not np.isfinite(values).all():
        raise ImageError(name, "holds values that are not finite")
    return values
