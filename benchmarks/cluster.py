"""A folder run on a Ray cluster: against threads on the same cores, and what its driver stands.

    python benchmarks/cluster.py PHOTOS --pictures 2000 --rounds 3
    python benchmarks/cluster.py PHOTOS --driver 100000

The first makes a cluster of two nodes on this machine, with half of its cores each, and runs
threads and Ray in turns over the same pictures; the bytes of the results have to be the same. Times
are those of the run, and those between its first and its last results, without the start of the
cluster's processes. The second has no cluster: answers as actors give them are there at once, so
that all that is left is what the driver does, for each picture; from that follows how many nodes
one driver feeds. What Ray adds is measured with two actors that answer at once.
"""

from __future__ import annotations

import argparse
import pickle
import statistics
import tempfile
import time
import tracemalloc
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from folder import loaded, repeated

DIFFERING = {"run.json", "timings.csv"}


@contextmanager
def two_nodes(cores: int) -> Iterator[str]:
    from ray.cluster_utils import Cluster

    node = {"num_cpus": max(1, cores // 2), "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=node)
    try:
        cluster.add_node(**node)
        yield cluster.address
    finally:
        cluster.shutdown()


def explained(
    model: Any, photos: Path, output: Path, engine: Any, told: Callable[[Any], None]
) -> None:
    from camtool.folder.run import FolderRun, Plan
    from camtool.views.overlay import Look
    from camtool.views.save import Views

    views = Views(("overlay",), Look(), boxes=False, picture=".jpg")
    summary = FolderRun(model, Plan(str(photos), output, views), told, print, engine).run()
    if summary.done != summary.total:
        raise RuntimeError(f"{summary.failed} pictures failed: {summary.stopped}")


def timed(model: Any, photos: Path, output: Path, engine: Any) -> tuple[float, float]:
    """Seconds of a run, and seconds for each picture after its first results."""
    moments: list[tuple[float, int]] = []
    explained(model, photos, output, engine, lambda s: moments.append((s.seconds, s.new)))
    (first, before), (last, after) = moments[0], moments[-1]
    return last, (last - first) / (after - before)


def contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in files
        if ".camtool" not in path.parts and path.name not in DIFFERING
    }


def compare(photos: Path, count: int, rounds: int, name: str) -> None:
    from camtool.engines import ENGINES, ray_at
    from camtool.engines.threads import available_cores

    model, ratios = loaded(name, "float32"), []
    with tempfile.TemporaryDirectory() as made, two_nodes(available_cores()) as address:
        folder = Path(made)
        (folder / "photos").mkdir()
        repeated(photos, folder / "photos", count)
        for number in range(rounds):
            outputs = folder / f"threads{number}", folder / f"ray{number}"
            engines = ENGINES["threads"], ray_at(address)
            (all_threads, each_threads), (all_ray, each_ray) = (
                timed(model, folder / "photos", output, engine)
                for output, engine in zip(outputs, engines, strict=True)
            )
            same = contents(outputs[0]) == contents(outputs[1])
            ratios.append((all_ray / all_threads, each_ray / each_threads))
            print(
                f"round {number}: threads {all_threads:.1f} s, Ray {all_ray:.1f} s; "
                f"{'the same bytes' if same else 'OTHER BYTES'} in "
                f"{len(contents(outputs[0])):,} files"
            )
    whole, steady = (statistics.median(ratio) for ratio in zip(*ratios, strict=True))
    print(f"Ray takes {whole:.2f} × the time of threads, {steady:.2f} × after the first results")


class AtOnce:
    """Takers whose answers are there at once, each sent both ways as Ray sends it."""

    def __init__(self, answer: Callable[[Any], list[Any]]) -> None:
        self.answer, self.given = answer, deque[tuple[int, list[Any]]]()

    def give(self, number: int, chunk: list[Any]) -> None:
        self.given.append((number, self.answer(pickle.loads(pickle.dumps(chunk)))))

    def take(self) -> dict[int, list[Any]]:
        number, results = self.given.popleft()
        return {number: pickle.loads(pickle.dumps(results))}


def drive(photos: Path, count: int, name: str) -> None:
    model = loaded(name, "float32")
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        entries = some_entries(model, photos, folder)
        source = folder / "photos" / entries[0].key
        pictures, held = listed(source, count)
        rate, size = driven(model, pictures, entries, folder / "journal")
        again = reopened(pictures, folder / "journal")
        sending = sent(pictures, entries) * 1000
    print(f"Ray: {sending:.2f} ms more for a chunk of 32, answered by two actors at once")
    print(f"one driver: {rate:,.0f} pictures a second, {held:,.0f} bytes of memory for each")
    print(f"journal: {size:,.0f} bytes an entry, opened at {again:,.0f} entries a second")
    print(
        f"10^9 pictures: {1e9 / rate / 3600:,.0f} hours of the driver, {held:,.0f} GB of memory, "
        f"{size / 1000:.1f} TB of journal, {1e9 / again / 3600:,.0f} hours to open it"
    )


def some_entries(model: Any, photos: Path, folder: Path) -> list[Any]:
    from camtool.engines import ENGINES
    from camtool.folder.entry import Explained
    from camtool.folder.journal import read_entries

    (folder / "photos").mkdir()
    repeated(photos, folder / "photos", 16)
    explained(model, folder / "photos", folder / "out", ENGINES["threads"], lambda _: None)
    entries = read_entries(folder / "out" / ".camtool" / "journal.jsonl")
    return [entry for entry in entries if isinstance(entry, Explained)]


def listed(source: Path, count: int) -> tuple[list[Any], float]:
    """Pictures as a run has them, and the bytes of memory that each takes."""
    from camtool.folder.discovery import Picture

    tracemalloc.start()
    names = [f"{n:09d}.jpg" for n in range(count)]
    pictures = [Picture(n, source.with_name(m), key=m, name=m) for n, m in enumerate(names)]
    held = tracemalloc.get_traced_memory()[0] / count
    tracemalloc.stop()
    return pictures, held


def driven(
    model: Any, pictures: list[Any], entries: list[Any], journal_path: Path
) -> tuple[float, float]:
    """Pictures a second that the driver gives out and notes, and bytes of each entry."""
    from camtool.engines.engine import Request
    from camtool.engines.order import in_order
    from camtool.engines.steps import Steps
    from camtool.folder.discovery import state_of
    from camtool.folder.journal import Journal

    def answer(chunk: list[Any]) -> list[Any]:
        return [(p.number, replace(entries[p.number % len(entries)], key=p.key)) for p in chunk]

    there = journal_path.parent / "photos" / entries[0].key
    jobs = (replace(picture, state=state_of(there)) for picture in pictures)
    journal = Journal(journal_path, [picture.key for picture in pictures])
    start = time.perf_counter()
    for results in in_order(
        Steps(model, Request()).chunks(jobs, lambda: False), AtOnce(answer), 99
    ):
        journal.append(results)
    seconds = time.perf_counter() - start
    journal.close()
    return len(pictures) / seconds, journal_path.stat().st_size / len(pictures)


def sent(pictures: list[Any], entries: list[Any], chunks: int = 2000) -> float:
    """Seconds for each chunk that Ray sends to an actor and back."""
    from queue import SimpleQueue

    from camtool.engines.cluster import _connected

    class Echo:
        def explain(self, chunk: list[Any]) -> tuple[list[Any], list[str]]:
            return [(p.number, entries[p.number % len(entries)]) for p in chunk], []

    answers: SimpleQueue[Any] = SimpleQueue()
    with _connected(None, 2) as ray:
        actors = [ray.remote(num_cpus=1, max_concurrency=2)(Echo).remote() for _ in range(2)]
        ray.get([actor.explain.remote(pictures[:32]) for actor in actors])
        start = time.perf_counter()
        for number in range(chunks + 4):
            if number < chunks:
                reference = actors[number % 2].explain.remote(pictures[:32])
                reference.future().add_done_callback(answers.put)
            if number >= 4:
                answers.get().result()
        return (time.perf_counter() - start) / chunks


def reopened(pictures: list[Any], journal_path: Path) -> float:
    """Entries a second when a run is continued."""
    from camtool.folder.journal import Journal

    keys = [picture.key for picture in pictures]
    start = time.perf_counter()
    Journal(journal_path, keys).close()
    return len(keys) / (time.perf_counter() - start)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("photos", type=Path)
    parser.add_argument("--model", default="efficientnet_lite0")
    parser.add_argument("--pictures", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--driver", type=int, metavar="PICTURES")
    arguments = parser.parse_args()
    if arguments.driver:
        drive(arguments.photos, arguments.driver, arguments.model)
    else:
        compare(arguments.photos, arguments.pictures, arguments.rounds, arguments.model)


if __name__ == "__main__":
    main()
