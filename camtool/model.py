"""A network ready to explain pictures: body, head and preparation on one device."""

from __future__ import annotations

import copy
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn

from camtool.accelerate.batch_size import measure_batch_size
from camtool.device import pick_device, pick_dtype, true_float32
from camtool.errors import HeadError, ModelError
from camtool.explanation import Explanation, split_batch
from camtool.heads import Head, evaluating, features_of, find_head, probe_input
from camtool.images import FITS, MAX_PIXELS, Fit, display_name, prepare, read_image
from camtool.methods.cam import maps_of, pooled_logits
from camtool.networks import Network, labels_for, resolve_target
from camtool.prepared import Prepared, same_shape

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from camtool.engines.engine import Failed
    from camtool.images.read import ImageSource
    from camtool.networks.load import Labels

Targets: TypeAlias = "int | str | Sequence[int | str] | None"

BATCH_SIZE = 8
"""Pictures to a forward pass; on a CPU larger batches were seen to be slower for each picture."""


class CamModel:
    """A network with global average pooling, ready to explain pictures.

    Made by `camtool.load`. A module that was passed in is used as it is: its weights are read
    anew for every batch, so it may be trained on between explanations. Only where another device
    or number format is asked for, a copy is made of it at that moment.

    Attributes:
        network: The network and what is known of it.
        head: How its logits come from its feature maps, proved.
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
    ) -> None:
        if fit not in FITS:
            raise ValueError(f"fit must be one of {', '.join(FITS)}, not {fit!r}")
        if size is not None and size < 16:
            raise ValueError(f"size must be 16 pixels or more, not {size}")
        self.network = network
        self.fit = fit
        self.dtype = pick_dtype(dtype)
        spec = network.preprocessing
        self.preprocessing = spec if size is None else spec.at(size)
        self._given = network.weights == "as given"
        self.device, self._module = self._place(device)
        self.head: Head = find_head(self._module, self.preprocessing.size)
        self.labels = labels_for(network, labels, self.head.classes)
        self._body = self._cast()
        self._fused = False

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

    def _cast(self) -> nn.Module:
        """The module in the body's number format; the original where it is that already."""
        kinds = {p.dtype for p in self._module.parameters() if p.is_floating_point()}
        if kinds <= {self.dtype}:
            return self._module
        if self._given:
            # Body and head both stay as they were at this moment, never one of them alone.
            self._module = copy.deepcopy(self._module)
        return copy.deepcopy(self._module).to(self.dtype)

    @property
    def fused(self) -> bool:
        """Whether the body is the fused copy that `fuse` made."""
        return self._fused

    def fuse(self) -> bool:
        """Run the body with batch norm folded and convolutions fused, where that is possible.

        The maps stay the same to 1e-5 of their range in float32. It is worth its tenth of a
        second for more than a few pictures, on a CPU, for a network that `camtool.load` made.

        Returns:
            Whether it is fused now.
        """
        if self.device.type == "cpu" and not self._given and not self._fused:
            from camtool.accelerate.fuse import fuse

            sample = probe_input(self._module, self.preprocessing.size)
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
        return measure_batch_size(self)

    def __repr__(self) -> str:
        return f"<CamModel {self.network.name}: {len(self.labels)} classes on {self.device}>"

    def prepare(self, source: ImageSource, max_pixels: int = MAX_PIXELS) -> Prepared:
        """Read a picture and resize it for the network.

        Raises:
            ImageError: The picture can't be read.
        """
        image = read_image(source, max_pixels=max_pixels)
        pixels, geometry = prepare(image, self.preprocessing, self.fit, self.head.stride)
        return Prepared(display_name(source), image, pixels, geometry)

    def inputs(self, batch: Sequence[Prepared]) -> Tensor:
        """The normalised input [N,3,h,w] of pictures of one shape, float32, on the device."""
        stacked = torch.from_numpy(np.stack([item.pixels for item in batch]))
        spec = self.preprocessing
        mean, std = (
            torch.tensor(values, device=self.device).view(3, 1, 1)
            for values in (spec.mean, spec.std)
        )
        pixels = stacked.to(self.device).permute(0, 3, 1, 2)
        inputs = pixels.float().div(255).sub(mean).div(std)
        return inputs.contiguous() if self._given else inputs

    def features(self, inputs: Tensor) -> Tensor:
        """The pooled feature maps [N,C,h,w] of normalised inputs, in the body's number format.

        Raises:
            ModelError: The network can't run on inputs of this size.
        """
        try:
            with evaluating(self._body), true_float32(self.device):
                return features_of(self._body, inputs.to(self.dtype))
        except torch.OutOfMemoryError:
            raise
        except (RuntimeError, HeadError) as error:
            height, width = inputs.shape[2:]
            first = str(error).splitlines()[0]
            raise ModelError(
                f"{self.network.name} can't run on an input of {width}×{height} ({first}); try "
                "--fit squash, or the --size it was made for"
            ) from None

    @torch.no_grad()
    def explain_prepared(
        self, batch: Sequence[Prepared], targets: Targets = None, topk: int = 1
    ) -> list[Explanation]:
        """Explain pictures of one input shape in one forward pass.

        Args:
            batch: Pictures from `prepare`, all of one input shape.
            targets: Classes by index or label; None for the `topk` best of each picture.
            topk: How many, where `targets` is None.

        Raises:
            TargetError: A target matches no class, or several.
            ModelError: The network can't run on this shape.
        """
        chosen = self.resolve(targets)
        return self.explain_indices(batch, [chosen] * len(batch) if chosen else None, topk)

    @torch.no_grad()
    def explain_indices(
        self, batch: Sequence[Prepared], indices: Sequence[Sequence[int]] | None, topk: int = 1
    ) -> list[Explanation]:
        """As `explain_prepared`, for classes that may differ from picture to picture.

        Args:
            batch: N pictures from `prepare`, all of one input shape.
            indices: For each of them K class indices; None for its `topk` best.
            topk: K where `indices` is None; at most the number of classes.
        """
        with true_float32(self.device):
            return self._explain(batch, indices, topk)

    def _explain(
        self, batch: Sequence[Prepared], indices: Sequence[Sequence[int]] | None, topk: int
    ) -> list[Explanation]:
        features = self.features(self.inputs(batch))
        weight, bias = self.head.parameters_of(self._module)
        if weight is None:
            logits = features.float().mean((2, 3))
        else:
            logits = pooled_logits(features, weight, bias)
        if indices is None:
            chosen = logits.topk(min(topk, logits.shape[1]), dim=1).indices
        else:
            chosen = torch.tensor(indices, device=logits.device)
        maps = maps_of(features, weight, chosen)
        biases = torch.zeros_like(logits) if bias is None else bias.float().expand_as(logits)
        return self._results(batch, maps, logits, chosen, biases.gather(1, chosen))

    def _results(
        self,
        batch: Sequence[Prepared],
        maps: Tensor,
        logits: Tensor,
        chosen: Tensor,
        biases: Tensor,
    ) -> list[Explanation]:
        probabilities = logits.softmax(1).gather(1, chosen)
        # One copy to the host for the whole batch; class indices fit float32 exactly below 2^24.
        parts = [maps, logits, probabilities, biases, chosen.float()]
        packed = torch.cat([part.flatten(1) for part in parts], 1).cpu().numpy()
        if not np.isfinite(packed).all():
            raise ModelError(
                f"{self.network.name} gives numbers that are not finite in {self.dtype}; float32 "
                "and bfloat16 hold larger ones than float16"
            )
        shapes = [tuple(part.shape[1:]) for part in parts]
        columns = split_batch(packed, shapes)
        return [
            self._result(item, *(column[n] for column in columns)) for n, item in enumerate(batch)
        ]

    def _result(
        self,
        item: Prepared,
        maps: NDArray[np.float32],
        logits: NDArray[np.float32],
        probabilities: NDArray[np.float32],
        bias: NDArray[np.float32],
        chosen: NDArray[np.float32],
    ) -> Explanation:
        indices = chosen.astype(np.int64)
        return Explanation(
            name=item.name,
            image=item.image,
            geometry=item.geometry,
            # Copies, so that one result kept does not keep the whole batch.
            maps=maps.copy(),
            indices=indices,
            labels=tuple(self.labels[index] for index in indices),
            logits=logits[indices],
            bias=bias.copy(),
            probabilities=probabilities.copy(),
            all_logits=logits.copy(),
            model=self.network.name,
            device=self.device,
        )

    def resolve(self, targets: Targets) -> list[int]:
        """Class indices of targets given by index or label; empty for None.

        Raises:
            TargetError: One matches no class, or several.
        """
        if targets is None:
            return []
        if isinstance(targets, (int, str, np.integer)):
            targets = [targets]
        return [
            resolve_target(target if isinstance(target, str) else int(target), self.labels)
            for target in targets
        ]

    def explain(self, source: ImageSource, targets: Targets = None, topk: int = 1) -> Explanation:
        """Explain one picture.

        Args:
            source: A path, bytes, file object, PIL image, array or tensor; see `read_image`.
            targets: Classes by index or label; None for the `topk` best.
            topk: How many, where `targets` is None.

        Raises:
            ImageError: The picture can't be read.
            TargetError: A target matches no class, or several.
        """
        return self.explain_batch([source], targets, topk)[0]

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
            targets: Classes by index or label, the same for every picture; None for the best.
            topk: How many, where `targets` is None.
            batch_size: Most pictures to a forward pass.

        Returns:
            One result for each picture, in their order.

        Raises:
            ImageError: A picture can't be read.
            TargetError: A target matches no class, or several.
        """
        if topk < 1 or batch_size < 1:
            raise ValueError("topk and batch_size must be 1 or more")
        chosen = self.resolve(targets)
        prepared = [self.prepare(source) for source in sources]
        results: dict[int, Explanation] = {}
        for numbers in same_shape(prepared, batch_size):
            batch = [prepared[number] for number in numbers]
            indices = [chosen] * len(batch) if chosen else None
            results |= zip(numbers, self.explain_indices(batch, indices, topk), strict=True)
        return [results[number] for number in range(len(prepared))]

    def explain_folder(
        self,
        source: str | os.PathLike[str],
        targets: Targets = None,
        topk: int = 1,
        *,
        batch_size: int | None = None,
        max_pixels: int = MAX_PIXELS,
        recursive: bool = True,
        workers: int | None = None,
    ) -> Iterator[tuple[Path, Explanation | Failed]]:
        """Explain every picture of a folder, yielding results as they come.

        Args:
            source: A folder, a glob pattern, or a list of paths (text or CSV) and targets.
            targets: Classes by index or label for pictures without one; None for the best.
            topk: How many, where no class is named.
            batch_size: Most pictures to a forward pass; None for what suits the device.
            max_pixels: Refuse larger pictures.
            recursive: Go into sub-folders.
            workers: Threads; None for one a core.

        Returns:
            Each path with its explanation, or with why there is none; in order.

        Raises:
            SourceError: `source` is nothing, or holds no picture; a ValueError.
            TargetError: One of `targets` matches no class, or several.

        Example:
            >>> for path, result in model.explain_folder("photos", topk=3):
            ...     print(path, result)
        """
        # Runs use models; imported where it is used, the arrow between the rooms stays one-way.
        from camtool.folder.stream import explain_folder

        return explain_folder(
            self, os.fspath(source), targets, topk, batch_size, max_pixels, recursive, workers
        )

    @contextmanager
    def running(self) -> Iterator[None]:
        """What has to hold for a whole run is set once, around it."""
        yield

    def describe(self) -> dict[str, Any]:
        """The JSON record of the model."""
        return {
            "name": self.network.name,
            "weights": self.network.weights,
            "sha256": self.network.sha256,
            "classes": self.head.classes,
            "head": self.head.describe(),
        }
