"""On a GPU: what a CPU gives, in full float32; by threads, by processes, and with little memory."""

from __future__ import annotations

import json
import os
import pickle
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import camtool
from camtool.cli import app
from camtool.engines import steps
from camtool.engines.engine import Job, Request
from camtool.engines.stream import explain_jobs
from camtool.engines.threads import ThreadEngine, Workers
from camtool.images import FITS
from camtool.methods import METHODS
from camtool.results import Packed

DEVICE = "cuda"
pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this machine"),
]

CUDNN: Any = torch.backends.cudnn
SIZE = 96
# A float32 sum in another order moves a map by some 1e-6 of its range; TF32 moves it by 1e-3.
CLOSE = 1e-4
SHAPES = [(120, 120), (200, 150), (97, 131), (40, 800), (800, 40)]


def picture(width, height, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def pair(name, **options):
    """One network on the GPU and on the CPU."""
    options = {"weights": "random", "size": SIZE, **options}
    return [camtool.load(name, device=device, **options) for device in (DEVICE, "cpu")]


def agree(found, expected, close=CLOSE):
    np.testing.assert_array_equal(found.indices, expected.indices)
    for name in ("maps", "bias", "logits"):
        one, other = getattr(found, name), getattr(expected, name)
        span = max(float(np.ptp(expected.maps)), float(np.ptp(expected.all_logits)))
        assert np.abs(one - other).max() <= close * span, name


@pytest.mark.parametrize("shape", SHAPES)
def test_every_shape_gives_what_the_cpu_gives(shape):
    before = CUDNN.conv.fp32_precision
    gpu, cpu = pair("resnet18")
    found, expected = (model.explain(picture(*shape), topk=3) for model in (gpu, cpu))
    agree(found, expected)
    assert found.exact
    assert found.overlay().size == shape
    assert CUDNN.conv.fp32_precision == before


@pytest.mark.parametrize("fit", FITS)
def test_pictures_are_resized_there_as_pillow_resizes_them(fit):
    gpu, cpu = pair("squeezenet1_1", fit=fit)
    for shape in SHAPES:
        ours, theirs = (model.prepare(picture(*shape)) for model in (gpu, cpu))
        assert ours.pixels is None
        seen = gpu._preparation._stacked([ours])[0].cpu().numpy()
        np.testing.assert_array_equal(seen, theirs.pixels)
        agree(gpu.explain(picture(*shape), 3), cpu.explain(picture(*shape), 3))


def test_originals_that_do_not_wait_in_memory_change_nothing(
    make_pictures, tiny, monkeypatch, tmp_path
):
    model = camtool.load(tiny, device=DEVICE)
    folder = make_pictures(tmp_path / "photos", 20)
    expected = [found for _, found in model.explain_folder(folder, batch_size=4)]
    monkeypatch.setattr(steps, "ORIGINALS", 0)
    monkeypatch.setattr(steps, "spare_memory", lambda: 0)
    found = [found for _, found in model.explain_folder(folder, batch_size=4)]
    for one, other in zip(found, expected, strict=True):
        agree(one, other, close=1e-6)
        np.testing.assert_array_equal(one.image, other.image)


@pytest.mark.parametrize("name", ["squeezenet1_1", "mobilenet_v3_small", "convnext_tiny"])
def test_every_kind_of_head_adds_up(name):
    # A linear one, one with layers behind the pool, one with a normalization.
    gpu, cpu = pair(name)
    pictures = [picture(150, 110, seed) for seed in range(3)]
    for found, expected in zip(
        *(model.explain_batch(pictures) for model in (gpu, cpu)), strict=True
    ):
        agree(found, expected)
        assert found.exact or np.abs(found.residual).max() <= 1e-3 * np.ptp(found.all_logits)


@pytest.mark.parametrize("method", METHODS)
def test_every_method_gives_what_it_gives_on_a_cpu(method):
    gpu, cpu = pair("resnet18", method=method, size=64)
    pictures = [picture(80, 70, seed) for seed in range(2)]
    both = (model.explain_batch(pictures, targets=[3, 4]) for model in (gpu, cpu))
    for found, expected in zip(*both, strict=True):
        maps, theirs = found.maps, expected.maps
        if "eigen" in method:
            # A singular vector's sign is nobody's.
            maps, theirs = np.abs(maps), np.abs(theirs)
        np.testing.assert_allclose(maps, theirs, atol=1e-3 * np.ptp(theirs))


@pytest.mark.parametrize(
    "targets", [None, [[3, 5], [5, 3]], [(3, 5), (camtool.BEST, camtool.NEXT)]]
)
def test_the_gpu_is_waited_for_when_results_are_there_and_not_before(targets):
    gpu, cpu = pair("resnet18")
    pictures = [picture(120, 90, seed) for seed in range(2)]
    expected = cpu.explain_batch(pictures, targets, topk=2)
    for found, other in zip(gpu.explain_batch(pictures, targets, topk=2), expected, strict=True):
        agree(found, other)
    choices = targets and [gpu.resolve(each) for each in targets]
    with torch.no_grad(), gpu.running():
        torch.cuda.set_sync_debug_mode("error")
        try:
            inputs = gpu.inputs([gpu.prepare(each) for each in pictures])
            packed = Packed.of(gpu._found(inputs, choices, 2), gpu.activation)
        finally:
            torch.cuda.set_sync_debug_mode("default")
    assert np.isfinite(packed.numbers()).all()


def test_contrasts_and_several_layers():
    gpu, cpu = pair("resnet18", method="integrated", layer="layer3,layer4")
    found, expected = (
        model.explain(picture(120, 90), ("tabby", "goldfish")) for model in (gpu, cpu)
    )
    agree(found, expected, close=1e-3)


def test_half_precision_stays_near_float32(tiny):
    model = camtool.load(tiny, device=DEVICE)
    truth = [model.explain(picture(90, 70, seed), 0).maps.ravel() for seed in range(4)]
    for dtype in ("bfloat16", "float16"):
        half = camtool.load(tiny, device=DEVICE, dtype=dtype)
        for seed, expected in enumerate(truth):
            found = half.explain(picture(90, 70, seed), 0)
            assert found.maps.dtype == np.float32
            assert np.corrcoef(found.maps.ravel(), expected)[0, 1] > 0.99


def test_inputs_of_all_kinds(tiny):
    gpu, cpu = (camtool.load(tiny, device=device) for device in (DEVICE, "cpu"))
    inputs = torch.randn(3, 3, 64, 80)
    for given in (inputs, inputs.to(DEVICE)):
        for found, expected in zip(
            gpu.explain_tensor(given), cpu.explain_tensor(inputs), strict=True
        ):
            agree(found, expected)
    floats = picture(70, 60).astype(np.float32) / 255
    agree(gpu.explain(floats), cpu.explain(floats))
    # More batches than one, each staged in memory that the one before may still be read from.
    pictures = [picture(64, 64, seed) for seed in range(40)]
    many = gpu.explain_batch(pictures, batch_size=4)
    for found, given in zip(many, pictures, strict=True):
        agree(found, cpu.explain(given))


def test_threads_do_not_disturb_each_other(tiny):
    model = camtool.load(tiny, device=DEVICE)
    pictures = [picture(90, 70, seed) for seed in range(32)]
    alone = [model.explain(each) for each in pictures]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(model.explain, pictures))
    for found, expected in zip(together, alone, strict=True):
        agree(found, expected, close=1e-5)


