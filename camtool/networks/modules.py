"""A module that a caller made: used as it is, with what it says of itself."""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from camtool.errors import HeadError
from camtool.networks import huggingface, timm
from camtool.networks.preprocessing import Preprocessing
from camtool.networks.source import Network, synsets_of


def given(module: nn.Module) -> Network:
    """A module as a network, prepared for as timm's and transformers' records in it say."""
    inner: nn.Module = getattr(module, "_orig_mod", module)
    spec, labels, notes = _facts(inner)
    name = type(inner).__name__
    return Network(module, name, "as given", None, labels, spec, synsets_of(labels), notes=notes)


def answering(module: nn.Module, output: int | str) -> nn.Module:
    """A network of several outputs that gives one of them alone.

    Args:
        module: It shares everything with the result, and is itself not changed.
        output: Which one: a number, or a name.

    Returns:
        The network; it raises `HeadError` where it runs and there is no such output.
    """
    one = copy.copy(module)
    one._forward_hooks = OrderedDict(module._forward_hooks)
    one.register_forward_hook(lambda _module, _inputs, outputs: _taken(outputs, output))
    return one


def _taken(outputs: Any, wanted: int | str) -> Tensor:
    there: Mapping[Any, Any]
    if isinstance(outputs, (tuple, list)):
        there = {**dict(enumerate(outputs)), **getattr(outputs, "_asdict", dict)()}
    else:
        there = outputs if isinstance(outputs, Mapping) else getattr(outputs, "__dict__", {})
    found = there.get(wanted)
    if isinstance(found, Tensor):
        return found
    names = [repr(name) for name, value in there.items() if isinstance(value, Tensor)]
    raise HeadError(f"the network has no output {wanted!r}, but {', '.join(names) or 'one alone'}")


def _facts(module: nn.Module) -> tuple[Preprocessing, tuple[str, ...], tuple[str, ...]]:
    if (found := timm.facts(module)) is not None:
        return *found, ()
    config = getattr(module, "config", None)
    if isinstance(getattr(config, "id2label", None), Mapping):
        return huggingface.facts(module)
    return Preprocessing(), (), ()
