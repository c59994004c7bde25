"""Heads of any kind: whatever follows the last spatial tensor of a network."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import islice
from threading import Lock, get_ident
from typing import Any
from weakref import WeakSet

import torch
from torch import Tensor, nn

from camtool.errors import HeadError
from camtool.heads.cut import Cut, Node, Place, Recording, Tape, candidates, node_of
from camtool.heads.head import TOLERANCE, Forward, Head, Seen, network_of
from camtool.heads.path import ONE_STEP, SECANT, Integral, Steps, integrate
from camtool.heads.tail import Shapes, Tail
from camtool.heads.watch import logits_of, outputs_noted

MOST_TRIED = 40
"""Cuts that are tried, from the last one on, before a network is given up."""

SUFFICIENT = 1e-3
"""What maps may miss of their logit's spread where no rule is exact."""

STEPS = 32
"""Steps at the most, where nobody asks for more."""


@dataclass(frozen=True)
class TailHead(Head):
    """Anything may follow the cut; its maps are integrals along the path from no evidence.

    Attributes:
        kind: "affine" or "norm" where logits are linear in the maps once the statistics of
            normalizations are held; "tokens", "positional" or "nonlinear" elsewhere.
        cut: Where the feature maps are.
        whole: The part before the cut can't be run on shapes alone, and is run anew.
        shapes: What `Tail` found on shapes alone, kept from one forward pass to the next.
    """

    kind: str = "nonlinear"
    cut: Cut | None = None
    whole: bool = False
    shapes: Shapes = field(default_factory=dict, compare=False, repr=False)

    @classmethod
    def match(cls, seen: Seen) -> TailHead:
        """The head behind the last cut that says where.

        Raises:
            HeadError: The logits come from no tensor that has places.
        """
        reason = "no feature map from which the logits come was seen"
        for cut in islice(candidates(_nodes(seen), seen.input), MOST_TRIED):
            try:
                return cls.at(cut, seen)
            except HeadError as error:
                reason = str(error)
        raise HeadError(f"no place in the network says where its logits come from: {reason}")

    @classmethod
    def at_layer(cls, seen: Seen, layer: str) -> TailHead:
        """The head behind the output of a module.

        Raises:
            HeadError: There is no such module, or its output has no places.
        """
        if layer not in dict(seen.module.named_modules()):
            raise HeadError(f"the network has no module {layer!r}")
        for cut in candidates(_nodes(seen), seen.input):
            if layer in cut.names:
                return cls.at(replace(cut, name=layer), seen)
        raise HeadError(f"the output of {layer} has no places, or the logits do not come from it")

    @classmethod
    def at_stages(cls, seen: Seen, count: int = 3) -> list[TailHead]:
        """The heads behind the ends of the last stages: the last cuts of different shapes.

        What lies inside a stage, such as the wide maps between a block's convolutions, ends none:
        outputs of outer modules come first, and inner ones only where those are too few.

        Raises:
            HeadError: No module of the network gives feature maps that all logits come from.
        """
        found = candidates(_nodes(seen), seen.input)
        cuts = [cut for cut in found if cut.name and not cut.others]
        if not cuts:
            raise HeadError("no module's output is a feature map from which all logits come")
        for depth in sorted({cut.name.count(".") for cut in cuts}):
            ends = _ends([cut for cut in cuts if cut.name.count(".") <= depth])
            if len(ends) >= count:
                break
        heads = list(islice(cls._proved_of(ends, seen), count))
        if not heads:
            raise HeadError("none of the network's feature maps says where its logits come from")
        return heads

    @classmethod
    def _proved_of(cls, ends: Sequence[Sequence[Cut]], seen: Seen) -> Iterator[TailHead]:
        """The head behind the first of each group that is a cut, as one before a class token."""
        for group in ends:
            for cut in group[:MOST_TRIED]:
                with suppress(HeadError):
                    yield cls.at(cut, seen)
                    break

    @classmethod
    def at(cls, cut: Cut, seen: Seen) -> TailHead:
        """The head behind a cut, proved to be one.

        Raises:
            HeadError: What follows the cut can't be run by itself, or does not depend on places.
        """
        found = cls(
            features=cut.name or f"{cut.place.function} {cut.place.number}",
            pool=cut.place.function,
            channels=cut.channels,
            classes=seen.logits.shape[1],
            shape=cut.grid,
            input=seen.input,
            cut=cut,
        )
        own = seen.logits.float().flatten(1)
        for whole in (False, True):
            head = replace(found, whole=whole)
            try:
                forward = head.forward(seen.module, seen.module, seen.inputs)
                with torch.no_grad():
                    again = forward.tail(forward.features)
                    beside = forward.tail(torch.cat([forward.features / 2, forward.features]))
            except Exception as error:
                # The network's own code may raise anything on shapes alone.
                reason = (str(error).splitlines() or [type(error).__name__])[0]
                continue
            spread = (own.max() - own.min()).clamp_min(own.abs().max() * 0.1)
            if not bool(((again - own).abs() <= 1e-4 * spread).all()):
                reason = "what follows it gives another answer when it is run by itself"
            elif not bool(((beside[1:] - own).abs() <= 1e-4 * spread).all()):
                reason = "what follows it mixes the pictures of a batch"
            else:
                return head._proved(forward, own)
        raise HeadError(f"{found.features} is no cut ({reason})")

    def _proved(self, forward: Forward, own: Tensor) -> TailHead:
        """With kind and error; refused where the logits depend on few places."""
        assert self.cut is not None
        top = own.topk(min(3, own.shape[1]), dim=1).indices
        maps = forward.features.clone().requires_grad_()
        with torch.enable_grad():
            logits = forward.tail(maps)
            if not logits.requires_grad:
                raise HeadError(f"what follows {self.features} is computed without gradients")
            (gradient,) = torch.autograd.grad(logits.gather(1, top).sum(), maps)
        if not gradient.abs().sum() > 0:
            raise HeadError(f"the logits depend on no place of {self.features}")
        bent = isinstance(forward.tail, Tail) and forward.tail.bent
        found = self._best(forward, top, bent)
        error = _relative(found.missing, own, found.maps)
        kind = self._kind(gradient, forward, own, found)
        return replace(self, kind=kind, max_error=error, steps=found.steps)

    def _best(self, forward: Forward, classes: Tensor, bent: bool) -> Integral:
        """The integral of the fewest steps that is exact, or else of those that suffice."""
        tail, maps = forward.tail, forward.features
        first = SECANT if bent else ONE_STEP
        found = integrate(tail, maps, classes, 0.0, first.number, first, go_on=False)
        if self.exact_at(found, forward.logits):
            return found
        return integrate(tail, maps, classes, SUFFICIENT, STEPS, Steps("gauss", 2))

    def _kind(self, gradient: Tensor, forward: Forward, own: Tensor, found: Integral) -> str:
        if found.steps == ONE_STEP and self.exact_at(found, own):
            return "affine" if self._is_affine(forward, own) else "norm"
        if self.cut is not None and self.cut.layout == "tokens":
            return "tokens"
        flat = gradient.flatten(2)
        same = (flat - flat[..., :1]).abs().max() <= 1e-5 * flat.abs().max()
        return "nonlinear" if bool(same) else "positional"

    @staticmethod
    def exact_at(found: Integral, own: Tensor) -> bool:
        """Whether an integral misses nothing of the logits."""
        return _relative(found.missing, own, found.maps) <= TOLERANCE

    def _is_affine(self, forward: Forward, own: Tensor) -> bool:
        """Whether half of the maps give half of the logits, with no statistic held."""
        with torch.no_grad():
            half = forward.tail(torch.cat([forward.features / 2, forward.features * 0]))
        spread = (own.max() - own.min()).clamp_min(1e-12)
        return bool(((half[:1] - (own + half[1:]) / 2).abs() <= 10 * TOLERANCE * spread).all())

    def forward(self, body: nn.Module, module: nn.Module, inputs: Tensor) -> Forward:
        """Run the network once, keep what it has at the cut."""
        return forwards_of([self], body, module, inputs)[0]

    @property
    def parameters(self) -> int:
        """Unknown: 0."""
        return 0

    @property
    def layer_name(self) -> str:
        """What the tail is."""
        return _NAMES[self.kind]


