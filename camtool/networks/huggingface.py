"""Hugging Face's image classifiers: "hf/NAME" on the hub, or a folder that holds one."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from torch import nn

from camtool.errors import ModelError
from camtool.networks import hub
from camtool.networks.fitting import fit
from camtool.networks.labels import read_text
from camtool.networks.preprocessing import Preprocessing
from camtool.networks.source import RANDOM, Network, Published, synsets_of
from camtool.networks.state import check_pickle, is_there, line_of, read_state, shown

PREFIX = "hf/"
PROCESSOR = "preprocessor_config.json"

_PARTS = "model.safetensors.index.json"
_WEIGHTS = ("model.safetensors", "pytorch_model.bin", _PARTS)

_RESAMPLING = ("nearest", "lanczos", "bilinear", "bicubic")
"""By Pillow's numbers; those above are of filters that no known model uses."""


def takes(name: str) -> bool:
    """Whether a name is "hf/NAME", or a folder with a `config.json`."""
    return name.startswith(PREFIX) or is_there(Path(name) / "config.json")


def names() -> tuple[str, ...]:
    """None: the hub alone knows them."""
    return ()


def published(name: str) -> Sequence[Published]:
    """The one file of weights, where it is one."""
    folder = _local(name)
    if folder is not None:
        here = _first(folder)
    else:
        here = hub.cached_on_hugging_face(_repository(name), *_WEIGHTS)
    return [Published("main", None, here)]


def fetch(name: str, weights: str | None, offline: bool) -> Path:
    """The file of weights (of several, their index), with what it takes to load it."""
    if weights not in (None, "main"):
        raise ModelError(f"{name} has no weights called {weights!r}; a revision is {name}@REVISION")
    folder = _folder(name, offline)
    path = _first(folder) if _local(name) is not None else _fetch(name, offline, *_WEIGHTS)
    if path is None:
        raise ModelError(f"{name}: holds none of {', '.join(_WEIGHTS)}")
    if path.name == _PARTS and _local(name) is None:
        for file in sorted(set(_json(path).get("weight_map", {}).values())):
            _fetch(name, offline, str(file))
    return path


def load(name: str, weights: str | Path | None, offline: bool = False) -> Network:
    """An image classifier with its published weights, or with those of a file."""
    if isinstance(weights, Path):
        folder = _folder(name, offline)

        def build(classes: int | None = None, channels: int | None = None) -> nn.Module:
            return _from_config(name, folder, num_labels=classes, num_channels=channels)

        module, notes = fit(build, read_state(weights), str(weights), name)
        return _network(module, name, folder, str(weights), hub.sha256(weights), notes)
    path = fetch(name, weights, offline)
    if path.suffix == ".bin":
        check_pickle(path)
    module, notes = _from_pretrained(name, path.parent)
    # An index is the same whatever the files hold that it lists.
    digest = None if path.name == _PARTS else hub.sha256(path)
    return _network(module, name, path.parent, str(path), digest, notes)


def random(name: str, offline: bool = False) -> Network:
    """The architecture that a `config.json` describes, with random weights."""
    folder = _folder(name, offline)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return _network(_from_config(name, folder), name, folder, RANDOM, None)


def _network(
    module: nn.Module,
    name: str,
    folder: Path,
    weights: str,
    digest: str | None,
    notes: tuple[str, ...] = (),
) -> Network:
    spec, labels, more = facts(module, folder)
    module = module.float().eval().requires_grad_(False)
    synsets = synsets_of(labels)
    return Network(module, name, weights, digest, labels, spec, synsets, notes=notes + more)


def _local(name: str) -> Path | None:
    """The folder that a name is, or that it names behind "hf/"."""
    folder = Path(name.removeprefix(PREFIX))
    return folder if is_there(folder / "config.json") else None


def _repository(name: str) -> str:
    return name.removeprefix(PREFIX).strip("/")


def _folder(name: str, offline: bool) -> Path:
    """The folder that holds a network's `config.json`, and its processor's if there is one.

    Raises:
        ModelError: There is none, or it is of a network that does not classify.
    """
    if (folder := _local(name)) is not None:
        _check_task(name, folder)
        return folder
    config = _fetch(name, offline, "config.json")
    if config is None:
        raise ModelError(f"{name}: holds no config.json, so it is no model of transformers")
    # It is missed, not needed: without it a line says what is assumed.
    with suppress(ModelError):
        _fetch(name, offline, PROCESSOR)
    _check_task(name, config.parent)
    return config.parent


def _check_task(name: str, folder: Path) -> None:
    named = _json(folder / "config.json").get("architectures")
    for one in map(str, named if isinstance(named, list) else []):
        if one.endswith(("ObjectDetection", "Segmentation")):
            raise ModelError(
                f"{name}: is a {one}, which does not classify pictures; one whose config.json "
                "names …ForImageClassification would work"
            )


def _fetch(name: str, offline: bool, *files: str) -> Path | None:
    try:
        import huggingface_hub  # noqa: F401
    except ImportError:
        raise _lacking() from None
    return hub.fetch_from_hugging_face(_repository(name), *files, name=name, offline=offline)


