"""A graph that was exported with its maps (`camtool export`), run by ONNX Runtime."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from camtool.errors import ModelError
from camtool.networks.hub import sha256
from camtool.networks.preprocessing import Preprocessing
from camtool.networks.source import Network, Published
from camtool.networks.state import is_there, line_of

KEY = "camtool"
"""Under which a graph's metadata say what it is."""
SUFFIXES = (".onnx", ".pt2")


def takes(name: str) -> bool:
    """Whether a name is a graph's file."""
    return name.lower().endswith(SUFFIXES) and is_there(Path(name))


def names() -> tuple[str, ...]:
    """None: they are a user's own."""
    return ()


def published(name: str) -> tuple[Published, ...]:
    """None."""
    return ()


def fetch(name: str, weights: str | None, offline: bool) -> Path:
    """The file itself."""
    return Path(name)


def random(name: str, offline: bool = False) -> Network:
    """Refused: what the file holds is there already."""
    raise ModelError(f"{name} is a graph; random weights are for an architecture's name")


class GraphNetwork(nn.Module):
    """A graph with the outputs "logits" and "maps" as a module.

    Args:
        path: Its file, which is read again where the module is copied or sent.
        running: An ONNX Runtime session of it.
        facts: What the file says of it.
    """

    def __init__(self, path: Path, running: Any, facts: dict[str, Any]) -> None:
        super().__init__()
        self._session, self._pixels = running, bool(facts["pixels"])
        self._made_of = path.absolute(), facts
        spec = facts["preprocessing"]
        self._mean, self._std = (torch.tensor(spec[key]).view(-1, 1, 1) for key in ("mean", "std"))
        self.max_error = float(facts["network"]["head"]["max_error"])

    def __reduce__(self) -> tuple[object, ...]:
        """Pickled as its file's path: a session holds what can't be sent."""
        return _opened, self._made_of

    def class_maps(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Maps float32 [N,classes,h,w] and logits float32 [N,classes], where the inputs are.

        Args:
            inputs: Normalised float [N,C,H,W], as other networks take them.
        """
        given = inputs.detach().float().cpu()
        if self._pixels:
            levels = (given * self._std + self._mean) * 255
            given = levels.round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1)
        found = self._session.run(["maps", "logits"], {"input": given.contiguous().numpy()})
        maps, logits = (torch.from_numpy(each).to(inputs.device) for each in found)
        return maps, logits

    def forward(self, inputs: Tensor) -> Tensor:
        """Logits float32 [N,classes]."""
        return self.class_maps(inputs)[1]


def _opened(path: Path, facts: dict[str, Any]) -> GraphNetwork:
    return GraphNetwork(path, session(path), facts)


def load(name: str, weights: str | Path | None, offline: bool = False) -> Network:
    """The network of a graph's file.

    Raises:
        ModelError: It can't be run, or was not exported with the maps of all classes.
        ImportError: onnxruntime is missing.
    """
    path = Path(name)
    if weights is not None:
        raise ModelError(f"{path} is a graph and holds its weights; leave --weights out")
    if path.suffix.lower() != ".onnx":
        raise ModelError(f"{path}: is for torch.export.load; camtool runs what ends in .onnx")
    try:
        running = session(path)
        facts = json.loads(running.get_modelmeta().custom_metadata_map.get(KEY, "null"))
    except ImportError:
        raise
    except Exception as error:
        # ONNX Runtime has its own errors, of no common kind.
        raise ModelError(f"{path}: ONNX Runtime can't load it ({line_of(error)})") from None
    if facts is None:
        raise ModelError(
            f"{path}: has no maps that camtool knows of; export the network with camtool export"
        )
    try:
        return _network(path, running, facts)
    except (LookupError, TypeError, ValueError) as error:
        raise ModelError(f"{path}: what it says of itself is damaged ({line_of(error)})") from None


def _network(path: Path, running: Any, facts: dict[str, Any]) -> Network:
    known, spec = facts["network"], facts["preprocessing"]
    if facts["maps_of"] != known["classes"]:
        raise ModelError(
            f"{path}: holds maps of {facts['maps_of']} of {known['classes']} classes; export it "
            "without --target"
        )
    lists = {key: tuple(spec[key]) for key in ("mean", "std")}
    return Network(
        GraphNetwork(path, running, facts),
        f"{known['name']} ({path.name})",
        path.name,
        _digest(path),
        tuple(map(str, facts["labels"])),
        Preprocessing(spec["size"], spec["resize"], **lists, interpolation=spec["interpolation"]),
        tuple(map(str, facts["synsets"])),
        channels=int(facts["channels"]),
        activation=known["activation"],
    )


def _digest(path: Path) -> str:
    """The SHA-256 of a graph; of its and those of the files that hold its weights, if others do."""
    beside = sorted(path.parent.glob("*.data"))
    content = path.read_bytes() if beside else b""
    digests = [sha256(path), *(sha256(each) for each in beside if each.name.encode() in content)]
    return (
        digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()
    )


def session(path: Path) -> Any:
    """An ONNX Runtime session on the CPU, with as many threads as torch takes.

    Raises:
        ImportError: onnxruntime is missing.
    """
    try:
        import onnxruntime
    except ImportError:
        raise ImportError(
            "to run ONNX graphs onnxruntime is needed: pip install 'camtool[onnx]'"
        ) from None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    # What it has to say it raises too.
    options.log_severity_level = 4
    return onnxruntime.InferenceSession(str(path), options, ["CPUExecutionProvider"])
