"""The pictures of a study: which there are, which are held out, and their pixels."""

from __future__ import annotations

import hashlib
import os
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeAlias

import numpy as np

from camtool.evaluate.datasets import read_dataset
from camtool.evaluate.datasets.records import TrueBox, read_lines
from camtool.fit.outcome import Problem
from camtool.fit.training import Bytes, Longs
from camtool.folder.discovery import discover
from camtool.images import ImageError, prepare, read_image
from camtool.networks import Preprocessing

Groups: TypeAlias = Mapping[str, Sequence[str]]
"""Names of classes to the names of the folders that belong to each."""

HOLDOUT = 0.2
"""Share of the pictures that is held out where no others are given to validate on."""

MOST = 6000
"""Training pictures of all classes that are taken where nobody says how many; a picture is
validated on for each two."""

_SPLIT = 0
_MOST_MEMORY = 0.5


class StudyError(ValueError):
    """A study can't be made of this; the message says why, in one line."""


@dataclass(frozen=True)
class Sample:
    """One picture.

    Attributes:
        path: The file.
        label: Index of its class.
        boxes: Around the object, (x0, y0, x1, y1) in pixels of the picture, end-exclusive; empty
            where they aren't known.
    """

    path: Path
    label: int
    boxes: tuple[TrueBox, ...] = ()


_Found: TypeAlias = dict[str, list[Sample]]
"""Pictures by folder."""


@dataclass(frozen=True, eq=False)
class Pictures:
    """One half of the data, in memory.

    Attributes:
        samples: Its pictures.
        pixels: For each side in pixels: uint8 RGB [N,side,side,3].
        sizes: (width, height) of each file.
    """

    samples: Sequence[Sample]
    pixels: Mapping[int, Bytes]
    sizes: Sequence[tuple[int, int]]

    @property
    def labels(self) -> Longs:
        """int64 [N]."""
        return np.array([sample.label for sample in self.samples], np.int64)

    def digest(self) -> str:
        """SHA-256 of labels, boxes and pixels."""
        found = hashlib.sha256(repr([(s.label, s.boxes) for s in self.samples]).encode())
        for side in sorted(self.pixels):
            found.update(self.pixels[side].tobytes())
        return found.hexdigest()


@dataclass(eq=False)
class Split:
    """Which pictures are trained on, and which are held out to measure.

    Attributes:
        labels: Of the classes.
        training: Pictures of all classes.
        validation: Likewise.
        problems: What was left out.
    """

    labels: tuple[str, ...]
    training: list[Sample] = field(default_factory=list)
    validation: list[Sample] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)


