"""The embedded network: gapnet, which comes with the package and needs no hub."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from camtool.errors import ModelError
from camtool.networks.checkpoint import read_state
from camtool.networks.gapnet import GapNet, gapnet
from camtool.networks.hub import sha256
from camtool.networks.preprocessing import Preprocessing

FILE = "gapnet-1.safetensors"
SHA256 = "228cc2d3ca92802e6c1d92b256adf2cecb245ddef14d6227d68c0c4de5dd7491"
"""Of the file that this version of the package was released with."""


def embedded_path() -> Path:
    """The weights in an installed package, or in the repository that it runs from."""
    package = Path(__file__).parents[1]
    installed = package / "weights" / FILE
    return installed if installed.exists() else package.parent / "weights" / FILE


def verified_path() -> Path:
    """The embedded weights, checked against their SHA-256.

    Raises:
        ModelError: The file is missing or not the released one.
    """
    path = embedded_path()
    if not path.exists():
        raise ModelError(f"{path}: the embedded network is missing; reinstall camtool")
    if sha256(path) != SHA256:
        raise ModelError(f"{path}: is not the file of this release; reinstall camtool")
    return path


def metadata(path: Path) -> dict[str, Any] | None:
    """What a gapnet file says of itself; None if the file is no gapnet.

    Returns:
        "architecture", "labels", "preprocessing" as parsed JSON, the rest as text.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            facts: dict[str, Any] = dict(file.metadata() or {})
    except (SafetensorError, OSError, ValueError):
        return None
    if facts.get("format") != "camtool-gapnet":
        return None
    for key in {"architecture", "labels", "wnids", "preprocessing"} & facts.keys():
        facts[key] = json.loads(facts[key])
    return facts


def load_gapnet(
    path: Path,
) -> tuple[GapNet, tuple[str, ...], tuple[str, ...], Preprocessing]:
    """A gapnet from its file: the network in float32, labels, WordNet ids, preprocessing.

    Raises:
        ModelError: The file is no gapnet, or damaged.
    """
    facts = metadata(path)
    if facts is None:
        raise ModelError(f"{path}: is no gapnet file")
    module = gapnet(**facts["architecture"])
    state = read_state(path)
    wanted = module.state_dict()
    module.load_state_dict({key: value.to(wanted[key].dtype) for key, value in state.items()})
    spec = facts["preprocessing"]
    preprocessing = Preprocessing(
        size=spec["size"],
        resize=spec.get("resize", spec["size"]),
        mean=tuple(spec["mean"]),
        std=tuple(spec["std"]),
        interpolation=spec["interpolation"],
    )
    names = tuple(facts["labels"]), tuple(facts.get("wnids", ()))
    return module.requires_grad_(False).eval(), *names, preprocessing
