"""A checkpoint that is named alone: it says itself, or tells by its tensors, what it is."""

from __future__ import annotations

from pathlib import Path

from camtool.errors import ModelError
from camtool.networks import fitted, gapnet, torchvision
from camtool.networks.source import Network, Published
from camtool.networks.state import is_there, read_state


def takes(name: str) -> bool:
    """Whether a name is a file's."""
    return is_there(Path(name))


def names() -> tuple[str, ...]:
    """None: they are a user's own."""
    return ()


def published(name: str) -> tuple[Published, ...]:
    """None."""
    return ()


def fetch(name: str, weights: str | None, offline: bool) -> Path:
    """The file itself."""
    return Path(name)


def load(name: str, weights: str | Path | None, offline: bool = False) -> Network:
    """What `camtool fit` wrote, a gapnet, or the torchvision architecture that the tensors fit."""
    path = Path(name)
    if weights is not None:
        raise ModelError(f"{path} is a checkpoint already; with --weights, --model names a network")
    if fitted.metadata(path) is not None:
        return fitted.load(path)
    if gapnet.metadata(path) is not None:
        return gapnet.load(path)
    state = read_state(path)
    found = torchvision.identify(state)
    if found is None:
        raise ModelError(
            f"{path}: fits no torchvision architecture; name the one it was trained with: "
            f"--model NAME --weights {path.name}"
        )
    return torchvision.from_state(found, path, state)


def random(name: str, offline: bool = False) -> Network:
    """Refused: what the file holds is there already."""
    raise ModelError(f"{name} is a checkpoint; random weights are for an architecture's name")