def split(
    root: Path,
    validation: Path | None = None,
    groups: Groups | None = None,
    holdout: float | None = None,
    limit: int | None = None,
    most: int | None = None,
) -> Split:
    """Divide a data set; which picture lies on which side follows from the names alone.

    Args:
        root: A folder of pictures by class, with boxes in boxes.csv if they are known; or the
            folder of Tiny ImageNet, whose own validation pictures are then validated on, too.
        validation: A folder by class, with the same names, to validate on.
        groups: Classes to take, each with its folders; None for one class a folder.
        holdout: Share of the training pictures to validate on; None for `HOLDOUT` where there is
            nothing else, and 0 where there is.
        limit: Training pictures of a class at most; None for an equal share of `most`.
        most: Training pictures at most, and half as many to validate on; None for `MOST`.

    Raises:
        StudyError: Fewer than two classes can be studied, or a folder is not there.
        SourceError: There is no picture.
    """
    found: list[Problem] = []
    if (root / "wnids.txt").is_file():
        given, held = _tiny_imagenet(root, found)
    else:
        given, held = _folders(root, found), {}
    if validation is not None:
        held = _folders(validation, found)
    groups = _known(given, groups)
    share = (0.0 if held else HOLDOUT) if holdout is None else holdout
    each = max(2, (most or MOST) // max(1, len(groups)))
    result = Split((), problems=found)
    for label, folders in groups.items():
        mine, kept = _halves(label, folders, given, held, share)
        if not mine or not kept:
            what = "to train on" if not mine else "to validate on"
            found.append(Problem(label, f"the class is left out: it has no picture {what}"))
            continue
        number = len(result.labels)
        result.labels = (*result.labels, label)
        result.training += [replace(one, label=number) for one in mine[: limit or each]]
        result.validation += [replace(one, label=number) for one in kept[: each // 2]]
    if len(result.labels) < 2:
        why = f" ({found[-1].path}: {found[-1].reason})" if found else ""
        count = len(result.labels)
        raise StudyError(f"{root}: {count} classes can be studied, and two are needed{why}")
    return result


def _halves(
    label: str, folders: Sequence[str], given: _Found, held: _Found, share: float
) -> tuple[list[Sample], list[Sample]]:
    """Pictures of a class to train on and to validate on; one at least stays for each."""
    mine, kept = (
        _shuffled([one for name in folders for one in there.get(name, [])], label)
        for there in (given, held)
    )
    cut = min(len(mine) - 1, max(1, round(share * len(mine)))) if share and mine else 0
    return mine[cut:], [*kept, *mine[:cut]]


def _shuffled(samples: list[Sample], label: str) -> list[Sample]:
    seed = int.from_bytes(
        hashlib.sha256(label.encode("utf-8", "surrogateescape")).digest()[:8], "big"
    )
    order = np.random.default_rng((_SPLIT, seed)).permutation(len(samples))
    return [samples[n] for n in order]


def _known(given: _Found, groups: Groups | None) -> Groups:
    """The classes that are asked for, or all."""
    groups = {name: [name] for name in given} if groups is None else groups
    for name in (part for parts in groups.values() for part in parts):
        if name not in given:
            raise StudyError(f"--classes: there is no folder {name!r}")
    return groups


def _folders(root: Path, found: list[Problem]) -> _Found:
    """The pictures of each folder directly under one; empty folders too."""
    if not root.is_dir():
        raise StudyError(f"{root}: is no folder")
    boxes = _boxes(root, found)
    folders = sorted(path for path in root.iterdir() if path.is_dir())
    result: _Found = {folder.name: [] for folder in folders}
    for picture in discover(str(root)).pictures:
        name, *rest = picture.key.split("/")
        if rest and isinstance(picture.source, Path):
            known = boxes.get(os.path.realpath(picture.source), ())
            result.setdefault(name, []).append(Sample(picture.source, 0, known))
        else:
            found.append(Problem(picture.key, "lies in no class's folder"))
    return result


def _boxes(root: Path, found: list[Problem]) -> dict[str, tuple[TrueBox, ...]]:
    if not (root / "boxes.csv").is_file():
        return {}
    dataset = read_dataset(root, "csv")
    found += [Problem(one.path, one.reason) for one in dataset.problems]
    return {os.path.realpath(record.path): record.boxes for record in dataset.records}


def _tiny_imagenet(root: Path, found: list[Problem]) -> tuple[_Found, _Found]:
    """The training pictures of each synset, and the validation pictures."""
    training = {
        wnid: list(tiny_training(root, wnid, found)) for wnid in read_lines(root / "wnids.txt")
    }
    held: _Found = defaultdict(list)
    if (root / "val" / "val_annotations.txt").is_file():
        for record in read_dataset(root, "tiny-imagenet").records:
            held[str(record.label)].append(Sample(record.path, 0, record.boxes))
    return training, held


def tiny_training(root: Path, wnid: str, found: list[Problem]) -> Iterator[Sample]:
    """Tiny ImageNet's training pictures of a synset; their boxes count their last pixel."""
    folder = root / "train" / wnid
    boxes: dict[str, tuple[TrueBox, ...]] = {}
    if (folder / f"{wnid}_boxes.txt").is_file():
        for line in read_lines(folder / f"{wnid}_boxes.txt"):
            name, *numbers = line.split("\t")
            try:
                x0, y0, x1, y1 = map(int, numbers)
            except ValueError:
                found.append(Problem(name, f"not a line of {wnid}_boxes.txt: {line!r}"))
                continue
            boxes[name] = ((x0, y0, x1 + 1, y1 + 1),)
    for path in sorted((folder / "images").glob("*.JPEG")):
        yield Sample(path, 0, boxes.get(path.name, ()))


def read(
    samples: Sequence[Sample],
    sides: Sequence[int],
    problems: list[Problem],
    workers: int,
    progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> Pictures:
    """The pixels of pictures, made square; those that can't be read are named and left out.

    Args:
        samples: The pictures.
        sides: In pixels; each picture is kept at every one of them.
        problems: Where unreadable ones are named.
        workers: Threads.
        progress: Called with the pictures done and their number.
    """

    def one(sample: Sample) -> tuple[list[Bytes], tuple[int, int]] | ImageError:
        try:
            image = read_image(sample.path)
        except ImageError as error:
            return error
        made = [prepare(image, Preprocessing(side), "squash")[0] for side in sides]
        return made, (image.shape[1], image.shape[0])

    kept: list[Sample] = []
    sizes: list[tuple[int, int]] = []
    pixels = {side: np.empty((len(samples), side, side, 3), np.uint8) for side in sides}
    with ThreadPoolExecutor(workers) as pool:
        for done, (sample, result) in enumerate(zip(samples, pool.map(one, samples), strict=True)):
            if isinstance(result, ImageError):
                problems.append(Problem(str(sample.path), result.reason))
            else:
                for side, made in zip(sides, result[0], strict=True):
                    pixels[side][len(kept)] = made
                kept.append(sample)
                sizes.append(result[1])
            progress(done + 1, len(samples))
    return Pictures(kept, {side: every[: len(kept)] for side, every in pixels.items()}, sizes)


def check_memory(bytes_needed: int) -> None:
    """Refuse what would not fit, before any of it is read.

    Raises:
        StudyError: It is more than half of this machine's memory.
    """
    try:
        there = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return
    if bytes_needed > _MOST_MEMORY * there:
        raise StudyError(
            f"the pictures would take {bytes_needed / 2**30:.1f} GB of {there / 2**30:.1f}: "
            "take a smaller --size or --limit"
        )
