"""Pictures of many pixels: read no larger than needed, measured and shown in little memory."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from camtool.images import (
    FITS,
    ImageError,
    enough,
    geometry_of,
    prepare,
    read,
    read_image,
    read_reduced,
    resample,
    write,
)
from camtool.images.geometry import MAX_ASPECT
from camtool.networks.preprocessing import Preprocessing

SPEC = Preprocessing(size=64, resize=72)
WIDTH, HEIGHT = 1501, 1003
FORMS = ("JPEG", "PNG", "WEBP", "TIFF")


def _photo() -> np.ndarray:
    """Smooth shapes, sharp edges, a little noise."""
    x, y = np.meshgrid(np.linspace(0, 1, WIDTH), np.linspace(0, 1, HEIGHT))
    waves = np.stack([np.sin(9 * x + 4 * y), np.cos(7 * y * x), np.sin(25 * x * y + 1)], -1)
    edges = ((x - 0.4) ** 2 + (y - 0.6) ** 2 < 0.05)[..., None] * np.array([0.6, -0.4, 0.3])
    noise = np.random.default_rng(0).normal(0, 0.05, waves.shape)
    return np.clip(127 + 80 * (waves + edges + noise), 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def photo() -> np.ndarray:
    return _photo()


@pytest.fixture(scope="module")
def contents(photo: np.ndarray) -> dict[str, bytes]:
    """The photograph in a format that is reduced by its decoder, and in one that is not."""
    return {
        "JPEG": _encoded(photo, "JPEG", quality=95),
        "PNG": _encoded(photo, "PNG", compress_level=1),
    }


@pytest.fixture
def everything_is_large(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (read, resample, write):
        monkeypatch.setattr(module, "LARGE", 1000)
    monkeypatch.setattr(resample, "_PIXELS_AT_ONCE", 1 << 14)


def _encoded(pixels: np.ndarray, form: str, **options) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, form, **options)
    return stream.getvalue()


def _a_fifth(size: tuple[int, int]) -> tuple[int, int]:
    return size[0] // 5, size[1] // 5


@pytest.mark.parametrize("form", FORMS)
def test_a_picture_that_is_not_large_is_read_whole(form: str, photo: np.ndarray) -> None:
    content = _encoded(photo, form)
    pixels, size = read_reduced(content, lambda size: (1, 1))
    assert size == (WIDTH, HEIGHT)
    np.testing.assert_array_equal(pixels, read_image(content))


@pytest.mark.usefixtures("everything_is_large")
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    "orientation",
    [pytest.param(n, marks=() if n in (1, 6) else pytest.mark.slow) for n in range(1, 9)],
)
def test_a_large_one_is_reduced_by_a_whole_factor(
    form: str, orientation: int, photo: np.ndarray
) -> None:
    image = Image.fromarray(photo)
    image.getexif()[0x0112] = orientation
    stream = io.BytesIO()
    image.save(stream, form, exif=image.getexif(), quality=95)
    whole = read_image(stream.getvalue())
    pixels, size = read_reduced(stream.getvalue(), _a_fifth)
    assert size == (whole.shape[1], whole.shape[0])
    # A JPEG's decoder knows powers of two alone.
    factor = 4 if form == "JPEG" else 5
    assert pixels.shape == (-(-size[1] // factor), -(-size[0] // factor), 3)
    rows, columns = whole.shape[0] // factor, whole.shape[1] // factor
    blocks = whole[: rows * factor, : columns * factor].reshape(rows, factor, columns, factor, 3)
    apart = np.abs(pixels[:rows, :columns] - blocks.mean((1, 3)))
    # Turned, the blocks start at the other end, where one of them is not full.
    assert apart.mean() < (4 if orientation == 1 else 12)


@pytest.mark.usefixtures("everything_is_large")
def test_modes_that_can_not_be_reduced_themselves(photo: np.ndarray) -> None:
    image = Image.fromarray(photo)
    for odd in (image.convert("P"), image.convert("1"), image.convert("LA")):
        stream = io.BytesIO()
        odd.save(stream, "PNG", compress_level=1)
        pixels, size = read_reduced(stream.getvalue(), _a_fifth)
        assert (pixels.shape, size) == ((201, 301, 3), (WIDTH, HEIGHT))
        assert np.abs(pixels.mean((0, 1)) - read_image(stream.getvalue()).mean((0, 1))).max() < 2


@pytest.mark.usefixtures("everything_is_large")
def test_what_is_in_memory_anyway_is_left_as_it_is(photo: np.ndarray) -> None:
    lazy = Image.open(io.BytesIO(_encoded(photo, "JPEG")))
    for source in (photo, torch.from_numpy(photo).permute(2, 0, 1), Image.fromarray(photo), lazy):
        pixels, size = read_reduced(source, _a_fifth)
        assert (pixels.shape, size) == (photo.shape, (WIDTH, HEIGHT))
    assert lazy.size == (WIDTH, HEIGHT)


@pytest.mark.usefixtures("everything_is_large")
def test_a_large_one_that_is_broken_or_too_large_is_refused(photo: np.ndarray) -> None:
    content = _encoded(photo, "JPEG")
    with pytest.raises(ImageError, match="truncated"):
        read_reduced(content[: len(content) // 2], _a_fifth)
    with pytest.raises(ImageError, match="more than the limit"):
        read_reduced(content, _a_fifth, max_pixels=1_000_000)


@pytest.mark.usefixtures("everything_is_large")
def test_a_mistake_of_the_caller_is_no_fault_of_the_picture(photo: np.ndarray) -> None:
    def mistaken(size: tuple[int, int]) -> tuple[int, int]:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        read_reduced(_encoded(photo, "JPEG"), mistaken)


sides = st.integers(1, 30_000)
fits = st.sampled_from(FITS)


@given(st.tuples(sides, sides), st.sampled_from([64, 224, 480]), fits, st.sampled_from([8, 32]))
def test_enough_is_never_less_than_three_times_the_input_or_all(size, short, fit, stride) -> None:
    spec = Preprocessing(size=short, resize=short + 32)
    found = enough(size, spec, fit, stride)
    assert 1 <= found[0] <= size[0]
    assert 1 <= found[1] <= size[1]
    geometry = geometry_of(size, spec, fit, stride)
    x0, y0, x1, y1 = geometry.extent
    if fit != "crop" or max(size) <= MAX_ASPECT * min(size):
        seen = (x1 - x0) * found[0] / size[0], (y1 - y0) * found[1] / size[1]
        assert seen[0] >= min(3 * geometry.input[1], x1 - x0) - 1e-6
        assert seen[1] >= min(3 * geometry.input[0], y1 - y0) - 1e-6
    assert max(found) >= min(1200, max(size))


@pytest.mark.usefixtures("everything_is_large")
@pytest.mark.parametrize("fit", FITS)
@pytest.mark.parametrize("form", ["JPEG", "PNG"])
@pytest.mark.parametrize("kind", ["bilinear", "bicubic", "lanczos"])
def test_the_networks_input_is_the_same_to_a_grey_level_or_two(
    fit, form: str, kind: str, contents: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("camtool.images.geometry._LOOKED_AT", 1)
    spec = Preprocessing(size=64, resize=72, interpolation=kind)
    expected, geometry = prepare(read_image(contents[form]), spec, fit, 16)
    reduced, size = read_reduced(contents[form], lambda size: enough(size, spec, fit, 16))
    assert reduced.shape[1] * 3 <= 1503
    found, same = prepare(reduced, spec, fit, 16, size)
    assert same == geometry
    apart = np.abs(found.astype(int) - expected)
    assert apart.mean() < 0.6
    assert np.quantile(apart, 0.99) <= 4


@given(
    st.integers(1, 9), st.integers(1, 9), st.integers(1, 60), st.integers(1, 60), st.integers(0, 9)
)
def test_strips_are_the_whole(h, w, rows, columns, seed) -> None:
    heat = np.random.default_rng(seed).normal(size=(h, w)).astype(np.float32)
    geometry = geometry_of((columns, rows), SPEC, "crop" if seed % 2 else "whole", 16)
    expected = resample.resample(
        torch.from_numpy(heat), geometry.extent, (0, 0, *geometry.size), (rows, columns)
    ).numpy()
    ((part, whole),) = resample.strips(heat, geometry, (rows, columns))
    assert (part.start, part.stop) == (0, rows)
    np.testing.assert_array_equal(whole, expected)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(resample, "LARGE", 1)
        patch.setattr(resample, "_PIXELS_AT_ONCE", 100)
        found = np.full_like(expected, -1e9)
        for part, strip in resample.strips(heat, geometry, (rows, columns)):
            assert strip.size <= max(100, columns)
            found[part] = strip
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


@given(st.tuples(sides, sides))
def test_maps_are_measured_on_the_pictures_own_pixels_unless_it_is_large(size) -> None:
    rows, columns = resample.measured_shape(geometry_of(size, SPEC, "whole"))
    if size[0] * size[1] <= 20_000_000:
        assert (rows, columns) == size[::-1]
    else:
        assert rows * columns <= 5_000_000
        assert abs(np.log(columns / rows * size[1] / size[0])) < 1 / min(rows, columns) + 1e-3


def test_a_measured_map_of_a_large_picture_is_the_same_map() -> None:
    heat = np.random.default_rng(0).normal(size=(7, 9)).astype(np.float32)
    geometry = geometry_of((9000, 7000), SPEC, "whole", 16)
    found = resample.measured(heat, geometry)
    assert found.shape == resample.measured_shape(geometry) < (7000, 9000)
    assert found.max() == pytest.approx(heat.max(), rel=1e-2)
    small = resample.measured(heat, geometry_of((90, 70), SPEC, "whole", 16))
    np.testing.assert_array_equal(
        small, resample.upsample(torch.from_numpy(heat), (0, 0, 90, 70), (90, 70)).numpy()
    )


@pytest.mark.usefixtures("everything_is_large")
@pytest.mark.parametrize("given_as", [np.asarray, Image.fromarray])
def test_a_large_png_has_every_pixel(given_as, photo: np.ndarray) -> None:
    content = write.encode(given_as(photo), ".png")
    np.testing.assert_array_equal(read_image(content), photo)


CHILD = """
import json, resource, sys, time
import numpy as np
from camtool.images import encode, enough, prepare, read_image, read_reduced
from camtool.networks.preprocessing import Preprocessing
from camtool.regions.boxes import components_from_map
from camtool.views import overlay
from camtool.images.resample import measured

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

