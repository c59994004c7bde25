"""A module that a caller made: used as it is, with what it says of itself."""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

from torch import Tensor, jit, nn
from torch.nn.parameter import is_lazy

from camtool.errors import HeadError, ModelError
from camtool.networks import huggingface, timm
from camtool.networks.preprocessing import Preprocessing
from camtool.networks.source import Network, synsets_of


def given(module: nn.Module) -> Network:
    """A module as a network, prepared for as timm's and transformers' records in it say.

    Raises:
        ModelError: It is a program that can't be watched, or its weights have no values.
    """
    inner: nn.Module = getattr(module, "_orig_mod", module)
    name = type(inner).__name__
    if reason := _unusable(inner):
        raise ModelError(f"{name}: {reason}")
    spec, labels, notes = _facts(inner)
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


def _unusable(module: nn.Module) -> str:
    if any(isinstance(part, jit.ScriptModule) for part in module.modules()):
        return "holds TorchScript, which can't be watched; give the module that it was made from"
    if any(map(is_lazy, module.parameters())):
        return "has lazy layers without weights yet; run it once on a batch"
    if any(parameter.is_meta for parameter in module.parameters()):
        return "has weights without values (they are on `meta`); load them first"
    return ""


def _facts(module: nn.Module) -> tuple[Preprocessing, tuple[str, ...], tuple[str, ...]]:
    if (found := timm.facts(module)) is not None:
        return *found, ()
    config = getattr(module, "config", None)
    if isinstance(getattr(config, "id2label", None), Mapping):
        return huggingface.facts(module)
    return Preprocessing(), (), ()
