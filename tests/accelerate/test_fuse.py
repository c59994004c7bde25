"""The fused copy computes what the network does, and is refused where it can't."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, fx, nn
from torch.nn import functional as F

from camtool.accelerate.convolution import LAYOUTS, FusedConvolution, PostOp, available
from camtool.accelerate.fuse import bf16_pays, fuse
from camtool.heads import features_of, find_head
from camtool.networks.efficientnet_lite0 import EfficientNetLite0, SamePadding
from camtool.networks.gapnet import gapnet

pytestmark = pytest.mark.skipif(
    not available(torch.float32), reason="torch has no oneDNN operators here"
)


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def randomise(module: nn.Module, seed: int = 0) -> nn.Module:
    """Give batch norms statistics and gains of their own, so that folding them matters."""
    generator = torch.Generator().manual_seed(seed)
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d) and part.running_mean is not None:
            part.running_mean.normal_(0, 0.2, generator=generator)
            part.running_var.uniform_(0.5, 2, generator=generator)
            if part.affine:
                part.weight.data.uniform_(0.5, 1.5, generator=generator)
                part.bias.data.normal_(0, 0.2, generator=generator)
    return module.eval()


def build(name: str) -> nn.Module:
    torch.manual_seed(0)
    if name == "gapnet":
        return randomise(gapnet(classes=11))
    if name == "efficientnet_lite0":
        return randomise(EfficientNetLite0(classes=11))
    if name.startswith("timm/"):
        timm = pytest.importorskip("timm")
        return randomise(timm.create_model(name.removeprefix("timm/"), drop_path_rate=0.2))
    from torchvision import models

    options = {"init_weights": False} if name == "googlenet" else {}
    return randomise(models.get_model(name, weights=None, **options))


def noise(batch: int, height: int, width: int, channels: int = 3) -> Tensor:
    generator = torch.Generator().manual_seed(batch * height + width)
    return torch.randn(batch, channels, height, width, generator=generator)


def fused_of(module: nn.Module, dtype: torch.dtype = torch.float32) -> nn.Module:
    fused = fuse(module, dtype)
    assert fused is not None
    return fused


def steps(fused: nn.Module) -> list[str]:
    """What each convolution of a fused network does after convolving, in their order."""
    assert isinstance(fused, fx.GraphModule)
    found = []
    for node in fused.graph.nodes:
        part = fused.get_submodule(node.target) if node.op == "call_module" else None
        if isinstance(part, FusedConvolution):
            before = "pads " * len(node.kwargs) + "add " * (len(node.args) - 1)
            found.append(before + part.post.name)
    return found


def assert_same(module: nn.Module, fused: nn.Module, x: Tensor, slack: float = 1e-5) -> None:
    """Equal outputs, on the first pass with plain weights and on the second with laid out ones."""
    with torch.inference_mode():
        wanted = module(x.clone())
        for _ in range(2):
            got = fused(x.clone())
            assert got.shape == wanted.shape
            assert (got - wanted).abs().max() <= slack * wanted.abs().max()


NETWORKS = [
    "resnet18",
    "resnet50",
    "mobilenet_v2",
    "densenet121",
    "efficientnet_b0",
    "squeezenet1_0",
    "googlenet",
    "shufflenet_v2_x0_5",
    "regnet_y_400mf",
    "mnasnet0_5",
    "gapnet",
    "efficientnet_lite0",
    "timm/tf_efficientnet_lite0",
    "timm/efficientnet_lite0",
    "timm/tf_efficientnet_b0",
    "timm/mobilenetv2_100",
]


QUICK = {"mobilenet_v2", "squeezenet1_0"}


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in NETWORKS],
)
def test_features_and_head_of_a_network_stay_the_same(name: str) -> None:
    module = build(name)
    fused = fused_of(module)
    exact = copy.deepcopy(module).double()
    for x in (noise(1, 64, 64), noise(5, 96, 128)):
        wanted = features_of(exact, x.double())
        # Random networks may enlarge rounding, of the plain module as of the fused one.
        rounding = (features_of(module, x) - wanted).abs().max()
        for _ in range(2):
            difference = (features_of(fused, x) - wanted).abs().max()
            assert difference <= max(1e-5 * (wanted.max() - wanted.min()), 4 * rounding)
    head, plain = find_head(fused, 96), find_head(module, 96)
    assert head.exact
    assert (head.kind, head.layer, head.bias) == (plain.kind, plain.layer, plain.bias)
    assert (head.channels, head.classes, head.shape) == (plain.channels, plain.classes, plain.shape)


@pytest.mark.parametrize(
    "name",
    [
        "resnet18",
        "resnet50",
        "mobilenet_v2",
        "gapnet",
        "efficientnet_lite0",
        "timm/tf_efficientnet_lite0",
        "timm/tf_efficientnet_b0",
        "timm/mobilenetv2_100",
    ],
)
def test_no_padding_norm_or_activation_of_these_networks_is_left(name: str) -> None:
    fused = fused_of(build(name))
    left = {type(part) for part in fused.modules()}
    assert left.isdisjoint({nn.BatchNorm2d, nn.ReLU, nn.ReLU6, nn.SiLU, nn.Conv2d})
    assert isinstance(fused, fx.GraphModule)
    assert F.pad not in {node.target for node in fused.graph.nodes}


@pytest.mark.parametrize("name", ["efficientnet_lite0", "timm/tf_efficientnet_lite0"])
@pytest.mark.parametrize("sides", [(33, 65), (64, 47), (97, 96)])
def test_odd_sides_are_padded_as_the_network_pads_them(name: str, sides: tuple[int, int]) -> None:
    module = build(name)
    assert_same(module, fused_of(module), noise(2, *sides))


@pytest.mark.slow
def test_residual_blocks_end_in_one_step() -> None:
    assert steps(fused_of(build("resnet18"))).count("add relu") == 8
    assert steps(fused_of(build("mobilenet_v2"))).count("add none") == 10
    assert steps(fused_of(build("efficientnet_lite0"))).count("add none") == 9
    assert steps(fused_of(build("timm/tf_efficientnet_lite0"))).count("add none") == 9


@pytest.mark.parametrize("name", ["resnet18", "efficientnet_b0", "squeezenet1_0"])
def test_the_network_itself_is_not_changed(name: str) -> None:
    module = build(name).train()
    before = {key: value.clone() for key, value in module.state_dict().items()}
    pointers = {key: value.data_ptr() for key, value in module.named_parameters()}
    fused = fused_of(module)
    fuse(module, torch.bfloat16)
    fused(noise(1, 64, 64))
    assert all(part.training for part in module.modules())
    assert not any(part.training for part in fused.modules())
    after = module.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[key], value) for key, value in before.items())
    assert pointers == {key: value.data_ptr() for key, value in module.named_parameters()}
    assert all(parameter.requires_grad for parameter in module.parameters())
    shared = set(pointers.values()) & {value.data_ptr() for value in fused.parameters()}
    assert not shared


class Net(nn.Module):
    """A network around `body`, a function of a module and an input of eight channels."""

    def __init__(self, body: Callable[[nn.Module, Tensor], Tensor], **parts: nn.Module) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.conv = nn.Conv2d(8, 8, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.relu = nn.ReLU(inplace=True)
        for name, part in parts.items():
            self.add_module(name, part)
        self.body = body
        self.fc = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        maps = self.body(self, self.stem(x))
        return self.fc(maps.mean((2, 3)))


def used_twice(net, x):
    return net.relu(net.norm(net.conv(net.relu(net.norm(net.conv(x))))))


def two_users(net, x):
    y = net.norm(net.conv(x))
    return F.relu(y) - y.sigmoid()


def relu_seen_in_place(net, x):
    y = net.conv(x)
    z = y * 2
    net.relu(y)
    return y + z


def add_in_place_seen_by_others(net, x):
    y = x * 1
    z = y.view(y.shape)
    y.add_(net.conv(x))
    return y + z


def input_changed_before_the_addition(net, x):
    y = net.conv(x)
    identity = F.relu(x, inplace=True)
    return torch.relu(y + identity)


def broadcast_addition(net, x):
    return F.relu(net.conv(x) + x.mean((2, 3), keepdim=True))


def growing_addition(net, x):
    return F.relu(net.conv(x[:, :, :1, :1]) + x)


def doubled(net, x):
    y = net.conv(x)
    return F.relu(y + y)


def added_twice(net, x):
    y = x * 2
    return F.relu(net.conv(x) + x + y)


def added_number(net, x):
    return F.relu(net.conv(x) + 0.5) + torch.add(x, net.conv(x), alpha=2)


def after_pool(net, x):
    weights = net.conv(x).mean((2, 3), keepdim=True).sigmoid()
    return x * weights


def dropped(net, x):
    return net.relu(net.identity(net.norm(net.dropout(net.conv(x)))))


def padded(net, x):
    return net.relu(net.conv(F.pad(x, (0, 1, 0, 1))))


def padded_by_names(net, x):
    return net.relu(net.conv(F.pad(x, pad=[1, 0, 2, 1], mode="constant", value=0)))


def padded_far(net, x):
    return net.relu(net.conv(F.pad(x, (5, 0, 1, 1))))


def cropped(net, x):
    return net.relu(net.conv(F.pad(x, (-1, 2, -2, 0))))


def padded_by_ones(net, x):
    return net.relu(net.conv(F.pad(x, (0, 1, 0, 1), value=1.0)))


def padded_by_reflection(net, x):
    return net.relu(net.conv(F.pad(x, (0, 1, 0, 1), "reflect")))


def padded_along_one_axis(net, x):
    return net.relu(net.conv(F.pad(x, (0, 1))))


def padding_read_by_others(net, x):
    y = F.pad(x, (0, 1, 0, 1))
    return net.conv(y) + y[:, :, 1:, 1:].mean((2, 3), keepdim=True)


def padded_before_a_change(net, x):
    y = F.pad(x, (1, 1, 1, 1))
    x.relu_()
    return net.conv(y)


def padded_with_an_addition(net, x):
    return F.relu(net.conv(F.pad(x, (0, 1, 0, 1)))[:, :, 1:, 1:] + x)


def padded_then_added(net, x):
    return F.relu(x + net.part(F.pad(x, (1, 0, 0, 1))))


def through(net, x):
    return net.part(x)


ODD: dict[str, tuple[Net, list[str]]] = {
    "used twice": (Net(used_twice), ["none", "relu", "relu"]),
    "two users": (Net(two_users), ["none", "none"]),
    "in-place ReLU": (Net(relu_seen_in_place), ["none", "none"]),
    "in-place addition": (Net(add_in_place_seen_by_others), ["none", "none"]),
    "changed input": (Net(input_changed_before_the_addition), ["none", "none"]),
    "broadcast": (Net(broadcast_addition), ["none", "none"]),
    "growing": (Net(growing_addition), ["none", "add relu"]),
    "doubled": (Net(doubled), ["none", "none"]),
    "twice": (Net(added_twice), ["none", "add none"]),
    "numbers": (Net(added_number), ["none", "none", "none"]),
    "gate": (Net(after_pool), ["none", "none"]),
    "identity": (
        Net(dropped, identity=nn.Identity(), dropout=nn.Dropout()),
        ["none", "relu"],
    ),
    "padded": (Net(padded), ["none", "pads relu"]),
    "padded by names": (Net(padded_by_names), ["none", "pads relu"]),
    "padded far": (Net(padded_far), ["none", "pads relu"]),
    "cropped": (Net(cropped), ["none", "pads relu"]),
    "ones": (Net(padded_by_ones), ["none", "relu"]),
    "reflected": (Net(padded_by_reflection), ["none", "relu"]),
    "one axis": (Net(padded_along_one_axis), ["none", "relu"]),
    "padding with readers": (Net(padding_read_by_others), ["none", "none"]),
    "padding before a change": (Net(padded_before_a_change), ["none", "none"]),
    "padding, slices": (Net(padded_with_an_addition), ["none", "pads none"]),
    "padding, addition": (
        Net(padded_then_added, part=nn.Conv2d(8, 8, 2)),
        ["none", "pads add relu"],
    ),
}
LAYERS: dict[str, tuple[nn.Module, list[str]]] = {
    "depthwise": (nn.Sequential(nn.Conv2d(8, 8, 5, 2, 2, groups=8), nn.BatchNorm2d(8)), ["none"]),
    "grouped": (nn.Sequential(nn.Conv2d(8, 8, 3, groups=2), nn.SiLU()), ["swish"]),
    "dilated": (nn.Sequential(nn.Conv2d(8, 8, 3, dilation=(2, 3)), nn.Hardswish()), ["hardswish"]),
    "oblong": (nn.Sequential(nn.Conv2d(8, 8, (1, 7), (1, 2), (0, 3)), nn.ReLU6()), ["hardtanh"]),
    "same": (nn.Sequential(nn.Conv2d(8, 8, 3, padding="same"), nn.ReLU()), ["relu"]),
    "same, even": (nn.Sequential(nn.Conv2d(8, 8, (4, 2), padding="same")), ["none"]),
    "same, dilated": (nn.Sequential(nn.Conv2d(8, 8, 2, dilation=3, padding="same")), ["none"]),
    "valid": (nn.Sequential(nn.Conv2d(8, 8, 3, padding="valid")), ["none"]),
    "zeros": (
        nn.Sequential(nn.ZeroPad2d((0, 1, 0, 1)), nn.Conv2d(8, 8, 3, 2, groups=8), nn.ReLU6()),
        ["pads hardtanh"],
    ),
    "zeros twice": (
        nn.Sequential(nn.ZeroPad2d((0, 1, 0, 1)), nn.Conv2d(8, 8, 5, 2, 2)),
        ["pads none"],
    ),
    "constant": (nn.Sequential(nn.ConstantPad2d(1, 2.0), nn.Conv2d(8, 8, 3)), ["none"]),
    "SAME": (nn.Sequential(SamePadding(5), nn.Conv2d(8, 8, 5, 2)), ["pads none"]),
    "reflect": (nn.Sequential(nn.Conv2d(8, 8, 3, padding=1, padding_mode="reflect")), []),
    "leaky": (nn.Sequential(nn.Conv2d(8, 8, 3), nn.LeakyReLU()), ["none"]),
    "batch statistics": (
        nn.Sequential(nn.Conv2d(8, 8, 3), nn.BatchNorm2d(8, track_running_stats=False)),
        ["none"],
    ),
    "no gain": (nn.Sequential(nn.Conv2d(8, 8, 1), nn.BatchNorm2d(8, affine=False)), ["none"]),
    "transposed": (nn.Sequential(nn.ConvTranspose2d(8, 8, 2), nn.BatchNorm2d(8)), []),
    "parametrised": (
        nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Conv2d(8, 8, 3)), nn.ReLU()),
        [],
    ),
}
ODD |= {name: (Net(through, part=part), ["none", *want]) for name, (part, want) in LAYERS.items()}


@pytest.mark.filterwarnings("ignore:Using padding='same'")
@pytest.mark.parametrize("name", ODD)
def test_odd_constructs_are_fused_only_where_nothing_changes(name: str) -> None:
    module, wanted = ODD[name]
    randomise(module)
    fused = fused_of(module)
    assert steps(fused) == wanted
    for x in (noise(1, 16, 16), noise(2, 23, 17)):
        assert_same(module, fused, x)


def test_a_module_with_a_hook_is_left_alone() -> None:
    module = Net(used_twice).eval()
    calls: list[int] = []
    module.conv.register_forward_hook(lambda *_: calls.append(1))
    fused = fused_of(module)
    assert steps(fused) == ["none"]
    assert_same(module, fused, noise(1, 16, 16))
    # Hooks are copied with the module and call the same function: twice a pass, three passes.
    assert len(calls) == 2 * 3


def test_two_outputs_are_both_right() -> None:
    class Two(Net):
        def forward(self, x: Tensor) -> Tensor:
            y = self.norm(self.conv(self.stem(x)))
            return torch.stack([y, F.relu(y, inplace=True)])

    module = randomise(Two(through))
    assert_same(module, fused_of(module), noise(2, 12, 12))


def test_the_classifier_after_the_pool_is_not_touched() -> None:
    module = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Conv2d(8, 4, 1), nn.Flatten()
    ).eval()
    fused = fused_of(module)
    assert steps(fused) == ["relu"]
    assert find_head(fused, 32).layer == find_head(module, 32).layer == "3.weight"


def block(kind: int, width: int) -> nn.Module:
    """One of several layers of `width` channels."""
    conv = nn.Conv2d(width, width, 3, padding=1, groups=width if kind == 2 else 1)
    activations = (nn.ReLU(True), nn.ReLU6(), nn.SiLU(), nn.Identity(), nn.Hardswish())
    return nn.Sequential(conv, nn.BatchNorm2d(width), activations[kind % 5])


class Chain(nn.Module):
    def __init__(self, kinds: list[int], width: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, width, 3, stride=2)
        self.blocks = nn.ModuleList(block(kind, width) for kind in kinds)
        self.skips = [kind > 4 for kind in kinds]

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for layer, skip in zip(self.blocks, self.skips, strict=True):
            x = F.relu(layer(x) + x) if skip else layer(x)
        return x


@pytest.mark.slow
@settings(max_examples=15)
@given(
    kinds=st.lists(st.integers(0, 9), min_size=1, max_size=5),
    width=st.integers(1, 20),
    sides=st.tuples(st.integers(3, 40), st.integers(3, 40)),
    batch=st.integers(1, 3),
)
def test_random_networks_on_random_sizes(
    kinds: list[int], width: int, sides: tuple[int, int], batch: int
) -> None:
    module = randomise(Chain(kinds, width), seed=width)
    assert_same(module, fused_of(module), noise(batch, *sides))


@settings(max_examples=40)
@given(
    pads=st.tuples(*[st.integers(-1, 3)] * 4),
    kernel=st.tuples(st.integers(1, 5), st.integers(1, 5)),
    stride=st.integers(1, 3),
    dilation=st.integers(1, 2),
    padding=st.integers(0, 2),
    depthwise=st.booleans(),
    adds=st.booleans(),
)
def test_any_padding_before_a_convolution(
    pads: tuple[int, ...],
    kernel: tuple[int, int],
    stride: int,
    dilation: int,
    padding: int,
    depthwise: bool,
    adds: bool,
) -> None:
    groups = 6 if depthwise else 1
    conv = nn.Conv2d(6, 6, kernel, stride, padding, dilation, groups).requires_grad_(False)
    x = noise(2, 12, 11, channels=6)
    wanted = conv(F.pad(x, pads))
    other = torch.ones_like(wanted) if adds and not depthwise else None
    fused = FusedConvolution(conv, None, PostOp("none"))
    for _ in range(2):
        got = fused(x, other, pads) - (0 if other is None else 1)
        torch.testing.assert_close(got, wanted, atol=1e-5, rtol=1e-5)


@pytest.mark.slow
def test_many_input_sizes_lay_out_few_weights() -> None:
    module = build("gapnet")
    fused = fused_of(module)
    for side in (64, 80, 96, 64, 112, 80, 128, 144, 96, 112, 128, 144, 128, 64):
        x = noise(1, 64, side)
        torch.testing.assert_close(
            features_of(fused, x), features_of(module, x), atol=1e-5, rtol=1e-5
        )
    convolutions = [part for part in fused.modules() if isinstance(part, FusedConvolution)]
    assert all(len(part._layouts) == LAYOUTS for part in convolutions)


@pytest.mark.slow
def test_threads_agree_with_one_thread() -> None:
    module = build("gapnet")
    fused = fused_of(module)
    inputs = [noise(1 + n % 2, 64, 64 + 8 * (n % 3)) for n in range(24)]
    wanted = [features_of(module, x) for x in inputs]
    with ThreadPoolExecutor(4, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        got = list(pool.map(lambda x: features_of(fused, x), inputs))
    for one, other in zip(got, wanted, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)


def test_a_copy_of_a_fused_network_works() -> None:
    fused = fused_of(build("gapnet"))
    x = noise(1, 64, 64)
    first = features_of(fused, x)
    features_of(fused, x)
    torch.testing.assert_close(features_of(copy.deepcopy(fused), x), first)


def test_other_number_formats_of_the_network_are_cast() -> None:
    module = build("gapnet")
    fused = fused_of(copy.deepcopy(module).double())
    assert_same(module, fused, noise(1, 64, 64))


@pytest.mark.skipif(not available(torch.bfloat16), reason="oneDNN has no bfloat16 here")
@pytest.mark.parametrize("name", ["resnet18", "efficientnet_b0", "gapnet", "efficientnet_lite0"])
def test_bfloat16_is_close_to_float32(name: str) -> None:
    module = build(name)
    fused = fused_of(module, torch.bfloat16)
    x = noise(2, 96, 64)
    for _ in range(2):
        got, wanted = features_of(fused, x.bfloat16()), features_of(module, x)
        assert got.dtype == torch.bfloat16
        pair = torch.stack([got.float().flatten(), wanted.flatten()])
        assert torch.corrcoef(pair)[0, 1] > 0.995


class Untraceable(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        return x if x.mean() > 0 else -x


class Deceptive(nn.Module):
    """Computes something else under tracing: what a fused copy must be checked for."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = before = self.conv(x)
        y += 1
        return before.mean((2, 3))


