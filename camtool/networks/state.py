"""A state dict from a file: read without running code, and only where it is known to fit."""

from __future__ import annotations

import io
import os
import pickle
import pickletools
import re
import sys
import warnings
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias

import torch
from torch import Tensor

from camtool.errors import ModelError

State: TypeAlias = dict[str, Tensor]

NESTS = ("state_dict", "model_state_dict", "model", "ema", "model_ema", "state_dict_ema")
"""Keys under which training scripts keep the state dict, in the order in which they are tried."""

MAX_NESTS = 4
"""Mappings inside one another in which a state dict is looked for; scripts nest two at most, and
a file whose dictionaries hold themselves would be looked through for ever."""

MAX_INFLATION = 16
"""What a file holds may take this many times its size in memory. torch does not compress, and
weights hardly can be; pruned ones, nine of ten zeros, were seen to shrink to a sixth."""

FREE_INFLATION = 1 << 28
"""Bytes (256 MiB) that a file of any size may unpack to: no machine that runs torch minds."""

MAX_DEPTH = 100
"""Tuples inside one another in a pickle. A state dict has four; hashing a tuple of a million
levels, a file of one megabyte, overflows the C stack and takes the process down."""

_BOOKKEEPING = re.compile(r"(^|\.)(n_averaged|total_ops|total_params)$")
"""What is no weight: torch's averaging and the counter of operations thop leave it behind."""

_LEGACY = 0x1950A86A20F9469CFC6C
"""The number with which torch.save began before torch 1.6; five pickles follow one another."""

_FOREIGN = {
    b"\x89HDF": "an HDF5 file, as Keras writes it",
    b"version https://git-lfs": "a pointer to Git LFS, not the file; run `git lfs pull`",
    b"<!doctype": "a web page",
    b"<html": "a web page",
    b"GGUF": "a GGUF file, of a language model",
    b"\x93NUMPY": "a NumPy array",
}
"""Other files that are taken for weights, by their first bytes."""

_SAVE_AGAIN = "save the state dict instead: torch.save(model.state_dict(), 'weights.pth')"


def read_state(path: Path) -> State:
    """The state dict in a `.safetensors`, `.pth` or `.pt` file, recognised by content.

    Args:
        path: The file. A pickle is read with `weights_only=True` and nothing else.

    Returns:
        Tensors by name, strided, on the CPU, as they are named in the file.

    Raises:
        ModelError: No such file, damaged, needs code to be run, unpacks to more than
            `MAX_INFLATION` allows, or holds no state dict.
    """
    start = _start(path)
    # A safetensors file begins with the length of its JSON header, below 4 GiB in 8 bytes.
    if start[4:9] == b"\0\0\0\0{":
        content = _read_safetensors(path)
    else:
        _check_foreign(path, start)
        content = _read_pickle(path)
    state = _unwrap(content, MAX_NESTS)
    if not state:
        raise ModelError(f"{path}: holds no state dict (tensors by name), {_describe(content)}")
    _check_tensors(path, state)
    return state


def is_there(path: Path) -> bool:
    """Whether a path is a regular file's; what no system would take for a path is none."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def safetensors_metadata(path: Path) -> dict[str, str]:
    """What a safetensors file says of itself; empty for any other file."""
    from safetensors import SafetensorError, safe_open

    if not is_there(path):
        return {}
    try:
        with safe_open(path, framework="pt") as file:
            return dict(file.metadata() or {})
    except (SafetensorError, OSError, ValueError):
        return {}


def _start(path: Path) -> bytes:
    """The first bytes of a regular file; a pipe or a device would be waited on for ever."""
    if not is_there(path):
        what = "is no regular file" if path.exists() else "no such weights file"
        raise ModelError(f"{path}: {what}")
    try:
        with path.open("rb") as stream:
            return stream.read(32)
    except OSError as error:
        raise ModelError(f"{path}: can't be read ({error.strerror})") from None


def _check_foreign(path: Path, start: bytes) -> None:
    for signature, what in _FOREIGN.items():
        if start.lower().startswith(signature.lower()):
            raise ModelError(f"{path}: is {what}; a state dict (.pth, .safetensors) is needed")


def _read_safetensors(path: Path) -> State:
    from safetensors.torch import load_file

    _check_size(path, path.stat().st_size)
    try:
        return dict(load_file(path))
    except Exception as error:
        # Its own kind, and KeyError for a number format that torch does not know.
        raise ModelError(f"{path}: is a damaged safetensors file ({line_of(error)})") from None


def _read_pickle(path: Path) -> Any:
    check_pickle(path)
    try:
        # By its content, not by its ending: torch takes a path for safetensors by that alone.
        with path.open("rb") as stream, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.load(stream, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ModelError(f"{path}: {_refusal(str(error))}") from None
    except Exception as error:
        raise _damaged(path, error) from None


def check_pickle(path: Path) -> None:
    """Look through a file of torch's before anything in it is unpickled.

    Raises:
        ModelError: It is damaged, a program, too large unpacked, or too deep.
    """
    try:
        with path.open("rb") as stream:
            if stream.read(2) == b"PK":
                _check_archive(path)
            else:
                stream.seek(0)
                _check_pickles(path, stream)
    except ModelError:
        raise
    except Exception as error:
        raise _damaged(path, error) from None


def _damaged(path: Path, error: Exception) -> ModelError:
    """For whatever way there is in which damaged bytes trip a reader."""
    return ModelError(f"{path}: is not a weights file, or damaged ({line_of(error)})")


def _refusal(message: str) -> str:
    """Why torch's unpickler, which runs no code, refuses a pickle that is none the worse."""
    if "Unsupported operand" in message:
        return (
            "is pickled by another protocol than torch's own (2), the one that can be read without "
            f"running code; {_SAVE_AGAIN}"
        )
    reason = re.search(r"(?:GLOBAL|global|class|function) ([\w.]+)", message)
    what = f" ({reason.group(1)})" if reason else ""
    return f"refused, because loading it would run code that comes with it{what}; {_SAVE_AGAIN}"