def test_a_model_sent_elsewhere_explains_there(tiny):
    model = camtool.load(tiny, device=DEVICE)
    again = pickle.loads(pickle.dumps(model))
    assert again.device.type == DEVICE
    agree(again.explain(picture(90, 70)), model.explain(picture(90, 70)))
    assert next(model.network.module.parameters()).device.type == DEVICE


OPTIONS = ("--save", "overlay,npz", "--results", "csv", "-k", "2", "-b", "4", "--device", DEVICE)


def test_a_folder_by_threads_and_by_processes(make_pictures, batch, tree, tmp_path):
    source = make_pictures(tmp_path / "photos", 45)
    (source / "0010a.jpg").write_bytes(b"broken")
    assert batch(source, tmp_path / "threads", *OPTIONS).exit_code == 1
    words = ("--engine", "processes", "-j", "2")
    assert batch(source, tmp_path / "processes", *OPTIONS, *words).exit_code == 1
    threads = tree(tmp_path / "threads")
    assert threads == tree(tmp_path / "processes")
    assert batch(source, tmp_path / "cpu", *OPTIONS, "--device", "cpu").exit_code == 1
    on_cpu = tree(tmp_path / "cpu")
    assert threads.keys() == on_cpu.keys()
    for path in (tmp_path / "cpu").rglob("*.npz"):
        other = tmp_path / "threads" / path.relative_to(tmp_path / "cpu")
        with np.load(path) as one, np.load(other) as two:
            close = CLOSE * np.ptp(one["maps"])
            np.testing.assert_allclose(two["maps"], one["maps"], atol=close)


def test_where_memory_does_not_suffice_batches_are_halved():
    torch.cuda.empty_cache()
    model = camtool.load("resnet18", weights="random", device=DEVICE, size=224)
    jobs = [Job(number, picture(224, 224, number)) for number in range(64)]
    told: list[str] = []
    workers = Workers(readers=2, lanes=1, writers=2, torch_threads=1)

    def run(batch, warn):
        engine = ThreadEngine(model, Request(batch_size=batch), workers, warn)
        return [result for _, result in explain_jobs(engine, jobs)]

    expected = run(8, told.append)
    assert not told
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(DEVICE).total_memory
    # Enough for 8 pictures and their neighbours, not for 64.
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + (200 << 20)) / total)
    try:
        found = run(64, told.append)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert len(told) == 1
    assert "halving batches" in told[0]
    for one, other in zip(found, expected, strict=True):
        agree(one, other)


def test_the_size_of_a_batch_is_measured(tiny):
    size = camtool.load(tiny, device=DEVICE).measured_batch_size()
    assert size in (8, 16, 32, 64, 128, 256)


def test_evaluation_gives_what_it_gives_on_a_cpu(make_pictures, tiny, tmp_path):
    folder = make_pictures(tmp_path / "photos", 6)
    lines = ["path,label,x0,y0,x1,y1"]
    lines += [f"{path.name},ape,10,10,60,60" for path in sorted(folder.iterdir())]
    (tmp_path / "boxes.csv").write_text("\n".join(lines))
    said = []
    for device in (DEVICE, "cpu"):
        words = ["evaluate", tmp_path, "--format", "csv", "--images", folder, "--json"]
        words += ["-m", tiny, "--device", device, "--method", "cam,gradcam", "--limit", "6"]
        # Deletion takes pixels away in the order of a map, and rounding decides among equal ones.
        words += ["--metrics", "localization,sanity"]
        done = CliRunner().invoke(app, [os.fspath(word) for word in words])
        assert done.exit_code == 0, done.output
        said.append(json.loads(done.stdout))
    ours, theirs = (list(numbers_in(each)) for each in said)
    assert len(ours) == len(theirs) > 10
    np.testing.assert_allclose(ours, theirs, atol=1e-2)


def numbers_in(value):
    """All numbers of a JSON value, in order."""
    if isinstance(value, dict):
        value = [value[key] for key in sorted(value)]
    if isinstance(value, list):
        for each in value:
            yield from numbers_in(each)
    elif isinstance(value, float):
        yield value
