"""Graphs give what the network gives, wherever they run; and what can't be one is refused."""

from __future__ import annotations

import json
import logging
import pickle
import subprocess
import sys

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from typer.testing import CliRunner

import camtool
from camtool.cli import app
from camtool.errors import ModelError
from camtool.export import ExportError, MapGraph, export_model, write
from camtool.heads.path import jacobian

CLASSES, CHANNELS = 5, 8


class Net(nn.Module):
    """Two convolutions of stride 4, and a head that each test brings along."""

    def __init__(self, head):
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(
            nn.Conv2d(3, CHANNELS, 3, 2, 1),
            nn.ReLU(),
            nn.Conv2d(CHANNELS, CHANNELS, 3, 2, 1),
            nn.ReLU(),
        )
        self.fc, self.second = nn.Linear(CHANNELS, CLASSES), nn.Linear(CLASSES, CLASSES)
        self.norm = nn.LayerNorm(CHANNELS)
        nn.init.normal_(self.norm.weight, 1, 0.3)
        nn.init.normal_(self.norm.bias)
        self.head = head

    def forward(self, x):
        return self.head(self, self.body(x))


HEADS = {
    "linear": lambda s, f: s.fc(f.mean((2, 3))),
    "no bias": lambda s, f: F.linear(f.mean((2, 3)), s.fc.weight),
    "maps": lambda s, f: s.fc(f.permute(0, 2, 3, 1)).mean((1, 2)),
    "two linears": lambda s, f: s.second(s.fc(f.mean((2, 3)))),
    "layer norm": lambda s, f: s.fc(s.norm(f.mean((2, 3)))),
    "RMS norm": lambda s, f: s.fc(F.rms_norm(f.mean((2, 3)), (CHANNELS,))),
    "cosine": lambda s, f: 9 * F.linear(F.normalize(f.mean((2, 3))), F.normalize(s.fc.weight)),
}
REFUSED = {
    "nonlinear": (lambda s, f: s.second(s.fc(f.mean((2, 3))).tanh()), "is nonlinear"),
    "positional": (lambda s, f: s.fc(F.adaptive_avg_pool2d(f, 2)[..., 0, 1]), "by itself"),
}


def model_of(head, **options):
    spec = camtool.Preprocessing(size=32, mean=(0.5,) * 3, std=(0.25,) * 3)
    return camtool.load(
        Net(head),
        labels=["ape", "bee", "cat", "dog", "elk"],
        preprocessing=spec,
        device="cpu",
        **options,
    )


@pytest.fixture(scope="module")
def linear(tmp_path_factory):
    """A model, and its graph."""
    path = tmp_path_factory.mktemp("graph") / "net.onnx"
    model = model_of(HEADS["linear"])
    export_model(model, path)
    return model, path


@pytest.mark.parametrize("name", HEADS)
def test_a_graph_gives_the_logits_and_maps_that_add_up(name):
    model = model_of(HEADS[name])
    inputs = torch.randn(3, 3, 32, 44)
    with torch.no_grad():
        logits, maps = MapGraph(model)(inputs)
    for found, own, each in zip(
        model.explain_tensor(inputs, [list(range(CLASSES))] * 3), logits, maps, strict=True
    ):
        spread = np.ptp(found.all_logits)
        assert np.abs(found.all_logits - own.numpy()).max() <= 1e-5 * spread
        # Another order of sums, and the factor of a picture from its logits.
        assert np.abs(found.maps - each.numpy()).max() <= 1e-5 * np.ptp(found.maps)
        assert np.abs(each.mean((1, 2)).numpy() + found.bias - found.logits).max() <= 1e-5 * spread


@pytest.mark.parametrize("fit", ["whole", "squash"])
@pytest.mark.parametrize("name", REFUSED)
def test_heads_whose_maps_are_no_matrix_are_refused(name, fit, tmp_path):
    head, reason = REFUSED[name]
    with pytest.raises(ExportError, match=reason):
        export_model(model_of(head, fit=fit), tmp_path / "net.pt2")
    assert not [*tmp_path.iterdir()]


def test_a_graph_that_differs_is_not_written(tmp_path, monkeypatch):
    monkeypatch.setattr(write, "_difference", lambda *_: float("nan"))
    with pytest.raises(ExportError, match="the graph differs from the network by nan"):
        export_model(model_of(HEADS["linear"]), tmp_path / "net.pt2")
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_numbers_that_are_none_differ_without_end(value):
    graph, inputs = MapGraph(model_of(HEADS["linear"])), torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        logits, maps = (each.numpy() for each in graph(inputs))
    assert write._difference(graph, lambda _: [logits, maps], inputs) == 0
    maps[0, 1, 2, 2] = value
    assert write._difference(graph, lambda _: [logits, maps], inputs) == float("inf")


