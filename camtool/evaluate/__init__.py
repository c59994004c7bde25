"""Evaluation: how well maps localize, and which of them can be trusted.

A reader of `datasets` gives records; `predictions` has the network's maps for them; `evaluator`
measures these by `metrics` (or by `reference`, the published roundings); `run` is the loop over
them; `results` is what comes out, as typed figures and as JSON; `output` writes it to files.
`compare` measures several `ways` to make maps on the same pictures, by `faithfulness` and `sanity`
too, a picture on the `bench` in one of several `lanes`, with randomised `twins`; `comparison` is
what comes out. `calibrate` chooses where maps are cut.
"""

from __future__ import annotations

from typing import Literal

Mode = Literal["plain", "reference"]
"""How is measured: without roundings, or with the choices of Choe et al. 2020's code."""

DataFormat = Literal["csv", "imagenet", "cub", "pets", "tiny-imagenet", "coco", "wsol", "folder"]
"""Formats of data sets that `datasets.read_dataset` reads; "folder" knows no labels or boxes."""

MetricGroup = Literal["localization", "faithfulness", "sanity"]
"""What methods are compared by."""
