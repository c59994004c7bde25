"""A user's checkpoint: read without running code, and fitted to an architecture."""

from __future__ import annotations

import pickle
import re
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from camtool.errors import ModelError

State: TypeAlias = dict[str, Tensor]
Factory: TypeAlias = "Callable[[int | None, State], nn.Module]"
"""Builds an architecture for a number of classes (None: its own), given the tensors at hand."""

NESTS = ("state_dict", "model_state_dict", "model", "ema", "model_ema", "state_dict_ema")
"""Keys under which training scripts keep the state dict, in the order in which they are tried."""

_BOOKKEEPING = {"n_averaged"}

_RENAMED = (
    (re.compile(r"\b(norm|conv)\.([12])\."), r"\1\2."),
    (re.compile(r"\bmlp\.linear_1\."), "mlp.0."),
    (re.compile(r"\bmlp\.linear_2\."), "mlp.3."),
)
"""Parts that torchvision renamed after it published weights: of DenseNet, and of ViT."""


def read_state(path: Path) -> State:
    """The state dict in a `.safetensors`, `.pth` or `.pt` file, recognised by content.

    Args:
        path: The file. A pickle is read with `weights_only=True` and nothing else.

    Returns:
        Tensors by name, on the CPU, as they are named in the file.

    Raises:
        ModelError: No such file, damaged, needs code to be run, or holds no state dict.
    """
    if not path.is_file():
        raise ModelError(f"{path}: no such weights file")
    content = _read_safetensors(path) if _is_safetensors(path) else _read_pickle(path)
    state = _unwrap(content)
    if not state:
        raise ModelError(f"{path}: holds no state dict (tensors by name), {_describe(content)}")
    return state


def _is_safetensors(path: Path) -> bool:
    """A safetensors file begins with the length of its JSON header, then that header."""
    with path.open("rb") as stream:
        start = stream.read(9)
    return start[8:] == b"{" and not start.startswith(b"PK")


def _read_safetensors(path: Path) -> State:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return dict(load_file(path))
    except (SafetensorError, OSError, ValueError) as error:
        raise ModelError(f"{path}: is a damaged safetensors file ({error})") from None


def _read_pickle(path: Path) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        reason = re.search(r"(?:GLOBAL|global|class|function) ([\w.]+)", str(error))
        what = f" ({reason.group(1)})" if reason else ""
        if not _looks_like_pickle(path):
            raise ModelError(f"{path}: is not a weights file, or damaged") from None
        raise ModelError(
            f"{path}: refused, because loading it would run code that comes with it{what}; save "
            "the state dict instead: torch.save(model.state_dict(), 'weights.pth')"
        ) from None
    except Exception as error:
        # The unpickler trips over damaged bytes in any way there is.
        first = (str(error).splitlines() or [""])[0]
        raise ModelError(f"{path}: is not a weights file, or damaged ({first})") from None


def _looks_like_pickle(path: Path) -> bool:
    with path.open("rb") as stream:
        start = stream.read(2)
    return start in (b"PK", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")


def _unwrap(content: Any) -> State:
    if not isinstance(content, Mapping):
        return {}
    for key in NESTS:
        inner = content.get(key)
        if isinstance(inner, Mapping) and (state := _unwrap(inner)):
            return state
    return {
        str(key): value
        for key, value in content.items()
        if isinstance(value, Tensor) and key not in _BOOKKEEPING
    }


def _describe(content: Any) -> str:
    if isinstance(content, Mapping):
        return "but an object with the keys " + (", ".join(map(str, list(content)[:8])) or "none")
    return f"but a {type(content).__name__}"


def build_from_state(factory: Factory, state: State, origin: str) -> nn.Module:
    """An architecture with the tensors of a checkpoint, its head built to fit them.

    Prefixes such as `module.`, `model.` or `backbone.` are dropped where the rest is a name of
    the architecture. Tensors keep the architecture's dtype (float32).

    Args:
        factory: Builds the architecture.
        state: Tensors by name.
        origin: What to call the file in errors.

    Raises:
        ModelError: Names are missing or left over, or shapes differ; lists them.
    """
    module = factory(None, state)
    wanted = module.state_dict()
    state = strip_prefixes(state, wanted)
    classes = _other_classes(state, wanted)
    if classes is not None:
        module = factory(classes, state)
        wanted = module.state_dict()
    _check(state, wanted, origin)
    # The names fit by now, so the tensors are in the layout of the architecture as it is today;
    # MNASNet refuses a state dict that does not say so.
    fitting = OrderedDict((key, value.to(wanted[key].dtype)) for key, value in state.items())
    fitting._metadata = getattr(wanted, "_metadata", {})  # type: ignore[attr-defined]
    module.load_state_dict(fitting, assign=True)
    _materialise(module, factory, classes, state)
    return module.requires_grad_(False).eval()


def strip_prefixes(state: State, wanted: Iterable[str]) -> State:
    """Names with leading parts dropped until the rest is a name that is wanted."""
    wanted = set(wanted)
    renamed: State = {}
    for key, value in state.items():
        name = next((name for name in _names_for(key) if name in wanted), key)
        renamed[key if name in renamed else name] = value
    return renamed


def _names_for(key: str) -> Iterator[str]:
    """The name, then it without its leading parts; each as it is, and as parts were renamed."""
    spellings = [key, *(pattern.sub(new, key) for pattern, new in _RENAMED if pattern.search(key))]
    parts = key.count(".") + 1
    for dropped in range(parts):
        for spelling in spellings:
            yield spelling.split(".", dropped)[-1]


def _other_classes(state: State, wanted: State) -> int | None:
    """The number of classes in the file if it differs and nothing else does."""
    differing = [
        (state[key].shape, tensor.shape)
        for key, tensor in wanted.items()
        if key in state and state[key].shape != tensor.shape
    ]
    sizes = {(have[:1], want[:1]) for have, want in differing}
    if len(sizes) == 1 and all(have[1:] == want[1:] for have, want in differing):
        return int(differing[0][0][0])
    return None


def _check(state: State, wanted: State, origin: str) -> None:
    optional = {key for key in wanted if key.endswith("num_batches_tracked")}
    problems = [
        ("missing", sorted(wanted.keys() - state.keys() - optional)),
        ("left over", sorted(state.keys() - wanted.keys())),
        (
            "of another shape",
            [
                f"{key} {tuple(state[key].shape)} for {tuple(tensor.shape)}"
                for key, tensor in wanted.items()
                if key in state and state[key].shape != tensor.shape
            ],
        ),
    ]
    told = [f"{len(keys)} {what}: {_some(keys)}" for what, keys in problems if keys]
    if told:
        raise ModelError(f"{origin}: does not fit the architecture; " + "; ".join(told))
    for key in optional - state.keys():
        state[key] = torch.zeros(wanted[key].shape, dtype=wanted[key].dtype)


def _some(keys: list[str]) -> str:
    return ", ".join(keys[:20]) + (f" and {len(keys) - 20} more" if len(keys) > 20 else "")


def _materialise(module: nn.Module, factory: Factory, classes: int | None, state: State) -> None:
    """Fill buffers that no checkpoint holds; an architecture made on `meta` lacks them."""
    lacking = [name for name, buffer in module.named_buffers() if buffer.is_meta]
    if not lacking:
        return
    with torch.device("cpu"):
        built = dict(factory(classes, state).named_buffers())
    for name in lacking:
        parent, _, leaf = name.rpartition(".")
        setattr(module.get_submodule(parent), leaf, built[name])