_NAMES = {
    "affine": "linear in the maps, through several steps",
    "norm": "linear in the maps once the normalization's statistics are held",
    "tokens": "an attention block that mixes places, and what follows it",
    "positional": "layers that know places",
    "nonlinear": "layers with a nonlinearity between them",
}


def _ends(cuts: Sequence[Cut]) -> list[list[Cut]]:
    """The cuts of each shape, the last first; those that only widen the last maps are left out."""
    ends: dict[tuple[Any, ...], list[Cut]] = {}
    for cut in cuts:
        ends.setdefault((cut.grid, cut.channels), []).append(cut)
    last = list(ends.values())
    if len(last) > 1 and last[0][0].grid == last[1][0].grid:
        return last[1:] if last[0][0].channels > last[1][0].channels else last
    return last


def forwards_of(
    heads: Sequence[TailHead], body: nn.Module, module: nn.Module, inputs: Tensor
) -> list[Forward]:
    """Run a network once, and keep what it has at the cuts of several heads.

    Args:
        heads: Of the network.
        body: The network in evaluation mode, in the number format of `inputs`.
        module: The network whose tail is used.
        inputs: [N,C,H,W].
    """
    cuts = [head.cut for head in heads if head.cut is not None]
    places = {place for cut in cuts for place in (cut.place, *cut.others)}
    with torch.no_grad():
        own, found = _seen_by_modules(cuts, body, inputs) or _seen_by_calls(places, body, inputs)
    kinds = {p.dtype for p in module.parameters() if p.is_floating_point()}
    kind = next(iter(kinds)) if len(kinds) == 1 else inputs.dtype
    if len(found) < len(places):
        raise HeadError(f"the network did not come by its cut ({cuts[0].place.function})")
    found = {place: tensor.to(kind) for place, tensor in found.items()}
    forwards = []
    for head, cut in zip(heads, cuts, strict=True):
        others = {place: found[place] for place in cut.others}
        whole = inputs.to(kind) if head.whole else None
        tail = Tail(module, cut, found[cut.place], others, inputs.shape, whole, head.shapes)
        network = network_of(body)
        forwards.append(Forward(tail.features, own, tail, network, inputs, steps=head.steps))
    return forwards


