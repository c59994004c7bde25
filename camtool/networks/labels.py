"""Class labels: where they come from, and which class a user means."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Sequence
from pathlib import Path

from camtool.errors import ModelError, TargetError


def read_labels(path: Path, classes: int) -> tuple[str, ...]:
    """Labels from a file: one a line, or a JSON list, or a JSON object from index to label.

    Args:
        path: The file, UTF-8. ImageNet's ``{"0": ["n01440764", "tench"]}`` is understood too.
        classes: How many the network has.

    Raises:
        ModelError: The file can't be read, or holds another number of labels.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ModelError(f"{path}: labels can't be read ({error})") from None
    labels = _parse(path, text)
    if len(labels) != classes:
        raise ModelError(f"{path}: has {len(labels)} labels, the network has {classes} classes")
    return labels


def _parse(path: Path, text: str) -> tuple[str, ...]:
    if path.suffix.lower() != ".json":
        lines = [line.strip() for line in text.splitlines()]
        while lines and not lines[-1]:
            lines.pop()
        return tuple(lines)
    try:
        value = json.loads(text)
    except ValueError as error:
        raise ModelError(f"{path}: is not JSON ({error})") from None
    if isinstance(value, dict):
        value = _from_mapping(path, value)
    if not isinstance(value, list) or [] in value:
        raise ModelError(f"{path}: must hold a list of labels, or an object from index to label")
    return tuple(str(item[-1] if isinstance(item, list) else item) for item in value)


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
    wanted = _normal(str(target))
    names = [_normal(label) for label in labels]
    is_index = isinstance(target, int) or re.fullmatch(r"-?\d+", target.strip()) is not None
    if is_index and wanted not in names:
        index = int(target)
        if not 0 <= index < len(labels):
            raise TargetError(f"class {index} is not in 0..{len(labels) - 1}")
        return index
    if isinstance(target, int):
        return target if 0 <= target < len(labels) else names.index(wanted)
    for found in _matches(wanted, names):
        if len(found) == 1:
            return found[0]
        if found:
            some = ", ".join(f"{i} {labels[i]!r}" for i in found[:10])
            more = ", …" if len(found) > 10 else ""
            raise TargetError(f"label {target!r} matches {len(found)} classes: {some}{more}")
    near = difflib.get_close_matches(wanted, names, n=5, cutoff=0.0)
    listed = ", ".join(f"{names.index(name)} {labels[names.index(name)]!r}" for name in near)
    raise TargetError(f"no class is called {target!r}; the nearest are {listed}")


def _matches(wanted: str, names: list[str]) -> list[list[int]]:
    """Classes that match whole, by a synonym, and by whole words, in this order."""
    whole = [i for i, name in enumerate(names) if name == wanted]
    synonym = [i for i, name in enumerate(names) if wanted in name.split(", ")]
    words = re.compile(rf"(?<!\w){re.escape(wanted)}(?!\w)") if wanted else None
    within = [i for i, name in enumerate(names) if words and words.search(name)]
    return [whole, synonym, within]


def _normal(label: str) -> str:
    return " ".join(label.lower().replace("_", " ").replace("-", " ").split())
