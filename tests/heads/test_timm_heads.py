"""timm's heads: average pooling and one layer is exact in closed form; all others add up too."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from camtool.errors import HeadError
from camtool.heads import find_head
from camtool.networks import load_network
from camtool.networks.source import woken

timm = pytest.importorskip("timm", reason="timm is not installed")

EXACT = [
    ("resnet18", {}, "fc.weight"),
    ("resnet18", {"global_pool": "fast"}, "fc.weight"),
    ("efficientnet_lite0", {}, "classifier.weight"),
    pytest.param("densenet121", {}, "classifier.weight", marks=pytest.mark.slow),
    ("regnetx_002", {}, "head.fc.weight"),
    pytest.param("swin_tiny_patch4_window7_224", {}, "head.fc.weight", marks=pytest.mark.slow),
]
OTHER = [
    ("convnext_atto", {}, "norm"),
    ("mobilenetv3_small_050", {}, "nonlinear"),
    ("resnet18", {"global_pool": "avgmax"}, "affine"),
    ("resnet18", {"global_pool": "catavgmax"}, "affine"),
    ("resnet18", {"global_pool": "max"}, "affine"),
    pytest.param("vit_tiny_patch16_224", {}, "tokens", marks=pytest.mark.slow),
    pytest.param("vit_tiny_patch16_224", {"global_pool": "avg"}, "norm", marks=pytest.mark.slow),
    pytest.param("mixer_s32_224", {}, "affine", marks=pytest.mark.slow),
    pytest.param("levit_128s", {}, "affine", marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("name", "options", "weight"), EXACT)
def test_average_pooling_is_exact(name: str, options: dict, weight: str) -> None:
    size = 224 if "224" in name else 96
    head = find_head(timm.create_model(name, num_classes=10, **options), size)
    assert (head.kind, head.layer, head.classes, head.exact) == ("linear", weight, 10, True)


@pytest.mark.parametrize(("name", "options", "kind"), OTHER)
def test_maps_add_up_whatever_follows(name: str, options: dict, kind: str) -> None:
    size = 224 if "224" in name or "levit" in name else 96
    torch.manual_seed(0)
    module = woken(timm.create_model(name, num_classes=10, **options))
    head = find_head(module, size)
    assert head.max_error <= (1e-3 if head.kind == "tokens" else 1e-5)
    assert head.kind == kind


HERE = Path(__file__)
FAMILIES: dict[str, str] = json.loads(HERE.with_name("families.json").read_text())
"""One network of each family, the smallest of its kind."""

LARGE = {
    *("deepseek_vit_412m", "gemma4_vit_167m", "nasnetalarge", "pnasnet5large"),
    *("tnt_s_legacy_patch16_224", "samvit_base_patch16_224"),
}
"""Too large, or too many layers behind the cut, for a test; the table of docs/networks.md says of
which of them it is measured."""


@pytest.fixture(scope="module")
def benchmark() -> Any:
    """The command that makes the table of docs/networks.md."""
    path = HERE.parents[2] / "benchmarks" / "networks.py"
    spec = importlib.util.spec_from_file_location("benchmark_networks", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # Its data class looks up its own module.
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, spec.name, module)
        spec.loader.exec_module(module)
    return module


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in FAMILIES.values() if name not in LARGE])
def test_maps_of_every_family_add_up(benchmark: Any, name: str) -> None:
    if name not in timm.list_models():
        pytest.skip("this version of timm has no such network")
    network = load_network(f"timm/{name}", "random")
    own = network.preprocessing.size
    try:
        found = benchmark.measure(network.module, min(128, own))
    except HeadError:
        # It takes pictures of its own size alone.
        found = benchmark.measure(network.module, own)
    by_default, with_more_steps = found.residuals
    closed = found.kind in ("linear", "maps", "affine", "norm")
    assert by_default <= (1e-5 if closed else 1e-3)
    assert with_more_steps <= 1e-5