@pytest.mark.parametrize(
    "module",
    [Untraceable(), nn.Sequential(nn.Flatten(), nn.Linear(12, 3)), nn.Conv2d(3, 4, 3).to("meta")],
    ids=["untraceable", "no convolution", "not on the CPU"],
)
def test_what_cannot_be_fused_gives_none(module: nn.Module) -> None:
    assert fuse(module.eval()) is None


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64])
def test_other_number_formats_give_none(dtype: torch.dtype) -> None:
    assert fuse(build("gapnet"), dtype) is None


def test_operators_that_fail_or_differ_give_none(monkeypatch: pytest.MonkeyPatch) -> None:
    module = build("gapnet")
    right = FusedConvolution._convolve

    def wrong(self: FusedConvolution, *given: Any) -> Tensor:
        return right(self, *given) * 1.001

    def missing(self: FusedConvolution, x: Tensor, *given: Any) -> Tensor:
        return torch.ops.mkldnn._no_such_operator(x)

    try:
        for broken in (wrong, missing):
            available.cache_clear()
            monkeypatch.setattr(FusedConvolution, "_convolve", broken)
            assert fuse(module) is None
    finally:
        monkeypatch.undo()
        available.cache_clear()
    assert fuse(module) is not None


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_sample_proves_the_copy(dtype: torch.dtype) -> None:
    if not available(dtype):
        pytest.skip("oneDNN has no bfloat16 here")
    assert fuse(build("gapnet"), dtype, noise(1, 64, 64)) is not None
    assert fuse(Deceptive().eval(), dtype) is not None
    assert fuse(Deceptive().eval(), dtype, noise(1, 16, 16)) is None


def test_bf16_pays_says_yes_or_no() -> None:
    assert bf16_pays() in (True, False)
