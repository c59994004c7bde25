"""Geometry: how the network's input lies on the picture, both ways, in all three fits."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torchvision.transforms.functional import pil_to_tensor

import camtool
from camtool.images import FITS, geometry_of, prepare
from camtool.images.geometry import MAX_ASPECT, whole_size
from camtool.networks import torchvision as zoo
from camtool.networks.preprocessing import Preprocessing

sides = st.integers(1, 5000)
sizes = st.tuples(sides, sides)
specs = st.builds(
    lambda size, margin: Preprocessing(size=size, resize=size + margin),
    st.sampled_from([32, 64, 96, 224, 288, 299, 384]),
    st.integers(0, 80),
)
strides = st.sampled_from([1, 4, 8, 16, 32])
fits = st.sampled_from(FITS)
corners = st.floats(-100, 6000, allow_nan=False)
boxes = st.tuples(corners, corners, corners, corners)


@given(sizes, specs, fits, strides, boxes)
def test_boxes_survive_the_round_trip(size, spec, fit, stride, box) -> None:
    geometry = geometry_of(size, spec, fit, stride)
    np.testing.assert_allclose(geometry.to_original(geometry.to_input(box)), box, atol=1e-5)
    np.testing.assert_allclose(
        geometry.to_input(geometry.to_original(box)), box, rtol=1e-9, atol=1e-5
    )


@given(sizes, specs, fits, strides)
def test_the_whole_input_is_the_extent(size, spec, fit, stride) -> None:
    geometry = geometry_of(size, spec, fit, stride)
    rows, columns = geometry.input
    np.testing.assert_allclose(geometry.to_original((0, 0, columns, rows)), geometry.extent)


@given(sizes, specs, fits, strides)
def test_the_region_lies_inside_the_picture_and_beside_the_extent(size, spec, fit, stride) -> None:
    geometry = geometry_of(size, spec, fit, stride)
    x0, y0, x1, y1 = geometry.region
    assert 0 <= x0 <= x1 <= size[0]
    assert 0 <= y0 <= y1 <= size[1]
    clipped = np.clip(geometry.extent, 0, [size[0], size[1]] * 2)
    assert np.abs(clipped - geometry.region).max() <= 0.5 + 1e-9
    if fit != "crop":
        assert geometry.region == (0, 0, *size)


@given(sizes, specs, fits, strides, st.tuples(st.integers(1, 60), st.integers(1, 60)))
def test_cells_tile_the_extent(size, spec, fit, stride, shape) -> None:
    geometry = geometry_of(size, spec, fit, stride)
    width, height = geometry.cell(shape)
    x0, y0, x1, y1 = geometry.extent
    assert width * shape[1] == pytest.approx(x1 - x0)
    assert height * shape[0] == pytest.approx(y1 - y0)


@given(sizes, st.sampled_from([64, 96, 224, 288, 384]), st.sampled_from([4, 8, 16, 32]))
def test_whole_keeps_the_aspect_in_multiples_of_the_stride(size, short, stride) -> None:
    rows, columns = whole_size(size, short, stride)
    assert min(rows, columns) == short
    assert rows % stride == 0
    assert columns % stride == 0
    wanted = size[0] / size[1]
    if 1 / MAX_ASPECT <= wanted <= MAX_ASPECT:
        # Half a stride of the long side at most: under 7 % of 224 with a stride of 32.
        assert abs(np.log(columns / rows / wanted)) <= -np.log(1 - stride / 2 / short) + 1e-9
    else:
        assert max(rows, columns) == MAX_ASPECT * short


@given(sizes, st.sampled_from([64, 224]), st.sampled_from([8, 32]))
def test_whole_of_a_turned_picture_is_the_turned_input(size, short, stride) -> None:
    assert whole_size(size[::-1], short, stride) == whole_size(size, short, stride)[::-1]


def test_a_folder_gives_few_shapes() -> None:
    rng = np.random.default_rng(0)
    shapes = {whole_size(tuple(rng.integers(300, 600, 2)), 224, 32) for _ in range(1000)}
    assert len(shapes) <= 15


def test_squash_is_square_and_crop_is_the_centre() -> None:
    spec = Preprocessing(size=224, resize=256)
    assert geometry_of((640, 480), spec, "squash").input == (224, 224)
    crop = geometry_of((512, 256), spec, "crop")
    assert crop.extent == (144, 16, 368, 240)
    assert crop.region == (144, 16, 368, 240)
    assert crop.input == (224, 224)


def test_an_unknown_fit_is_an_error() -> None:
    with pytest.raises(ValueError, match="whole, crop, squash"):
        geometry_of((5, 5), Preprocessing(), "stretch")  # type: ignore[arg-type]


@settings(max_examples=30)
@given(st.tuples(st.integers(1, 400), st.integers(1, 400)), fits, st.sampled_from([8, 32]))
def test_prepare_gives_the_shape_it_says(size, fit, stride) -> None:
    image = np.zeros((size[1], size[0], 3), np.uint8)
    pixels, geometry = prepare(image, Preprocessing(size=32, resize=40), fit, stride)
    assert pixels.shape == (*geometry.input, 3)
    assert geometry.size == size


def _picture(width: int, height: int) -> np.ndarray:
    """Like a photograph: smooth shapes, sharp edges, a little noise."""
    x, y = np.meshgrid(np.linspace(0, 1, width), np.linspace(0, 1, height))
    waves = np.stack([np.sin(9 * x + 4 * y), np.cos(7 * y * x), np.sin(25 * x * y + 1)], -1)
    edges = ((x - 0.4) ** 2 + (y - 0.6) ** 2 < 0.05)[..., None] * np.array([0.6, -0.4, 0.3])
    noise = np.random.default_rng(0).normal(0, 0.05, waves.shape)
    return np.clip(127 + 80 * (waves + edges + noise), 0, 255).astype(np.uint8)


PRESETS = [
    ("resnet50", "IMAGENET1K_V1"),
    ("resnet50", "IMAGENET1K_V2"),
    ("efficientnet_b0", "DEFAULT"),
    ("efficientnet_b3", "DEFAULT"),
    ("efficientnet_v2_s", "DEFAULT"),
    ("inception_v3", "DEFAULT"),
    ("googlenet", "DEFAULT"),
    ("swin_t", "DEFAULT"),
    ("swin_v2_t", "DEFAULT"),
    ("regnet_y_16gf", "IMAGENET1K_SWAG_E2E_V1"),
]
SHAPES = [(500, 375), (375, 500), (256, 256), (501, 333), (97, 640), (640, 97), (60, 41), (3, 5)]


@pytest.mark.parametrize(("name", "weights"), PRESETS)
def test_crop_is_torchvisions_own_transform_to_the_pixel(name: str, weights: str) -> None:
    preset = torchvision.models.get_model_weights(name)[weights].transforms()
    spec = zoo.find_entry(name, weights).preprocessing
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (spec.mean, spec.std))
    for shape in SHAPES if spec.size < 256 else SHAPES[:4]:
        image = _picture(*shape)
        expected = (preset(Image.fromarray(image)) * std + mean) * 255
        pixels, geometry = prepare(image, spec, "crop")
        found = torch.from_numpy(pixels.copy()).permute(2, 0, 1)
        assert geometry.input == expected.shape[1:]
        assert (found - expected).abs().max() < 0.01, (name, shape)


@pytest.mark.parametrize(
    "name",
    [
        "squeezenet1_1",
        pytest.param("resnet18", marks=pytest.mark.slow),
        pytest.param("shufflenet_v2_x0_5", marks=pytest.mark.slow),
        pytest.param("mobilenet_v2", marks=pytest.mark.slow),
    ],
)
def test_crop_gives_torchvisions_logits(name: str) -> None:
    model = camtool.load(name, weights="random", device="cpu", fit="crop")
    preset = torchvision.models.get_model_weights(name).IMAGENET1K_V1.transforms()
    module = zoo.random_module(name)
    for shape in [(500, 375), (201, 333)]:
        image = _picture(*shape)
        with torch.inference_mode():
            expected = module(preset(Image.fromarray(image))[None])[0].numpy()
        found = model.explain(image).all_logits
        assert np.abs(found - expected).max() <= 1e-4 * max(1.0, np.ptp(expected))


def test_crop_shows_what_the_extent_says() -> None:
    image = np.zeros((300, 400, 3), np.uint8)
    spec = Preprocessing(size=100, resize=150)
    image[150:170, 200:240] = 255
    pixels, geometry = prepare(image, spec, "crop")
    x0, y0, x1, y1 = geometry.to_input((200, 150, 240, 170))
    rows, columns = np.nonzero(pixels[..., 0] > 127)
    found = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
    np.testing.assert_allclose(found, (x0, y0, x1, y1), atol=1)


def test_the_resized_picture_is_pillows() -> None:
    image = _picture(120, 90)
    pixels, _ = prepare(image, Preprocessing(size=64), "squash")
    expected = pil_to_tensor(Image.fromarray(image).resize((64, 64), Image.Resampling.BILINEAR))
    np.testing.assert_array_equal(pixels, expected.permute(1, 2, 0).numpy())


def test_another_size_keeps_the_share_that_crop_cuts_away() -> None:
    assert Preprocessing(size=224, resize=256).at(112).resize == 128
