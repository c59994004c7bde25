"""Ray: the bytes of the threads, whatever is lost on the way; one line where it can't be."""

from __future__ import annotations

import os
import re
import signal
import sys
import threading
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

import camtool
from camtool.engines import cluster
from camtool.engines.engine import Job, Request
from camtool.engines.order import in_order
from camtool.engines.stream import Pairs
from camtool.errors import EngineError
from camtool.folder.entry import Explained
from camtool.folder.journal import read_entries

PICTURES = 300
OPTIONS = (
    *("--save", "overlay,npz", "--results", "csv,jsonl", "--coco", "-k", "2"),
    *("--batch-size", "2"),
)


class Backwards:
    """Takers that finish the latest chunk first, three at a time."""

    def __init__(self):
        self.held, self.most = {}, 0

    def give(self, number, chunk):
        self.held[number] = [job.number for job in chunk if job.shape is None]
        self.most = max(self.most, len(self.held))

    def take(self):
        return {number: self.held.pop(number) for number in sorted(self.held)[-3:]}


@pytest.mark.parametrize("window", [1, 4, 100])
def test_results_come_in_the_order_of_the_chunks(window):
    finished = {*range(8, 24), 31}
    jobs = [Job(n, "", shape=(8, 8) if n in finished else None) for n in range(40)]
    chunks = [jobs[start : start + 4] for start in range(0, 40, 4)]
    takers = Backwards()
    results = list(in_order(iter(chunks), takers, window))
    assert len(results) == 10
    assert results[2:6] == [[]] * 4
    assert [n for chunk in results for n in chunk] == sorted({*range(40)} - finished)
    assert takers.most == min(window, 6)


def test_no_more_chunks_are_taken_than_the_window_holds():
    taken = []

    def chunks():
        for number in range(50):
            taken.append(number)
            yield [Job(number, "")]

    results = in_order(chunks(), Backwards(), 5)
    for number in range(20):
        assert next(results) == [number]
        assert len(taken) <= number + 6


def test_without_ray_one_line_says_how_to_get_it(make_pictures, batch, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "ray", None)
    result = batch(make_pictures(tmp_path / "photos", 1), tmp_path / "out", "--engine", "ray")
    assert result.exit_code == 2
    assert result.output == "camtool: --engine ray needs Ray: pip install 'camtool[ray]'\n"


def test_where_all_is_finished_no_cluster_is_asked_for(tiny, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    engine = cluster.RayEngine(camtool.load(tiny, device="cpu"), Request())
    assert list(engine.run([Job(n, "x.jpg", shape=(64, 64)) for n in range(99)], Pairs())) == []


@pytest.fixture(scope="module")
def source(tmp_path_factory, make_pictures):
    folder = make_pictures(tmp_path_factory.mktemp("cluster") / "photos", PICTURES)
    (folder / "broken.jpg").write_bytes(b"\xff\xd8\xff broken")
    (folder / "0050a.jpg").write_bytes(b"")
    return folder


@pytest.fixture(scope="module")
def whole(source, tiny, server, tree, tmp_path_factory):
    """Files of a run by threads that nobody disturbed."""
    output = tmp_path_factory.mktemp("cluster") / "out"
    server.start(output.with_name("log"), "batch", source, "-o", output, "-m", tiny, *OPTIONS)
    assert server.wait() == 1
    return tree(output)


class TwoNodes:
    """A cluster of two machines, as far as Ray can tell."""

    def __init__(self):
        self.made = cluster_utils().Cluster(True, head_node_args=dict(NODE))
        self.second = self.made.add_node(**NODE)
        self.address = self.made.address

    def workers(self, node=None):
        """Processes of actors that hold a model or are about to, on one node or on both."""
        nodes = [self.made.head_node, self.second] if node is None else [node]
        raylets = {str(n.all_processes["raylet"][0].process.pid) for n in nodes}
        return [pid for pid in processes("ray::Worker") if parent(pid) in raylets]

    def lose_a_node(self):
        self.made.remove_node(self.second, allow_graceful=False)

    def heal(self):
        if self.second not in self.made.worker_nodes:
            self.second = self.made.add_node(**NODE)
        self.made.wait_for_nodes()


NODE = {"num_cpus": 3, "include_dashboard": False, "object_store_memory": 100 << 20}


def cluster_utils():
    return pytest.importorskip("ray.cluster_utils", reason="needs ray")


def processes(title):
    """Ids of the processes whose title begins so."""
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if (folder / "cmdline").read_bytes().startswith(title.encode()):
                yield int(folder.name)


def parent(pid):
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1]


@pytest.fixture(scope="module")
def two_nodes():
    if not Path("/proc/self/stat").exists():
        pytest.skip("needs /proc")
    made = TwoNodes()
    yield made
    made.made.shutdown()


@pytest.fixture
def nodes(two_nodes):
    two_nodes.heal()
    return two_nodes


@pytest.fixture
def begin(nodes, source, tiny, server, journal_lines, wait_until, tmp_path):
    """Begins a run, on the two nodes or as `words` say, and waits until it noted some pictures."""

    def start(*words):
        output = tmp_path / "out"
        before = journal_lines(output)
        words = words or ("--engine", "ray", "--ray-address", nodes.address, "-j", "4")
        arguments = ("batch", source, "-o", output, "-m", tiny, *OPTIONS, *words)
        pid = server.start(tmp_path / "log", *arguments)
        wait_until(lambda: journal_lines(output) > before, seconds=300)
        assert journal_lines(output) < PICTURES
        return pid, output

    return start


