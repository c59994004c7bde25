"""Explanations: they add up, they lie where they should, and they are what torch alone gives."""

from __future__ import annotations

import copy
import io
import os
import pickle
import re
import threading
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torchvision.transforms._presets import ImageClassification
from torchvision.transforms.functional import normalize, to_tensor

import camtool
from camtool.choices import Activation
from camtool.device import true_float32
from camtool.errors import ModelError, TargetError
from camtool.images import FITS, geometry_of
from camtool.methods import METHODS
from camtool.networks import torchvision as zoo
from camtool.targets import choices_of

# Its types lack what of cuDNN is of convolutions alone.
CUDNN: Any = torch.backends.cudnn

SIZE = 96
CELL = 16
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SHAPES = [(120, 120), (200, 150), (97, 131), (40, 800), (800, 40)]


class Brightness(nn.Module):
    """One feature, the mean brightness above grey of each 16×16 cell; one class for, one against.

    What its map should show is known without running it.
    """

    def __init__(self) -> None:
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(1, 2)
        self.cells = nn.AvgPool2d(CELL)
        with torch.no_grad():
            self.fc.weight.copy_(torch.tensor([[4.0], [-4.0]]))
            self.fc.bias.copy_(torch.tensor([0.5, -0.25]))

    def forward(self, x):
        features = self.cells(x.mean(1, keepdim=True).relu())
        return self.fc(self.pool(features).flatten(1))