path, full = sys.argv[1], sys.argv[2] == "full"
spec, look = Preprocessing(), overlay.Look()
maps = np.random.default_rng(0).normal(size=(3, 7, 9)).astype(np.float32)
# What the first use of each library takes is not the picture's.
small = np.zeros((64, 80, 3), np.uint8)
_, geometry = prepare(small, spec, "whole")
encode(overlay.paint_map(small, maps[0], geometry, 1.0, look), ".png")
before = peak()
image, size = read_reduced(path, lambda size: enough(size, spec, "whole"))
pixels, geometry = prepare(image, spec, "whole", 32, size)
high = overlay.scale_of_maps(maps, geometry, look)
found = [components_from_map(measured(heat, geometry)) for heat in maps]
painted = [
    overlay.paint_map(image, heat, geometry, float(end), look) for heat, end in zip(maps, high)
]
if full:
    whole = read_image(path)
    for heat, end in zip(maps, high):
        encode(overlay.paint_map(whole, heat, geometry, float(end), look), ".jpg")
print(json.dumps({"size": size, "shape": image.shape, "megabytes": peak() - before}))
"""

MAKE = """
import sys
import numpy as np
from PIL import Image
coarse = np.random.default_rng(0).integers(0, 256, (90, 110, 3), np.uint8)
Image.fromarray(coarse).resize((11_000, 9_000), Image.Resampling.BICUBIC).save(sys.argv[1])
"""


@pytest.fixture(scope="module")
def huge(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A JPEG of 99 megapixels."""
    path = tmp_path_factory.mktemp("huge") / "huge.jpg"
    subprocess.run([sys.executable, "-c", MAKE, str(path)], check=True)
    return path


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the peak is counted in other units elsewhere")
@pytest.mark.parametrize(("what", "megabytes"), [("panel", 200), ("full", 1300)])
def test_the_memory_of_99_megapixels(huge: Path, what: str, megabytes: int) -> None:
    command = [sys.executable, "-c", CHILD, str(huge), what]
    root = Path(__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    result = subprocess.run(command, check=True, capture_output=True, env=environment)
    found = json.loads(result.stdout)
    assert found["size"] == [11_000, 9_000]
    assert found["shape"] == [1125, 1375, 3]
    assert found["megabytes"] < megabytes
