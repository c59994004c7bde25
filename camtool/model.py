"""A network ready to explain pictures: body, head, method and preparation on one device."""

from __future__ import annotations

import copy
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from functools import cached_property
from threading import Lock
from typing import TYPE_CHECKING, Any, get_args

import torch
from torch import Tensor, nn

from camtool.choices import Activation, Exactness, Fit
from camtool.device import Held, pick_device, pick_dtype, true_float32
from camtool.errors import HeadError, ModelError
from camtool.explanation import Explanation
from camtool.heads import (
    TOLERANCE,
    Forward,
    Head,
    PooledHead,
    TailHead,
    evaluating,
    find_head,
    forwards_of,
    heads_at,
    probe_input,
)
from camtool.images import FITS, MAX_PIXELS
from camtool.methods import COMPLETE, STAGES, Settings, find_method, merged
from camtool.networks import Network, Preprocessing, labels_for
from camtool.prepared import Preparation, Prepared, from_tensor, same_shape
from camtool.results import Found, Origin, Packed, explanations
from camtool.targets import Choice, Target, Targets, choices_of, for_each, pairs_of, ranked

if TYPE_CHECKING:
    from pathlib import Path

    from camtool.engines.engine import Failed
    from camtool.images import Pixels
    from camtool.images.read import ImageSource
    from camtool.networks.load import Labels
    from camtool.remote import Stored

BATCH_SIZE = 8
"""Pictures to a forward pass; on a CPU larger batches were seen to be slower for each picture."""