def _first(folder: Path) -> Path | None:
    """The file of weights in a folder."""
    return next((folder / file for file in _WEIGHTS if is_there(folder / file)), None)


def _lacking() -> ModelError:
    return ModelError("hf/… needs transformers: pip install 'camtool[hf]'")


def _json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(read_text(path))
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{path}: is not JSON ({line_of(error)})") from None
    if not isinstance(value, dict):
        raise ModelError(f"{path}: must hold a JSON object")
    return value


def _from_config(name: str, folder: Path, **options: int | None) -> nn.Module:
    given = {key: value for key, value in options.items() if value is not None}
    with _transformers(name) as transformers:
        config = transformers.AutoConfig.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False, **given
        )
        module: nn.Module = transformers.AutoModelForImageClassification.from_config(config)
    return module


def _from_pretrained(name: str, folder: Path) -> tuple[nn.Module, tuple[str, ...]]:
    with _transformers(name) as transformers:
        module, report = transformers.AutoModelForImageClassification.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False, output_loading_info=True
        )
    if missing := sorted(map(str, report["missing_keys"])):
        raise ModelError(
            f"{name}: holds no weights for {shown(missing)}; a model is needed that was trained "
            "to classify"
        )
    extra = sorted(map(str, report["unexpected_keys"]))
    left = f"left out, as the architecture has no place for it: {shown(extra)}"
    return module, (left,) if extra else ()


@contextmanager
def _transformers(name: str) -> Iterator[Any]:
    """The library, quiet inside, its errors as one line."""
    try:
        import transformers
    except ImportError:
        raise _lacking() from None
    logging: Any = transformers.utils.logging
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield transformers
    except Exception as error:
        raise ModelError(f"{name}: transformers can't load it ({line_of(error)})") from None
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


def facts(
    module: nn.Module, folder: Path | None = None
) -> tuple[Preprocessing, tuple[str, ...], tuple[str, ...]]:
    """What a module with a `config` expects of its input, its labels, and what was assumed.

    Args:
        module: One of transformers'.
        folder: Where its image processor's configuration may lie; None to look where the module
            itself was loaded from, without any download.
    """
    config: Any = module.config
    labels = _labels(config.id2label)
    processor = _processor(str(getattr(config, "_name_or_path", "")), folder)
    if processor is not None:
        try:
            return _preprocessing(_json(processor)), labels, ()
        except (TypeError, ValueError, ZeroDivisionError, LookupError) as error:
            raise ModelError(f"{processor}: is no image processor's ({line_of(error)})") from None
    size = getattr(config, "image_size", None)
    spec = Preprocessing(size, size) if isinstance(size, int) else Preprocessing()
    note = f"no {PROCESSOR} is at hand; ImageNet's mean and deviation are taken"
    return spec, labels, (note,)


def _processor(origin: str, folder: Path | None) -> Path | None:
    if folder is None and not origin:
        return None
    if folder is None and not is_there(Path(origin) / "config.json"):
        return hub.cached_on_hugging_face(origin, PROCESSOR)
    path = (folder or Path(origin)) / PROCESSOR
    return path if is_there(path) else None


def _labels(named: Mapping[Any, Any]) -> tuple[str, ...]:
    """`id2label` in order; empty where it has gaps, or holds transformers' placeholders."""
    by_index = {str(index): str(label) for index, label in named.items()}
    labels = tuple(by_index.get(str(index), "") for index in range(len(by_index)))
    known = all(labels) and not all(re.fullmatch(r"LABEL_\d+", label) for label in labels)
    return labels if known else ()


def _preprocessing(record: Mapping[str, Any]) -> Preprocessing:
    """What an image processor does, from its JSON.

    It resizes to `size`: one number or "shortest_edge" keeps the aspect, height and width do not.
    Then it may cut out `crop_size`; ConvNeXt's says the share that is cut, below 384 pixels.
    """
    size = _side(record["size"])
    crop, share = record.get("crop_size"), record.get("crop_pct")
    resize = size
    if crop and record.get("do_center_crop"):
        size = _side(crop)
    elif share and size < 384:
        resize = int(size / share)
    # It subtracts from values that it scaled; ours are in 0..1.
    scale = 255 * record.get("rescale_factor", 1 / 255) if record.get("do_rescale", True) else 255
    offset = 1.0 if record.get("rescale_offset") else 0.0
    normalised = record.get("do_normalize", True)
    mean = record["image_mean"] if normalised else [0.0] * 3
    std = record["image_std"] if normalised else [1.0] * 3
    return Preprocessing(
        size=size,
        resize=resize,
        mean=tuple((value + offset) / scale for value in mean),
        std=tuple(value / scale for value in std),
        interpolation=_RESAMPLING[int(record.get("resample", 2))],
    )


def _side(size: int | Mapping[str, int]) -> int:
    if isinstance(size, Mapping):
        return int(size.get("shortest_edge") or size["height"])
    return int(size)
