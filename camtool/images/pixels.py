"""From what Pillow decodes to arrays: RGB of 8 bits, grey, or bands as they are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from PIL import ExifTags, Image, ImageOps
from PIL.TiffImagePlugin import TiffImageFile

from camtool.images.errors import ImageError

if TYPE_CHECKING:
    from numpy.typing import NDArray

Pixels: TypeAlias = "NDArray[np.uint8] | NDArray[np.float32]"
"""[H,W,C]: levels from 0 to 255, or values in a unit of their own."""

_STRIP = 1 << 22
_TINY = float(np.finfo(np.float32).tiny)
_BANDS = {"LA": 2, "RGBA": 4, "RGBX": 4, "CMYK": 4}
_ONE_BAND = ("L", "I", "F")
# EXIF orientations that exchange width and height.
_LYING = (5, 6, 7, 8)
# Where Pillow reads values of 16 bits in mode I, stretched to all of them where they are fewer.
_SIXTEEN = ("PNG", "PPM")


def upright(image: Image.Image) -> Image.Image:
    """The picture, decoded, as its EXIF orientation says that it is to be seen."""
    # TIFF files are turned by decoding them. exif_transpose copies a picture that is upright.
    image.load()
    turned = image.getexif().get(ExifTags.Base.Orientation) in range(2, 9)
    return ImageOps.exif_transpose(image) if turned else image


def upright_size(image: Image.Image) -> tuple[int, int]:
    """(W, H) that the picture has upright, told without decoding it."""
    if isinstance(image, TiffImageFile):
        return image.size
    lying = image.getexif().get(ExifTags.Base.Orientation) in _LYING
    return image.size[::-1] if lying else image.size


def to_rgb(image: Image.Image) -> Image.Image:
    """A picture of any mode in RGB; transparent pixels are composed on white."""
    if image.mode.startswith(("I", "F")):
        image = Image.fromarray(_levels_of(image))
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, "white")
        return Image.alpha_composite(white, rgba).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")


def array_of(image: Image.Image) -> NDArray[np.uint8]:
    """The pixels [H,W,3] of an RGB picture, a few rows at a time: Pillow copies them twice."""
    width, height = image.size
    # Pillow's own limit holds for what is cut out too.
    rows = max(1, min(_STRIP, Image.MAX_IMAGE_PIXELS or _STRIP) // width)
    if rows >= height:
        return np.array(image)
    pixels = np.empty((height, width, 3), np.uint8)
    for top in range(0, height, rows):
        bottom = min(top + rows, height)
        pixels[top:bottom] = np.asarray(image.crop((0, top, width, bottom)))
    return pixels


def _levels_of(image: Image.Image) -> NDArray[np.uint8]:
    """Grey levels of more than 8 bits as levels of 8."""
    values = np.asarray(image).astype(np.float32)
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format in _SIXTEEN):
        return rounded(values / (_white(image) / 255))
    finite = np.isfinite(values)
    low = float(values.min(where=finite, initial=np.inf))
    high = float(values.max(where=finite, initial=-np.inf))
    if image.mode == "F" and low >= 0 and high <= 1:
        return rounded(values * 255)
    if low >= 0 and high <= 255 and (values == np.rint(values))[finite].all():
        return rounded(values)
    with np.errstate(all="ignore"):
        # Halved, or the span of the largest floats would be infinite.
        span = max(high / 2 - low / 2, _TINY)
        return rounded((values / 2 - low / 2) / span * 255)


def bands_of(image: Image.Image, channels: int, name: str) -> Pixels:
    """The bands of a picture, or its pages of one band each, as they are.

    Args:
        image: Of as many bands, or pages of one size, as `channels`.
        channels: C.
        name: What it is called.

    Returns:
        [H,W,C]: uint8, or float32 where a page has more than 8 bits.

    Raises:
        ImageError: It has another number of bands and pages, or they differ in size.
    """
    if _BANDS.get(image.mode) == channels:
        return np.array(upright(image))
    pages, bands = getattr(image, "n_frames", 1), len(image.getbands())
    if pages != channels or bands != 1:
        has = (
            f"{pages:,} pages" if pages > 1 else "1 channel" if bands == 1 else f"{bands} channels"
        )
        raise ImageError(
            name,
            f"has {has}, the network takes {channels}; give an array [H,W,{channels}] as .npy, or "
            f"a TIFF of {channels} grey pages",
        )
    stacked = np.stack([_page(image, number, name) for number in range(pages)], axis=-1)
    return stacked if stacked.dtype == np.uint8 else stacked.astype(np.float32)


def _page(image: Image.Image, number: int, name: str) -> NDArray[Any]:
    first = image.size
    image.seek(number)
    if image.size != first or not image.mode.startswith(_ONE_BAND):
        raise ImageError(
            name,
            f"page {number + 1} is {image.width}×{image.height} in mode {image.mode}; all have to "
            f"be grey and of one size, as the first is: {first[0]}×{first[1]}",
        )
    return np.array(upright(image))


def grey_of(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The luma (ITU-R BT.601) of RGB pixels [H,W,3], as [H,W,1]; exact where all three agree."""
    return np.array(Image.fromarray(pixels).convert("L"))[..., None]


def as_picture(pixels: Pixels) -> NDArray[np.uint8]:
    """Pixels [H,W,C] of any number of channels as a picture [H,W,3] to look at.

    Three channels or more show the first three as red, green and blue, fewer the first as grey;
    floats are stretched from their least to their greatest value.
    """
    shown: NDArray[Any] = pixels[..., :3] if pixels.shape[2] >= 3 else pixels[..., [0, 0, 0]]
    if shown.dtype == np.uint8:
        return np.ascontiguousarray(shown)
    low, high = float(shown.min()), float(shown.max())
    return rounded((shown - low) / max(high - low, _TINY) * 255)


def _white(image: Image.Image) -> int:
    """The greatest value that the samples of a file can have."""
    if isinstance(image, TiffImageFile):
        bits = image.tag_v2.get(ExifTags.Base.BitsPerSample, (16,))
        return (1 << int(bits[0])) - 1
    return 65_535


def rounded(values: NDArray[Any]) -> NDArray[np.uint8]:
    """The nearest levels from 0 to 255; what is not finite is 0."""
    values = np.nan_to_num(values, copy=False, posinf=0.0, neginf=0.0)
    levels: NDArray[np.uint8] = np.clip(np.rint(values), 0, 255).astype(np.uint8)
    return levels
