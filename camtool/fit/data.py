"""Labelled pictures: a folder by class, or a list with labels; what is wrong with them is told."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

from camtool.errors import ModelError
from camtool.fit.outcome import Form, Problem
from camtool.folder.discovery import Picture, discover, is_directory
from camtool.folder.lists import LISTS, SourceError
from camtool.images import display_name
from camtool.images.read import printable
from camtool.networks.efficientnet_lite0 import imagenet
from camtool.networks.hub import sha256

SEPARATOR = ";"
"""Between the labels of one picture."""


class DataError(ValueError):
    """Data that nothing can be fitted to; the message says what to do."""


@dataclass(frozen=True)
class Labelled:
    """A picture and what it shows.

    Attributes:
        path: The file.
        names: Of its classes; one, or with "sigmoid" any number.
        digest: SHA-256 of the file.
    """

    path: Path
    names: tuple[str, ...]
    digest: bytes = b""


@dataclass
class Found:
    """Pictures that can be used, and what was found to be wrong.

    Attributes:
        pictures: In the order of the source.
        problems: All of them.
        failed: How many pictures can't be read.
    """

    pictures: list[Labelled] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    failed: int = 0

    def problem(self, path: Path | str, reason: str) -> None:
        """Note what somebody should know."""
        self.problems.append(Problem(printable(str(path)), reason))

    def fail(self, path: Path, reason: str) -> None:
        """Note a picture that can't be read."""
        self.failed += 1
        self.problem(path, reason)


class Classes(NamedTuple):
    """The classes of a fit.

    Attributes:
        names: As the data have them, in the order of the logits.
        labels: As people read them.
        synsets: WordNet ids, where all names are some of ImageNet's; else empty.
    """

    names: tuple[str, ...]
    labels: tuple[str, ...]
    synsets: tuple[str, ...]

    def truth(self, picture: Labelled) -> tuple[int, ...]:
        """What a picture shows, by index, in ascending order."""
        return tuple(sorted(self.names.index(name) for name in picture.names))


def read_labelled(source: str, form: Form, exclude: Path) -> Found:
    """Pictures with what they show.

    Labels that differ in case alone are one. Pictures of the same bytes with different labels are
    left out with "softmax"; with "sigmoid" they show what all of them are said to show.

    Args:
        source: A folder with one sub-folder a class; or a list with labels, as for `discover`,
            where with "sigmoid" a picture has any number of them, with ";" between.
        form: Of the answer.
        exclude: A folder inside `source` to leave out.

    Raises:
        DataError: There is no picture with a label.
    """
    listed = not is_directory(Path(source))
    if listed and Path(source).suffix.lower() not in LISTS:
        raise DataError(
            f"{printable(source)}: is no folder by class and no list (.csv) with labels"
        )
    if form == "sigmoid" and not listed:
        raise DataError(
            f"{printable(source)}: is a folder, where a picture has one class; --multi-label takes "
            f"a CSV with the columns path and label, and {SEPARATOR!r} between the labels of one"
        )
    try:
        discovered = discover(source, exclude)
    except SourceError as error:
        raise DataError(str(error)) from None
    found = Found()
    for picture in discovered.pictures:
        if not isinstance(picture.source, Path):
            found.problem(picture.key, "is no file of its own here; left out")
            continue
        names = _listed(picture, form) if listed else _folder_of(picture)
        if names is None:
            where = "the list names no label for it" if listed else "lies in no class's folder"
            found.problem(picture.source, f"{where}; left out")
        else:
            found.pictures.append(Labelled(picture.source, names))
    if discovered.skipped:
        found.problem(source, f"files that are no pictures, left out: {discovered.skipped:,}")
    if discovered.own:
        found.problem(source, f"{discovered.own:,} files are camtool's own; left out")
    if not listed:
        _name_empty(Path(source), exclude, found)
    if not found.pictures:
        raise DataError(f"{printable(source)}: {_nothing(listed)}")
    _merge_case(found)
    _read_digests(found)
    _judge_copies(found, form)
    return found


def _nothing(listed: bool) -> str:
    if listed:
        return "names no picture with a label; a CSV with the columns path and label is needed"
    return "holds no folder with pictures; put the pictures of each class into a folder of its own"


def _listed(picture: Picture, form: Form) -> tuple[str, ...] | None:
    if form == "softmax":
        return (picture.listed.strip(),) if picture.listed else None
    names = (name.strip() for name in (picture.listed or "").split(SEPARATOR))
    return tuple(dict.fromkeys(name for name in names if name))


