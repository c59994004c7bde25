"""An engine made elsewhere gives what the threads give; the work can be sent to a process."""

from __future__ import annotations

import multiprocessing
import pickle
import platform
from itertools import islice

import pytest

import camtool
from camtool.engines import ENGINES
from camtool.engines.engine import Failed, Job, Request, never
from camtool.engines.steps import Ready, Steps
from camtool.errors import EngineError
from camtool.folder.discovery import Picture
from camtool.folder.work import Fatal, WriteFiles
from camtool.views.overlay import Look
from camtool.views.save import Views


class OneAfterTheOther:
    """The smallest engine: this thread does everything; what a newcomer would write first."""

    def __init__(self, model, request, _workers, warn):
        self.steps = Steps(model, request, warn)

    def run(self, jobs, work, stopping=never):
        for chunk in self.steps.chunks(jobs, stopping):
            found = {job.number: self.steps.read(job) for job in chunk if job.shape is None}
            done = {
                job.number: work.fail(job, failed)
                for job in chunk
                if isinstance(failed := found.get(job.number), Failed)
            }
            for batch in self.steps.batches(chunk, found):
                reads = [found.get(job.number) or self.steps.read(job) for job in batch]
                ready = [read for read in reads if isinstance(read, Ready)]
                for seen in self.steps.explain(ready):
                    done[seen.job.number] = self.steps.finish(seen, work)
            yield [done[number] for number in sorted(done)]


@pytest.fixture(scope="module")
def source(tmp_path_factory, make_pictures):
    folder = make_pictures(tmp_path_factory.mktemp("engines") / "photos", 45)
    (folder / "0010a.jpg").write_bytes(b"broken")
    return folder


OPTIONS = ("--save", "overlay,npz", "--results", "csv,jsonl", "--coco", "-k", "2", "-b", "4")


def test_an_engine_from_outside_gives_the_same_bytes(source, batch, tree, monkeypatch, tmp_path):
    made = []

    def factory(*arguments):
        made.append(OneAfterTheOther(*arguments))
        return made[-1]

    monkeypatch.setitem(ENGINES, "plain", factory)
    assert batch(source, tmp_path / "threads", *OPTIONS).exit_code == 1
    assert not made
    assert batch(source, tmp_path / "plain", *OPTIONS, "--engine", "plain").exit_code == 1
    assert len(made) == 1
    ours, theirs = tree(tmp_path / "plain"), tree(tmp_path / "threads")
    assert len(ours) > 45 * 3
    assert ours == theirs


@pytest.mark.slow
def test_an_engine_continues_what_another_began(source, batch, tree, monkeypatch, tmp_path):
    monkeypatch.setitem(ENGINES, "plain", OneAfterTheOther)
    batch(source, tmp_path / "whole", *OPTIONS)
    output = tmp_path / "out"
    batch(source, output, *OPTIONS)
    for number in range(0, 45, 7):
        (output / f"{number:04d}.jpg.overlay-1.jpg").unlink()
    assert ", 7 now," in batch(source, output, *OPTIONS, "--engine", "plain").output
    assert tree(output) == tree(tmp_path / "whole")


class Failing(OneAfterTheOther):
    """Nobody is left to do the work, at once or after the first chunk."""

    chunks = 0

    def run(self, jobs, work, stopping=never):
        yield from islice(super().run(jobs, work, stopping), self.chunks)
        raise EngineError("nobody is left")


def test_an_engine_that_can_not_go_on_stops_the_run(source, batch, tree, monkeypatch, tmp_path):
    monkeypatch.setitem(ENGINES, "failing", Failing)
    output = tmp_path / "out"
    refused = batch(source, output, *OPTIONS, "--engine", "failing")
    assert (refused.exit_code, refused.output) == (2, "camtool: nobody is left\n")
    monkeypatch.setattr(Failing, "chunks", 1)
    stopped = batch(source, output, *OPTIONS, "--engine", "failing")
    assert stopped.exit_code == 1
    assert "Stopped (nobody is left): the same command continues." in stopped.output
    assert ", 30 now," in batch(source, output, *OPTIONS).output
    batch(source, tmp_path / "whole", *OPTIONS)
    assert tree(output) == tree(tmp_path / "whole")


def test_an_unknown_engine_is_wrong_usage(source, batch, tmp_path):
    result = batch(source, tmp_path / "out", "--engine", "steam")
    assert result.exit_code == 2
    assert "--engine takes auto, threads, processes" in result.output
    assert not (tmp_path / "out").exists()


def finish(pickled):
    """In another process: the work on one picture."""
    work, picture, explanation = pickle.loads(pickled)
    return work.finish(picture, explanation, 0.0)


@pytest.mark.slow
def test_another_process_writes_a_pictures_files(source, tiny, tmp_path):
    output = tmp_path / "out"
    (output / ".camtool").mkdir(parents=True)
    model = camtool.load(tiny, device="cpu")
    work = WriteFiles.into(output, Views(("overlay", "npz"), Look()), True, model.labels, source)
    path = source / "0000.jpg"
    explanation = model.explain(path)
    pickled = pickle.dumps((work, Picture(5, path, name="0000.jpg"), explanation))
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        number, entry = pool.apply(finish, (pickled,))
    assert number == 5
    assert len(entry.files) == 3
    for name, size in entry.files.items():
        assert (output / name).stat().st_size == size > 0


def test_a_machine_without_the_folders_is_named_and_makes_none(source, tiny, tmp_path):
    output, photos = tmp_path / "out", tmp_path / "photos"
    model = camtool.load(tiny, device="cpu")
    views = Views(("overlay",), Look())
    work = pickle.loads(pickle.dumps(WriteFiles.into(output, views, True, model.labels, photos)))
    picture, node = Picture(5, photos / "0000.jpg", name="0000.jpg"), platform.node()
    finished = work.finish(picture, model.explain(source / "0000.jpg"), 0.0)
    assert finished == Fatal(f"{output}: is not there on {node}")
    assert work.fail(picture, Failed("x", "y")) == Fatal(f"{photos} is not there on {node}")
    assert not output.exists()


def test_a_batch_holds_pictures_of_one_shape_and_an_unfinished_one(source, tiny):
    steps = Steps(camtool.load(tiny, device="cpu"), Request(batch_size=4))
    jobs = [Job(number, path) for number, path in enumerate(sorted(source.iterdir())[:10])]
    found = {job.number: steps.read(job) for job in jobs}
    batches = steps.batches(jobs, found)
    shapes = [{found[job.number].prepared.geometry.input for job in batch} for batch in batches]
    assert all(len(shape) == 1 for shape in shapes)
    assert sum(map(len, batches)) == 10
    assert steps.batches([Job(n, "x", shape=(64, 64)) for n in range(9)], {}) == []
