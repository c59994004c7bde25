"""Class labels: where they come from, and which class a user means."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Sequence
from pathlib import Path

from camtool.errors import ModelError, TargetError
from camtool.networks.state import is_there, line_of

MAX_TEXT = 16 << 20
"""Bytes of a file of labels or of JSON: ImageNet's 22,000 labels take one of these 16 MiB."""

MAX_SHOWN = 100
"""Characters of a target that an error repeats and looks for kin of; longer labels are matched
whole all the same."""


def read_text(path: Path) -> str:
    """The text of a small file, UTF-8.

    Raises:
        ModelError: It is no regular file, larger than `MAX_TEXT`, or no UTF-8.
    """
    if not is_there(path):
        what = "is a folder" if path.is_dir() else "is no regular file"
        raise ModelError(f"{path}: can't be read ({what if path.exists() else 'no such file'})")
    try:
        with path.open("rb") as stream:
            content = stream.read(MAX_TEXT + 1)
        if len(content) > MAX_TEXT:
            raise ModelError(f"{path}: is larger than {MAX_TEXT >> 20} MiB")
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ModelError(f"{path}: is no text in UTF-8; save it so") from None
    except OSError as error:
        raise ModelError(f"{path}: can't be read ({error.strerror or error})") from None


def read_labels(path: Path, classes: int) -> tuple[str, ...]:
    """Labels from a file: one a line, or a JSON list, or a JSON object from index to label.

    Args:
        path: The file, UTF-8. ImageNet's ``{"0": ["n01440764", "tench"]}`` is understood too.
        classes: How many the network has.

    Raises:
        ModelError: The file can't be read, or holds another number of labels.
    """
    if path.is_dir():
        raise ModelError(
            f"{path}: is a folder; labels are a file with one a line, or JSON (of sub-folders in "
            f"the order of their names: ls {path} > labels.txt)"
        )
    labels = _parse(path, read_text(path))
    return one_each(labels, classes, f"{path}: has {len(labels)} labels")


def one_each(labels: tuple[str, ...], classes: int, told: str) -> tuple[str, ...]:
    """The labels where there is one for each class; of two for a single logit the second.

    A single logit speaks for the second of two classes, and against the first.

    Raises:
        ModelError: They are of another number; says what was `told` of them.
    """
    if (classes, len(labels)) == (1, 2):
        return labels[1:]
    if len(labels) != classes:
        raise ModelError(f"{told}, the network has {classes} classes")
    return labels


def _parse(path: Path, text: str) -> tuple[str, ...]:
    if path.suffix.lower() != ".json":
        lines = [line.strip() for line in text.splitlines()]
        while lines and not lines[-1]:
            lines.pop()
        return tuple(lines)
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{path}: is not JSON ({line_of(error)})") from None
    if isinstance(value, dict):
        value = _from_mapping(path, value)
    items = value if isinstance(value, list) and value else [[]]
    labels = [item[-1] if isinstance(item, list) and item else item for item in items]
    if any(isinstance(label, (list, dict)) for label in labels):
        raise ModelError(f"{path}: must hold a list of labels, or an object from index to label")
    return tuple(map(str, labels))


def _from_mapping(path: Path, value: dict[str, object]) -> list[object]:
    """{"0": label} or, as many training scripts save it, {label: 0}."""
    if value and all(isinstance(index, int) for index in value.values()):
        value = {str(index): label for label, index in value.items()}
    try:
        by_index = {int(index): label for index, label in value.items()}
    except ValueError:
        raise ModelError(f"{path}: the keys must be class indices 0..{len(value) - 1}") from None
    if sorted(by_index) != list(range(len(by_index))):
        raise ModelError(f"{path}: the indices must be 0..{len(by_index) - 1} without gaps")
    return [by_index[index] for index in range(len(by_index))]


def resolve_target(target: int | str, labels: Sequence[str]) -> int:
    """The class that a user means by an index or a label.

    A label matches whole, then as one of its synonyms ("tabby" in "tabby, tabby cat"), then as
    whole words in it; case, "_" and "-" don't matter.

    Args:
        target: Index, index as text, or label.
        labels: One for each class.

    Returns:
        The class index.

    Raises:
        TargetError: Nothing or several match.
    """
    if isinstance(target, int):
        if 0 <= target < len(labels):
            return target
        # Python writes no number of more than some thousand digits.
        target = str(target) if abs(target) < 10**MAX_SHOWN else "9" * (MAX_SHOWN + 1)
    wanted, names = plain(target), [plain(label) for label in labels]
    told = target if len(target) <= MAX_SHOWN else target[:MAX_SHOWN] + "…"
    if re.fullmatch(r"-?\d+", target.strip()) and wanted not in names:
        index = int(wanted) if len(wanted) <= MAX_SHOWN and "-" not in target else -1
        if not 0 <= index < len(labels):
            raise TargetError(f"class {told.strip()} is not in 0..{len(labels) - 1}")
        return index
    for found in _matches(wanted, names):
        if len(found) == 1:
            return found[0]
        if found:
            some = ", ".join(f"{i} {labels[i]!r}" for i in found[:10])
            more = ", …" if len(found) > 10 else ""
            raise TargetError(f"label {told!r} matches {len(found)} classes: {some}{more}")
    listed = ", ".join(f"{i} {labels[i]!r}" for i in _near(wanted[:MAX_SHOWN], names))
    raise TargetError(f"no class is called {told!r}; the nearest are {listed}")


def _near(wanted: str, names: list[str], most: int = 5) -> list[int]:
    """Classes one of whose words is spelled like what is wanted, then those with a like name."""
    words: dict[str, list[int]] = {}
    for i, name in enumerate(names):
        for word in re.findall(r"\w+", name):
            words.setdefault(word, []).append(i)
    alike = difflib.get_close_matches(wanted, list(words), n=most, cutoff=0.75)
    whole = difflib.get_close_matches(wanted, names, n=most, cutoff=0.0)
    found = [i for word in alike for i in words[word]] + [names.index(name) for name in whole]
    return list(dict.fromkeys(found))[:most]


def classes_by_name(labels: Sequence[str], synsets: Sequence[str] = ()) -> dict[str, int]:
    """Classes by what a folder of their pictures may be called, as `plain` writes it.

    That is a whole label, one of its synonyms, or a synset; what several classes are called is
    left out.
    """
    named: dict[str, set[int]] = {}
    for index, label in enumerate(labels):
        for name in (label, *label.split(",")):
            named.setdefault(plain(name), set()).add(index)
    found = {name: next(iter(classes)) for name, classes in named.items() if len(classes) == 1}
    return found | {synset: index for index, synset in enumerate(synsets)}


def _matches(wanted: str, names: list[str]) -> list[list[int]]:
    """Classes that match whole, by a synonym, and by whole words, in this order."""
    whole = [i for i, name in enumerate(names) if name == wanted]
    synonym = [i for i, name in enumerate(names) if wanted in name.split(", ")]
    # A pattern of a megabyte takes seconds to compile, and is in no label.
    parts = [i for i, name in enumerate(names) if wanted and wanted in name]
    words = re.compile(rf"(?<!\w){re.escape(wanted)}(?!\w)") if parts else None
    return [whole, synonym, [i for i in parts if words and words.search(names[i])]]


def plain(label: str) -> str:
    """A label without what matters to no one: case, and what parts its words."""
    return " ".join(label.lower().replace("_", " ").replace("-", " ").split())