class CamModel:
    """A network with global average pooling, ready to explain pictures.

    Made by `camtool.load`. A module that was passed in is used as it is: its weights are read
    anew for every batch, so it may be trained on between explanations. Only where another device
    or number format is asked for, a copy is made of it at that moment.

    Attributes:
        network: The network and what is known of it.
        heads: How its logits come from feature maps, with measured errors; one for each cut.
        method: Name of the method that makes the maps.
        activation: What makes probabilities of the logits: softmax, sigmoid or none.
        labels: One for each class.
        device: Where it runs.
        dtype: Number format of the body; the maps are float32 always.
        fit: How pictures meet the network.
        preprocessing: What the network expects, at the input size in use.
    """

    def __init__(
        self,
        network: Network,
        labels: Labels = None,
        device: str = "auto",
        dtype: str = "float32",
        fit: Fit = "whole",
        size: int | None = None,
        *,
        preprocessing: Preprocessing | None = None,
        method: str = "auto",
        exact: Exactness = "measure",
        activation: Activation = "auto",
        layer: str | None = None,
        steps: int | None = None,
    ) -> None:
        if fit not in FITS:
            raise ValueError(f"fit must be one of {', '.join(FITS)}, not {fit!r}")
        if size is not None and size < 16:
            raise ValueError(f"size must be 16 pixels or more, not {size}")
        self.network = network
        self.fit = fit
        self.dtype = pick_dtype(dtype)
        spec = preprocessing or network.preprocessing
        self.preprocessing = spec if size is None else spec.at(size)
        if len(spec.mean) != network.channels:
            raise ValueError(f"mean has {len(spec.mean)} channels, the network {network.channels}")
        self._given = network.weights == "as given"
        self._asked = {"layer": layer, "steps": steps}
        self.device, self._module = self._place(device)
        size = self.preprocessing.size
        if layer is None and method != STAGES:
            self.heads: list[Head] = [find_head(self._module, size, network.channels)]
        else:
            names = [] if layer is None else [name.strip() for name in layer.split(",")]
            self.heads = [*heads_at(self._module, names, size, network.channels)]
        if fit == "whole" and not self._takes_other_shapes(size):
            note = f"{network.name} takes {size}×{size} pixels and no other: pictures are squashed"
            self.fit = "squash"
            self.network = replace(network, notes=(*network.notes, note))
        self._preparation = Preparation(self.preprocessing, self.fit, self.head.stride, self.device)
        self.method, self._method = find_method(method, self.head)
        self._settings = Settings() if steps is None else Settings(TOLERANCE, steps)
        for head in self.heads:
            _check_exactness(head, self.method, exact)
        wanted = network.activation if activation == "auto" else activation
        self.activation = _activation(wanted, self.head.classes)
        self.labels = labels_for(network, labels, self.head.classes)
        self._body = self._cast()
        self._fused = False
        self._evaluating = Held(lambda: evaluating(self._body))
        # Kernels of two batches that two threads launch at once take turns, and both end late.
        on_gpu = self.device.type == "cuda"
        self._launching: AbstractContextManager[object] = Lock() if on_gpu else nullcontext()

    def _place(self, device: str) -> tuple[torch.device, nn.Module]:
        """The module on the device asked for; a user's own is copied rather than moved."""
        module = getattr(self.network.module, "_orig_mod", self.network.module)
        if not self._given:
            target = pick_device(device)
            return target, module.to(target).to(memory_format=torch.channels_last)
        here = next((p.device for p in module.parameters()), torch.device("cpu"))
        target = here if device == "auto" else pick_device(device)
        if target.type != here.type or (target.index or 0) != (here.index or 0):
            module = copy.deepcopy(module).to(target)
        return target, module

    def _takes_other_shapes(self, size: int) -> bool:
        """Whether the network runs on an input that is no square, two cells wider.

        And whether it comes by its cut there: it may call other functions on its way, as where
        embeddings of places are resized.
        """
        square = probe_input(self._module, size, self.network.channels)
        wider = nn.functional.pad(square, (0, 2 * self.head.stride))
        try:
            with evaluating(self._module), torch.no_grad():
                if not isinstance(self.head, TailHead):
                    self._module(wider)
                    return True
                forward = self.head.forward(self._module, self._module, wider)
                again = forward.tail(forward.features)
        except torch.OutOfMemoryError:
            raise
        except Exception:
            # The network's own code may raise anything on an input that it was not made for.
            return False
        spread = forward.logits.abs().max()
        return bool((again - forward.logits).abs().max() <= 0.01 * spread)

    def _cast(self) -> nn.Module:
        """The module in the body's number format; the original where it is that already."""
        kinds = {p.dtype for p in self._module.parameters() if p.is_floating_point()}
        if kinds <= {self.dtype}:
            return self._module
        if self._given:
            # Body and head both stay as they were at this moment, never one of them alone.
            self._module = copy.deepcopy(self._module)
        return copy.deepcopy(self._module).to(self.dtype)

    @cached_property
    def _origin(self) -> Origin:
        name = self.network.name
        return Origin(name, self.method, self.layer, self.dtype, self.activation, self.labels)

    @property
    def head(self) -> Head:
        """Where the maps come from; the first of several."""
        return self.heads[0]

    @property
    def layer(self) -> str:
        """Names of what gives the feature maps, with commas."""
        return ",".join(head.features for head in self.heads)

    @property
    def fused(self) -> bool:
        """Whether the body is the fused copy that `fuse` made."""
        return self._fused

    def fuse(self) -> bool:
        """Run the body with batch norm folded and convolutions fused, where that is possible.

        The maps stay the same to 1e-5 of their range in float32. It is worth its tenth of a
        second for more than a few pictures, on a CPU, for a network that `camtool.load` made.
        Only a cut at the last average pooling is found in a fused copy, whose calls are others.

        Returns:
            Whether it is fused now.
        """
        pooled = all(isinstance(head, PooledHead) for head in self.heads)
        if self.device.type == "cpu" and pooled and not self._given and not self._fused:
            from camtool.accelerate.fuse import fuse

            sample = probe_input(self._module, self.preprocessing.size, self.network.channels)
            fused = fuse(self._module, self.dtype, sample)
            if fused is not None:
                self._body, self._fused = fused, True
        return self._fused

    def measured_batch_size(self) -> int:
        """Pictures to a forward pass: 8 on a CPU, else the smallest that is as fast as any.

        The number is fixed on a CPU, because the last digits of the maps depend on it, and two
        runs of one command should give the same bytes.
        """
        if self.device.type == "cpu":
            return BATCH_SIZE
        from camtool.accelerate.batch_size import measure_batch_size

        return measure_batch_size(self.try_batch)

    def try_batch(self, pictures: int) -> None:
        """Run a forward pass of so many black pictures, and wait for it."""
        side, channels = self.preprocessing.size, len(self.preprocessing.mean)
        inputs = torch.zeros(pictures, channels, side, side, device=self.device)
        # Reading a value back waits for the device.
        self.forward(inputs).logits.sum().item()

    def __reduce__(self) -> tuple[object, ...]:
        """Pickled as what it is made of, for a device of the same kind, and made again from that.

        Its head is found and proved again where it arrives, and a fused body is fused again.
        """
        module = getattr(self.network.module, "_orig_mod", self.network.module)
        if self.device.type != "cpu":
            module = copy.deepcopy(module).cpu()
        options = {
            "labels": self.labels,
            "device": str(self.device),
            "dtype": str(self.dtype).removeprefix("torch."),
            "fit": self.fit,
            "preprocessing": self.preprocessing,
            "method": self.method,
            "activation": self.activation,
            **self._asked,
        }
        return _made_again, (replace(self.network, module=module), options, self.fused)

    def __repr__(self) -> str:
        return f"<CamModel {self.network.name}: {len(self.labels)} classes on {self.device}>"

    def prepare(
        self, source: ImageSource, max_pixels: int = MAX_PIXELS, reduced: bool = False
    ) -> Prepared:
        """Read a picture and resize it for the network.

        Args:
            source: As for `read_image`, or for `read_pixels` where the network takes other than
                three channels.
            max_pixels: Refuse larger pictures.
            reduced: Read a very large picture only as large as the network and a panel need it.

        Raises:
            ImageError: The picture can't be read.
        """
        return self._preparation.read(source, max_pixels, reduced)

    def pixels_of(self, item: Prepared) -> Pixels:
        """A picture's pixels [h,w,C] as the network sees them, resized here if not yet."""
        return self._preparation.pixels_of(item)

    def inputs(self, batch: Sequence[Prepared]) -> Tensor:
        """The normalised input [N,C,h,w] of pictures of one shape, float32, on the device."""
        inputs = self._preparation.inputs(batch)
        return inputs.contiguous() if self._given else inputs

    @contextmanager
    def running(self) -> Iterator[None]:
        """Everything set that a forward pass needs, for one or for many, in any number of threads.

        Evaluation mode of the network and full float32 precision on CUDA: set by the first who
        enters, restored by the last who leaves.
        """
        if self.device.type != "cuda":
            with self._evaluating():
                yield
            return
        with self._evaluating(), true_float32():
            yield

    def forward(self, inputs: Tensor) -> Forward:
        """As `forwards`, at the first cut."""
        return self.forwards(inputs)[0]

    def forwards(self, inputs: Tensor) -> list[Forward]:
        """One forward pass: features at each cut, logits, and what the heads give.

        Args:
            inputs: [N,C,h,w], normalised, on the device.

        Raises:
            ModelError: The network can't run on inputs of this size.
        """
        try:
            with self.running():
                heads, inputs = self.heads, inputs.to(self.dtype)
                several = [head for head in heads if isinstance(head, TailHead)]
                if len(several) == len(heads) > 1:
                    return forwards_of(several, self._body, self._module, inputs)
                return [head.forward(self._body, self._module, inputs) for head in heads]
        except torch.OutOfMemoryError:
            raise
        except Exception as error:
            # The network's own code may raise anything on an input that it was not made for.
            height, width = inputs.shape[2:]
            first = (str(error).splitlines() or [type(error).__name__])[0]
            raise ModelError(
                f"{self.network.name} can't run on an input of {width}×{height} ({first}); try "
                "--fit squash, or the --size it was made for"
            ) from None

    def explain_indices(
        self, batch: Sequence[Prepared], choices: Sequence[Sequence[Choice]] | None, topk: int = 1
    ) -> list[Explanation]:
        """Explain pictures of one input shape in one forward pass.

        Args:
            batch: N pictures from `prepare`, all of one input shape.
            choices: For each of them the same number of classes, as from `resolve`; None for its
                `topk` best.
            topk: How many, where `choices` is None; at most the number of classes.
        """
        return self._explain(self.inputs(batch), batch, choices, topk)

    @torch.no_grad()
    def _explain(
        self,
        inputs: Tensor,
        batch: Sequence[Prepared],
        choices: Sequence[Sequence[Choice]] | None,
        topk: int,
    ) -> list[Explanation]:
        with self.running(), self._launching:
            packed = Packed.of(self._found(inputs, choices, topk), self.activation)
        return explanations(batch, packed, self._origin)

    def _found(
        self, inputs: Tensor, choices: Sequence[Sequence[Choice]] | None, topk: int
    ) -> Found:
        """What there is to tell of some inputs; where a head is pooled, no GPU is waited for."""
        pairs = None if choices is None else pairs_of(choices).onto(self.device)
        forwards = self.forwards(inputs)
        logits = forwards[0].logits
        if pairs is None:
            chosen = logits.topk(min(topk, logits.shape[1]), dim=1).indices
            versus = torch.full_like(chosen, -1)
        else:
            chosen, versus = ranked(pairs, logits)
        found, steps = self.evidence(forwards, chosen)
        if pairs is not None and pairs.compared:
            there = (versus >= 0).float()
            against, _ = self.evidence(forwards, versus.clamp(min=0))
            found = [
                one - other * there.reshape(*there.shape, *[1] * (one.ndim - 2))
                for one, other in zip(found, against, strict=True)
            ]
        maps, bias, own = found
        return Found(logits, chosen, versus, maps, bias, own, steps)

    def evidence(self, forwards: Sequence[Forward], classes: Tensor) -> tuple[list[Tensor], int]:
        """Maps, biases and logits of some classes; steps that they took."""
        every = [self._method(forward, classes, self._settings) for forward in forwards]
        maps, bias, steps = merged(every) if len(every) > 1 else every[0]
        return [maps, bias, forwards[0].logits.gather(1, classes)], steps

    def resolve(self, targets: Target | Sequence[Target] | None) -> list[Choice]:
        """Class indices of one picture's targets; empty for None.

        Args:
            targets: By index or label, or `camtool.BEST` or `camtool.NEXT`, which the network
                chooses; a pair (a, b) is the contrast *a rather than b*.

        Returns:
            An index for each, or a pair of them.

        Raises:
            TargetError: One matches no class, or several.
        """
        return choices_of(targets, self.labels)

    def explain(
        self, source: ImageSource, targets: Target | Sequence[Target] | None = None, topk: int = 1
    ) -> Explanation:
        """Explain one picture.

        Args:
            source: A path, bytes, file object, PIL image, array or tensor; see `read_image`.
            targets: Classes by index or label, or pairs of them; None for the `topk` best.
            topk: How many, where `targets` is None.

        Raises:
            ImageError: The picture can't be read.
            TargetError: A target matches no class, or several.
        """
        return self.explain_batch([source], None if targets is None else [targets], topk)[0]

    def explain_batch(
        self,
        sources: Iterable[ImageSource],
        targets: Targets = None,
        topk: int = 1,
        batch_size: int = BATCH_SIZE,
    ) -> list[Explanation]:
        """Explain pictures; those of one input shape share a forward pass.

        Args:
            sources: Pictures, each as for `explain`.
            targets: One target for every picture; or a list as long as the pictures, with a
                target, a list of targets or None for each; or None for the `topk` best. A target
                is an index, a label, `camtool.BEST` or `camtool.NEXT`, or a pair (a, b) for the
                contrast *a rather than b*.
            topk: How many, where there is no target.
            batch_size: Most pictures to a forward pass.

        Returns:
            One result for each picture, in their order.

        Raises:
            ImageError: A picture can't be read.
            TargetError: A target matches no class, or several.
            ValueError: The list of targets is not as long as that of the pictures.
            TypeError: `sources` is one path, or the bytes of one picture.
        """
        _at_least_one(topk, batch_size)
        if isinstance(sources, (str, bytes)):
            raise TypeError("explain_batch takes a list of pictures; explain takes one")
        sources = list(sources)
        choices = [self.resolve(each) for each in for_each(targets, len(sources))]
        prepared = [self.prepare(source) for source in sources]
        return self._in_batches(prepared, choices, topk, batch_size)

    def explain_tensor(
        self, inputs: Tensor, targets: Targets = None, topk: int = 1, batch_size: int = BATCH_SIZE
    ) -> list[Explanation]:
        """Explain inputs that are normalised already, as a DataLoader gives them.

        Args:
            inputs: float [N,C,H,W] or [C,H,W], normalised as the network expects, on any device; or
                an array of these.
            targets: As for `explain_batch`.
            topk: How many, where there is no target.
            batch_size: Most inputs to a forward pass.

        Returns:
            One result for each input; its coordinates are the input's own pixels, and its picture
            is the input with the model's normalisation undone.

        Raises:
            TargetError: A target matches no class, or several.
            ValueError: The tensor is of another shape, or the list of targets of another length.
        """
        _at_least_one(topk, batch_size)
        inputs = torch.as_tensor(inputs)
        if inputs.ndim == 3:
            inputs = inputs[None]
        if inputs.ndim != 4 or not inputs.is_floating_point():
            raise ValueError(f"normalised float [N,C,H,W] is needed, not {_shape_of(inputs)}")
        choices = [self.resolve(each) for each in for_each(targets, len(inputs))]
        inputs = inputs.detach().to(self.device)
        pictures = self._preparation.undone(inputs).cpu()
        items = [from_tensor(f"tensor {number}", each) for number, each in enumerate(pictures)]
        return self._in_batches(items, choices, topk, batch_size, inputs)

    def _in_batches(
        self,
        items: Sequence[Prepared],
        choices: Sequence[Sequence[Choice]],
        topk: int,
        batch_size: int,
        inputs: Tensor | None = None,
    ) -> list[Explanation]:
        results: dict[int, Explanation] = {}
        for numbers in same_shape(items, choices, batch_size):
            batch = [items[number] for number in numbers]
            some = [choices[number] for number in numbers]
            given = self.inputs(batch) if inputs is None else inputs[numbers]
            found = self._explain(given, batch, some if some[0] else None, topk)
            results |= zip(numbers, found, strict=True)
        return [results[number] for number in range(len(items))]

    def explain_folder(
        self,
        source: str | os.PathLike[str],
        targets: Target | Sequence[Target] | None = None,
        topk: int = 1,
        *,
        batch_size: int | None = None,
        max_pixels: int = MAX_PIXELS,
        recursive: bool = True,
        workers: int | None = None,
    ) -> Iterator[tuple[Path | Stored, Explanation | Failed]]:
        """Explain every picture of a folder, yielding results as they come.

        Args:
            source: A folder, a glob pattern, or a list of paths (text or CSV) and targets; also
                behind an address, and tar or Parquet shards.
            targets: Classes by index or label for pictures without one; None for the best.
            topk: How many, where no class is named.
            batch_size: Most pictures to a forward pass; None for what suits the device.
            max_pixels: Refuse larger pictures.
            recursive: Go into sub-folders.
            workers: Threads; None for one a core.

        Returns:
            Each path with its explanation, or with why there is none; in order. What is no file
            of its own has a `name` instead.

        Raises:
            SourceError: `source` is nothing, or holds no picture; a ValueError.
            TargetError: One of `targets` matches no class, or several.

        Example:
            >>> for path, result in model.explain_folder("photos", topk=3):
            ...     print(path, result)
        """
        from camtool.folder.stream import explain_folder

        return explain_folder(
            self, os.fspath(source), targets, topk, batch_size, max_pixels, recursive, workers
        )

    def describe(self) -> dict[str, Any]:
        """The JSON record of the model."""
        return {
            "name": self.network.name,
            "weights": self.network.weights,
            "sha256": self.network.sha256,
            "classes": self.head.classes,
            "method": self.method,
            "layer": self.layer,
            "steps": self._settings.steps,
            "activation": self.activation,
            "head": self.head.describe(),
        }


