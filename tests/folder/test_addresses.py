"""Sources and outputs behind addresses, in a store that fsspec keeps in memory."""

from __future__ import annotations

import sys
import time
from itertools import count

import fsspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from camtool import remote
from camtool.folder import bucket
from camtool.folder.discovery import discover
from camtool.folder.lists import SourceError
from camtool.remote import Remote, RemoteError, shown

NUMBERS = count()
PARTS = st.sampled_from(["a", "b", "a.b", "b.jpg", ".camtool", "report", "thumbs", "x~2", "ü"])
LAST = st.sampled_from(["1.jpg", "2.PNG", "10.webp", "t.txt", "1.jpg.overlay-1.jpg", "n", ".h.jpg"])
OPTIONS = ("--results", "csv,jsonl", "--save", "overlay,npz", "--coco", "--yolo")


@pytest.fixture(autouse=True, scope="module")
def memory():
    """Addresses may begin with memory://."""
    patch = pytest.MonkeyPatch()
    patch.setitem(remote._PACKAGES, "memory", "fsspec")
    yield fsspec.filesystem("memory")
    patch.undo()


@pytest.fixture
def place():
    """An address at which nothing is."""
    return f"memory://bucket/{next(NUMBERS)}"


@pytest.fixture
def photos(tmp_path, make_pictures, memory, place):
    """The same pictures here and there: a folder, and an address."""
    folder = make_pictures(tmp_path / "photos", 9)
    (folder / "broken.jpg").write_bytes(b"\xff\xd8\xff broken")
    (folder / "sub").mkdir()
    (folder / "0003.jpg").rename(folder / "sub" / "a b#c%20?.jpg")
    upload(memory, folder, f"{place}/photos")
    return folder, f"{place}/photos"


def upload(store, folder, address):
    for path in folder.rglob("*"):
        if path.is_file():
            store.pipe_file(f"{address}/{path.relative_to(folder).as_posix()}", path.read_bytes())


def results(store, address):
    """Every object below an address that has to be the same wherever it is."""
    differing = (".camtool/", "run.json", "timings.csv")
    start = store._strip_protocol(address)
    found = {name[len(start) + 1 :]: store.cat_file(name) for name in store.find(start)}
    return {name: found[name] for name in found if not name.startswith(differing)}


def without_source(files, source):
    """Results in which no source is named."""
    page = files["report.html"].replace(str(source).encode(), b"SOURCE")
    return {**files, "report.html": page}


@given(st.lists(st.tuples(st.lists(PARTS, max_size=3), LAST), min_size=1, max_size=12), st.data())
@settings(max_examples=60, deadline=None)
def test_a_bucket_is_gone_through_as_a_folder_is(tmp_path_factory, memory, names, data):
    folder, address = tmp_path_factory.mktemp("law"), f"memory://law/{next(NUMBERS)}"
    for parts, last in names:
        path = folder.joinpath(*parts, last)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"text")
    upload(memory, folder, address)
    recursive = data.draw(st.booleans())

    def told(source):
        try:
            found = discover(source, recursive=recursive)
        except SourceError as error:
            return str(error).partition(": ")[2]
        return [picture.key for picture in found.pictures], found.skipped, found.own

    assert told(address) == told(str(folder))


@pytest.mark.parametrize("name", ["../../evil.jpg", "a/../b.jpg", "a//b.jpg", "./x.jpg", "..jpg"])
def test_no_name_of_an_object_leads_out_of_the_output(memory, place, name):
    start = memory._strip_protocol(place)
    memory.store[f"{start}/{name}"] = fsspec.implementations.memory.MemoryFile(
        memory, f"{start}/{name}", b""
    )
    (picture,) = discover(place).pictures
    parts = picture.key.split("/")
    assert not {"", ".", ".."} & set(parts)
    del memory.store[f"{start}/{name}"]


