"""Figures that others published for the same data, to stand beside those measured here.

Accuracies in percent; where a paper gives errors, 100 minus the error. How boxes were taken and
which pictures were measured differs from paper to paper: compare with care.
"""

from __future__ import annotations

PUBLISHED: dict[str, dict[str, str]] = {
    "tiny-imagenet": {"top1_loc_best": "43.34 (infoCAM, 2019)"},
    "imagenet": {
        "top1_loc": "43.60 (GoogLeNet-GAP, Zhou 2016)",
        "top5_loc": "57.00 (GoogLeNet-GAP, Zhou 2016)",
        "max_box_acc_v2": "63.7 (ResNet-50, Choe 2020)",
    },
    "cub": {"max_box_acc_v2": "63.0 (ResNet-50, Choe 2020)"},
}
"""By the name of a data set's format, then by a key of `evaluation.TITLES`."""
