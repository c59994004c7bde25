"""Published weights: fetched once, cached, verified every time, refused when damaged.

A local server plays the hub; the published address of ResNet-18 is replaced by one whose file has
the name that its own hash gives it, because the real file's bytes can't be part of a test.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch

import camtool
from camtool.errors import ModelError
from camtool.heads import find_head
from camtool.networks import before_download, hub, load_network
from camtool.networks import torchvision as zoo
from camtool.networks.load import resnet50_on_this_machine

NAME = "resnet18"


@dataclass
class Hub:
    address: str
    files: dict[str, bytes] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            played.asked.append(self.path)
            content = played.files.get(self.path)
            if content is None:
                self.send_error(404)
                return
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *args: object) -> None:
            """Keep the test's output clean."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listening:
        played = Hub(f"http://127.0.0.1:{listening.server_port}")
        thread = threading.Thread(target=listening.serve_forever, args=(0.01,))
        thread.start()
        monkeypatch.setenv("CAMTOOL_HUB", played.address + "/")
        monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        yield played
        listening.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def content() -> bytes:
    stream = io.BytesIO()
    torch.save(zoo.random_module(NAME).state_dict(), stream)
    return stream.getvalue()


@pytest.fixture
def url(content: bytes, monkeypatch: pytest.MonkeyPatch) -> str:
    address = f"https://hub.invalid/models/{NAME}-{hashlib.sha256(content).hexdigest()[:8]}.pth"
    published = replace(zoo.entries(NAME)[0], url=address)
    real = zoo.entries
    monkeypatch.setattr(zoo, "entries", lambda name: (published,) if name == NAME else real(name))
    return address


def _path_of(url: str) -> str:
    return url.removeprefix("https://hub.invalid")


def test_downloaded_once_and_then_taken_from_the_cache(server, content, url, capfd) -> None:
    server.files[_path_of(url)] = content
    first = load_network(NAME)
    told = capfd.readouterr()
    assert told.out == ""
    assert f"fetching the weights of {NAME}" in told.err
    assert "100%" in told.err
    again = load_network(NAME, "IMAGENET1K_V1")
    assert server.asked == [_path_of(url)]
    assert hub.cached_path(url).read_bytes() == content
    assert first.sha256 == again.sha256 == hashlib.sha256(content).hexdigest()
    assert first.weights == "IMAGENET1K_V1"
    assert first.labels[281] == "tabby"
    assert first.preprocessing.resize == 256
    expected = zoo.random_module(NAME).state_dict()
    assert all(torch.equal(v, expected[k]) for k, v in first.module.state_dict().items())


def test_the_downloaded_network_explains(server, content, url) -> None:
    server.files[_path_of(url)] = content
    found = camtool.load(NAME, device="cpu", size=64).explain(torch.rand(3, 50, 70), topk=2)
    torch.testing.assert_close(
        torch.tensor(found.maps).mean((1, 2)) + torch.tensor(found.bias), torch.tensor(found.logits)
    )


def test_a_damaged_download_is_refused_and_not_kept(server, content, url) -> None:
    server.files[_path_of(url)] = content[:-100] + b"x" * 100
    with pytest.raises(ModelError, match="the download is damaged"):
        load_network(NAME)
    assert not hub.cached_path(url).exists()
    assert list(hub.cached_path(url).parent.iterdir()) == []
    server.files[_path_of(url)] = content
    assert load_network(NAME).sha256 == hashlib.sha256(content).hexdigest()


def test_a_damaged_file_in_the_cache_is_refused(server, content, url) -> None:
    path = hub.cached_path(url)
    path.parent.mkdir(parents=True)
    path.write_bytes(content[:1000] + b"y" + content[1001:])
    with pytest.raises(ModelError, match=r"is damaged .* delete it and fetch it again"):
        load_network(NAME)
    assert server.asked == []


def test_a_cached_file_that_changes_is_hashed_again(server, content, url) -> None:
    server.files[_path_of(url)] = content
    load_network(NAME)
    path = hub.cached_path(url)
    path.write_bytes(content + b"more")
    with pytest.raises(ModelError, match="is damaged"):
        load_network(NAME)


def test_the_file_of_a_published_entry_is_verified_by_its_name(
    server, content, url, tmp_path: Path
) -> None:
    path = tmp_path / Path(url).name
    path.write_bytes(content)
    assert load_network(NAME, path).labels[281] == "tabby"
    path.write_bytes(content + b"more")
    with pytest.raises(ModelError, match="is damaged"):
        load_network(NAME, path)