def test_objects_whose_names_would_be_one_path_stay_two(memory, place):
    start = memory._strip_protocol(place)
    names = ("a/b.jpg", "a//b.jpg", "a/./b.jpg")
    for name in names:
        path = f"{start}/{name}"
        memory.store[path] = fsspec.implementations.memory.MemoryFile(memory, path, b"")
    pictures = discover(place).pictures
    assert sorted(picture.key for picture in pictures) == ["a/b.jpg", "a/b.jpg~2", "a/b.jpg~3"]
    assert len({picture.source.address for picture in pictures}) == 3
    for name in names:
        del memory.store[f"{start}/{name}"]


def test_a_pattern_leaves_out_thumbnails_of_a_run(memory, place):
    names = ("out/.camtool/settings.json", "out/report/thumbs/x.jpg", "report/thumbs/y.jpg")
    for name in (*names, "out/x.jpg.overlay-1.jpg", "z.jpg"):
        memory.pipe_file(f"{place}/{name}", b"")
    keys = [picture.key for picture in discover(f"{place}/**/*.jpg").pictures]
    assert keys == ["report/thumbs/y.jpg", "z.jpg"]


def test_patterns_numbers_and_lists(memory, place):
    for name in ("a/01.jpg", "a/02.jpg", "a/03.png", "b/01.jpg", "b/notes.txt"):
        memory.pipe_file(f"{place}/{name}", b"")

    def keys(source):
        return [picture.key for picture in discover(source).pictures]

    assert keys(f"{place}/a/*.jpg") == ["01.jpg", "02.jpg"]
    assert keys(f"{place}/*/01.jpg") == ["a/01.jpg", "b/01.jpg"]
    assert keys(f"{place}/**/*.jpg") == ["a/01.jpg", "a/02.jpg", "b/01.jpg"]
    assert keys(f"{place}/a/{{02..03}}.jpg") == ["02.jpg", "03.jpg"]
    memory.pipe_file(
        f"{place}/list.csv", f"path,target\na/01.jpg,cat\n{place}/b/01.jpg,\n".encode()
    )
    found = discover(f"{place}/list.csv")
    assert [(p.key, p.listed) for p in found.pictures] == [("a/01.jpg", "cat"), ("b/01.jpg", None)]
    assert found.root == Remote(place)


def test_an_object_too_large_to_be_a_picture_is_not_read(memory, place, monkeypatch):
    monkeypatch.setattr(remote, "MOST_BYTES", 2 << 20)
    memory.pipe_file(f"{place}/x.jpg", b" " * (2 << 20))
    memory.pipe_file(f"{place}/y.jpg", b" " * ((2 << 20) + 1))
    first, second = discover(place).pictures
    assert len(first.source.read()) == 2 << 20
    with pytest.raises(OSError, match="has more than 2 MB"):
        second.source.read()


@pytest.mark.parametrize(
    ("listed", "name", "meant"),
    [
        ("s3://b/lists/l.csv", "x.jpg", "s3://b/lists/x.jpg"),
        ("s3://b/lists/l.csv", "../photos/x.jpg", "s3://b/photos/x.jpg"),
        ("s3://b/lists/l.csv", "../../../etc/x.jpg", "s3://b/etc/x.jpg"),
        ("s3://b/l.csv", "/x.jpg", "s3://b/x.jpg"),
        ("https://me:pw@h/a/l.csv?t=1/2", "b/x.jpg?u=3", "https://me:pw@h/a/b/x.jpg?u=3"),
    ],
)
def test_what_a_list_there_means(listed, name, meant):
    assert Remote(listed).beside(name) == Remote(meant)


def test_an_address_in_a_list_that_means_nothing_fails_alone(
    batch, memory, place, tmp_path, make_picture
):
    memory.pipe_file(f"{place}/x.jpg", make_picture(1))
    listed = tmp_path / "list.txt"
    listed.write_text(f"{place}/x.jpg\nftp://me:hush@host/y.jpg\n")
    done = batch(listed, tmp_path / "out", "--results", "csv", "--save", "none")
    assert done.output.startswith("1 of 2 pictures explained")
    (row,) = (tmp_path / "out/failed.csv").read_text().splitlines()[1:]
    assert "y.jpg" in row
    assert "an address begins with one of" in row
    assert "hush" not in row