def _picture(width: int, height: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def _adds_up(explanation) -> None:
    total = explanation.maps.mean((1, 2), dtype=np.float64) + explanation.bias
    spread = max(1.0, float(np.ptp(explanation.all_logits)))
    assert np.abs(total - explanation.logits).max() <= 1e-5 * spread


@pytest.fixture(scope="module")
def resnet():
    return camtool.load("resnet18", weights="random", device="cpu", size=SIZE)


@pytest.fixture(scope="module", params=FITS)
def fitted(request):
    return camtool.load("resnet18", weights="random", device="cpu", fit=request.param, size=SIZE)


def test_maps_are_what_plain_torchvision_gives(fitted) -> None:
    module = zoo.random_module("resnet18")
    seen = []
    module.layer4.register_forward_hook(lambda _m, _i, output: seen.append(output.clone()))
    for shape in SHAPES:
        picture = _picture(*shape)
        explanation = fitted.explain(picture, topk=4)
        rows, columns = explanation.geometry.input
        if fitted.fit == "crop":
            inputs = ImageClassification(crop_size=SIZE, resize_size=110)(Image.fromarray(picture))
        else:
            resized = Image.fromarray(picture).resize((columns, rows), Image.Resampling.BILINEAR)
            inputs = normalize(to_tensor(resized), MEAN, STD)
        with torch.inference_mode():
            logits = module(inputs[None])[0]
            expected = torch.einsum("kc,chw->khw", module.fc.weight, seen[-1][0])
        maps = expected[explanation.indices].numpy()
        assert np.abs(explanation.maps - maps).max() <= 1e-5 * np.ptp(expected.numpy())
        np.testing.assert_allclose(explanation.all_logits, logits, atol=1e-4)
        np.testing.assert_array_equal(explanation.indices, logits.topk(4).indices)
        np.testing.assert_allclose(
            explanation.probabilities, logits.softmax(0).topk(4)[0], atol=1e-5
        )
        np.testing.assert_allclose(explanation.bias, module.fc.bias[explanation.indices])


@pytest.mark.parametrize("batch_size", [1, 7])
def test_every_map_adds_up_to_its_logit(fitted, batch_size: int) -> None:
    pictures = [_picture(*shape, seed) for seed, shape in enumerate(SHAPES + SHAPES[:2])]
    for explanation in fitted.explain_batch(pictures, topk=5, batch_size=batch_size):
        assert explanation.maps.dtype == np.float32
        assert explanation.maps.shape[0] == 5
        _adds_up(explanation)


def test_a_batch_of_mixed_shapes_gives_each_its_own_in_order(resnet) -> None:
    pictures = [_picture(*SHAPES[n % 3], n) for n in range(9)]
    together = resnet.explain_batch(pictures, topk=2, batch_size=4)
    for picture, explanation in zip(pictures, together, strict=True):
        alone = resnet.explain(picture, topk=2)
        assert explanation.geometry == alone.geometry
        np.testing.assert_array_equal(explanation.image, picture)
        np.testing.assert_array_equal(explanation.indices, alone.indices)
        assert np.abs(explanation.maps - alone.maps).max() <= 1e-5 * np.ptp(alone.maps)


def test_two_labels_of_one_picture_have_two_maps(resnet) -> None:
    explanation = resnet.explain(_picture(120, 90), topk=2)
    assert np.abs(explanation.maps[0] - explanation.maps[1]).max() > 1e-3 * np.ptp(explanation.maps)


def test_a_network_that_makes_one_map_a_class() -> None:
    model = camtool.load("squeezenet1_1", weights="random", device="cpu", size=SIZE)
    explanation = model.explain(_picture(120, 90), topk=3)
    assert (explanation.bias == 0).all()
    _adds_up(explanation)


def _oriented(upright: np.ndarray, orientation: int) -> bytes:
    undo = {
        1: lambda a: a,
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: lambda a: a.transpose(1, 0, 2),
        6: lambda a: np.rot90(a, 1),
        7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
        8: lambda a: np.rot90(a, -1),
    }[orientation]
    image = Image.fromarray(np.ascontiguousarray(undo(upright)))
    image.getexif()[0x0112] = orientation
    stream = io.BytesIO()
    image.save(stream, "PNG", exif=image.getexif())
    return stream.getvalue()


BRIGHT = {fit: camtool.load(Brightness(), device="cpu", fit=fit, size=SIZE) for fit in FITS}


@settings(max_examples=60)
@given(
    st.sampled_from(FITS),
    st.integers(1, 8),
    st.tuples(st.integers(100, 420), st.integers(100, 420)),
    st.tuples(*[st.floats(0, 1)] * 4),
)
def test_the_box_of_a_bright_patch_lies_on_it(fit, orientation, size, where) -> None:
    model = BRIGHT[fit]
    geometry = geometry_of(size, model.preprocessing, fit, model.head.stride)
    x0, y0, x1, y1 = geometry.region
    rows, columns = geometry.input
    cell = geometry.cell((rows // CELL, columns // CELL))
    # Large enough to fill a cell, small enough to move about.
    wide, high = (
        int(np.ceil(side * (2 + 2 * share))) for side, share in zip(cell, where[2:], strict=True)
    )
    left = x0 + round(where[0] * (x1 - x0 - wide))
    top = y0 + round(where[1] * (y1 - y0 - high))
    upright = np.zeros((size[1], size[0], 3), np.uint8)
    upright[top : top + high, left : left + wide] = 255
    explanation = model.explain(_oriented(upright, orientation), targets=0)
    assert explanation.geometry.size == size
    patch = np.array((left, top, left + wide, top + high))
    for threshold in (0.2, 0.5):
        (box,) = explanation.boxes(0, threshold)
        assert (np.abs(patch - box) <= np.array([*cell, *cell]) + 1).all(), (patch, box, cell)
    peak = np.unravel_index(np.nanargmax(explanation.heatmap()), upright.shape[:2])
    assert left - cell[0] <= peak[1] <= left + wide + cell[0]
    assert top - cell[1] <= peak[0] <= top + high + cell[1]


def test_the_overlay_is_coloured_where_the_patch_is() -> None:
    upright = np.zeros((200, 300, 3), np.uint8)
    upright[120:180, 30:110] = 255
    overlay = np.asarray(BRIGHT["whole"].explain(upright, targets=0).overlay()).astype(int)
    changed = np.abs(overlay - upright).sum(2) > 30
    rows, columns = np.nonzero(changed)
    assert changed[130:170, 50:100].mean() > 0.9
    cell = 200 / SIZE * CELL
    assert 30 - cell <= columns.min()
    assert columns.max() <= 110 + cell
    assert 120 - cell <= rows.min()


@pytest.mark.parametrize("fit", FITS)
def test_the_class_against_has_no_boxes(fit) -> None:
    picture = np.full((100, 100, 3), 255, np.uint8)
    explanation = BRIGHT[fit].explain(picture, targets=1)
    assert explanation.maps.max() < 0
    assert explanation.boxes() == []
    _adds_up(explanation)


def test_weights_are_followed_while_a_module_trains() -> None:
    module = Brightness()
    model = camtool.load(module, device="cpu", size=SIZE)
    before = model.explain(_picture(90, 90), targets=0)
    with torch.no_grad():
        module.fc.weight.mul_(3)
        module.fc.bias.add_(1)
    after = model.explain(_picture(90, 90), targets=0)
    np.testing.assert_allclose(after.maps, 3 * before.maps, rtol=1e-5)
    np.testing.assert_allclose(after.bias, before.bias + 1)
    _adds_up(after)


def test_a_module_is_left_as_it_was() -> None:
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Conv2d(3, 6, 3, 4), nn.BatchNorm2d(6), nn.ReLU(), nn.Dropout(0.5),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 4),
    )  # fmt: skip
    module.train()
    module[1].eval()
    module[0].weight.requires_grad_(False)
    before = copy.deepcopy(module.state_dict())
    model = camtool.load(module, device="cpu", size=64)
    first, second = (model.explain(_picture(64, 64)) for _ in range(2))
    np.testing.assert_array_equal(first.maps, second.maps)
    with pytest.raises(ModelError, match="can't run on an input"):
        model.forward(torch.zeros(1, 5, 64, 64))
    assert [part.training for part in module] == [True, False, True, True, True, True, True]
    assert not module[0].weight.requires_grad
    assert module[6].weight.requires_grad
    assert not any(part._forward_hooks for part in module.modules())
    assert all(torch.equal(value, before[key]) for key, value in module.state_dict().items())


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_is_the_body_alone(dtype: str, resnet) -> None:
    model = camtool.load("resnet18", weights="random", device="cpu", dtype=dtype, size=SIZE)
    prepared = model.prepare(_picture(120, 90))
    assert model.forward(model.inputs([prepared])).features.dtype == getattr(torch, dtype)
    explanation = model.explain(_picture(120, 90), targets=[3, 5])
    assert explanation.maps.dtype == np.float32
    _adds_up(explanation)
    full = resnet.explain(_picture(120, 90), targets=[3, 5])
    assert np.abs(explanation.maps - full.maps).max() <= 0.1 * np.ptp(full.maps)
    assert np.abs(explanation.maps - full.maps).max() > 0


def test_a_module_in_half_precision_stays_so() -> None:
    module = Brightness().to(torch.bfloat16)
    model = camtool.load(module, device="cpu", size=SIZE)
    _adds_up(model.explain(_picture(120, 90), topk=2))
    assert module.fc.weight.dtype == torch.bfloat16


def test_targets_by_index_and_label(resnet) -> None:
    picture = _picture(120, 90)
    explanation = resnet.explain(picture, targets=["tabby", 3, "goldfish"])
    assert explanation.indices.tolist() == [281, 3, 1]
    assert explanation.labels[0] == "tabby"
    for one in (281, "281", "tabby", np.int64(281), ["tabby"]):
        found = resnet.explain(picture, targets=one)
        np.testing.assert_allclose(found.maps[0], explanation.maps[0], atol=1e-5)
    with pytest.raises(TargetError, match=r"matches \d+ classes: 2 "):
        resnet.explain(picture, targets="shark")
    with pytest.raises(TargetError, match="the nearest are"):
        resnet.explain(picture, targets="goldfisch")
    with pytest.raises(TargetError, match=r"not in 0\.\.999"):
        resnet.explain(picture, targets=1000)


def test_more_than_all_classes_are_all_classes() -> None:
    explanation = BRIGHT["whole"].explain(_picture(50, 50), topk=9)
    assert explanation.maps.shape[0] == 2
    assert explanation.probabilities.sum() == pytest.approx(1)


def test_wrong_arguments() -> None:
    with pytest.raises(ValueError, match="fit must be one of"):
        camtool.load(Brightness(), fit="stretch")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="16 pixels or more"):
        camtool.load(Brightness(), size=3)
    with pytest.raises(ValueError, match="must be 1 or more"):
        BRIGHT["whole"].explain(_picture(9, 9), topk=0)
    for one in ("photo.jpg", b"bytes of one"):
        with pytest.raises(TypeError, match="explain takes one"):
            BRIGHT["whole"].explain_batch(one)  # type: ignore[arg-type]
    with pytest.raises(ModelError, match="dtype 'int8'"):
        camtool.load(Brightness(), dtype="int8")
    for device in ("gpu", "cuda:99", "meta"):
        with pytest.raises(ModelError, match=f"device '{device}'"):
            camtool.load(Brightness(), device=device)