@pytest.mark.slow
def test_a_killed_worker_and_a_lost_node_change_no_byte(
    begin, nodes, server, whole, tree, journal_lines, wait_until, tmp_path
):
    _, output = begin()
    killed = nodes.workers(nodes.made.head_node)[0]
    os.kill(killed, signal.SIGKILL)
    noted = journal_lines(output)
    wait_until(lambda: journal_lines(output) > noted, seconds=180)
    assert nodes.workers(nodes.second)
    assert journal_lines(output) < PICTURES
    nodes.lose_a_node()
    assert server.wait() == 1
    assert "Traceback" not in (tmp_path / "log").read_text()
    assert tree(output) == whole


@pytest.mark.slow
def test_begun_by_threads_and_killed_continued_by_ray_and_killed_and_finished(
    begin, nodes, source, server, batch, whole, tree, wait_until
):
    pid, output = begin("--engine", "threads")
    os.kill(pid, signal.SIGKILL)
    server.wait()
    pid, _ = begin()
    os.kill(pid, signal.SIGKILL)
    server.wait()
    entries = read_entries(output / ".camtool" / "journal.jsonl")
    done = {entry.key for entry in entries if isinstance(entry, Explained)}
    wait_until(lambda: not nodes.workers(), seconds=180)
    words = ("--engine", "ray", "--ray-address", nodes.address, "-j", "2")
    finished = batch(source, output, *OPTIONS, *words)
    assert finished.exit_code == 1
    assert f", {PICTURES - len(done)} now," in finished.output
    assert tree(output) == whole


@pytest.mark.slow
def test_on_this_machine_stopped_and_finished_by_threads(
    begin, source, server, batch, whole, tree, wait_until, tmp_path
):
    pid, output = begin("--engine", "ray", "-j", "2")
    servers = [one for one in processes("") if parent(one) == str(pid)]
    assert len(servers) > 1
    for one in servers:
        # Without it whoever reaches their ports may use them, for they listen on all networks.
        told = Path(f"/proc/{one}/environ").read_bytes()
        assert re.search(rb"RAY_AUTH_MODE=token\0.*RAY_AUTH_TOKEN=[0-9a-f]{64}\0", told, re.DOTALL)
    os.kill(pid, signal.SIGTERM)
    assert server.wait() == 130
    wait_until(lambda: not any(Path(f"/proc/{one}").exists() for one in servers), seconds=180)
    said = (tmp_path / "log").read_text()
    assert "Stopped (interrupted): the same command continues." in said
    assert [path.name for path in output.rglob("*.part")] == []
    assert batch(source, output, *OPTIONS).exit_code == 1
    assert tree(output) == whole


@contextmanager
def connected(nodes):
    """This process as a driver of the cluster."""
    ray = pytest.importorskip("ray", reason="needs ray")
    ray.init(nodes.address, log_to_driver=False, configure_logging=False)
    try:
        yield ray
    finally:
        ray.shutdown()


@pytest.mark.slow
def test_a_chunk_that_kills_its_actor_each_time_fails_and_no_other(nodes, source, tiny):
    class Deadly:
        def finish(self, job, _explanation, _milliseconds):
            return os._exit(1) if job.number == 9 else job.number

        def fail(self, job, failed):
            return str(failed)

    model = camtool.load(tiny, device="cpu")
    jobs = [Job(n, path) for n, path in enumerate(sorted(source.iterdir())[:40])]
    engine = cluster.RayEngine(model, Request(batch_size=1), 2, address=nodes.address)
    results = [result for chunk in engine.run(jobs, Deadly()) for result in chunk]
    reason = "the process that worked on its 4 pictures died 3 times"
    expected: list[object] = [*range(40)]
    expected[8:12] = [f"{source}/{n:04d}.jpg: {reason}" for n in range(8, 12)]
    assert results == expected


@pytest.mark.slow
def test_a_network_that_can_not_be_sent_is_one_line(nodes, tiny, capfd):
    model = camtool.load(tiny, device="cpu")
    vars(model.network.module)["lock"] = threading.Lock()
    engine = cluster.RayEngine(model, Request(), address=nodes.address)
    with pytest.raises(
        EngineError, match=r"can't be sent to other processes \(TypeError: "
    ) as told:
        next(engine.run([Job(0, "x.jpg")], Pairs()))
    assert "\n" not in str(told.value)
    assert capfd.readouterr() == ("", "")


@pytest.mark.slow
def test_where_nothing_is_free_one_line_says_so(nodes, source, batch, monkeypatch, tmp_path):
    monkeypatch.setattr(cluster, "PATIENCE", 1.0)
    with connected(nodes) as ray:
        taken = ray.util.placement_group([{"CPU": 3}, {"CPU": 3}])
        assert taken.wait(30)
        result = batch(source, tmp_path / "out", "--engine", "ray")
    assert result.exit_code == 2
    reason = "no CPU of the Ray cluster was free for a worker within 1 s"
    assert result.output == f"camtool: {reason}\n"


@pytest.mark.slow
def test_what_no_actor_can_load_is_one_line(nodes, source, batch, monkeypatch, tmp_path):
    monkeypatch.setattr("camtool.__version__", "0.0.1")
    words = ("--engine", "ray", "--ray-address", nodes.address, "-j", "1")
    result = batch(source, tmp_path / "out", *words)
    assert result.exit_code == 2
    assert "no worker can be started (" in result.output
    assert "here is camtool 0.0.1, torch " in result.output


@pytest.mark.slow
def test_an_address_where_nobody_answers_is_one_line(source, batch, tmp_path):
    pytest.importorskip("ray", reason="needs ray")
    words = ("--engine", "ray", "--ray-address", "127.0.0.1:9")
    result = batch(source, tmp_path / "out", *words)
    assert result.exit_code == 2
    assert "no Ray cluster answers at 127.0.0.1:9 (ConnectionRefusedError" in result.output
