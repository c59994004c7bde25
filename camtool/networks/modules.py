"""A module that a caller made: used as it is, with what it says of itself."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from camtool.networks import huggingface, timm
from camtool.networks.preprocessing import Preprocessing
from camtool.networks.source import Network, synsets_of


def given(module: nn.Module) -> Network:
    """A module as a network, prepared for as timm's and transformers' records in it say."""
    inner: nn.Module = getattr(module, "_orig_mod", module)
    spec, labels, notes = _facts(inner)
    name = type(inner).__name__
    return Network(module, name, "as given", None, labels, spec, synsets_of(labels), notes=notes)


def _facts(module: nn.Module) -> tuple[Preprocessing, tuple[str, ...], tuple[str, ...]]:
    if (found := timm.facts(module)) is not None:
        return *found, ()
    config = getattr(module, "config", None)
    if isinstance(getattr(config, "id2label", None), Mapping):
        return huggingface.facts(module)
    return Preprocessing(), (), ()