def _seen_by_calls(
    places: Collection[Place], body: nn.Module, inputs: Tensor
) -> tuple[Tensor, dict[Place, Tensor]]:
    """Logits, and what there is at some places."""
    with Recording([*places]) as recording:
        own = logits_of(body(inputs)).float().flatten(1)
    return own, recording.found


_hooking = Lock()
"""torch numbers hooks without one."""
_reusing: WeakSet[nn.Module] = WeakSet()
"""Networks that call the module of a cut several times: they need not be run to find out again."""


def _seen_by_modules(
    cuts: Sequence[Cut], body: nn.Module, inputs: Tensor
) -> tuple[Tensor, dict[Place, Tensor]] | None:
    """As `_seen_by_calls`, for less; None where a cut is not what one module gives once."""
    if body in _reusing or any(cut.others or not cut.names for cut in cuts):
        return None
    given: dict[Place, list[Tensor]] = {cut.place: [] for cut in cuts}
    here = get_ident()

    def keep(place: Place) -> Callable[[nn.Module, Any, Any], None]:
        def hook(_module: nn.Module, _inputs: Any, output: Any) -> None:
            # Other threads may be in the same module, with hooks of their own.
            if isinstance(output, Tensor) and get_ident() == here:
                # A copy, because later calls may change it in place.
                given[place].append(output.detach().clone())

        return hook

    modules = [(cut.place, body.get_submodule(cut.names[-1])) for cut in cuts]
    with _hooking:
        hooks = [module.register_forward_hook(keep(place)) for place, module in modules]
    try:
        own = logits_of(body(inputs)).float().flatten(1)
    finally:
        with _hooking:
            for hook in hooks:
                hook.remove()
    if any(len(tensors) != 1 for tensors in given.values()):
        _reusing.add(body)
        return None
    return own, {place: tensors[0] for place, tensors in given.items()}


def _relative(missing: Tensor, own: Tensor, maps: Tensor) -> float:
    spread = own.max() - own.min() if own.shape[1] > 1 else maps.abs().max()
    return float(missing.abs().max() / spread.clamp_min(torch.finfo(torch.float32).tiny))


def _nodes(seen: Seen) -> list[Node]:
    """What a network calls on its way from the input to the logits."""
    tape = Tape()
    inputs = seen.inputs.clone()

    def note(name: str, output: Any) -> None:
        if isinstance(output, Tensor) and (number := node_of(output)) is not None:
            tape.nodes[number].names.append(name)

    with torch.no_grad(), outputs_noted(seen.module, note), tape:
        tape.start(inputs)
        logits = logits_of(seen.module(inputs))
    return tape.finish(logits)
