from __future__ import annotations

import threading
from contextlib import contextmanager

import numpy as np
import pytest
import torch

import camtool
from camtool.engines import steps
from camtool.engines.engine import Failed, Job, Request
from camtool.engines.stream import explain_jobs, explain_stream
from camtool.engines.threads import ThreadEngine, Workers
from camtool.errors import ModelError


@pytest.fixture(scope="module")
def model(tiny):
    return camtool.load(tiny, device="cpu")


@pytest.fixture(scope="module")
def sources(tmp_path_factory, make_pictures):
    return sorted(make_pictures(tmp_path_factory.mktemp("pipeline") / "photos", 41).iterdir())


@pytest.fixture(scope="module")
def alone(model, sources):
    return [model.explain(path, topk=2) for path in sources]


def threads(readers=2, lanes=2, writers=2):
    return Workers(readers, lanes, writers, torch_threads=1)


def run(model, jobs, warn=print, **asked):
    """Everything that the threads yield: one list, with (number, result)."""
    engine = ThreadEngine(model, Request(**asked), threads(), warn)
    return [(job.number, result) for job, result in explain_jobs(engine, jobs)]


@pytest.mark.parametrize("batch_size", [1, 3, 8, 100])
@pytest.mark.parametrize("workers", [threads(1, 1, 1), threads(3, 2, 4)])
def test_the_numbers_of_explain_whatever_the_batch(model, sources, alone, batch_size, workers):
    stream = explain_stream(model, sources, None, 2, batch_size, workers=workers)
    for path, one, (source, other) in zip(sources, alone, stream, strict=True):
        assert source == path
        scale = np.abs(one.maps).max()
        assert np.abs(one.maps - other.maps).max() <= 1e-5 * scale
        np.testing.assert_allclose(one.logits, other.logits, atol=1e-5 * scale)
        assert one.labels == other.labels


def test_the_numbers_of_explain_when_fused(tiny, sources, alone):
    fused = camtool.load(tiny, device="cpu")
    assert fused.fuse() == fused.fused
    for one, (_, other) in zip(alone, explain_stream(fused, sources, None, 2), strict=True):
        assert np.abs(one.maps - other.maps).max() <= 1e-5 * np.abs(one.maps).max()
        assert one.labels == other.labels


def test_order_is_kept_among_pictures_that_fail(model, sources):
    mixed = [*sources[:9], "missing.jpg", *sources[9:20], b"broken", *sources[20:]]
    results = run(model, [Job(number, source) for number, source in enumerate(mixed)])
    assert [number for number, _ in results] == list(range(43))
    failed = [result for _, result in results if isinstance(result, Failed)]
    assert [failure.name for failure in failed] == ["missing.jpg", "<bytes>"]
    assert str(failed[0]) == "missing.jpg: no such file"


def test_targets_of_single_pictures(model, sources):
    targets = [None, "cat", 4, None, "no such class", "dog"]
    jobs = [
        Job(n, path, target) for n, (path, target) in enumerate(zip(sources, targets, strict=False))
    ]
    results = [result for _, result in run(model, jobs, topk=3)]
    assert [len(results[n].labels) for n in (0, 1, 2, 3, 5)] == [3, 1, 1, 3, 1]
    assert results[1].labels == ("cat",)
    assert results[2].labels == ("elk",)
    assert results[5].labels == ("dog",)
    assert "no such class" in results[4].reason


def test_which_pictures_share_a_batch_does_not_depend_on_what_is_finished(
    model, sources, monkeypatch
):
    batches = []
    explain = model.explain_indices

    def noted(batch, *arguments):
        batches.append(tuple(item.name for item in batch))
        return explain(batch, *arguments)

    monkeypatch.setattr(model, "explain_indices", noted)
    jobs = [Job(number, path) for number, path in enumerate(sources)]
    results = dict(run(model, jobs))
    wanted, finished = set(batches), set(range(0, 41, 2)) | set(range(20, 30))
    batches.clear()
    shapes = {n: results[n].geometry.input if n in finished else None for n in results}
    again = dict(run(model, [Job(n, path, shape=shapes[n]) for n, path in enumerate(sources)]))
    assert set(batches) <= wanted
    assert set(again) == set(results) - finished
    for number, result in again.items():
        assert result.maps.tobytes() == results[number].maps.tobytes()


def test_nothing_is_done_for_finished_pictures(model, sources):
    shape = model.prepare(sources[0]).geometry.input
    missing = [Job(number, f"missing{number}.jpg", shape=shape) for number in range(50)]
    assert run(model, missing) == []


def without_memory_for(model, monkeypatch, most):
    """Stands in for a CUDA device that holds no more than `most` pictures of a batch."""
    explain = model.explain_indices

    def limited(batch, *arguments):
        if len(batch) > most:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return explain(batch, *arguments)

    monkeypatch.setattr(model, "explain_indices", limited)


