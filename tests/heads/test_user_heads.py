"""Networks that users write: which heads are found and proved, which are refused, and why."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import camtool
from camtool.errors import HeadError, ModelError
from camtool.heads import features_of, find_head
from camtool.methods import METHODS, Settings

SIZE = 20


class Net(nn.Module):
    """A convolution, and a head that each test brings along."""

    def __init__(self, head, classes: int = 5, channels: int = 8) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, channels, 3, 2, 1)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(channels, classes)
        self.nobias = nn.Linear(channels, classes, bias=False)
        self.point = nn.Conv2d(channels, classes, 1)
        self.matrix = nn.Parameter(torch.randn(channels, classes))
        self.offset = nn.Parameter(torch.randn(classes))
        self.second = nn.Linear(classes, classes)
        self.both = nn.Linear(2 * channels, classes)
        self.norm = nn.BatchNorm1d(channels)
        self.drop = nn.Dropout(0.5)
        self.dense = nn.Linear(channels * SIZE * SIZE // 4, classes)
        self.few = nn.Linear(4 * channels, classes)
        self.to_gate = nn.Linear(channels, channels)
        self.block = nn.TransformerEncoderLayer(channels, 2, 16, batch_first=True)
        self.query = nn.MultiheadAttention(channels, 2, batch_first=True)
        self.ask = nn.Parameter(torch.randn(1, 1, channels))
        self.deep = nn.TransformerEncoder(
            nn.TransformerEncoderLayer(channels, 2, 16, batch_first=True), 2
        )
        self.cells = nn.LSTM(channels, channels, batch_first=True)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1)
        self.power = nn.Parameter(torch.tensor(3.0))
        self.head = head

    def forward(self, x, mask=None, detailed=False):
        self.early = len(x)
        return self.head(self, self.conv(x))


LINEAR = {
    "module": lambda s, f: s.fc(s.pool(f).flatten(1)),
    "functional": lambda s, f: s.fc(torch.flatten(F.adaptive_avg_pool2d(f, (1, 1)), 1)),
    "mean of two axes": lambda s, f: s.fc(f.mean((2, 3))),
    "torch.mean of negative axes": lambda s, f: s.fc(torch.mean(f, dim=[-2, -1])),
    "mean, mean": lambda s, f: s.fc(f.mean(-1).mean(-1)),
    "mean, mean of rows": lambda s, f: s.fc(f.mean(2).mean(2)),
    "flatten": lambda s, f: s.fc(f.flatten(2).mean(-1)),
    "view": lambda s, f: s.fc(f.view(f.shape[0], f.shape[1], -1).mean(2)),
    "reshape": lambda s, f: s.fc(f.reshape(*f.shape[:2], -1).mean(dim=2)),
    "average of full size": lambda s, f: s.fc(F.avg_pool2d(f, f.shape[2:]).flatten(1)),
    "average of fixed size": lambda s, f: s.fc(F.avg_pool2d(f, SIZE // 2).flatten(1)),
    "no bias": lambda s, f: s.nobias(f.mean((2, 3))),
    "1x1 convolution": lambda s, f: s.point(s.pool(f)).flatten(1),
    "matmul": lambda s, f: torch.matmul(f.mean((2, 3)), s.matrix),
    "@": lambda s, f: f.mean((2, 3)) @ s.matrix,
    "mm": lambda s, f: torch.mm(f.mean((2, 3)), s.matrix),
    "addmm": lambda s, f: torch.addmm(s.offset, f.mean((2, 3)), s.matrix),
    "linear with a transposed parameter": lambda s, f: F.linear(f.mean((2, 3)), s.matrix.T),
    "dropout between": lambda s, f: s.fc(s.drop(f.mean((2, 3)))),
    "in-place ReLU before": lambda s, f: s.fc(F.relu_(f).mean((2, 3))),
    "gate pooled from the same maps": lambda s, f: s.fc(
        (f * f.mean((2, 3), keepdim=True).sigmoid()).mean((2, 3))
    ),
    "channels last": lambda s, f: s.fc(f.permute(0, 2, 3, 1).mean((1, 2))),
    "logits in a dict": lambda s, f: {"logits": s.fc(f.mean((2, 3)))},
    "logits first in a tuple": lambda s, f: (s.fc(f.mean((2, 3))), f),
}
MAPS = {
    "Network in Network": lambda s, f: s.point(f).relu().mean((2, 3)),
    "SqueezeNet": lambda s, f: torch.flatten(s.pool(F.relu(s.point(s.drop(f)))), 1),
    "fully convolutional": lambda s, f: F.adaptive_avg_pool2d(s.point(f), 1).flatten(1),
    "linear at every position": lambda s, f: s.fc(f.permute(0, 2, 3, 1)).mean((1, 2)),
}
ANY = {
    "scaled in place": lambda s, f: s.fc(f.mean((2, 3))).mul_(2),
    "pooled vector scaled in place": lambda s, f: s.fc(f.mean((2, 3)).mul_(2)),
    "adaptive maximum": lambda s, f: s.fc(F.adaptive_max_pool2d(f, 1).flatten(1)),
    "amax": lambda s, f: s.fc(f.amax((2, 3))),
    "generalised mean": lambda s, f: s.fc(f.clamp(min=1e-6).pow(3).mean((2, 3)).pow(1 / 3)),
    "average and maximum": lambda s, f: s.both(torch.cat([f.mean((2, 3)), f.amax((2, 3))], 1)),
    "maximum and average": lambda s, f: s.both(torch.cat([f.amax((2, 3)), f.mean((2, 3))], 1)),
    "two linear layers": lambda s, f: s.second(s.fc(f.mean((2, 3)))),
    "a layer between": lambda s, f: s.second(s.fc(f.mean((2, 3))).tanh()),
    "three layers": lambda s, f: s.second(s.second(s.fc(f.mean((2, 3))).relu()).relu()),
    "dropout and hardswish": lambda s, f: s.second(F.hardswish(s.fc(s.drop(f.mean((2, 3)))))),
    "batch norm between": lambda s, f: s.fc(s.norm(f.mean((2, 3)))),
    "layer norm": lambda s, f: s.fc(F.layer_norm(f.mean((2, 3)), (8,))),
    "layer norm of places": lambda s, f: s.fc(
        F.layer_norm(f.permute(0, 2, 3, 1), (8,)).mean((1, 2))
    ),
    "RMS norm": lambda s, f: s.fc(F.rms_norm(f.mean((2, 3)), (8,))),
    "RMS norm by hand": lambda s, f: s.fc(
        (p := f.mean((2, 3))) * torch.rsqrt(p.pow(2).mean(-1, keepdim=True) + 1e-6)
    ),
    "group norm": lambda s, f: s.fc(F.group_norm(f, 2).mean((2, 3))),
    "unit length": lambda s, f: s.fc(F.normalize(f.mean((2, 3)))),
    "unit length by hand": lambda s, f: s.fc((p := f.mean((2, 3))) / p.norm(dim=1, keepdim=True)),
    "cosine": lambda s, f: 10 * F.linear(F.normalize(f.mean((2, 3))), F.normalize(s.fc.weight)),
    "scaled": lambda s, f: 2 * s.fc(f.mean((2, 3))),
    "two heads averaged": lambda s, f: (s.fc(f.mean((2, 3))) + s.nobias(f.mean((2, 3)))) / 2,
    "weight that is no parameter": lambda s, f: F.linear(f.mean((2, 3)), s.fc.weight * 2),
    "flatten and dense": lambda s, f: s.dense(f.flatten(1)),
    "2x2 average": lambda s, f: s.few(F.adaptive_avg_pool2d(f, 2).flatten(1)),
    "window smaller than the map": lambda s, f: s.fc(F.avg_pool2d(f, SIZE // 2 - 1).flatten(1)),
    "padded window": lambda s, f: s.fc(F.avg_pool2d(f, SIZE // 2, SIZE, 1).flatten(1)),
    "batch size read early": lambda s, f: s.fc(f.mean((2, 3)).reshape(s.early, -1)),
    "cosine similarity": lambda s, f: F.cosine_similarity(
        f.mean((2, 3))[:, None], s.matrix.T[None], dim=-1
    ),
    "unit length by a power": lambda s, f: s.fc(
        (p := f.mean((2, 3))) / (p**2).sum(1, keepdim=True) ** 0.5
    ),
    "signed root": lambda s, f: s.fc((p := f.mean((2, 3))).sign() * p.abs().sqrt()),
    "layer norm by hand": lambda s, f: s.fc(
        ((p := f.mean((2, 3))) - p.mean(1, keepdim=True))
        / (p.var(1, keepdim=True, correction=0) + 1e-5).sqrt()
    ),
    "batch norm neck": lambda s, f: s.fc(s.norm(F.relu(s.to_gate(f.mean((2, 3)))))),
    "learned generalised mean": lambda s, f: s.fc(
        f.clamp(min=1e-6).pow(s.power).mean((2, 3)).pow(1 / s.power)
    ),
    "einsum": lambda s, f: torch.einsum("nc,ck->nk", f.mean((2, 3)), s.matrix),
    "einsum of everything": lambda s, f: torch.einsum("nchw,ck->nk", f, s.matrix) / 100,
    "sigmoid": lambda s, f: s.fc(f.mean((2, 3))).sigmoid(),
    "squared distances": lambda s, f: -(f.mean((2, 3))[:, None] - s.matrix.T).square().sum(-1),
    "several heads in a tuple": lambda s, f: (
        s.second(s.fc(f.mean((2, 3)))),
        s.nobias(f.amax((2, 3))),
    ),
    "a skip that joins behind the pool": lambda s, f: s.fc(
        F.relu(s.conv2(f)).mean((2, 3)) + f.amax((2, 3))
    ),
    "in-place ReLU behind the cut": lambda s, f: s.fc(F.relu_(s.to_gate(F.relu_(f).mean((2, 3))))),
    "a layer called twice": lambda s, f: s.fc(s.to_gate(s.to_gate(f.mean((2, 3))).relu()).relu()),
    "pictures one by one": lambda s, f: torch.stack([s.fc(x.mean((1, 2))).tanh() for x in f]),
    "channels last, in tokens": lambda s, f: s.fc(
        F.layer_norm(f.permute(0, 2, 3, 1).reshape(len(f), -1, 8), (8,)).mean(1)
    ),
    "weighted mean by hand": lambda s, f: s.fc(torch.einsum("nchw->nc", f) / 100),
}
SMOOTH = {
    "softmax": lambda s, f: s.fc(f.mean((2, 3))).softmax(1),
    "softmax of maps": lambda s, f: s.point(f).mean((2, 3)).softmax(1),
    "attention pooling": lambda s, f: s.fc(
        (f.flatten(2) * s.point(f)[:, :1].flatten(2).softmax(-1)).sum(-1)
    ),
    "gated": lambda s, f: s.fc((p := f.mean((2, 3))) * s.to_gate(p).sigmoid()),
    "log-sum-exp pooling": lambda s, f: s.fc(torch.logsumexp(5 * f.flatten(2), -1) / 5),
    "log softmax": lambda s, f: s.fc(f.mean((2, 3))).log_softmax(1),
    "attention with a query": lambda s, f: s.fc(
        s.query(s.ask.expand(len(f), -1, -1), t := f.flatten(2).transpose(1, 2), t)[0][:, 0]
    ),
    "class token of a transformer": lambda s, f: s.fc(
        s.deep(torch.cat([s.ask.expand(len(f), -1, -1), f.flatten(2).transpose(1, 2)], 1))[:, 0]
    ),
    "LSTM over the cells": lambda s, f: s.fc(s.cells(f.flatten(2).transpose(1, 2))[1][0][0]),
    "transformer block": lambda s, f: s.fc(s.block(f.flatten(2).transpose(1, 2)).mean(1)),
}
REFUSED = {
    "a map for an answer": (
        lambda s, f: s.point(f * f.mean((2, 3), keepdim=True)),
        "gives a map",
    ),
    "no tensor": (lambda s, f: "cat", "returns str"),
    "the class alone": (lambda s, f: s.fc(f.mean((2, 3))).argmax(1), "is int64"),
    "one picture's logits": (lambda s, f: s.fc(f.mean((2, 3)))[0], "not logits [N,classes]"),
    "NaN": (lambda s, f: s.fc(f.mean((2, 3))) * torch.nan, "logits are not finite"),
    "the mean of the batch": (
        lambda s, f: s.fc((p := f.mean((2, 3))) - p.mean(0, keepdim=True) / 2),
        "mixes the pictures of a batch",
    ),
    "no gradients": (
        lambda s, f: torch.no_grad()(lambda: s.fc(f.mean((2, 3)).tanh()))(),
        "without gradients",
    ),
    "several by names": (
        lambda s, f: dict.fromkeys(("kind", "age"), s.fc(f.mean((2, 3)))),
        "returns dict of 'kind', 'age', where no logits were found; name them",
    ),
}


def _agree(module: nn.Module, head, size: int = SIZE) -> None:
    inputs = torch.randn(3, 3, size, size, generator=torch.Generator().manual_seed(2))
    with torch.inference_mode():
        output = module.eval()(inputs)
        forward = head.forward(module, module, inputs)
        every = torch.arange(head.classes).expand(3, -1)
        maps, bias, _ = METHODS["cam"](forward, every, Settings())
    logits = output["logits"] if isinstance(output, dict) else output
    logits = logits[0] if isinstance(logits, tuple) else logits
    torch.testing.assert_close(maps.mean((2, 3)) + bias, logits, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(forward.logits, logits, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("how", LINEAR)
@pytest.mark.parametrize("classes", [5, 8, 1], ids=["K<C", "K=C", "K=1"])
def test_linear_head_is_found_and_proved(how: str, classes: int) -> None:
    module = Net(LINEAR[how], classes)
    head = find_head(module, SIZE)
    assert (head.kind, head.channels, head.classes, head.exact) == ("linear", 8, classes, True)
    assert head.shape == (10, 10)
    assert head.stride == 2
    _agree(module, head)


@pytest.mark.parametrize("how", MAPS)
def test_one_map_a_class_is_found_and_proved(how: str) -> None:
    module = Net(MAPS[how])
    head = find_head(module, SIZE)
    assert (head.kind, head.layer, head.parameters, head.exact) == ("maps", "", 0, True)
    _agree(module, head)


# The softmax of one number is constant, and so is what a single ReLU lets through here.
CONSTANT = {"softmax", "softmax of maps", "log softmax", "three layers"}


@pytest.mark.parametrize(
    ("how", "classes"),
    [
        *((how, 5) for how in ANY | SMOOTH),
        *((how, 1) for how in ANY | SMOOTH if how not in CONSTANT),
    ],
)
def test_maps_add_up_whatever_follows(how: str, classes: int) -> None:
    module = Net((ANY | SMOOTH)[how], classes).eval()
    model = camtool.load(module, device="cpu", size=SIZE)
    pictures = [
        np.random.default_rng(seed).integers(0, 256, (40, 40, 3), np.uint8) for seed in range(3)
    ]
    found = model.explain_batch(pictures, topk=2)
    with torch.no_grad():
        answers = module(model.inputs([model.prepare(picture) for picture in pictures]))
    answers = answers[0] if isinstance(answers, tuple) else answers
    for explanation, answer in zip(found, answers, strict=True):
        np.testing.assert_allclose(explanation.all_logits, answer, rtol=1e-4, atol=1e-6)
        sums = explanation.maps.mean((1, 2)) + explanation.bias
        np.testing.assert_allclose(explanation.logits - sums, explanation.residual, atol=1e-6)
        ends = explanation.all_logits if classes > 1 else explanation.maps
        spread = np.ptp(ends) if classes > 1 else np.abs(ends).max()
        assert np.abs(explanation.residual).max() <= (1e-5 if how in ANY else 1e-3) * spread
    exact = camtool.load(module, device="cpu", size=SIZE, steps=256).explain(pictures[0])
    assert exact.exact


@pytest.mark.slow
@pytest.mark.parametrize("how", ["three layers", "transformer block", "layer norm"])
def test_the_integral_is_that_of_the_definition(how: str) -> None:
    module = Net((ANY | SMOOTH)[how]).double().eval()
    head = find_head(module, SIZE)
    inputs = torch.randn(2, 3, SIZE, SIZE, dtype=torch.double)
    with torch.no_grad():
        forward = head.forward(module, module, inputs)
    classes = forward.logits.argmax(1, keepdim=True)
    found = METHODS["integrated"](forward, classes, Settings(0.0, 256)).maps
    total, steps = torch.zeros_like(forward.features), 2000
    for n in range(steps):
        versions = torch.cat([(n + 0.5) / steps * forward.features, forward.features])
        with torch.enable_grad():
            versions.requires_grad_()
            logits = forward.tail(versions, held={})[:2].gather(1, classes)
            total += torch.autograd.grad(logits.sum(), versions)[0][:2] / steps
    expected = (total * forward.features).sum(1, keepdim=True) * total.shape[2] * total.shape[3]
    assert (found - expected).abs().max() <= 0.02 * expected.abs().max()


@pytest.mark.parametrize("how", REFUSED)
def test_other_heads_are_refused_with_what_was_found(how: str) -> None:
    head, reason = REFUSED[how]
    with pytest.raises(HeadError) as caught:
        find_head(Net(head), SIZE)
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("axes", [(1,), ()])
@pytest.mark.parametrize("how", ["linear", "not linear"])
def test_a_single_logit_may_have_lost_its_axis(how: str, axes: tuple[int, ...]) -> None:
    def head(s, f):
        pooled = f.mean((2, 3))
        return s.fc(pooled if how == "linear" else pooled.tanh()).squeeze(*axes)

    net = Net(head, classes=1).eval()
    model = camtool.load(net, preprocessing=camtool.Preprocessing(size=SIZE))
    inputs = torch.randn(3, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        wanted = net(inputs)
    for part in (inputs, inputs[:1]):
        for found, logit in zip(model.explain_tensor(part), wanted, strict=False):
            assert found.logits == pytest.approx(logit.numpy()[None], abs=1e-6)
            total = found.maps.mean() + found.bias + found.residual
            assert total == pytest.approx(found.logits, abs=1e-6)
            assert found.exact


def test_cam_is_refused_where_no_single_linear_layer_follows() -> None:
    spec = camtool.Preprocessing(size=SIZE)
    net = Net(lambda s, f: s.fc(f.mean((2, 3)).tanh()))
    with pytest.raises(ModelError, match="cam needs global average pooling"):
        camtool.load(net, method="cam", preprocessing=spec)
    with pytest.raises(ModelError, match="cam needs global average pooling"):
        camtool.load(Net(LINEAR["module"]), method="cam", layer="conv", preprocessing=spec)


def test_a_network_without_places_is_refused() -> None:
    with pytest.raises(HeadError, match="no place in the network"):
        find_head(nn.Sequential(nn.Flatten(), nn.Linear(3 * SIZE * SIZE, 5)), SIZE)


def test_constant_features_prove_nothing() -> None:
    module = Net(LINEAR["module"])
    nn.init.zeros_(module.conv.weight)
    assert module.conv.bias is not None
    nn.init.zeros_(module.conv.bias)
    with pytest.raises(HeadError, match="constant or not finite"):
        find_head(module, SIZE)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_number_formats_are_proved_too(dtype: torch.dtype) -> None:
    module = Net(LINEAR["module"]).to(dtype)
    assert find_head(module, SIZE).exact
    assert {p.dtype for p in module.parameters()} == {dtype}


def test_a_pool_that_no_longer_covers_the_map_is_refused_when_it_runs() -> None:
    module = Net(LINEAR["average of fixed size"])
    find_head(module, SIZE)
    with pytest.raises(HeadError, match="avg_pool2d to 1×1"):
        features_of(module.eval(), torch.randn(1, 3, SIZE + 4, SIZE + 4))


def test_weights_are_read_anew() -> None:
    module = Net(LINEAR["module"])
    head = find_head(module, SIZE)
    with torch.no_grad():
        module.fc.weight.mul_(-3).add_(1)
        module.conv.weight.mul_(2)
    _agree(module, head)
    module.fc.weight = nn.Parameter(torch.randn(5, 8))
    _agree(module, head)


def _facts(module: nn.Module) -> dict:
    return {
        "modes": {name: part.training for name, part in module.named_modules()},
        "hooks": {name: len(part._forward_hooks) for name, part in module.named_modules()},
        "pre": {name: len(part._forward_pre_hooks) for name, part in module.named_modules()},
        "gradients": {name: p.requires_grad for name, p in module.named_parameters()},
        "grads": {name: p.grad is None for name, p in module.named_parameters()},
        "devices": {name: p.device for name, p in module.named_parameters()},
        "inference": {name: p.is_inference() for name, p in module.named_parameters()},
    }


@pytest.mark.parametrize("head", [LINEAR["dropout between"], ANY["amax"], REFUSED["no tensor"][0]])
def test_the_module_is_as_before_found_or_refused(head) -> None:
    module = Net(head)
    module.train()
    module.norm.eval()
    module.fc.weight.requires_grad_(False)
    module.conv.register_forward_hook(lambda *_: None)
    before, state = _facts(module), copy.deepcopy(module.state_dict())
    try:
        find_head(module, SIZE)
    except HeadError:
        assert head is REFUSED["no tensor"][0]
    assert _facts(module) == before
    for name, tensor in module.state_dict().items():
        assert torch.equal(tensor, state[name]), name


def test_the_module_is_as_before_when_it_fails() -> None:
    def fail(module, features):
        raise RuntimeError("broken on purpose")

    module = Net(fail).train()
    module.norm.eval()
    before = _facts(module)
    with pytest.raises(HeadError, match=r"can't run .*on purpose"):
        find_head(module, SIZE)
    assert _facts(module) == before


def test_training_goes_on_after_a_look() -> None:
    module = Net(LINEAR["module"]).train()
    find_head(module, SIZE)
    module(torch.randn(2, 3, SIZE, SIZE)).sum().backward()
    assert module.conv.weight.grad is not None


def test_parameters_beside_flatten_and_dense() -> None:
    head = find_head(Net(LINEAR["module"]), SIZE)
    assert head.parameters == 5 * 8 + 5
    assert head.dense_parameters == 8 * 10 * 10 * 5 + 5
    assert find_head(Net(LINEAR["no bias"]), SIZE).parameters == 5 * 8


def test_patches_cut_out_in_one_go_have_places() -> None:
    class Patches(nn.Module):
        """A row of tokens from the first call on: no tensor ever looks like a picture."""

        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.embed, self.fc = nn.Linear(48, 8), nn.Linear(8, 5)

        def forward(self, x):
            return self.fc(self.embed(F.unfold(x, 4, stride=4).transpose(1, 2)).relu().mean(1))

    head = find_head(Patches(), SIZE)
    assert (head.shape, head.channels, head.exact) == ((5, 5), 8, True)


def test_one_place_is_no_map() -> None:
    """VGG's dense layers as convolutions: one cell is pooled, and the places lie before it."""
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 6, 10), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 5),
    )  # fmt: skip
    head = find_head(module, SIZE)
    assert (head.shape, head.kind, head.exact) == ((10, 10), "positional", True)
