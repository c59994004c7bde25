"""What users can choose from, importable without the libraries that the choices are about."""

from __future__ import annotations

from typing import Literal, TypeAlias

Fit: TypeAlias = Literal["whole", "crop", "squash"]
"""How a picture meets the network: all of it, as it was evaluated, or squashed to a square."""

Dtype: TypeAlias = Literal["float32", "bfloat16", "float16"]
"""Number format of a network's body."""

Interpolation: TypeAlias = Literal["nearest", "bilinear", "bicubic", "lanczos"]
"""How pictures are resized for the network; always antialiased."""

Exactness: TypeAlias = Literal["measure", "require"]
"""Whether maps that do not add up to the logits are told of, or refused."""

Activation: TypeAlias = Literal["auto", "softmax", "sigmoid", "none"]
"""What makes probabilities of logits; "auto" is sigmoid for a single logit, else softmax."""

Rule: TypeAlias = Literal["max", "percentile", "otsu", "ivr"]
"""Where a map is cut: at a share of its maximum, at a share of its pixels, by Otsu 1979, or at a
share of what rises over its 45th percentile."""

Normalize: TypeAlias = Literal["image", "shared", "none"]
"""Where a colour scale ends: at each map's maximum, at that of all, or at a fixed number."""

Colormap: TypeAlias = Literal[
    "inferno", "magma", "plasma", "viridis", "cividis", "turbo", "jet", "blue-red"
]
"""Colour tables; "blue-red" is diverging."""

TruthSource: TypeAlias = Literal["auto", "folder", "none"]
"""Whether a list's targets or the names of sub-folders say what pictures show."""

Kind: TypeAlias = Literal["panel", "overlay", "heatmap", "boxes", "npz", "json", "html"]
"""The files of one explanation."""