def rolled(s, f):
    """As Swin transformers shift windows: only where there are several."""
    return s.fc((f.roll(1, 3) if f.shape[3] > 8 else f.relu()).mean((2, 3)))


def evened(s, f):
    """As MobileViT makes patches: resized where cells are left over."""
    return s.fc((f.tanh() if f.shape[3] % 2 else f).mean((2, 3)))


def padded(s, f):
    """Padded to multiples of three and five over and over, each size a term of the one before."""
    for part in (3, 5, 3, 5, 3):
        f = F.pad(f, (0, -f.shape[3] % part, 0, -f.shape[2] % part))
    return s.fc(f.mean((2, 3)))


def numbered(s, f):
    """A size that the network's code makes a number of."""
    return s.fc(f.expand(*f.shape[:3], len(range(f.shape[3]))).mean((2, 3)))


ONE_SIZE = {
    "branches": (rolled, "other ways on other sizes"),
    "odd cells": (evened, "other ways on other sizes"),
    "terms": (padded, "no short terms"),
    "constants": (numbered, "can't run on inputs"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", ONE_SIZE)
def test_a_network_that_is_another_on_other_sizes_is_exported_for_its_own(name, tmp_path):
    head, reason = ONE_SIZE[name]
    model = model_of(head)
    told: list[str] = []
    assert model.fit == "whole"
    done = export_model(model, tmp_path / "net.onnx", tell=told.append)
    assert (done.dynamic, done.error <= 1e-5) == (False, True)
    assert reason in done.fixed
    assert f"for one size alone: {done.fixed}" in told
    assert {shape[2:] for shape in done.shapes} == {(32, 32)}
    assert {shape[0] for shape in done.shapes} == {1, 2, 3}
    graph = camtool.load(done.path, device="cpu")
    assert graph.fit == "squash"
    picture = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
    found, own = (each.explain(picture, 1) for each in (graph, model))
    assert np.allclose(found.maps, own.maps, atol=1e-5 * np.ptp(own.maps))


def test_what_torch_tells_of_terms_that_it_can_not_solve_is_kept_from_users(tmp_path, caplog):
    """As of GoogLeNet, whose pools round up."""
    head = lambda s, f: s.fc(F.max_pool2d(f, 3, 2, ceil_mode=True).mean((2, 3)))  # noqa: E731
    assert export_model(model_of(head), tmp_path / "net.pt2").dynamic
    assert not [one for one in caplog.records if one.levelno >= logging.WARNING]


def test_a_network_for_so_many_pictures_can_not_be_exported(tmp_path):
    model = model_of(lambda s, f: s.fc(f.mean((2, 3))).expand(len(range(f.shape[0])), CLASSES))
    with pytest.raises(ExportError, match=r"can't run on inputs \(1, 3, 32, 32\)"):
        export_model(model, tmp_path / "net.pt2")


def test_what_else_can_not_be_exported_is_refused(tmp_path):
    model = model_of(HEADS["linear"])
    with pytest.raises(ExportError, match=r"called \.onnx or \.pt2"):
        export_model(model, tmp_path / "net.pb")
    with pytest.raises(ExportError, match="method gradcam"):
        export_model(model_of(HEADS["linear"], method="gradcam"), tmp_path / "net.pt2")
    with pytest.raises(ExportError, match="float32"):
        export_model(model_of(HEADS["linear"], dtype="bfloat16"), tmp_path / "net.pt2")
    model.device = torch.device("meta")
    with pytest.raises(ExportError, match="from the CPU, and the network is on meta"):
        export_model(model, tmp_path / "net.pt2")


def test_a_network_that_reads_values_can_not_be_traced(tmp_path):
    model = model_of(lambda s, f: s.fc(f.mean((2, 3))) * (1 if f.sum().item() > -1e9 else 2))
    with pytest.raises(ExportError, match=r"can't be traced by torch\.export"):
        export_model(model, tmp_path / "net.pt2")


def test_a_jacobian_is_the_matrix_of_an_affine_tail():
    weight, bias = torch.randn(5, 3), torch.randn(5)

    def tail(maps, held=None, secant=False):
        return maps.mean((2, 3)) @ weight.T + bias

    found, offset = jacobian(tail, torch.randn(1, 3, 4, 2), at_once=2)
    assert torch.allclose(found, weight, atol=1e-6)
    assert torch.equal(offset, bias)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["layer norm", "two linears", "maps"])
@pytest.mark.parametrize("suffix", [".onnx", ".pt2"])
def test_written_graphs_agree_with_the_network(name, suffix, tmp_path):
    done = export_model(model_of(HEADS[name]), tmp_path / f"net{suffix}")
    assert done.error <= 1e-5
    assert done.dynamic
    # Batches and sizes other than the one that was traced are among those compared.
    assert {len(done.shapes), len(set(done.shapes))} == {5}
    assert [*tmp_path.iterdir()] == [done.path]


@pytest.mark.slow
def test_more_weights_than_one_file_holds_are_in_another(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(write, "WHOLE", 1000)
    path = tmp_path / "large.onnx"
    done = CliRunner().invoke(app, ["export", str(tiny), "-o", str(path)])
    assert done.exit_code == 0, done.output
    beside = tmp_path / "large.onnx.data"
    assert f"{beside}: its weights, which have to stay beside it" in done.stdout
    assert sorted(tmp_path.iterdir()) == [path, beside]
    assert beside.stat().st_size > 10_000
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    model = camtool.load(path, device="cpu")
    found, expected = model.explain(pixels, 1), camtool.load(tiny, device="cpu").explain(pixels, 1)
    assert np.allclose(found.maps, expected.maps, atol=1e-5 * np.ptp(expected.maps))
    content = bytearray(beside.read_bytes())
    content[-1] ^= 1
    beside.write_bytes(content)
    assert camtool.load(path, device="cpu").network.sha256 != model.network.sha256


@pytest.mark.slow
def test_a_graph_says_what_it_is(linear):
    import onnx

    model, path = linear
    document = onnx.load(path)
    onnx.checker.check_model(document)
    sizes = {
        value.name: [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]
        for value in (*document.graph.input, *document.graph.output)
    }
    assert sizes == {
        "input": ["batch", 3, "height", "width"],
        "logits": ["batch", CLASSES],
        "maps": ["batch", CLASSES, "map_height", "map_width"],
    }
    facts = json.loads({one.key: one.value for one in document.metadata_props}["camtool"])
    assert facts["labels"] == list(model.labels)
    assert facts["network"]["head"]["kind"] == "linear"
    assert facts["network"]["head"]["max_error"] <= 1e-5
    assert facts["preprocessing"]["mean"] == [0.5] * 3


ALONE = """
import sys
import cv2, numpy as np, onnxruntime
session = onnxruntime.InferenceSession(sys.argv[1])
picture = cv2.imread(sys.argv[2])[..., ::-1]
inputs = picture
if session.get_inputs()[0].type == "tensor(float)":
    inputs = ((picture / np.float32(255) - np.float32(0.5)) / np.float32(0.25)).transpose(2, 0, 1)
logits, maps = session.run(["logits", "maps"], {"input": inputs[None]})
best = int(logits[0].argmax())
for heat in maps[0] if len(maps[0]) < logits.shape[1] else maps[0, [best]]:
    heat = cv2.resize(heat, picture.shape[1::-1], interpolation=cv2.INTER_LINEAR)
    _, _, found, _ = cv2.connectedComponentsWithStats(
        (heat >= 0.2 * heat.max()).astype(np.uint8), connectivity=8
    )
    print(best, sorted([int(x), int(y), int(x + w), int(y + h)] for x, y, w, h, _ in found[1:]))
assert not {"torch", "camtool"} & {*sys.modules}
"""


def boxes_alone(graph, picture) -> list[str]:
    """The class with the highest logit, and the boxes of each map, without camtool."""
    words = [sys.executable, "-I", "-c", ALONE, str(graph), str(picture)]
    said = subprocess.run(words, capture_output=True, text=True, check=True)
    return said.stdout.splitlines()


def boxes_of(model, picture, targets=None) -> list[str]:
    """The same, of camtool."""
    found = model.explain(picture, targets)
    best = found.all_logits.argmax()
    kept = (sorted([*map(int, box)] for box in found.boxes(k)) for k in range(len(found.indices)))
    return [f"{best} {boxes}" for boxes in kept]


@pytest.mark.slow
def test_a_graph_alone_gives_the_boxes_that_camtool_gives(linear, make_picture, tmp_path):
    from PIL import Image

    model, path = linear
    (tmp_path / "whole.png").write_bytes(make_picture(4, "PNG"))
    picture = tmp_path / "picture.png"
    # Of the network's own size, so that nothing is resized.
    Image.open(tmp_path / "whole.png").resize((44, 32)).save(picture)
    found = model.explain(picture)
    assert found.geometry.input == (32, 44)
    assert boxes_alone(path, picture) == boxes_of(model, picture)


class Own(nn.Module):
    """A network as a user may write it: branches, a skip, a pool by hand."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.stem = nn.Conv2d(3, 8, 4, 4)
        self.left, self.right = nn.Conv2d(8, 8, 3, 1, 1), nn.Conv2d(8, 8, 1)
        self.down, self.out = nn.Conv2d(16, 12, 2, 2), nn.Linear(12, 3)

    def forward(self, x):
        x = self.stem(x).relu()
        x = torch.cat([x + self.left(x).tanh(), F.silu(self.right(x))], dim=1)
        return {"logits": self.out(self.down(x).relu().flatten(2).mean(-1))}


def own_module(folder, *_):
    """In Python: an instance of a class that camtool has never seen."""
    names = folder / "names.txt"
    names.write_text("wolf\npig\nox")
    model = camtool.load(Own(), labels=names, device="cpu", size=64)
    export_model(model, folder / "net.onnx", [2, 1], pixels=True)
    return model, ["ox", "pig"]


def own_weights(folder, *_):
    """A state dict of an architecture of torchvision, for other classes."""
    from camtool.networks import torchvision as zoo

    torch.save(zoo.random_module("resnet18", 3).state_dict(), folder / "net.pth")
    words = ["--size", 64, "--pixels", "-t", 2, "-t", 0, "-o", folder / "net.onnx"]
    run("export", folder / "net.pth", *words)
    return camtool.load(folder / "net.pth", size=64, device="cpu"), [2, 0]


def own_fit(folder, tiny, make_pictures):
    """What `camtool fit` wrote: a network for several labels at once."""
    photos, fitted = make_pictures(folder / "photos", 24), folder / "net.safetensors"
    rows = [f"{n:04}.jpg,{'odd' if n % 2 else 'even'}" for n in range(24)]
    more = [f"{n:04}.jpg,third" for n in range(0, 24, 3)]
    (photos / "labels.csv").write_text("\n".join(["path,label", *rows, *more]))
    run("fit", photos / "labels.csv", "-m", tiny, "-o", fitted, "--multi-label")
    run("export", fitted, "--pixels", "-t", "third", "-t", "odd", "-o", folder / "net.onnx")
    run("export", fitted, "-o", folder / "whole.onnx")
    model = camtool.load(fitted, device="cpu")
    graph = camtool.load(folder / "whole.onnx", device="cpu")
    assert graph.activation == model.activation == "sigmoid"
    return model, ["third", "odd"]


@pytest.mark.slow
@pytest.mark.parametrize("made", [own_module, own_weights, own_fit])
def test_networks_of_ones_own_give_their_boxes_where_camtool_is_not(
    made, tiny, make_pictures, tmp_path
):
    from PIL import Image

    model, targets = made(tmp_path, tiny, make_pictures)
    coarse = Image.open(make_pictures(tmp_path / "one", 1) / "0000.jpg")
    picture = tmp_path / "picture.png"
    # Of the network's own size, so that nothing is resized.
    coarse.resize((96, 64)).save(picture)
    assert model.explain(picture).geometry.input == (64, 96)
    found = boxes_alone(tmp_path / "net.onnx", picture)
    assert found == boxes_of(model, picture, targets)
    assert "[[" in found[0] + found[1]


@pytest.mark.slow
@pytest.mark.parametrize("pixels", [False, True])
@pytest.mark.parametrize("channels", [1, 16])
def test_graphs_take_as_many_channels_as_their_networks(channels, pixels, tmp_path):
    torch.manual_seed(0)
    net = Net(HEADS["linear"])
    net.body[0] = nn.Conv2d(channels, CHANNELS, 3, 2, 1)
    spec = camtool.Preprocessing(size=32, mean=(0.4,) * channels, std=(0.2,) * channels)
    model = camtool.load(net, preprocessing=spec, device="cpu")
    export_model(model, tmp_path / "net.onnx", pixels=pixels)
    graph = camtool.load(tmp_path / "net.onnx", device="cpu")
    values = np.random.default_rng(0).integers(0, 256, (32, 40, channels), np.uint8)
    own, found = (
        each.explain(values if channels > 1 else values[..., 0]) for each in (model, graph)
    )
    assert np.allclose(found.maps, own.maps, atol=1e-5 * np.ptp(own.maps))


@pytest.mark.slow
def test_a_graph_can_be_sent_to_other_processes(linear, make_picture):
    graph = camtool.load(linear[1], device="cpu")
    sent = pickle.loads(pickle.dumps(graph))
    one, other = (each.explain(make_picture(0)) for each in (graph, sent))
    assert np.array_equal(one.maps, other.maps)


@pytest.mark.slow
def test_what_a_graph_costs_is_not_known_and_its_weights_can_not_be_drawn(
    linear, make_pictures, tmp_path
):
    from camtool.evaluate.ways import cost_of

    assert cost_of(camtool.load(linear[1], device="cpu")) is None
    words = ["evaluate", tmp_path, "--format", "folder", "-m", linear[1], "--metrics", "sanity"]
    make_pictures(tmp_path / "ape", 2)
    done = CliRunner().invoke(app, [str(word) for word in words])
    assert (done.exit_code, "no weights that could be drawn anew" in done.output) == (2, True)


def test_where_a_graph_can_not_be_written_is_found_out_first(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(write, "MapGraph", None)
    (tmp_path / "file").touch()
    (tmp_path / "dir.pt2").mkdir()
    for place, reason in (
        ("net.pb", "has to end in .onnx or .pt2"),
        ("file/net.pt2", "can't be written"),
        ("dir.pt2", "can't be written"),
    ):
        done = CliRunner().invoke(app, ["export", str(tiny), "-o", str(tmp_path / place)])
        assert (done.exit_code, done.stderr.count(reason)) == (2, 1), done.output
        assert done.stderr.splitlines()[-1].startswith(f"camtool: --output {tmp_path / place}")
    assert [*(tmp_path / "dir.pt2").iterdir()] == []


@pytest.mark.slow
def test_what_torch_can_not_convert_to_onnx_is_told_in_a_line(tmp_path, monkeypatch):
    def fail(*_, **__):
        try:
            raise TypeError("step 2 failed") from ValueError("no such operator")
        except TypeError as error:
            raise torch.onnx.OnnxExporterError("step 3 failed") from error

    monkeypatch.setattr(torch.onnx, "export", fail)
    with pytest.raises(ExportError, match=r"torch can't convert it to ONNX \(no such operator\)"):
        export_model(model_of(HEADS["linear"]), tmp_path / "net.onnx")


def run(*words):
    done = CliRunner().invoke(app, [str(word) for word in words])
    assert done.exit_code == 0, done.output
    return done


@pytest.mark.slow
def test_camtool_runs_a_graph_as_it_runs_the_network(linear, make_picture):
    model, path = linear
    graph = camtool.load(path, device="cpu")
    assert graph.labels == model.labels
    assert graph.method == "cam"
    assert graph.head.exact
    for one, other in zip(
        *(
            each.explain_batch([make_picture(n) for n in range(3)], topk=2)
            for each in (model, graph)
        ),
        strict=True,
    ):
        assert one.labels == other.labels
        assert np.allclose(one.maps, other.maps, atol=1e-5 * np.ptp(one.maps))
        assert np.allclose(one.bias, other.bias, atol=1e-5)
        assert one.boxes() == other.boxes()
        assert other.exact


@pytest.mark.slow
def test_pixels_are_normalised_inside(tmp_path):
    import onnxruntime

    model = model_of(HEADS["linear"])
    done = export_model(model, tmp_path / "net.onnx", pixels=True)
    pixels = np.random.default_rng(0).integers(0, 256, (2, 40, 32, 3), np.uint8)
    logits, maps = onnxruntime.InferenceSession(done.path).run(
        ["logits", "maps"], {"input": pixels}
    )
    for picture, own, each in zip(pixels, logits, maps, strict=True):
        found = model.explain(picture, targets=list(range(CLASSES)))
        assert np.allclose(found.all_logits, own, atol=1e-5)
        assert np.allclose(found.maps, each, atol=1e-5 * np.ptp(found.maps))
    graph = camtool.load(done.path, device="cpu")
    again = graph.explain(pixels[0], targets=list(range(CLASSES)))
    assert np.allclose(again.maps, maps[0], atol=1e-5 * np.ptp(maps[0]))


@pytest.mark.slow
def test_the_command_and_what_it_refuses(tiny, tmp_path, monkeypatch):
    def run(*words):
        return CliRunner().invoke(app, [str(word) for word in words])

    path = tmp_path / "some.onnx"
    done = run("export", tiny, "-o", path, "--target", "cat", "-t", "dog", "--pixels", "--json")
    assert done.exit_code == 0, done.output
    said = json.loads(done.stdout)
    assert said["error"] <= 1e-5
    import onnxruntime

    session = onnxruntime.InferenceSession(path)
    pixels = np.random.default_rng(0).integers(0, 256, (1, 64, 64, 3), np.uint8)
    logits, maps = session.run(["logits", "maps"], {"input": pixels})
    assert (logits.shape, maps.shape[1]) == ((1, 5), 2)
    found = camtool.load(tiny, device="cpu").explain(pixels[0], targets=["cat", "dog"])
    assert np.allclose(found.maps, maps[0], atol=1e-5 * np.ptp(found.maps))

    assert "export it without --target" in run("inspect", path).output
    half = run("export", tiny, "-o", path, "--dtype", "bfloat16")
    assert (half.exit_code, "in float32" in half.output) == (3, True)
    twice = run("export", tiny, "-m", tiny, "-o", path)
    assert (twice.exit_code, "named twice" in twice.output) == (2, True)
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    assert "camtool[onnx]" in str(run("export", tiny, "-o", path).exception)


@pytest.mark.slow
def test_the_command_takes_all_options_of_a_network(tmp_path):
    import onnx

    from camtool.networks import torchvision as zoo

    weights, names = tmp_path / "other.pth", tmp_path / "names.txt"
    torch.save(zoo.random_module("squeezenet1_1", 3).state_dict(), weights)
    names.write_text("wolf\npig\nox")
    options = {
        **{"--model": "squeezenet1_1", "--weights": weights, "--labels": names, "--fit": "squash"},
        **{"--size": 64, "--mean": ".4,.5,.6", "--std": ".2,.3,.4", "--interpolation": "nearest"},
        **{"--method": "integrated", "--layer": "classifier.2", "--steps": 1},
        **{"--activation": "none", "--output": tmp_path / "net.onnx"},
    }
    words = [str(word) for pair in options.items() for word in pair]
    done = CliRunner().invoke(app, ["export", *words])
    assert done.exit_code == 0, done.output
    assert "any number of pictures of 64×64 pixels\n" in done.stdout
    (said,) = onnx.load(tmp_path / "net.onnx").metadata_props
    facts = json.loads(said.value)
    network = facts["network"]
    assert (facts["labels"], facts["fit"]) == (["wolf", "pig", "ox"], "squash")
    assert (network["method"], network["layer"]) == ("integrated", "classifier.2")
    assert (network["steps"], network["activation"]) == (1, "none")
    assert facts["preprocessing"] == {
        **{"size": 64, "mean": [0.4, 0.5, 0.6], "std": [0.2, 0.3, 0.4]},
        **{"interpolation": "nearest", "resize": 73},
    }


@pytest.mark.slow
def test_graphs_that_are_none_of_ours_or_damaged_are_refused_in_a_line(
    linear, tmp_path, monkeypatch
):
    import onnx

    _, path = linear
    cut = tmp_path / "cut.onnx"
    cut.write_bytes(path.read_bytes()[:900])
    with pytest.raises(ModelError, match="ONNX Runtime can't load it"):
        camtool.load(cut)
    foreign = tmp_path / "foreign.onnx"
    document = onnx.load(path)
    del document.metadata_props[:]
    onnx.save(document, foreign)
    with pytest.raises(ModelError, match="export the network with camtool export"):
        camtool.load(foreign)
    onnx.helper.set_model_props(document, {"camtool": '{"network": 3}'})
    onnx.save(document, foreign)
    with pytest.raises(ModelError, match="is damaged"):
        camtool.load(foreign)
    with pytest.raises(ExportError, match="is a graph already"):
        export_model(camtool.load(path, device="cpu"), tmp_path / "again.onnx")
    with pytest.raises(ModelError, match="nothing of what is before"):
        camtool.load(path, layer="body")
    with monkeypatch.context() as without:
        without.setitem(sys.modules, "onnxruntime", None)
        with pytest.raises(ImportError, match=r"pip install 'camtool\[onnx\]'"):
            camtool.load(path)
    (tmp_path / "net.pt2").touch()
    with pytest.raises(ModelError, match=r"camtool runs what ends in \.onnx"):
        camtool.load(tmp_path / "net.pt2")
