"""The writer and the scripts agree on the names of the page's data."""

from __future__ import annotations

import re
from importlib.resources import files

import pytest

from camtool.report.page import SCRIPTS
from camtool.report.schema import KINDS, RECORDS, ClassMap, ClassSummary, Label, Picture

CODE = "\n".join(files("camtool.report").joinpath(name).read_text("utf-8") for name in SCRIPTS)
ADDED = {"top", "text", "actual", "contrast", "wrong", "truthLabel", "predictedLabel"}
"""What the scripts add to a picture; to a class they add what its label says."""


def test_records_are_named_in_order_and_nested():
    assert list(RECORDS["ClassMap"]) == list(ClassMap._fields)
    assert RECORDS["Picture"]["classes"] == "ClassMap"
    assert {kind for fields in RECORDS.values() for kind in fields.values()} - set(RECORDS) == {
        None
    }


@pytest.mark.parametrize("kind", KINDS)
def test_the_scripts_use_every_field(kind):
    for name in kind._fields:
        assert re.search(rf"(\.|[{{,] ?){name}\b", CODE), name


@pytest.mark.parametrize(
    ("variable", "fields"),
    [
        ("picture", {*Picture._fields, *ADDED}),
        ("row", {*ClassMap._fields, *ClassSummary._fields, *Label._fields}),
    ],
)
def test_the_scripts_read_no_other_field(variable, fields):
    read = set(re.findall(rf"(?<![.\w]){variable}\.(\w+)", CODE))
    assert read
    assert read <= fields
