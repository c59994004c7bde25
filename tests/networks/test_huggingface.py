"""Hugging Face's classifiers: from a folder, from a hub that a local server plays, as modules."""

from __future__ import annotations

import hashlib
import json
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch

import camtool
from camtool.errors import ModelError
from camtool.networks import Preprocessing, before_download, hub, load_network
from camtool.networks.huggingface import PROCESSOR

transformers = pytest.importorskip("transformers", reason="transformers is not installed")

LABELS = ("ape", "bee", "cat")
RECORD = {
    "crop_pct": 0.875,
    "do_normalize": True,
    "image_mean": [0.4, 0.5, 0.6],
    "image_std": [0.2, 0.25, 0.3],
    "resample": 3,
    "size": {"shortest_edge": 64},
}
SPEC = Preprocessing(64, 73, (0.4, 0.5, 0.6), (0.2, 0.25, 0.3), "bicubic")


def _resnet(**options: object):
    torch.manual_seed(0)
    names = dict(enumerate(LABELS))
    config = transformers.ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], id2label=names, **options
    )
    return transformers.ResNetForImageClassification(config).eval()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    place = tmp_path / "OWNER" / "small"
    _resnet().save_pretrained(place)
    (place / PROCESSOR).write_text(json.dumps(RECORD))
    return place


def _logits(module, channels: int = 3) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    with torch.inference_mode():
        return module(torch.rand(1, channels, 64, 64, generator=generator)).logits


@pytest.mark.parametrize("form", ["{}", "hf/{}"])
def test_a_folder(folder: Path, form: str, capfd) -> None:
    network = load_network(form.format(folder))
    assert torch.equal(_logits(network.module), _logits(_resnet()))
    assert (network.labels, network.preprocessing, network.channels) == (LABELS, SPEC, 3)
    assert network.sha256 == hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    assert network.notes == ()
    assert not network.module.training
    assert capfd.readouterr().err == ""


def test_a_module_brings_its_labels_and_its_processor(folder: Path) -> None:
    module = transformers.AutoModelForImageClassification.from_pretrained(folder)
    network = load_network(module)
    assert network.module is module
    assert (network.labels, network.preprocessing) == (LABELS, SPEC)
    made = load_network(_resnet())
    assert (made.labels, made.preprocessing) == (LABELS, Preprocessing())
    assert PROCESSOR in made.notes[0]


def test_a_vit_says_its_size_and_placeholders_are_no_labels() -> None:
    config = transformers.ViTConfig(
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        image_size=32,
        patch_size=8,
        num_channels=1,
    )
    network = load_network(transformers.ViTForImageClassification(config))
    assert (network.labels, network.channels) == ((), 1)
    assert (network.preprocessing.size, network.preprocessing.resize) == (32, 32)
    assert network.preprocessing.mean == pytest.approx((0.449,))


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        ({**RECORD, "size": 64}, SPEC),
        ({**RECORD, "size": {"shortest_edge": 384}}, (384, 384)),
        ({**RECORD, "crop_pct": None, "size": {"height": 48, "width": 48}}, (48, 48)),
        ({**RECORD, "do_center_crop": True, "crop_size": {"height": 56, "width": 56}}, (56, 64)),
        ({**RECORD, "do_center_crop": True, "crop_size": 56}, (56, 64)),
        ({**RECORD, "do_center_crop": False, "crop_size": 56}, SPEC),
    ],
)
def test_processors_sizes(folder: Path, record: dict, expected: object) -> None:
    (folder / PROCESSOR).write_text(json.dumps(record))
    spec = load_network(folder).preprocessing
    assert expected in (spec, (spec.size, spec.resize))


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"do_normalize": False},
        {"do_rescale": False, "image_mean": [100.0] * 3, "image_std": [50.0] * 3},
        {"rescale_factor": 1 / 127.5},
    ],
)
def test_the_input_is_that_of_transformers_own_processor(folder: Path, options: dict) -> None:
    size = {"height": 32, "width": 32}
    own = transformers.ViTImageProcessor(size=size, do_resize=False, **options)
    own.save_pretrained(folder)
    spec = load_network(folder).preprocessing
    picture = torch.randint(0, 256, (3, 32, 32), generator=torch.Generator().manual_seed(2))
    theirs = own(picture.to(torch.uint8), return_tensors="pt")["pixel_values"][0]
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (spec.mean, spec.std))
    torch.testing.assert_close((picture / 255 - mean) / std, theirs, rtol=1e-5, atol=1e-4)