@pytest.mark.parametrize("method", METHODS)
def test_exactness_is_refused_where_maps_do_not_add_up(method: str) -> None:
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Conv2d(3, 6, 16, 16), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 4)
    )
    load = partial(camtool.load, module, device="cpu", size=64, method=method)
    if load().explain(_picture(64, 64), topk=4).exact:
        assert load(exact="require").method == method
    else:
        with pytest.raises(ModelError, match=f"the maps of {re.escape(method)} do not add up"):
            load(exact="require")


def test_no_pictures_no_explanations() -> None:
    assert BRIGHT["whole"].explain_batch([]) == []


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="no /proc on this system")
def test_memory_is_flat() -> None:
    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    picture = _picture(200, 150)
    for n in range(300):
        if n == 100:
            after_100 = resident()
        explanation = BRIGHT["whole"].explain(picture, topk=2)
        explanation.heatmap()
        explanation.boxes()
    assert resident() - after_100 < 20 * 2**20


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this machine")
def test_a_module_on_the_gpu_stays_there() -> None:
    module = Brightness().cuda()
    assert camtool.load(module).device.type == "cuda"
    _adds_up(camtool.load(module, device="cpu").explain(_picture(90, 60)))
    assert module.fc.weight.is_cuda


def test_levels_and_other_numbers_in_one_batch() -> None:
    class Bands(Brightness):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Conv2d(2, 3, 1)

        def forward(self, x):
            return super().forward(self.first(x))

    spec = camtool.Preprocessing(size=SIZE, mean=(0.5,) * 2, std=(0.25,) * 2)
    model = camtool.load(Bands(), device="cpu", preprocessing=spec)
    levels = np.random.default_rng(0).integers(0, 256, (SIZE, SIZE, 2), np.uint8)
    parts = levels.astype(np.float32) / 255
    for found in model.explain_batch([levels, parts]):
        np.testing.assert_allclose(found.logits, model.explain(levels, 0).logits, atol=1e-5)


