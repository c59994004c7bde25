"""Pictures in tar and Parquet shards: the same as in a folder, each read by its place."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pytest

from camtool.folder import shards
from camtool.folder.discovery import discover
from camtool.folder.lists import SourceError

OPTIONS = ("--results", "csv,jsonl", "--save", "overlay,npz", "-k", "2")
CLASSES = {"0000.jpg": "1", "0004.jpg": "0"}


@pytest.fixture
def photos(tmp_path, make_pictures):
    folder = make_pictures(tmp_path / "photos", 9)
    (folder / "0005.jpg").write_bytes(b"\xff\xd8\xff broken")
    return folder


def contents(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def pack(path, files):
    """A tar of files by name."""
    with tarfile.open(path, "w") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


def table(path, files, **columns):
    """A Parquet file as Hugging Face writes data sets, three pictures to a row group."""
    pa = pytest.importorskip("pyarrow")
    pq = pytest.importorskip("pyarrow.parquet")
    images = [{"bytes": content, "path": name} for name, content in files.items()]
    pq.write_table(pa.table({"image": images, **columns}), path, row_group_size=3)
    return path


def as_of(output, shard):
    """Files of a run over a folder that holds one shard, as if it were a run over a folder."""
    files = {}
    for path in output.rglob("*"):
        name = path.relative_to(output).as_posix().replace(f"{shard}/", "")
        if path.is_file() and name.partition(".")[2].startswith(("jpg.", "csv", "jsonl")):
            files[name] = path.read_bytes().replace(f"{shard}/".encode(), b"")
    return {name: files[name] for name in files if name != "timings.csv"}


@pytest.mark.parametrize("kind", ["tar", "parquet"])
def test_a_shard_gives_what_its_pictures_give_in_a_folder(photos, batch, tmp_path, kind):
    source = tmp_path / "shards"
    source.mkdir()
    {"tar": pack, "parquet": table}[kind](source / f"one.{kind}", contents(photos))
    assert batch(photos, tmp_path / "out", *OPTIONS, "--no-report").exit_code == 1
    assert batch(source, tmp_path / "of", *OPTIONS, "--no-report").exit_code == 1
    files = as_of(tmp_path / "of", f"one.{kind}")
    assert files == as_of(tmp_path / "out", "-")
    assert len(files) > 20
    assert b"0005.jpg,is " in files["failed.csv"]


def test_a_class_beside_a_picture_is_its_truth(photos, tmp_path):
    files = contents(photos)
    beside = {f"{Path(name).stem}.cls": label.encode() for name, label in CLASSES.items()}
    # Before its picture, and after it.
    tar = pack(tmp_path / "a.tar", {"0000.cls": beside["0000.cls"], **files, **beside})
    found = discover(str(tar))
    assert [picture.key for picture in found.pictures] == [f"a.tar/{name}" for name in files]
    assert {p.key[6:]: p.listed for p in found.pictures if p.listed} == CLASSES
    labels = [int(CLASSES.get(name, 2)) for name in files]
    parquet = table(tmp_path / "a.parquet", files, label=labels)
    assert [p.listed for p in discover(str(parquet)).pictures] == [str(label) for label in labels]


def test_what_is_no_class_is_none(photos, tmp_path):
    files = contents(photos)
    for labels in ([{"x": 1}] * len(files), [[1, 2]] * len(files), [0.5] * len(files)):
        found = discover(str(table(tmp_path / "a.parquet", files, label=labels)))
        assert {picture.listed for picture in found.pictures} == {None}


def test_samples_are_told_apart_by_folder_and_up_to_the_first_dot(tmp_path):
    names = ("a/1.jpg", "b/1.jpg", "b/1.mask.png", "b/1.json", "1.JPEG", "x.y/2.png")
    files = {**dict.fromkeys(names, b"."), "b/1.cls": b"7", "x.y/2.cls": b"8\n"}
    found = {p.key: p.listed for p in discover(str(pack(tmp_path / "t.tar", files))).pictures}
    assert found == {
        "t.tar/a/1.jpg": None,
        "t.tar/b/1.jpg": "7",
        "t.tar/b/1.mask.png": "7",
        "t.tar/1.JPEG": None,
        "t.tar/x.y/2.png": "8",
    }


def test_numbered_shards_and_patterns_of_them(tmp_path, make_picture):
    for number in range(3):
        pack(tmp_path / f"train-{number:04d}.tar", {"x.jpg": make_picture(number)})
    for source in ("train-{0000..0002}.tar", "train-*.tar", "."):
        keys = [picture.key for picture in discover(str(tmp_path / source)).pictures]
        assert keys == [f"train-{number:04d}.tar/x.jpg" for number in range(3)]


def test_numbers_without_end_are_refused_at_once():
    with pytest.raises(SourceError, match=r"stands for 1,000,000 names or more"):
        discover("train-{0..99999999999}.tar")


def test_no_name_in_a_shard_leads_out_of_the_output_or_is_there_twice(tmp_path):
    tar = tmp_path / "t.tar"
    with tarfile.open(tar, "w") as made:
        for name in ("../../x.jpg", "/etc/y.jpg", "z.jpg", "z.jpg"):
            made.addfile(tarfile.TarInfo(name))
        link = tarfile.TarInfo("link.jpg")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        made.addfile(link)
    keys = [picture.key for picture in discover(str(tar)).pictures]
    assert keys == ["t.tar/~/~/x.jpg", "t.tar/etc/y.jpg", "t.tar/z.jpg", "t.tar/z.jpg~2"]


def test_of_a_tar_no_more_is_read_for_a_picture_than_the_picture(photos, tmp_path, monkeypatch):
    tar = pack(tmp_path / "a.tar", contents(photos))
    found = discover(str(tar))
    files = contents(photos)
    opened: list[Any] = []
    monkeypatch.setattr(Path, "open", spy(opened))
    assert [picture.source.read() for picture in found.pictures] == [*files.values()]
    assert [stream.told for stream in opened] == [len(content) for content in files.values()]


def spy(opened):
    class Counted(io.FileIO):
        told = 0

        def read(self, size=-1):
            content = super().read(size)
            self.told += len(content)
            return content

    def count(path, mode):
        opened.append(Counted(path))
        return opened[-1]

    return count


def test_row_groups_are_read_once_each_in_the_order_of_a_run(photos, tmp_path):
    found = discover(str(table(tmp_path / "a.parquet", contents(photos))))
    shards._group.cache_clear()
    for picture in found.pictures:
        picture.source.read()
    assert shards._group.cache_info().misses == 3
    assert shards._group.cache_info().hits == 6


def test_a_cut_shard_gives_what_is_whole_and_one_line(photos, batch, tmp_path):
    source = tmp_path / "shards"
    source.mkdir()
    tar = pack(source / "cut.tar", contents(photos))
    with tarfile.open(tar) as made:
        seventh = made.getmembers()[6]
    tar.write_bytes(tar.read_bytes()[: seventh.offset + 700])
    (source / "none.tar").write_bytes(b"no tar" * 1000)
    (source / "none.parquet").write_bytes(b"no parquet")
    done = batch(source, tmp_path / "out", "--results", "csv", "--save", "none")
    assert done.exit_code == 1
    assert done.output.startswith("5 of 9 pictures explained")
    rows = (tmp_path / "out" / "failed.csv").read_text().splitlines()[1:]
    assert [row.partition(",")[0] for row in rows] == [
        *("cut.tar/0005.jpg", "cut.tar", "none.parquet", "none.tar"),
    ]
    assert all("can't be read any further" in row for row in rows[1:])


def test_a_size_that_is_only_claimed_is_not_allocated(tmp_path):
    with tarfile.open(tmp_path / "t.tar", "w") as tar:
        member = tarfile.TarInfo("x.jpg")
        member.size = 1 << 50
        tar.addfile(member)
    (picture,) = discover(str(tmp_path / "t.tar")).pictures
    with pytest.raises(OSError, match="unexpected end of data"):
        picture.source.read()


def test_results_of_a_run_are_no_shard_of_pictures(photos, batch, tmp_path):
    pytest.importorskip("pyarrow")
    batch(photos, photos, "--results", "parquet", "--save", "none")
    batch(photos, tmp_path / "out", "--results", "parquet", "--save", "none")
    (photos / "results.parquet").write_bytes((tmp_path / "out/results.parquet").read_bytes())
    assert len(discover(str(photos)).pictures) == 9


def test_a_changed_shard_is_done_again_and_another_is_not(batch, tmp_path, make_picture):
    source = tmp_path / "shards"
    source.mkdir()
    pack(source / "a.tar", {f"{n}.jpg": make_picture(n) for n in range(3)})
    pack(source / "b.tar", {f"{n}.jpg": make_picture(n) for n in range(2)})
    words = (source, tmp_path / "out", "--results", "jsonl", "--save", "npz")
    assert batch(*words).exit_code == 0
    pack(source / "b.tar", {f"{n}.jpg": make_picture(n + 5) for n in range(2)})
    assert "5 of 5 pictures explained, 2 now" in batch(*words).output
    lines = (tmp_path / "out/results.jsonl").read_text().splitlines()
    assert [json.loads(line)["path"] for line in lines][3:] == ["b.tar/0.jpg", "b.tar/1.jpg"]


def test_explain_takes_a_shard_and_the_library_too(tmp_path, make_picture, tiny):
    import camtool

    tar = pack(tmp_path / "a.tar", {"x.jpg": make_picture(1), "y.jpg": b"no"})
    ((first, good), (second, bad)) = camtool.load(tiny).explain_folder(tar)
    assert good.name == first.name == f"{tar}/x.jpg"
    assert (bad.name, second.name) == (f"{tar}/y.jpg", f"{tar}/y.jpg")