def test_a_list_may_name_files_here_and_objects_there(memory, place, tmp_path, make_pictures):
    make_pictures(tmp_path / "photos", 1)
    memory.pipe_file(f"{place}/x.jpg", b"")
    (tmp_path / "list.txt").write_text(
        f"photos/0000.jpg\n{place}/x.jpg\nhttps://user:pw@host.test/deep/y.jpg?token=1\n"
    )
    pictures = discover(str(tmp_path / "list.txt")).pictures
    assert pictures[0].key == "0000.jpg"
    assert [picture.key.rpartition("/")[2] for picture in pictures[1:]] == ["x.jpg", "y.jpg"]
    assert pictures[2].source.name == "https://host.test/deep/y.jpg"


@pytest.mark.parametrize(
    ("address", "safe"),
    [
        ("https://me:secret@host/a.jpg?sig=1#x", "https://host/a.jpg"),
        ("https://host?sig=1", "https://host"),
        ("s3://bucket/what?.jpg", "s3://bucket/what?.jpg"),
        ("photos/a?b", "photos/a?b"),
    ],
)
def test_what_is_shown_of_an_address(address, safe):
    assert shown(address) == safe


@pytest.mark.parametrize(
    ("source", "output", "told"),
    [
        ("ftp://host/photos", "out", "begins with one of s3, gs, az, hf, http, https"),
        ("s3://key:secret@bucket/x", "out", "credentials belong in the environment"),
        ("http://127.0.0.1:1/photos/", "out", "a web server lists nothing; give a list"),
        ("photos", "https://me:secret@host/out", "https://host/out: nothing can be written there"),
        ("photos", "hf://datasets/a/b", "nothing can be written there"),
        ("photos", "ftp://host/out", "begins with one of"),
        ("photos", "s3://", "s3://: names no bucket"),
        ("gs://bucket/photos", "out", "gs:// needs gcsfs: pip install 'camtool[remote]' gcsfs"),
        ("photos", "az://bucket/out", "az:// needs adlfs: pip install 'camtool[remote]' adlfs"),
    ],
)
def test_what_can_not_be_meant_is_one_line(
    batch, tmp_path, make_pictures, monkeypatch, source, output, told
):
    make_pictures(tmp_path / "photos", 1)
    monkeypatch.chdir(tmp_path)
    for package in ("gcsfs", "adlfs"):
        monkeypatch.setitem(sys.modules, package, None)
    result = batch(source, output)
    assert result.exit_code == 2
    assert told in result.output
    assert "secret" not in result.output
    assert result.output.count("\n") <= 2


def test_results_are_those_of_a_folder(photos, batch, memory, place, tmp_path, tree):
    folder, address = photos
    assert batch(folder, tmp_path / "out", *OPTIONS).exit_code == 1
    done = batch(address, f"{place}/out", *OPTIONS)
    assert done.exit_code == 1
    assert f"Look at {place}/out/report.html." in done.output
    here = without_source(tree(tmp_path / "out"), folder)
    there = without_source(results(memory, f"{place}/out"), address)
    assert there == here
    assert not memory.exists(f"{place}/out/.camtool/lock")


def test_from_here_to_there_and_from_there_to_here(photos, batch, memory, place, tmp_path, tree):
    folder, address = photos
    assert batch(folder, f"{place}/out", *OPTIONS).exit_code == 1
    assert batch(address, tmp_path / "out", *OPTIONS).exit_code == 1
    here, there = tree(tmp_path / "out"), results(memory, f"{place}/out")
    here.pop("report.html"), there.pop("report.html")
    assert here == there


def test_a_run_there_is_continued_and_notices_what_changed(
    photos, batch, memory, place, make_picture
):
    _, address = photos
    batch(address, f"{place}/out", *OPTIONS)
    before = results(memory, f"{place}/out")
    assert ", 0 now," in batch(address, f"{place}/out", *OPTIONS).output
    assert results(memory, f"{place}/out") == before
    memory.rm(f"{place}/out/0001.jpg.overlay-1.jpg")
    memory.pipe_file(f"{place}/out/0002.jpg.cam.npz", b"cut")
    memory.pipe_file(f"{place}/out/.camtool/journal/somebody's.jsonl", b"no journal")
    time.sleep(0.002)
    memory.pipe_file(f"{address}/broken.jpg", make_picture(50))
    again = batch(address, f"{place}/out", *OPTIONS)
    assert "10 of 10 pictures explained, 3 now" in again.output
    assert again.exit_code == 0
    after = results(memory, f"{place}/out")
    assert {name: after[name] for name in before if name[0] == "0"} == {
        name: before[name] for name in before if name[0] == "0"
    }