def test_targets_may_differ_from_picture_to_picture(resnet) -> None:
    pictures = [_picture(120, 90, seed) for seed in range(5)]
    targets = [3, "tabby", ["goldfish", 7], None, ("tabby", "goldfish")]
    found = resnet.explain_batch(pictures, targets)
    assert [each.indices.tolist() for each in found[:3]] == [[3], [281], [1, 7]]
    assert found[3].indices.tolist() == [int(found[3].all_logits.argmax())]
    for picture, target, each in zip(pictures, targets, found, strict=True):
        alone = resnet.explain(picture, target)
        np.testing.assert_allclose(each.maps, alone.maps, atol=1e-4)
        _adds_up(each)


class NothingRead(TorchDispatchMode):
    """Refuses to read a value of a tensor, for which a program would have to wait for a GPU."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        assert function not in READING, function
        return function(*args, **(kwargs or {}))


READING = {
    torch.ops.aten._local_scalar_dense.default,
    torch.ops.aten.equal.default,
    torch.ops.aten.nonzero.default,
}


@pytest.mark.parametrize(
    "choices",
    [
        None,
        [[3, 5], [5, 3], [3, 5]],
        [[(3, 5)], [(camtool.BEST.value, camtool.NEXT.value)], [(5, 0)]],
    ],
)
def test_of_what_a_device_computes_nothing_is_waited_for(choices, resnet) -> None:
    inputs = resnet.inputs([resnet.prepare(_picture(120, 90, seed)) for seed in range(3)])
    with torch.no_grad(), resnet.running(), NothingRead():
        resnet._found(inputs, choices, topk=2)
    with pytest.raises(AssertionError), NothingRead():
        bool(inputs.any())


def test_one_target_serves_every_picture(resnet) -> None:
    pictures = [_picture(120, 90, seed) for seed in range(3)]
    for target in (281, "tabby"):
        assert all(e.indices.tolist() == [281] for e in resnet.explain_batch(pictures, target))


def test_as_many_targets_as_pictures(resnet) -> None:
    with pytest.raises(ValueError, match="3 targets for 1 pictures"):
        resnet.explain_batch([_picture(90, 90)], [1, 2, 3])
    with pytest.raises(ValueError, match="a pair of classes"):
        resnet.explain(_picture(90, 90), (1, 2, 3))


def test_the_network_itself_chooses_the_best_and_the_next(resnet) -> None:
    pictures = [np.random.default_rng(n).integers(0, 256, (64, 64, 3), np.uint8) for n in (1, 2)]
    best = resnet.explain_batch(pictures, topk=2)
    wanted = [camtool.BEST, camtool.NEXT, (camtool.BEST, camtool.NEXT), ("tabby", camtool.NEXT)]
    for found, plain in zip(resnet.explain_batch(pictures, [wanted] * 2), best, strict=True):
        first, second = plain.labels
        assert found.labels == (first, second, first, "tabby")
        assert found.versus == ("", "", second, second if first == "tabby" else first)
        _adds_up(found)
    turned = resnet.explain(pictures[0], [(best[0].labels[0], camtool.NEXT), (5, camtool.BEST)])
    assert turned.versus == (best[0].labels[1], best[0].labels[0])


def test_a_single_logit_has_no_next() -> None:
    with pytest.raises(TargetError, match="one logit"):
        choices_of((0, camtool.NEXT), ["only"])


def test_a_contrast_is_the_difference_of_two_maps(resnet) -> None:
    picture = _picture(120, 90)
    plain = resnet.explain(picture, [281, 1])
    contrast = resnet.explain(picture, [("tabby", "goldfish"), 1])
    assert contrast.versus == ("goldfish", "")
    assert contrast.titles == ("tabby rather than goldfish", "goldfish")
    scale = np.ptp(plain.maps)
    assert np.abs(contrast.maps[0] - (plain.maps[0] - plain.maps[1])).max() <= 1e-5 * scale
    assert np.abs(contrast.maps[1] - plain.maps[1]).max() <= 1e-5 * scale
    assert contrast.logits[0] == pytest.approx(plain.logits[0] - plain.logits[1], abs=1e-4)
    assert contrast.rank(0) == plain.rank(0)
    _adds_up(contrast)
    assert contrast.exact


def test_tensors_that_are_normalised_already(resnet) -> None:
    pictures = [_picture(SIZE, SIZE, seed) for seed in range(5)]
    inputs = torch.stack(
        [normalize(to_tensor(Image.fromarray(picture)), MEAN, STD) for picture in pictures]
    )
    labels = torch.tensor([3, 281, 1, 7, 5])
    for found in (
        resnet.explain_tensor(inputs, labels, batch_size=2),
        resnet.explain_tensor(inputs.double().numpy(), labels.numpy()),
    ):
        for picture, label, each in zip(pictures, labels.tolist(), found, strict=True):
            expected = resnet.explain(picture, label)
            assert each.geometry == expected.geometry
            np.testing.assert_array_equal(each.image, picture)
            assert np.abs(each.maps - expected.maps).max() <= 1e-5 * np.ptp(expected.maps)
            assert each.heatmap().shape == (SIZE, SIZE)
    (one,) = resnet.explain_tensor(inputs[0], topk=3)
    assert one.maps.shape[0] == 3
    with pytest.raises(ValueError, match=r"normalised float \[N,C,H,W\]"):
        resnet.explain_tensor(torch.zeros(3, 3))
    with pytest.raises(ValueError, match="not uint8"):
        resnet.explain_tensor(torch.zeros(1, 3, 64, 64, dtype=torch.uint8))


def test_preprocessing_may_be_given() -> None:
    spec = camtool.Preprocessing(size=64, resize=64, mean=(0.5,) * 3, std=(0.25,) * 3)
    module = zoo.random_module("resnet18")
    model = camtool.load(module, preprocessing=spec, device="cpu")
    assert model.preprocessing == spec
    picture = _picture(64, 64)
    inputs = (to_tensor(Image.fromarray(picture)) - 0.5) / 0.25
    with torch.inference_mode():
        logits = module(inputs[None])[0]
    np.testing.assert_allclose(model.explain(picture).all_logits, logits, atol=1e-4)


def test_process_wide_settings_are_held_by_the_first_and_restored_by_the_last() -> None:
    backends = (CUDNN.conv, torch.backends.cuda.matmul)
    before = [backend.fp32_precision for backend in backends]
    changes = []
    both_in, first_out = threading.Barrier(2), threading.Event()

    def first() -> None:
        with true_float32():
            both_in.wait()
        first_out.set()

    def second() -> None:
        with true_float32():
            both_in.wait()
            first_out.wait()
            changes.append([backend.fp32_precision for backend in backends])

    threads = [threading.Thread(target=work) for work in (first, second)]
    for backend in backends:
        backend.fp32_precision = "tf32"
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert changes == [["ieee", "ieee"]]
        assert [backend.fp32_precision for backend in backends] == ["tf32", "tf32"]
    finally:
        for backend, value in zip(backends, before, strict=True):
            backend.fp32_precision = value


def test_a_network_in_training_is_not_trained_on_by_a_neighbour() -> None:
    module = nn.Sequential(
        nn.Conv2d(3, 4, 16, 16), nn.BatchNorm2d(4), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(4, 2),
    ).train()  # fmt: skip
    model = camtool.load(module, device="cpu", size=64)
    with model.running():
        model.explain(_picture(64, 64))
        assert not module.training
    assert module.training


@pytest.mark.parametrize("classes", [1, 3])
def test_probabilities_suit_the_number_of_logits(classes: int, tmp_path) -> None:
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Conv2d(3, 4, 16, 16), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(4, classes),
    )  # fmt: skip
    load = partial(camtool.load, module, device="cpu", size=64)
    picture = _picture(64, 64)
    logits = torch.from_numpy(load().explain(picture).all_logits)
    made: dict[Activation, torch.Tensor] = {
        "softmax": logits.softmax(0),
        "sigmoid": logits.sigmoid(),
    }
    made["auto"] = made["sigmoid" if classes == 1 else "softmax"]
    for activation, expected in made.items():
        found = load(activation=activation).explain(picture, topk=classes)
        np.testing.assert_allclose(found.probabilities, expected[found.indices], rtol=1e-5)
    nothing = load(activation="none").explain(picture, topk=classes)
    assert np.isnan(nothing.probabilities).all()
    assert nothing.to_dict()["explanations"][0]["probability"] is None
    assert "nan" not in repr(nothing)
    nothing.save(tmp_path / "panel.png")
    with pytest.raises(ValueError, match="activation must be"):
        load(activation="tanh")  # type: ignore[arg-type]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "asked"),
    [("mobilenet_v3_small", {}), ("alexnet", {}), ("resnet18", {"layer": "layer3"})],
)
def test_a_cut_that_is_no_average_pooling_is_found_after_fusing_was_asked_for(name, asked) -> None:
    model = camtool.load(name, "random", device="cpu", size=64, **asked)
    inputs = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    before = model.explain_tensor(inputs, targets=3)[0]
    model.fuse()
    after = model.explain_tensor(inputs, targets=3)[0]
    np.testing.assert_allclose(after.maps, before.maps, atol=1e-5 * np.abs(before.maps).max())


def test_a_network_of_one_input_size_gets_squashed_pictures(
    caplog: pytest.LogCaptureFixture,
) -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 8, 8), nn.ReLU(), nn.Flatten(), nn.Linear(64, 3))
    model = camtool.load(module, device="cpu", size=32)
    assert model.fit == "squash"
    assert "takes 32×32 pixels and no other: pictures are squashed" in caplog.text
    explanation = model.explain(_picture(40, 90))
    assert explanation.geometry.input == (32, 32)
    assert explanation.exact


class Three(nn.Module):
    """Stages with names, and an activation between them."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.one, self.two = nn.Conv2d(3, 4, 5, 4), nn.Conv2d(4, 6, 3, 2)
        self.fc = nn.Linear(6, 3)

    def forward(self, x):
        return self.fc(self.two(self.one(x).relu()).relu().mean((2, 3)))