def test_what_the_hub_lacks_says_where_to_put_it(server, url) -> None:
    with pytest.raises(ModelError, match="can't be downloaded") as caught:
        load_network(NAME)
    assert url in str(caught.value)
    assert str(hub.cached_path(url)) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_no_server_at_all(server, url, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    monkeypatch.setenv("CAMTOOL_HUB", f"http://127.0.0.1:{port}")
    with pytest.raises(ModelError, match="can't be downloaded"):
        load_network(NAME)


def test_a_server_that_talks_nonsense(url, monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def answer() -> None:
            with contextlib.suppress(OSError):
                connection, _ = listening.accept()
                with connection:
                    connection.recv(4096)
                    connection.sendall(b"not HTTP at all\r\n\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        monkeypatch.setenv("CAMTOOL_HUB", f"http://127.0.0.1:{listening.getsockname()[1]}")
        with pytest.raises(ModelError, match="can't be downloaded"):
            load_network(NAME)
        thread.join()


@contextlib.contextmanager
def _answering(monkeypatch: pytest.MonkeyPatch, answer: bytes) -> Iterator[None]:
    """A server that says this much and then holds its tongue, the line still open."""
    monkeypatch.setattr(hub, "TIMEOUT", 0.2)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    over = threading.Event()

    def serve() -> None:
        connection, _ = listening.accept()
        with connection:
            connection.recv(4096)
            connection.sendall(answer)
            over.wait(60)

    with socket.create_server(("127.0.0.1", 0)) as listening:
        monkeypatch.setenv("CAMTOOL_HUB", f"http://127.0.0.1:{listening.getsockname()[1]}")
        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()


@pytest.mark.parametrize("said", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\nabc"])
def test_a_silent_server_is_given_up(url, monkeypatch, tmp_path: Path, said: bytes) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with (
        _answering(monkeypatch, said),
        pytest.raises(ModelError, match=r"can't be downloaded \(.*timed out\)") as caught,
    ):
        load_network(NAME)
    assert "\n" not in str(caught.value)
    assert [*tmp_path.rglob("*.p*")] == []


def test_what_does_not_fit_the_disk_is_not_begun(url, monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    said = b"HTTP/1.1 200 OK\r\nContent-Length: 999999999999999999\r\n\r\nabc"
    with (
        _answering(monkeypatch, said),
        pytest.raises(ModelError, match=r"MB do not fit into the .* MB left"),
    ):
        load_network(NAME)


def test_the_time_that_a_server_has_is_stated() -> None:
    assert 5 <= hub.TIMEOUT <= 60


@pytest.mark.parametrize("set_by", ["argument", "environment"])
def test_offline_downloads_nothing(server, content, url, monkeypatch, set_by: str) -> None:
    server.files[_path_of(url)] = content
    if set_by == "environment":
        monkeypatch.setenv("CAMTOOL_OFFLINE", "1")
    with pytest.raises(ModelError, match="offline nothing is downloaded") as caught:
        load_network(NAME, offline=set_by == "argument")
    assert str(hub.cached_path(url)) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert server.asked == []
    hub.cached_path(url).parent.mkdir(parents=True)
    hub.cached_path(url).write_bytes(content)
    assert load_network(NAME, offline=True).weights == "IMAGENET1K_V1"


@pytest.mark.parametrize(("value", "offline"), [("", False), ("0", False), ("1", True)])
def test_what_the_environment_says(monkeypatch, value: str, offline: bool) -> None:
    monkeypatch.setenv("CAMTOOL_OFFLINE", value)
    assert hub.is_offline(False) is offline
    assert hub.is_offline(True)


def test_a_pipe_in_the_cache_is_not_waited_on(server, url, monkeypatch) -> None:
    path = hub.cached_path(url)
    path.parent.mkdir(parents=True)
    os.mkfifo(path)
    with pytest.raises(ModelError, match="is no regular file; remove what is there"):
        load_network(NAME)
    os.mkfifo(path.with_name("resnet50-0676ba61.pth"))
    monkeypatch.delenv("CAMTOOL_WEIGHTS", raising=False)
    assert resnet50_on_this_machine() is None
    monkeypatch.setenv("CAMTOOL_WEIGHTS", str(path.parent))
    with pytest.raises(ModelError, match="CAMTOOL_WEIGHTS="):
        resnet50_on_this_machine()


def test_nothing_is_fetched_for_a_look_at_the_head(server, url) -> None:
    assert load_network(NAME, random_if_absent=True).weights == "random (seed 0)"
    for weights in (None, "IMAGENET1K_V1"):
        shown = before_download(NAME, weights)
        assert shown.weights == "random (seed 0)"
        assert find_head(shown.module, 64).layer == "fc.weight"
    assert server.asked == []


def test_resnet50_is_found_where_it_lies(monkeypatch, tmp_path: Path) -> None:
    monkeypatch.delenv("CAMTOOL_WEIGHTS", raising=False)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    assert resnet50_on_this_machine() is None
    cached = tmp_path / "torch" / "hub" / "checkpoints" / "resnet50-0676ba61.pth"
    cached.parent.mkdir(parents=True)
    cached.touch()
    assert resnet50_on_this_machine() == cached
    mine = tmp_path / "resnet50-mine.pth"
    mine.touch()
    for named in (mine, tmp_path):
        monkeypatch.setenv("CAMTOOL_WEIGHTS", str(named))
        assert resnet50_on_this_machine() == mine
    monkeypatch.setenv("CAMTOOL_WEIGHTS", str(tmp_path / "none"))
    with pytest.raises(ModelError, match="CAMTOOL_WEIGHTS="):
        resnet50_on_this_machine()


def test_every_published_name_carries_a_hash() -> None:
    for name in zoo.names():
        for entry in zoo.entries(name):
            assert hub.digits(Path(entry.url).name), entry.url
