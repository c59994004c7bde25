"""Evaluation: how well maps localize, measured against the true boxes or masks of a data set.

A reader of `datasets` gives records; `predictions` has the network's maps for them; `evaluator`
measures these by `metrics` (or by `reference`, the published roundings); `run` is the loop over
them; `results` is what comes out, as typed figures and as JSON; `output` writes it to files.
"""

from __future__ import annotations

from typing import Literal

Mode = Literal["plain", "reference"]
"""How is measured: without roundings, or with the choices of Choe et al. 2020's code."""

DataFormat = Literal["csv", "imagenet", "cub", "pets", "tiny-imagenet", "coco", "wsol"]
"""Formats of data sets that `datasets.read_dataset` reads."""