class Resized(torch.nn.Module):
    """What it knows of places is resized for other inputs, by a function that makes its cut too."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = torch.nn.Conv2d(3, 8, 8, 8)
        self.places = torch.nn.Parameter(torch.randn(1, 8, 8, 8))
        self.fc = torch.nn.Linear(8, 4)

    def forward(self, x):
        features, places = self.conv(x), self.places[:]
        if features.shape[2:] != places.shape[2:]:
            places = torch.nn.functional.interpolate(places.mul(1.0), features.shape[2:])
        return self.fc((features + places).mul(2.0).mean((2, 3)).tanh())


def test_a_network_that_goes_another_way_on_other_shapes_gets_squashed_pictures() -> None:
    model = camtool.load(Resized(), preprocessing=camtool.Preprocessing(size=64))
    assert model.fit == "squash"
    found = model.explain(_picture(90, 40), topk=2)
    assert found.exact
    square = camtool.load(Resized(), preprocessing=camtool.Preprocessing(size=64), fit="squash")
    np.testing.assert_array_equal(found.maps, square.explain(_picture(90, 40), topk=2).maps)


@pytest.mark.parametrize(
    "asked",
    [
        {},
        {"labels": ["a", "b", "c"], "fit": "crop", "size": 64},
        {"method": "gradcam", "activation": "sigmoid"},
        {"method": "integrated", "layer": "one, two", "steps": 2},
        {"method": "stages"},
        {"dtype": "bfloat16"},
    ],
)
def test_a_model_can_be_sent_to_another_process(asked) -> None:
    model = camtool.load(Three(), device="cpu", **{"size": 48, **asked})
    sent = pickle.loads(pickle.dumps(model))
    assert sent.describe() == model.describe()
    assert_alike(sent, model)


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_fused_model_arrives_fused(fused, dtype, tiny) -> None:
    model = camtool.load(tiny, device="cpu", dtype=dtype)
    if fused and not model.fuse():
        pytest.skip("nothing is fused in bfloat16 on this CPU")
    sent = pickle.loads(pickle.dumps(model))
    assert sent.fused == fused
    assert_alike(sent, model)


def assert_alike(sent: camtool.CamModel, model: camtool.CamModel) -> None:
    """That two models give the same bytes."""
    pictures = [np.random.default_rng(n).integers(0, 256, (60, 80, 3), np.uint8) for n in range(3)]
    pairs = zip(*(each.explain_batch(pictures, topk=2) for each in (sent, model)), strict=True)
    for mine, theirs in pairs:
        assert mine.maps.tobytes() == theirs.maps.tobytes()
        assert mine.all_logits.tobytes() == theirs.all_logits.tobytes()
        np.testing.assert_equal(mine.probabilities, theirs.probabilities)
        assert (mine.labels, mine.geometry) == (theirs.labels, theirs.geometry)