def _check_archive(path: Path) -> None:
    """Look through a zip archive's directory before torch unpacks it."""
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
        _check_size(path, sum(entry.file_size for entry in entries))
        names = {entry.filename.rsplit("/", 1)[-1] for entry in entries}
        if "archive_format" in names:
            raise ModelError(
                f"{path}: is a program of torch.export, which is not run; export it as .onnx, or "
                "name the network that it was made from"
            )
        if "constants.pkl" in names:
            raise ModelError(
                f"{path}: is a TorchScript archive, a program; save its weights alone: "
                f"torch.save(torch.jit.load({path.name!r}).state_dict(), 'weights.pth')"
            )
        for entry in entries:
            if entry.filename.rsplit("/", 1)[-1] == "data.pkl":
                _check_depth(path, io.BytesIO(archive.read(entry)))


def _check_pickles(path: Path, stream: BinaryIO) -> None:
    """Look through the pickles in a file that is no archive."""
    if _check_depth(path, stream) == _LEGACY:
        for _ in range(4):
            _check_depth(path, stream)


def _check_depth(path: Path, stream: BinaryIO) -> object:
    """Follow a pickle's stack without making anything; the last simple value in it.

    The stack holds how deep tuples lie inside one another, None for a mark.
    """
    stack: list[int | None] = []
    memo: dict[object, int | None] = {}
    value = None
    for opcode, argument, _ in pickletools.genops(stream):
        value = argument if argument is not None else value
        if opcode.name == "MARK":
            stack.append(None)
        elif opcode.name.endswith(("PUT", "MEMOIZE")):
            memo[len(memo) if argument is None else argument] = stack[-1]
        elif opcode.name.endswith("GET"):
            stack.append(memo[argument])
        else:
            depth = _taken(stack, opcode) + opcode.name.startswith("TUPLE")
            if depth > MAX_DEPTH:
                raise ModelError(f"{path}: is nested more than {MAX_DEPTH} levels deep")
            stack += [depth] * len(opcode.stack_after)
    return value


def _taken(stack: list[int | None], opcode: pickletools.OpcodeInfo) -> int:
    """Take what an opcode takes off the stack; the depth of the deepest."""
    count = len(opcode.stack_before)
    if pickletools.markobject in opcode.stack_before:
        count = opcode.stack_before.index(pickletools.markobject)
        depth = 0
        while (item := stack.pop()) is not None:
            depth = max(depth, item)
    else:
        depth = 0
    return max([depth, *(stack.pop() or 0 for _ in range(count))])


def _check_size(path: Path, needed: int) -> None:
    """Refuse what would not fit, before anything of it is allocated."""
    size = path.stat().st_size
    if needed > max(FREE_INFLATION, MAX_INFLATION * size):
        raise ModelError(
            f"{path}: holds {needed / 1e9:,.1f} GB in a file of {size / 1e6:,.1f} MB; more than "
            f"{MAX_INFLATION} times the file's size is refused"
        )
    if needed > _memory():
        raise ModelError(
            f"{path}: holds {needed / 1e9:,.1f} GB, and this machine has a memory of "
            f"{_memory() / 1e9:,.1f} GB"
        )


def _memory() -> int:
    """Bytes of memory of this machine; no limit where the system doesn't say."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        return sys.maxsize


def _unwrap(content: Any, nests: int) -> State:
    if not isinstance(content, Mapping) or not nests:
        return {}
    for key in NESTS:
        if state := _unwrap(content.get(key), nests - 1):
            return state
    return {
        key: value
        for key, value in content.items()
        if isinstance(key, str) and isinstance(value, Tensor) and not _BOOKKEEPING.search(key)
    }


def _check_tensors(path: Path, state: State) -> None:
    for key, value in state.items():
        if value.layout is not torch.strided or value.is_quantized or value.device.type != "cpu":
            kind = "quantized" if value.is_quantized else f"{value.layout} {value.device.type}"
            raise ModelError(f"{path}: {shown([key])} is a {kind} tensor; only plain ones are read")
    # A stride of 0 makes a storage of one number a tensor of any size.
    _check_size(path, sum(value.numel() * value.element_size() for value in state.values()))


def _describe(content: Any) -> str:
    if isinstance(content, Mapping):
        keys = [key for key in content if isinstance(key, str)]
        return f"but an object with the keys {shown(keys, 8) or 'none'}"
    return f"but a {type(content).__name__}"


def shown(names: Iterable[str], most: int = 3) -> str:
    """The first of some names, as a part of a line: printable, and none too long."""
    known = sorted(names) if not isinstance(names, list) else names
    some = [name if name.isprintable() else ascii(name) for name in known[:most]]
    more = f" and {len(known) - most} more" if len(known) > most else ""
    return ", ".join(name if len(name) <= 80 else name[:79] + "…" for name in some) + more


def line_of(error: Exception) -> str:
    """The first line of an error's message; its kind where it has none."""
    return (str(error).splitlines() or [type(error).__name__])[0]