def test_weights_of_a_file_with_other_classes_and_channels(folder: Path, tmp_path: Path) -> None:
    module = _resnet(num_channels=4)
    path = tmp_path / "mine.pth"
    torch.save(module.state_dict(), path)
    network = load_network(f"hf/{folder}", path)
    assert network.channels == 4
    assert torch.equal(_logits(network.module, 4), _logits(module, 4))


def test_a_backbone_without_classes_is_refused(folder: Path) -> None:
    _resnet().resnet.save_pretrained(folder)
    with pytest.raises(ModelError, match=r"holds no weights for classifier\.1\.bias"):
        load_network(folder)


@pytest.mark.parametrize(
    ("file", "content", "reason"),
    [
        ("config.json", "{", "is not JSON"),
        ("config.json", '{"model_type": "bert"}', "transformers can't load it"),
        ("config.json", "[" * 100_000, "is not JSON"),
        (PROCESSOR, "[" * 100_000, "is not JSON"),
        (PROCESSOR, "[]", "must hold a JSON object"),
        (PROCESSOR, "{}", "is no image processor's"),
        (PROCESSOR, '{"size": "x"}', "is no image processor's"),
        (PROCESSOR, json.dumps({**RECORD, "size": 10**6}), "size must be"),
        (PROCESSOR, json.dumps({**RECORD, "image_std": [0, 0, 0]}), "std must be above 0"),
        (PROCESSOR, json.dumps({**RECORD, "rescale_factor": 0}), "is no image processor's"),
        ("model.safetensors", "no tensors", "transformers can't load it"),
    ],
)
def test_damaged_folders_are_one_line(folder: Path, file: str, content: str, reason: str) -> None:
    (folder / file).write_text(content)
    with pytest.raises(ModelError, match=reason) as caught:
        load_network(folder)
    assert "\n" not in str(caught.value)


def test_a_folder_without_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    with pytest.raises(ModelError, match=r"holds none of model\.safetensors"):
        load_network(folder)
    assert load_network(folder, "random").weights == "random (seed 0)"


def test_code_in_a_pickle_of_a_repository_is_not_run(folder: Path, tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self):
            return Path.touch, (tmp_path / "trap",)

    (folder / "model.safetensors").unlink()
    torch.save({"x": Trap()}, folder / "pytorch_model.bin")
    with pytest.raises(ModelError):
        load_network(folder)
    assert not (tmp_path / "trap").exists()


class PlayedHub:
    """What the hub answers: the files of some repositories, and a count of what was asked."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.asked: list[str] = []

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        self.asked.append(f"{handler.command} {handler.path}")
        owner, name, _, _, file = (handler.path.split("/", 5) + [""] * 5)[1:6]
        path = self.root / owner / name / file
        code = 200 if path.is_file() else 404
        content = path.read_bytes() if code == 200 else b""
        handler.send_response(code)
        if code == 404:
            known = (self.root / owner / name).is_dir()
            handler.send_header("X-Error-Code", "EntryNotFound" if known else "RepoNotFound")
        handler.send_header("X-Repo-Commit", "0" * 40)
        handler.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
        handler.send_header("Content-Length", str(len(content)))
        handler.end_headers()
        if handler.command == "GET":
            handler.wfile.write(content)


@pytest.fixture
def online(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[PlayedHub]:
    played = PlayedHub(tmp_path)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            played.answer(self)

        do_HEAD = do_GET  # noqa: N815

        def log_message(self, *args: object) -> None:
            """Keep the test's output clean."""

    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.setenv(name, "127.0.0.1")
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listening:
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{listening.server_port}")
        thread = threading.Thread(target=listening.serve_forever, args=(0.01,))
        thread.start()
        yield played
        listening.shutdown()
        thread.join()