def test_batches_are_halved_when_memory_runs_out(model, sources, alone, monkeypatch):
    without_memory_for(model, monkeypatch, 2)
    warnings: list[str] = []
    jobs = [Job(number, path) for number, path in enumerate(sources)]
    results = run(model, jobs, topk=2, warn=warnings.append)
    assert len(warnings) == 1
    assert "halving" in warnings[0]
    for one, (_, other) in zip(alone, results, strict=True):
        assert np.abs(one.maps - other.maps).max() <= 1e-5 * np.abs(one.maps).max()


def test_a_device_too_small_for_one_picture_fails_each(model, sources, monkeypatch):
    without_memory_for(model, monkeypatch, 0)
    results = run(model, [Job(n, path) for n, path in enumerate(sources[:5])], warn=str)
    assert all("memory" in result.reason for _, result in results)


def test_a_shape_that_the_network_refuses_fails_these_pictures_only(model, sources, monkeypatch):
    forwards = model.forwards
    refused = model.prepare(sources[1]).geometry.input

    def choosy(inputs):
        if tuple(inputs.shape[2:]) == refused:
            raise ModelError("not this shape")
        return forwards(inputs)

    monkeypatch.setattr(model, "forwards", choosy)
    results = run(model, [Job(n, path) for n, path in enumerate(sources)])
    assert len(results) == 41
    for number, result in results:
        assert isinstance(result, Failed) == (
            model.prepare(sources[number]).geometry.input == refused
        )


def test_a_decoder_that_raises_anything_costs_its_picture(model, sources, monkeypatch):
    prepare = model.prepare

    def broken(source, max_pixels, reduced):
        if source == sources[3]:
            raise AssertionError("inside\na decoder")
        return prepare(source, max_pixels, reduced)

    monkeypatch.setattr(model, "prepare", broken)
    results = dict(run(model, [Job(n, path) for n, path in enumerate(sources[:6])]))
    assert results[3].reason == "can't be decoded (AssertionError: inside)"
    assert sum(isinstance(result, Failed) for result in results.values()) == 1


def test_large_originals_do_not_wait_in_memory(model, sources, alone, monkeypatch):
    monkeypatch.setattr(steps, "ORIGINALS", 0)
    held: list[int] = []
    explain = model.explain_indices

    def noted(batch, *arguments):
        held.extend(item.image.size for item in batch)
        return explain(batch, *arguments)

    monkeypatch.setattr(model, "explain_indices", noted)
    results = run(model, [Job(n, path) for n, path in enumerate(sources)])
    assert set(held) == {0}
    for one, (_, other) in zip(alone, results, strict=True):
        np.testing.assert_array_equal(one.image, other.image)


class Numbers:
    """Work that makes nothing but the job's number."""

    def finish(self, job, _explanation, _milliseconds):
        return job.number

    def fail(self, job, _failed):
        return job.number


def test_stopping_takes_no_further_chunk(model, sources):
    asked = threading.Event()
    taken = []

    def jobs():
        for number in range(1000):
            taken.append(number)
            if number == 40:
                asked.set()
            yield Job(number, sources[number % len(sources)])

    chunks = ThreadEngine(model, Request(batch_size=4)).run(jobs(), Numbers(), asked.is_set)
    done = [number for chunk in chunks for number in chunk]
    assert len(taken) == 48
    assert done == list(range(48))


def test_leaving_early_ends_the_threads(model, sources):
    before = threading.active_count()
    stream = explain_stream(model, sources * 3, workers=threads())
    next(stream)
    stream.close()
    assert threading.active_count() == before


def test_torch_threads_of_the_caller_stay_as_they_are(model, sources):
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        run(model, [Job(n, path) for n, path in enumerate(sources[:2])])
        assert torch.get_num_threads() == 3
        assert of_a_new_thread(torch.get_num_threads) == 3
    finally:
        torch.set_num_threads(before)


def of_a_new_thread(function):
    """What a function gives in a thread that is started for it."""
    found = []
    thread = threading.Thread(target=lambda: found.append(function()))
    thread.start()
    thread.join()
    return found[0]


def test_a_run_is_announced_to_the_model_around_all_threads(model, sources, monkeypatch):
    """So that what is set for the whole process is set once, around all threads."""
    told = []

    @contextmanager
    def running():
        told.append(f"begins among {threading.active_count()}")
        yield
        told.append(f"ends among {threading.active_count()}")

    alone = threading.active_count()
    monkeypatch.setattr(model, "running", running)
    run(model, [Job(n, path) for n, path in enumerate(sources)])
    assert (told[0], told[-1]) == (f"begins among {alone}", f"ends among {alone}")