def test_another_run_is_refused_there_and_overwritten_on_request(photos, batch, memory, place):
    _, address = photos
    batch(address, f"{place}/out", "--results", "csv", "--save", "npz")
    memory.pipe_file(f"{place}/out/mine.txt", b"mine")
    refused = batch(address, f"{place}/out", "--results", "csv", "--save", "overlay")
    assert refused.exit_code == 2
    assert f"{place}/out holds another run (views.kinds" in refused.output
    again = batch(address, f"{place}/out", "--results", "csv", "--save", "overlay", "--overwrite")
    assert again.exit_code == 1
    left = results(memory, f"{place}/out")
    assert "mine.txt" in left
    assert not [name for name in left if name.endswith(".npz")]


def test_the_output_inside_of_the_source_is_no_source(photos, batch, memory):
    _, address = photos
    first = batch(address, f"{address}/out", "--results", "csv")
    assert first.exit_code == 1
    again = batch(address, f"{address}/out", "--results", "csv")
    assert "9 of 10 pictures explained, 0 now" in again.output
    inside = batch(address, address, "--results", "csv")
    assert inside.exit_code == 2
    assert "choose another --output" in inside.output


@pytest.fixture
def quick(monkeypatch):
    """Claims that show signs of life often."""
    monkeypatch.setattr(bucket, "BEAT", 0.05)
    monkeypatch.setattr(bucket, "LEASE", 0.2)


def claim(place, **others):
    made = bucket._Claim(Remote(place) / ".camtool/lock")
    made._who |= others
    return made


def test_a_living_run_keeps_its_place(quick, place):
    first = claim(place, host="elsewhere")
    first.take(print)
    said: list[str] = []
    with pytest.raises(RemoteError, match="another run is writing there"):
        claim(place).take(said.append)
    assert "sign of life" in said[0]
    first.check()
    first.release()
    claim(place).take(said.append)
    assert len(said) == 1


def test_two_claims_of_one_process_are_told_apart(quick, place):
    first = claim(place)
    first.take(print)
    with pytest.raises(RemoteError, match="another run is writing there"):
        claim(place).take(lambda line: None)
    first.release()


@pytest.mark.parametrize("others", [{"host": "elsewhere"}, {"pid": 2**22 + 1}])
def test_the_place_of_a_dead_run_is_taken(quick, place, memory, others):
    dead = claim(place, **others)
    memory.pipe_file(f"{place}/.camtool/lock", dead._content())
    said: list[str] = []
    made = claim(place)
    made.take(said.append)
    assert len(said) == ("host" in others)
    made.release()
    assert not memory.exists(f"{place}/.camtool/lock")


def test_who_lost_a_place_is_told_and_leaves_it_to_the_other(quick, place, memory, wait_until):
    first, second = claim(place), claim(place)
    first.take(print)
    memory.pipe_file(f"{place}/.camtool/lock", second._content())
    wait_until(lambda: first._lost)
    with pytest.raises(RemoteError, match="another run has taken over"):
        first.check()
    first.release()
    assert second._is_ours()


def test_a_run_that_lost_its_place_stops_with_one_line(photos, batch, memory, place, monkeypatch):
    _, address = photos
    monkeypatch.setattr(bucket._Claim, "check", lost)
    result = batch(address, f"{place}/out", "--results", "csv")
    assert result.exit_code == 1
    assert f"Stopped ({place}/out: another run has taken over)" in result.output
    monkeypatch.undo()
    assert batch(address, f"{place}/out", "--results", "csv").exit_code == 1


def lost(self):
    raise RemoteError("another run has taken over")
