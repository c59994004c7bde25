"""At which share of a map's maximum boxes are best cut: one table of several evaluations.

Usage: python benchmarks/threshold.py METRICS.JSON...

Each file is what `camtool evaluate ... -o DIR` writes there. For every threshold the table shows
the share of pictures whose largest region has an IoU of at least 0.5 with a true box, the true
label given, and on the right the mean of the columns, and the least that a column loses against
its own best.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

THRESHOLDS = (0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.5)


def column(document: dict[str, Any]) -> list[float]:
    """Localization in percent, label given, at each of `THRESHOLDS`; then at the best one."""
    curve = document["metrics"]["max_box_acc"]["network"]["curve"]
    last = len(document["thresholds"]) - 1
    return [*(curve[round(threshold * (last + 1))] for threshold in THRESHOLDS), max(curve)]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("metrics", type=Path, nargs="+")
    paths = parser.parse_args().metrics
    documents = [json.loads(path.read_text()) for path in paths]
    columns = [column(document) for document in documents]
    names = [
        f"{document['model']['name']}, {path.parent.name} ({document['images']:,})"
        for path, document in zip(paths, documents, strict=True)
    ]
    print("| threshold | " + " | ".join(names) + " | mean | largest loss |")
    print("|---:|" + "---:|" * (len(names) + 2))
    for number, threshold in enumerate([*THRESHOLDS, None]):
        values = [column[number] for column in columns]
        loss = max(column[-1] - value for column, value in zip(columns, values, strict=True))
        shown = " | ".join(f"{value:.1f}" for value in (*values, sum(values) / len(values), loss))
        print(f"| {'its own best' if threshold is None else f'{threshold:.2f}'} | {shown} |")


if __name__ == "__main__":
    main()