def test_a_repository_is_fetched_once_and_then_taken_from_the_cache(online) -> None:
    shown = before_download("hf/OWNER/small")
    assert shown.weights == "random (seed 0)"
    assert not any("model.safetensors" in asked for asked in online.asked)
    network = load_network("hf/OWNER/small")
    assert torch.equal(_logits(network.module), _logits(_resnet()))
    assert (network.labels, network.preprocessing) == (LABELS, SPEC)
    online.asked.clear()
    assert load_network("hf/OWNER/small", offline=True).sha256 == network.sha256
    assert before_download("hf/OWNER/small") is None
    assert online.asked == []


def test_without_a_processor_it_is_asked_for_once(online, folder: Path) -> None:
    (folder / PROCESSOR).unlink()
    first = load_network("hf/OWNER/small")
    assert PROCESSOR in first.notes[0]
    online.asked.clear()
    assert load_network("hf/OWNER/small").notes == first.notes
    assert online.asked == []


def test_weights_in_parts_and_in_a_pickle(online, folder: Path) -> None:
    expected = _logits(_resnet())
    (folder / "model.safetensors").unlink()
    torch.save(_resnet().state_dict(), folder / "pytorch_model.bin")
    assert torch.equal(_logits(load_network("hf/OWNER/small").module), expected)
    parts = folder.parent / "parts"
    _resnet().save_pretrained(parts, max_shard_size=4000)
    assert len(list(parts.glob("model-*.safetensors"))) > 1
    network = load_network("hf/OWNER/parts")
    assert torch.equal(_logits(network.module), expected)
    assert network.sha256 is None


@pytest.mark.parametrize("name", ["hf/OWNER/none", "hf/no name at all", "hf/", "hf//none/there"])
def test_what_the_hub_lacks_is_one_line(online, name: str) -> None:
    with pytest.raises(ModelError, match="can't be downloaded") as caught:
        load_network(name)
    assert "\n" not in str(caught.value)


def test_offline_asks_nobody(online, monkeypatch: pytest.MonkeyPatch) -> None:
    assert before_download("hf/OWNER/small", offline=True) is None
    with pytest.raises(ModelError, match="offline nothing is downloaded"):
        load_network("hf/OWNER/small", offline=True)
    with pytest.raises(ModelError, match="offline nothing is downloaded"):
        load_network("hf/OWNER/small", "random", offline=True)
    monkeypatch.setenv("CAMTOOL_OFFLINE", "1")
    with pytest.raises(ModelError, match="offline nothing is downloaded"):
        load_network("hf/OWNER/small")
    monkeypatch.delenv("CAMTOOL_OFFLINE")
    with pytest.raises(ModelError, match="offline nothing is downloaded"):
        camtool.load("hf/OWNER/small", offline=True)
    assert online.asked == []


def test_a_silent_hub_is_given_up(online, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "TIMEOUT", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
        with pytest.raises(ModelError, match="can't be downloaded") as caught:
            load_network("hf/OWNER/small")
    assert "\n" not in str(caught.value)


def test_timm_reads_repositories_of_the_same_hub(online, tmp_path: Path) -> None:
    timm = pytest.importorskip("timm", reason="timm is not installed")
    from timm.models import save_for_hf

    torch.manual_seed(0)
    module = timm.create_model("test_resnet", num_classes=3).eval()
    save_for_hf(module, tmp_path / "OWNER" / "theirs", model_args={"num_classes": 3})
    network = load_network("timm/hf-hub:OWNER/theirs")
    assert all(
        torch.equal(mine, its)
        for mine, its in zip(
            network.module.state_dict().values(), module.state_dict().values(), strict=True
        )
    )
    registered = timm.get_pretrained_cfg("test_resnet").hf_hub_id
    torch.manual_seed(1)
    whole = timm.create_model("test_resnet").eval()
    save_for_hf(whole, tmp_path / registered)
    assert before_download("timm/test_resnet").weights == "random (seed 0)"
    loaded = load_network("timm/test_resnet")
    assert torch.equal(loaded.module.get_parameter("conv1.0.weight"), whole.conv1[0].weight)
    assert loaded.weights == "timm/test_resnet.r160_in1k"
    online.asked.clear()
    assert load_network("timm/test_resnet", offline=True).sha256 == loaded.sha256
    assert online.asked == []