def _folder_of(picture: Picture) -> tuple[str, ...] | None:
    name, inside, _ = picture.key.partition("/")
    return (name,) if inside else None


def _name_empty(source: Path, exclude: Path, found: Found) -> None:
    """Name the folders that hold no picture."""
    full = {name for picture in found.pictures for name in picture.names}
    for folder in sorted(source.iterdir()):
        hidden = folder.name.startswith(".") or folder.absolute() == exclude.absolute()
        if is_directory(folder) and not hidden and folder.name not in full:
            found.problem(folder, "holds no pictures; the class is left out")


def _merge_case(found: Found) -> None:
    """Take labels that differ in case alone for one: the spelling of the most pictures."""
    counts = Counter(name for picture in found.pictures for name in picture.names)
    spellings: dict[str, list[str]] = defaultdict(list)
    for name in sorted(counts):
        spellings[name.casefold()].append(name)
    chosen: dict[str, str] = {}
    for names in spellings.values():
        best = max(names, key=lambda name: counts[name])
        chosen |= dict.fromkeys(names, best)
        for other in names:
            if other != best:
                told = f"differs from {printable(best)!r} in case alone; taken for the same class"
                found.problem(other, told)
    found.pictures = [
        replace(one, names=tuple(dict.fromkeys(chosen[name] for name in one.names)))
        for one in found.pictures
    ]


def _read_digests(found: Found) -> None:
    pictures, found.pictures = found.pictures, []
    for picture in pictures:
        try:
            digest = bytes.fromhex(sha256(picture.path))
        except ModelError as error:
            found.fail(picture.path, str(error).removeprefix(f"{picture.path}: "))
        else:
            found.pictures.append(replace(picture, digest=digest))


def _judge_copies(found: Found, form: Form) -> None:
    """See to pictures of the same bytes that are said to show different things."""
    copies: dict[bytes, list[Labelled]] = defaultdict(list)
    for picture in found.pictures:
        copies[picture.digest].append(picture)
    united: dict[bytes, tuple[str, ...]] = {}
    for digest, group in copies.items():
        if len({frozenset(picture.names) for picture in group}) > 1:
            united[digest] = tuple(dict.fromkeys(name for one in group for name in one.names))
            for picture in group:
                found.problem(picture.path, _told(picture, group, form))
    kept = found.pictures
    if form == "softmax":
        found.pictures = [picture for picture in kept if picture.digest not in united]
    else:
        found.pictures = [replace(one, names=united.get(one.digest, one.names)) for one in kept]


def _told(picture: Labelled, group: Sequence[Labelled], form: Form) -> str:
    other = next(one for one in group if set(one.names) != set(picture.names))
    names = printable(", ".join(other.names)) or "none"
    decided = "both are left out" if form == "softmax" else "it is taken for all of them"
    return f"is the same picture as {display_name(other.path)}, labelled {names}; {decided}"


def classes_of(pictures: Iterable[Labelled], form: Form, source: str) -> Classes:
    """The classes that pictures show, in the order of their names.

    Raises:
        DataError: They are too few to tell anything apart.
    """
    pictures = list(pictures)
    names = tuple(sorted({name for picture in pictures for name in picture.names}))
    if form == "softmax" and len(names) < 2:
        raise DataError(
            f"{printable(source)}: shows one class alone, {printable(names[0])!r}; put pictures "
            "without it into a second folder, beside it, and call that none"
            if names
            else f"{printable(source)}: holds no picture that can be used"
        )
    always = [name for name in names if all(name in picture.names for picture in pictures)]
    if form == "sigmoid" and (not names or always):
        told = (
            f"every picture shows {printable(always[0])!r}" if always else "no picture has a label"
        )
        raise DataError(f"{printable(source)}: {told}; pictures with it and without it are needed")
    return Classes(names, *_called(names))


def _called(names: tuple[str, ...]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Labels and synsets: ImageNet's, where all names are synsets of it."""
    known: Mapping[str, str] = dict(zip(*reversed(imagenet()), strict=True))
    if all(name in known for name in names):
        return tuple(known[name] for name in names), names
    return names, ()


def known_alone(found: Found, classes: Classes) -> None:
    """Leave out what shows other classes than those that are fitted, and name it."""
    spelled = {name.casefold(): name for name in classes.names}
    pictures, found.pictures = found.pictures, []
    for picture in pictures:
        unknown = [name for name in picture.names if name.casefold() not in spelled]
        if unknown:
            found.problem(picture.path, f"no class is called {printable(unknown[0])!r}; left out")
        else:
            names = tuple(spelled[name.casefold()] for name in picture.names)
            found.pictures.append(replace(picture, names=names))
