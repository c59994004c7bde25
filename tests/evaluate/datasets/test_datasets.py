from __future__ import annotations

import csv
import json
import zlib
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from PIL import Image

from camtool.evaluate import DataFormat
from camtool.evaluate.datasets import (
    READERS,
    Dataset,
    Problem,
    Record,
    load_mask,
    match_labels,
    read_dataset,
)
from camtool.evaluate.datasets.masks import MaskFiles
from camtool.images import ImageError

VOC = """<annotation><object><name>{name}</name><bndbox><xmin>{0}</xmin><ymin>{1}</ymin>
<xmax>{2}</xmax><ymax>{3}</ymax></bndbox></object></annotation>"""


def picture(path: Path, size=(40, 30)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size).save(path)
    return path


def write(path: Path, *lines: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def reasons(dataset) -> str:
    return "\n".join(f"{problem.path}: {problem.reason}" for problem in dataset.problems)


def test_csv(tmp_path):
    picture(tmp_path / "cat" / "a.jpg")
    picture(tmp_path / "cat" / "left out.jpg")
    picture(tmp_path / "dog" / "b.png")
    write(
        tmp_path / "boxes.csv",
        "path,x0,y0,x1,y1",
        "cat/a.jpg,1,2,30,20",
        "cat/a.jpg,0,0,5,5.5",
        "dog/b.png,10,10,40,30",
    )
    data = read_dataset(tmp_path, "csv")
    assert [(r.label, r.boxes) for r in data.records] == [
        ("cat", ((1, 2, 30, 20), (0, 0, 5, 5.5))),
        ("dog", ((10, 10, 40, 30),)),
    ]
    assert [p.reason for p in data.problems] == ["it has no row in boxes.csv"]


def test_csv_bad_data_is_counted_and_named(tmp_path):
    for name in ("outside", "over", "empty", "numbers"):
        picture(tmp_path / "cat" / f"{name}.jpg")
    (tmp_path / "cat" / "broken.jpg").write_bytes(b"no picture")
    write(
        tmp_path / "boxes.csv",
        "path,x0,y0,x1,y1",
        "cat/outside.jpg,50,2,60,20",
        "cat/over.jpg,-5,2,60,20",
        "cat/empty.jpg,5,5,5,20",
        "cat/numbers.jpg,5,x,5,20",
        "cat/gone.jpg,1,1,5,20",
        "cat/broken.jpg,1,1,5,20",
        "cat/over.jpg,nan,1,5,20",
    )
    data = read_dataset(tmp_path, "csv")
    assert [(r.path.name, r.boxes) for r in data.records] == [("over.jpg", ((0, 2, 40, 20),))]
    text = reasons(data)
    for expected in (
        "outside.jpg: box (50.0, 2.0, 60.0, 20.0) lies outside the picture of 40 x 30",
        "outside.jpg: it has no usable box or mask",
        "over.jpg: box (-5.0, 2.0, 60.0, 20.0) was cut off at 40 x 30",
        "over.jpg: box (nan, 1.0, 5.0, 20.0) has no area",
        "empty.jpg: box (5.0, 5.0, 5.0, 20.0) has no area",
        "numbers.jpg: row 5 of boxes.csv has no four numbers",
        "gone.jpg: the picture is missing",
        "broken.jpg: is not a picture in a format that Pillow reads",
    ):
        assert expected in text


def png_chunk(kind: bytes, content: bytes) -> bytes:
    checksum = zlib.crc32(kind + content).to_bytes(4, "big")
    return len(content).to_bytes(4, "big") + kind + content + checksum


SIDES = (60_000).to_bytes(4, "big") * 2
LARGE = b"\x89PNG\r\n\x1a\n" + b"".join(
    (png_chunk(b"IHDR", SIDES + b"\x08\0\0\0\0"), png_chunk(b"IDAT", b""), png_chunk(b"IEND", b""))
)
BAD = {
    "larger than Pillow's own limit": LARGE,
    "cut in its header": LARGE[:20],
    "a video": b"\0\0\0\x18ftypisom\0\0\0\1",
    "a DDS that is not implemented": b"DDS " + (124).to_bytes(4, "little") + bytes(120),
}


@pytest.mark.parametrize("case", BAD)
def test_pictures_and_masks_that_can_not_be_read_are_problems(tmp_path, case):
    for name in ("a.jpg", "a_mask.png", "trimaps/a_1.png"):
        path = picture(tmp_path / "annotations" / name)
        path.write_bytes(BAD[case])
        with pytest.raises(ImageError):
            load_mask(MaskFiles((path,)))
    write(tmp_path / "annotations" / "test.txt", "a_1 1 1 1")
    pets = read_dataset(tmp_path, "pets")
    assert [problem.path for problem in pets.problems] == [str(path)]
    write(tmp_path / "boxes.csv", "path,x0,y0,x1,y1", "annotations/a.jpg,1,1,5,5")
    boxes = read_dataset(tmp_path, "csv")
    # What only decoding would show is shown by decoding it.
    assert boxes.problems or case == "larger than Pillow's own limit"


def test_boxes_are_those_of_the_picture_as_people_see_it(tmp_path):
    image = Image.new("RGB", (40, 30))
    image.getexif()[0x0112] = 6
    (tmp_path / "cat").mkdir()
    image.save(tmp_path / "cat" / "a.jpg", exif=image.getexif())
    write(tmp_path / "boxes.csv", "path,x0,y0,x1,y1", "cat/a.jpg,0,0,30,40")
    data = read_dataset(tmp_path, "csv")
    assert (data.records[0].size, data.problems) == ((30, 40), [])


def test_csv_without_its_columns_is_refused(tmp_path):
    write(tmp_path / "boxes.csv", "file,x0,y0,x1,y1")
    with pytest.raises(ValueError, match="path"):
        read_dataset(tmp_path, "csv")
    with pytest.raises(OSError, match=r"boxes\.csv"):
        read_dataset(tmp_path / "nowhere", "csv")


def test_csv_label_column_and_quoted_names(tmp_path):
    picture(tmp_path / "x" / "a, b.jpg")
    with (tmp_path / "boxes.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["path", "label", "x0", "y0", "x1", "y1"])
        rows.writerow(["x/a, b.jpg", "tabby", 0, 0, 3, 3])
    assert read_dataset(tmp_path, "csv").records[0].label == "tabby"


def test_tiny_imagenet_boxes_become_end_exclusive(tmp_path):
    picture(tmp_path / "val" / "images" / "val_0.JPEG", (64, 64))
    write(
        tmp_path / "val" / "val_annotations.txt",
        "val_0.JPEG\tn03444034\t0\t32\t44\t63",
        "val_1.JPEG\tn03444034\t0\t32",
    )
    data = read_dataset(tmp_path, "tiny-imagenet")
    assert data.records == [
        Record(tmp_path / "val/images/val_0.JPEG", "n03444034", ((0, 32, 45, 64),), None, (64, 64))
    ]
    assert "val_1.JPEG: not a line" in reasons(data)


@pytest.mark.parametrize("flat", [True, False])
def test_imagenet_with_xml(tmp_path, flat):
    folder = tmp_path / "val" if flat else tmp_path / "val" / "n01440764"
    for number in (1, 2, 3):
        picture(folder / f"ILSVRC2012_val_{number:08d}.JPEG")
    boxes = tmp_path / "bbox" / "val"
    write(boxes / "ILSVRC2012_val_00000001.xml", VOC.format(1, 2, 20, 25, name="n01440764"))
    write(boxes / "ILSVRC2012_val_00000002.xml", "<annotation><object>")
    write(boxes / "ILSVRC2012_val_00000009.xml", VOC.format(1, 2, 20, 25, name="n01440764"))
    data = read_dataset(tmp_path, "imagenet")
    assert [(r.path.name, r.label, r.boxes) for r in data.records] == [
        ("ILSVRC2012_val_00000001.JPEG", "n01440764", ((1, 2, 20, 25),))
    ]
    text = reasons(data)
    assert "00000002.JPEG: its XML file can't be used" in text
    assert "00000003.JPEG: it has no" in text
    assert "00000009.xml: there is no picture of this name" in text


def test_imagenet_labels_from_the_development_kit(tmp_path):
    for number in (1, 2):
        picture(tmp_path / "val" / f"ILSVRC2012_val_{number:08d}.JPEG")
        both = VOC.format(1, 2, 20, 25, name="n02000000") + VOC.format(3, 3, 9, 9, name="n01000000")
        text = both.replace("</annotation><annotation>", "")
        write(tmp_path / "xml" / f"ILSVRC2012_val_{number:08d}.xml", text)
    write(tmp_path / "devkit" / "ILSVRC2012_validation_ground_truth.txt", "2", "1")
    names = "n01000000 kit fox n02000000".encode("utf-16-le")
    packed = zlib.compress(names)
    element = (15).to_bytes(4, "little") + len(packed).to_bytes(4, "little") + packed
    (tmp_path / "devkit" / "meta.mat").write_bytes(b"MATLAB 5.0".ljust(128) + element)
    data = read_dataset(tmp_path, "imagenet")
    assert [(r.label, r.boxes) for r in data.records] == [
        ("n02000000", ((1, 2, 20, 25),)),
        ("n01000000", ((3, 3, 9, 9),)),
    ]
    assert data.problems == []


def test_cub(tmp_path):
    for name in ("001.Laysan_Albatross/a.jpg", "002.Crow/b.jpg"):
        picture(tmp_path / "images" / name)
    Image.fromarray(np.full((30, 40), 200, np.uint8)).save(
        picture(tmp_path / "segmentations/002.Crow/b.png")
    )
    write(tmp_path / "images.txt", "1 001.Laysan_Albatross/a.jpg", "2 002.Crow/b.jpg", "3 gone.jpg")
    write(tmp_path / "classes.txt", "1 001.Laysan_Albatross", "2 002.Crow")
    write(tmp_path / "image_class_labels.txt", "1 1", "2 2", "3 2")
    write(tmp_path / "bounding_boxes.txt", "1 1.0 2.0 3.0 4.0", "2 5.0 6.0 7.0 8.0", "3 0 0 1 1")
    write(tmp_path / "train_test_split.txt", "1 1", "2 0", "3 0")
    data = read_dataset(tmp_path, "cub")
    (record,) = data.records
    assert (record.label, record.boxes) == ("Crow", ((5, 6, 12, 14),))
    assert record.mask is not None
    assert load_mask(record.mask).min() == 1
    assert "gone.jpg: the picture is missing" in reasons(data)


def test_pets(tmp_path):
    trimap = np.full((30, 40), 2, np.uint8)
    trimap[4:21, 9:31] = 3
    trimap[5:20, 10:30] = 1
    trimaps = tmp_path / "annotations" / "trimaps"
    trimaps.mkdir(parents=True)
    Image.fromarray(trimap).save(trimaps / "great_pyrenees_7.png")
    Image.fromarray(np.full((30, 40), 2, np.uint8)).save(trimaps / "Abyssinian_1.png")
    for name in ("great_pyrenees_7", "Abyssinian_1", "pug_3"):
        picture(tmp_path / "images" / f"{name}.jpg")
    write(
        tmp_path / "annotations" / "test.txt",
        "#Image CLASS-ID SPECIES BREED ID",
        "great_pyrenees_7 16 2 1",
        "Abyssinian_1 1 1 1",
        "pug_3 20 2 9",
    )
    data = read_dataset(tmp_path, "pets")
    (record,) = data.records
    assert (record.label, record.boxes) == ("great pyrenees", ((10, 5, 30, 20),))
    assert record.mask is not None
    mask = load_mask(record.mask)
    assert np.array_equal(mask == 1, trimap == 1)
    assert np.array_equal(mask == 255, trimap == 3)
    assert "Abyssinian_1.jpg: it has no usable box" in reasons(data)
    assert "pug_3.png: no such file" in reasons(data)


def test_coco(tmp_path):
    for name in ("a.jpg", "b.jpg"):
        picture(tmp_path / "val2017" / name)
    annotations = [
        {"id": 1, "image_id": 7, "category_id": 3, "bbox": [1, 2, 10, 20]},
        {"id": 2, "image_id": 7, "category_id": 3, "bbox": [5, 5, 5, 5]},
        {"id": 3, "image_id": 7, "category_id": 4, "bbox": [0, 0, 9, 9]},
        {"id": 4, "image_id": 7, "category_id": 4, "bbox": [0, 0, 9, 9], "iscrowd": 1},
        {"id": 5, "image_id": 99, "category_id": 4, "bbox": [0, 0, 9, 9]},
        {"id": 6, "image_id": 7, "category_id": 4, "bbox": []},
        {"id": 7, "image_id": 7, "category_id": 5, "bbox": [0, 0, 9, 9]},
    ]
    content = {
        "images": [{"id": 7, "file_name": "a.jpg"}, {"id": 8, "file_name": "b.jpg"}],
        "categories": [{"id": 3, "name": "cat"}, {"id": 4, "name": "dog"}],
        "annotations": annotations,
    }
    write(tmp_path / "annotations" / "instances_val2017.json", json.dumps(content))
    for root in (tmp_path, tmp_path / "annotations" / "instances_val2017.json"):
        data = read_dataset(root, "coco")
        assert [(r.path.name, r.label, r.boxes) for r in data.records] == [
            ("a.jpg", "cat", ((1, 2, 11, 22), (5, 5, 10, 10))),
            ("a.jpg", "dog", ((0, 0, 9, 9),)),
        ]
        text = reasons(data)
        for expected in (
            "b.jpg: it has no annotation",
            "annotation 4: a region of a crowd",
            "annotation 5: there is no image 99",
            "annotation 6: it has no box",
            "a.jpg: it has no label",
        ):
            assert expected in text


def test_coco_of_something_else_is_refused(tmp_path):
    write(tmp_path / "x.json", "[]")
    with pytest.raises(ValueError, match="instances"):
        read_dataset(tmp_path / "x.json", "coco")
    with pytest.raises(ValueError, match="0 files"):
        read_dataset(tmp_path, "coco")


def test_wsol_boxes(tmp_path):
    images = tmp_path / "pictures"
    picture(images / "val" / "a.jpg")
    write(tmp_path / "class_labels.txt", "val/a.jpg,5", "val/b.jpg,1", "val/c.jpg,x")
    write(
        tmp_path / "localization.txt", "val/a.jpg,1,2,3,4", "val/a.jpg,5,6,7,8", "val/z.jpg,1,1,2,2"
    )
    write(tmp_path / "image_sizes.txt", "val/a.jpg,40,30", "val/b.jpg,40,30")
    data = read_dataset(tmp_path, "wsol", images)
    (record,) = data.records
    assert (record.label, record.boxes) == (5, ((1, 2, 3, 4), (5, 6, 7, 8)))
    text = reasons(data)
    assert "b.jpg: the picture is missing" in text
    assert "val/c.jpg: not a line of class_labels.txt" in text
    assert "val/z.jpg: it has no line in class_labels.txt" in text


def test_wsol_boxes_of_no_width_are_kept_as_they_stand(tmp_path):
    for name in "abc":
        picture(tmp_path / f"{name}.jpg")
    write(tmp_path / "class_labels.txt", "a.jpg,0", "b.jpg,1", "c.jpg,1")
    write(tmp_path / "localization.txt", "a.jpg,5,6,5,9", "b.jpg,39,29,39,29", "c.jpg,5,5,4,9")
    data = read_dataset(tmp_path, "wsol")
    boxes = [record.boxes for record in data.records]
    assert boxes == [((5, 6, 5, 9),), ((39, 29, 39, 29),)]
    assert "c.jpg: box (5.0, 5.0, 4.0, 9.0) has no area" in reasons(data)


def test_wsol_evaluates_the_listed_pictures_in_their_order(tmp_path):
    for name in "abc":
        picture(tmp_path / f"{name}.jpg")
    write(tmp_path / "class_labels.txt", *(f"{name}.jpg,0" for name in "abc"))
    write(tmp_path / "localization.txt", *(f"{name}.jpg,1,1,5,5" for name in "abc"))
    write(tmp_path / "image_ids.txt", "c.jpg", "a.jpg", "d.jpg")
    data = read_dataset(tmp_path, "wsol")
    assert [record.path.name for record in data.records] == ["c.jpg", "a.jpg"]
    assert [tuple(problem) for problem in data.problems] == [
        ("d.jpg", "it has no line in class_labels.txt")
    ]


def test_wsol_masks(tmp_path):
    picture(tmp_path / "a.jpg")
    parts = np.zeros((3, 30, 40), np.uint8)
    parts[0, :10], parts[1, 5:20, :5], parts[2, 8:25] = 255, 255, 255
    for name, part in zip(("m0", "m1", "ignore"), parts, strict=True):
        Image.fromarray(part).save(tmp_path / f"{name}.png")
    write(tmp_path / "class_labels.txt", "a.jpg,0")
    write(tmp_path / "localization.txt", "a.jpg,m0.png,ignore.png", "a.jpg,m1.png,")
    (record,) = read_dataset(tmp_path, "wsol").records
    assert record.mask is not None
    mask = load_mask(record.mask)
    inside = (parts[0] > 0) | (parts[1] > 0)
    assert np.array_equal(mask == 1, inside)
    assert np.array_equal(mask == 255, (parts[2] > 0) & ~inside)
    assert load_mask(record.mask, 224).shape == (224, 224)


def test_missing_mask_is_named(tmp_path):
    picture(tmp_path / "a.jpg")
    write(tmp_path / "class_labels.txt", "a.jpg,0")
    write(tmp_path / "localization.txt", "a.jpg,m0.png,")
    data = read_dataset(tmp_path, "wsol")
    assert data.records == []
    assert "m0.png: the mask is missing" in reasons(data)


def test_labels_are_matched_by_synset_name_or_index():
    labels = ["tabby, tabby cat", "Egyptian cat", "great_pyrenees"]
    given: list[int | str] = [
        "n02123045",
        "TABBY CAT",
        "egyptian_cat",
        2,
        3,
        -1,
        "dog",
        "Great Pyrenees",
    ]
    records = [Record(Path(str(i)), name, (), None, (1, 1)) for i, name in enumerate(given)]
    before = Dataset(records, [Problem("x", "y")], "csv", Path("root"))
    data = match_labels(before, labels, ["n02123045", "n02124075", "n02111500"])
    assert [r.label for r in data.records] == [0, 0, 1, 2, 2]
    assert [p.path for p in data.problems] == ["x", "4", "5", "6"]
    assert (data.format, data.root) == ("csv", Path("root"))
    assert data.problems[3].reason == "the network has no one label 'dog'"


@pytest.mark.parametrize(
    ("count", "kept"), [(1, [0]), (3, [0, 3, 6]), (10, [*range(10)]), (99, [*range(10)])]
)
def test_some_records_are_evenly_spaced(count, kept):
    records = [Record(Path(str(n)), 0, (), None, (1, 1)) for n in range(10)]
    some = Dataset(records, [], "csv").evenly(count)
    assert [int(record.path.name) for record in some.records] == kept
    assert some.format == "csv"


def test_unknown_format_names_the_known_ones(tmp_path):
    with pytest.raises(ValueError, match=r"imagenet.*coco"):
        read_dataset(tmp_path, "voc")  # type: ignore[arg-type]
    assert set(READERS) == set(get_args(DataFormat))


def test_a_folder_of_nothing_but_pictures(tmp_path):
    (tmp_path / "deep").mkdir()
    paths = [picture(tmp_path / "b.png"), picture(tmp_path / "deep" / "a.JPG", (8, 9))]
    (tmp_path / "notes.txt").write_text("no picture")
    (tmp_path / "broken.png").write_bytes(b"no picture")
    found = read_dataset(tmp_path, "folder")
    assert [record.path for record in found.records] == paths
    assert found.records[1].size == (8, 9)
    assert not found.records[0].boxes
    assert [Path(problem.path).name for problem in found.problems] == ["broken.png"]
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(ValueError, match="no picture"):
        read_dataset(empty, "folder")


def test_masks_of_different_sizes_take_that_of_the_first(tmp_path):
    Image.new("L", (4, 2), 255).save(tmp_path / "a.png")
    Image.new("L", (8, 8), 0).save(tmp_path / "b.png")
    mask = load_mask(MaskFiles((tmp_path / "a.png", tmp_path / "b.png")))
    assert mask.shape == (2, 4)
    assert mask.all()