def _made_again(network: Network, options: dict[str, Any], fused: bool) -> CamModel:
    """A model that was pickled; a machine with fewer GPUs takes its first one."""
    device = torch.device(options["device"])
    if device.index and device.index >= torch.cuda.device_count():
        options["device"] = device.type
    model = CamModel(network, **options)
    if fused:
        model.fuse()
    return model


def _check_exactness(head: Head, method: str, exact: Exactness) -> None:
    if exact not in ("measure", "require"):
        raise ValueError(f"exact must be 'measure' or 'require', not {exact!r}")
    if exact == "require" and method not in COMPLETE:
        raise ModelError(
            f"the maps of {method} do not add up to the logits; those of {', '.join(COMPLETE)} do"
        )
    if exact == "require" and not head.exact:
        raise HeadError(
            f"the class maps of {head.features} do not add up to the logits: the error is "
            f"{head.max_error:.1e} of their spread, the tolerance {TOLERANCE:.0e}"
        )


def _activation(activation: Activation, classes: int) -> Activation:
    if activation not in get_args(Activation):
        known = ", ".join(get_args(Activation))
        raise ValueError(f"activation must be one of {known}, not {activation!r}")
    if activation == "auto":
        return "sigmoid" if classes == 1 else "softmax"
    return activation


def _at_least_one(topk: int, batch_size: int) -> None:
    if topk < 1 or batch_size < 1:
        raise ValueError("topk and batch_size must be 1 or more")


def _shape_of(inputs: Tensor) -> str:
    return f"{str(inputs.dtype).removeprefix('torch.')} {list(inputs.shape)}"
