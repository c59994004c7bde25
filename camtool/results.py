"""From the tensors of a batch to one explanation for each of its pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import accumulate
from math import prod
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor

from camtool.choices import Activation
from camtool.errors import ModelError
from camtool.explanation import Explanation
from camtool.heads import TOLERANCE

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from camtool.prepared import Prepared

    Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Origin:
    """What all explanations of a model share.

    Attributes:
        model: Name of the network.
        method: Name of the method that made the maps.
        layer: Where in the network they were made.
        dtype: Number format of the body.
        activation: What makes probabilities of the logits.
        labels: One for each class.
    """

    model: str
    method: str
    layer: str
    dtype: torch.dtype
    activation: Activation
    labels: Sequence[str]


class Found(NamedTuple):
    """What was found for N pictures and K classes of each, on the device.

    Attributes:
        all_logits: float32 [N,classes].
        chosen: int64 [N,K], class indices.
        versus: int64 [N,K], those that each is contrasted with, or -1.
        maps: float32 [N,K,h,w], in logits.
        bias: float32 [N,K].
        logits: float32 [N,K]; of a contrast the difference of two.
        steps: Points or intervals of an integration.
    """

    all_logits: Tensor
    chosen: Tensor
    versus: Tensor
    maps: Tensor
    bias: Tensor
    logits: Tensor
    steps: int


def probabilities_of(logits: Tensor, activation: Activation) -> Tensor:
    """Probabilities [N,classes] of logits: sigmoid of each, or softmax."""
    return logits.sigmoid() if activation == "sigmoid" else logits.softmax(1)


@dataclass(frozen=True)
class Packed:
    """What was found, on its way from the device in one copy.

    Attributes:
        rows: float32 [N,numbers], on the CPU.
        shapes: Of what each row holds, one after the other: maps, bias, logits, probabilities, all
            logits, chosen, versus; of the fields of `Found` without their first axis.
        steps: As of `Found`.
        copied: What tells when the rows are there; None where they are.
    """

    rows: Tensor
    shapes: tuple[tuple[int, ...], ...]
    steps: int
    copied: torch.cuda.Event | None

    @classmethod
    def of(cls, found: Found, activation: Activation) -> Packed:
        """Begin the copy of what was found."""
        odds = probabilities_of(found.all_logits, activation).gather(1, found.chosen)
        # Class indices fit float32 exactly below 2^24.
        classes = found.chosen.float(), found.versus.float()
        parts = [found.maps, found.bias, found.logits, odds, found.all_logits, *classes]
        shapes = tuple(tuple(part.shape[1:]) for part in parts)
        rows = torch.cat([part.flatten(1) for part in parts], 1)
        if rows.device.type != "cuda":
            return cls(rows.cpu(), shapes, found.steps, None)
        pinned = torch.empty(rows.shape, pin_memory=True)
        pinned.copy_(rows, non_blocking=True)
        # One that is waited for without keeping a core busy.
        copied = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]
        copied.record(torch.cuda.current_stream(rows.device))
        return cls(pinned, shapes, found.steps, copied)

    def numbers(self) -> Floats:
        """The rows, when they are there."""
        if self.copied is not None:
            self.copied.synchronize()
        return self.rows.numpy()


def explanations(batch: Sequence[Prepared], packed: Packed, origin: Origin) -> list[Explanation]:
    """One explanation for each picture of a batch.

    Raises:
        ModelError: The network gave numbers that are not finite.
    """
    numbers = packed.numbers()
    if not np.isfinite(numbers).all():
        raise ModelError(
            f"{origin.model} gives numbers that are not finite in {origin.dtype}; float32 "
            "and bfloat16 hold larger ones than float16"
        )
    ends = [0, *accumulate(map(prod, packed.shapes))]
    places = [
        (slice(start, end), shape)
        for start, end, shape in zip(ends, ends[1:], packed.shapes, strict=False)
    ]
    columns = [numbers[:, place].reshape(-1, *shape) for place, shape in places]
    maps, bias, logits, _, all_logits, *_ = columns
    residual, exact = _missing(maps, bias, logits, all_logits)
    told = partial(_explanation, origin=origin, steps=packed.steps)
    # Copies, so that one result kept does not keep the whole batch.
    rows = ([row[place].reshape(shape) for place, shape in places] for row in map(np.copy, numbers))
    return list(map(told, batch, rows, residual, exact.tolist()))


def _missing(
    maps: Floats, bias: Floats, logits: Floats, all_logits: Floats
) -> tuple[Floats, NDArray[np.bool_]]:
    """What maps and biases leave of the logits, [N,K], and whether that is next to nothing, [N]."""
    residual = (logits - maps.mean((2, 3), dtype=np.float64) - bias).astype(np.float32)
    # A single logit has no spread; its map has.
    values = all_logits if all_logits.shape[1] > 1 else maps.reshape(len(maps), -1)
    low, high = values.min(1), values.max(1)
    if values is not all_logits:
        low, high = np.minimum(low, 0), np.maximum(high, 0)
    return residual, np.abs(residual).max(1) <= TOLERANCE * (high - low)


def _explanation(
    item: Prepared, row: list[Floats], residual: Floats, exact: bool, origin: Origin, steps: int
) -> Explanation:
    maps, bias, logits, odds, all_logits, chosen, versus = row
    labels = origin.labels
    return Explanation(
        name=item.name,
        image=item.image,
        geometry=item.geometry,
        maps=maps,
        indices=chosen.astype(np.int64),
        labels=tuple(labels[int(index)] for index in chosen),
        versus=tuple(labels[int(index)] if index >= 0 else "" for index in versus),
        logits=logits,
        bias=bias,
        residual=residual.copy(),
        exact=exact,
        probabilities=odds if origin.activation != "none" else np.full_like(odds, np.nan),
        all_logits=all_logits,
        model=origin.model,
        method=origin.method,
        layer=origin.layer,
        steps=steps,
    )
