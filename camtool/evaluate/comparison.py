"""What a comparison of methods found: typed, as JSON, as CSV, and as rows of a table."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from camtool import __version__
from camtool.evaluate import MetricGroup
from camtool.evaluate.datasets import Problem
from camtool.evaluate.figures import TITLES, Figure
from camtool.evaluate.predictions import MapSettings

COLUMNS: dict[str, tuple[MetricGroup, str]] = {
    "max_box_acc": ("localization", "MaxBoxAcc ↑"),
    "max_box_acc_v2": ("localization", "MaxBoxAccV2 ↑"),
    "pxap": ("localization", "PxAP ↑"),
    "pointing": ("localization", "pointing ↑"),
    "energy": ("localization", "energy ↑"),
    "deletion": ("faithfulness", "deletion ↓"),
    "insertion": ("faithfulness", "insertion ↑"),
    "drop": ("faithfulness", "drop ↓"),
    "increase": ("faithfulness", "increase ↑"),
    "road": ("faithfulness", "ROAD ↑"),
    "adcc": ("faithfulness", "ADCC ↑"),
    "residual": ("faithfulness", "residual ↓"),
    "weights": ("sanity", "other weights ↓"),
    "class": ("sanity", "other class ↓"),
}
"""Columns of the table: the key of a figure, what it belongs to, and its heading."""

NOTE = (
    "Figures in percent with their 95 % intervals; ↑ more is better, ↓ less. Cost: forward passes "
    "to a picture."
)


@dataclass(frozen=True, eq=False)
class Row:
    """One method, or one baseline.

    Attributes:
        name: Of it.
        baseline: Whether it needs no network.
        passes: What it costs, in forward passes; None where that can't be counted.
        figures: By the keys of `COLUMNS` and `TITLES`; those that the data allows.
        sane: Whether it hangs on the weights and on the class; None where that is not measured.
    """

    name: str
    baseline: bool
    passes: float | None
    figures: Mapping[str, Figure]
    sane: bool | None


@dataclass(frozen=True, eq=False)
class Comparison:
    """What a comparison found.

    Attributes:
        settings: Of the network; its method is the first one's.
        data_format: Of the data set.
        images: How many pictures were measured.
        metrics: What was measured.
        rows: Methods in their order, then the baselines.
        problems: What could not be used, named.
    """

    settings: MapSettings
    data_format: str
    images: int
    metrics: tuple[MetricGroup, ...]
    rows: list[Row]
    problems: list[Problem]

    def to_json(self) -> dict[str, Any]:
        """The document of methods.json."""
        model = {k: v for k, v in self.settings.to_json().items() if k not in ("method", "layer")}
        return {
            "camtool": __version__,
            "model": model,
            "format": self.data_format,
            "images": self.images,
            "metrics": list(self.metrics),
            "methods": [_record(row) for row in self.rows],
            "problems": [problem._asdict() for problem in self.problems],
        }

    def columns(self, metrics: tuple[MetricGroup, ...]) -> list[str]:
        """Keys of the figures that a table of some metrics shows."""
        seen = {name for row in self.rows for name in row.figures}
        return [name for name, (group, _) in COLUMNS.items() if name in seen and group in metrics]

    def table(self, metrics: tuple[MetricGroup, ...] | None = None) -> list[tuple[str, ...]]:
        """The figures of all metrics, or of some, as text, headings first: 63.5 (60.1 to 66.0)."""
        metrics = metrics or self.metrics
        columns = self.columns(metrics)
        sane = "sanity" in metrics
        headings = ("method", "cost", *(COLUMNS[name][1] for name in columns))
        rows = [(*headings, "sane") if sane else headings]
        for row in self.rows:
            figures = (_text(row.figures.get(name)) for name in columns)
            verdict = () if not sane else ("yes" if row.sane else "no",)
            rows.append((row.name, _cost(row.passes), *figures, *verdict))
        return rows

    def to_csv(self) -> str:
        """One line for each row and figure: method, baseline, passes, metric, value, low, high."""
        stream = io.StringIO()
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(("method", "baseline", "passes", "metric", "value", "low", "high"))
        writer.writerows(self._lines())
        return stream.getvalue()

    def to_markdown(self) -> str:
        """The table as Markdown, in a part for each of the metrics: a page is not wider."""
        return "\n".join(_markdown(self.table((group,))) for group in self.metrics)

    def _lines(self) -> Iterator[tuple[object, ...]]:
        for row in self.rows:
            for name, figure in _ordered(row).items():
                yield (
                    row.name, row.baseline, row.passes, name, figure.value, figure.low, figure.high
                )  # fmt: skip


def _markdown(table: list[tuple[str, ...]]) -> str:
    headings, *rows = table
    lines = [headings, ("---", *("---:" for _ in headings[1:])), *rows]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def _ordered(row: Row) -> dict[str, Figure]:
    names = dict.fromkeys((*TITLES, *COLUMNS))
    return {name: row.figures[name] for name in names if name in row.figures}


def _record(row: Row) -> dict[str, Any]:
    return {
        "name": row.name,
        "baseline": row.baseline,
        "passes": row.passes,
        "sane": row.sane,
        "figures": {
            name: {"value": figure.value, "low": figure.low, "high": figure.high}
            for name, figure in _ordered(row).items()
        },
    }


def _text(figure: Figure | None) -> str:
    if figure is None:
        return ""
    return f"{_number(figure.value)} ({_number(figure.low)} to {_number(figure.high)})"


def _number(value: float) -> str:
    """One digit behind the point, but what is small and not nothing shows."""
    return f"{value:.1f}" if value == 0 or abs(value) >= 0.05 else f"{value:.1g}"


def _cost(passes: float | None) -> str:
    if passes is None:
        return ""
    return f"{passes:.1f}" if passes < 100 else f"{passes:,.0f}"
