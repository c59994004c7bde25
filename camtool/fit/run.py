"""`camtool fit`: from labelled pictures to a network that knows their classes, and how well."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn

from camtool import __version__
from camtool.engines.engine import never
from camtool.engines.threads import available_cores
from camtool.errors import ModelError
from camtool.evaluate.figures import Figure
from camtool.files import write_atomically
from camtool.fit.data import Classes, Found, classes_of, known_alone, read_labelled
from camtool.fit.features import compute, linear_head, pooling, settings_of, with_layer
from camtool.fit.outcome import Answer, Form, Outcome, Penalty, Point
from camtool.fit.solver import (
    USUAL,
    Examples,
    Layer,
    cross_validate,
    one_thread,
    path,
    right,
)
from camtool.fit.split import first_share, folds_of, groups_of, held_out, shuffled
from camtool.fit.store import FeatureStore, Key
from camtool.folder.truth import wilson
from camtool.heads import probe_input
from camtool.images import MAX_PIXELS
from camtool.model import CamModel, probabilities_of
from camtool.networks import fitted

if TYPE_CHECKING:
    from camtool.fit.data import Labelled
    from camtool.networks import Network

Balance: TypeAlias = Literal["auto", "yes", "no"]

MOST_VIEWS = 4000
"""Views of all pictures up to which a picture is seen mirrored too, unless the user says."""

UNEVEN = 2
"""A class of more than so many times the pictures of another makes classes uneven."""

FOLDS = 5
SHARES = (1 / 8, 1 / 4, 1 / 2)
"""Of the fitted pictures, for the learning curve."""

ENOUGH = 20
"""Pictures held out, from which a learning curve says something."""


@dataclass(frozen=True)
class Plan:
    """What is fitted to, and how.

    Attributes:
        data: A folder by class, or a list with labels.
        output: The file that is written.
        features: Folder of the pooled features; None for one beside the output.
        validation: Held-out pictures of their own, like `data`; "" to hold out some of the data.
        form: One class a picture, or any number.
        holdout: Share of each class to hold out.
        views: Of each picture: 1 as it is, 2 mirrored too, more are crops; None for 2 where the
            pictures are few, else 1.
        balance: Whether all classes count the same; "auto" where softmax meets uneven ones.
        strength: Of the penalty, C; None for the one that cross-validation finds.
        seed: Of the split.
        batch_size: Most pictures to a forward pass.
        workers: Threads of each kind; None for as many as there are cores.
        max_pixels: Refuse larger pictures.
    """

    data: str
    output: Path
    features: Path | None = None
    validation: str = ""
    form: Form = "softmax"
    holdout: float = 0.2
    views: int | None = None
    balance: Balance = "auto"
    strength: float | None = None
    seed: int = 0
    batch_size: int = 8
    workers: int | None = None
    max_pixels: int = MAX_PIXELS

    @property
    def folder(self) -> Path:
        """Of the pooled features."""
        return self.features or self.output.with_suffix(".features")


class StoppedError(Exception):
    """The run was asked to stop; the same command continues it."""


class Result(NamedTuple):
    """What came of a fit.

    Attributes:
        outcome: What people are told.
        failed: How many pictures could not be read.
        pictures: Paths of all others, each with the classes that it shows.
    """

    outcome: Outcome
    failed: int
    pictures: list[tuple[str, tuple[int, ...]]]


class _Split(NamedTuple):
    """Pictures by number: those that are fitted on, in the order of the learning curve's kinds."""

    pictures: list[Labelled]
    features: np.ndarray[Any, np.dtype[np.float32]]
    fitted: list[int]
    held: list[int]
    groups: np.ndarray[Any, np.dtype[np.int64]]


def fit(
    cam: CamModel,
    plan: Plan,
    progress: Callable[[int, int], None] = lambda done, total: None,
    warn: Callable[[str], None] = print,
    stopping: Callable[[], bool] = never,
) -> Result:
    """Fit the last layer of a network to labelled pictures, and write the network.

    Args:
        cam: The base.
        plan: What to do.
        progress: Told how many views of how many are through the network.
        warn: Told what people should know.
        stopping: Asked now and then whether to begin no more.

    Raises:
        DataError: Nothing can be fitted to the data.
        ModelError: The network can't be the base.
        OSError: The file, or the features, can't be written.
        StoppedError: `stopping` said so; what is computed is kept.
    """
    check_base(cam)
    found = read_labelled(plan.data, plan.form, plan.folder)
    classes = classes_of(found.pictures, plan.form, plan.data)
    apart = Found()
    if plan.validation:
        apart = read_labelled(plan.validation, plan.form, plan.folder)
        known_alone(apart, classes)
    warn(_counted(found, classes, plan.form))
    model = pooling(cam)
    store = FeatureStore(plan.folder, settings_of(model, plan.batch_size), model.head.channels)
    try:
        views = _compute(model, plan, store, found, apart, progress, warn, stopping)
        classes = classes_of(found.pictures, plan.form, plan.data)
        known_alone(apart, classes)
        with one_thread():
            result = _fitted(cam, plan, store, views, found, apart, classes)
    finally:
        store.close()
    return result


def _counted(found: Found, classes: Classes, form: Form) -> str:
    counts = Counter(name for picture in found.pictures for name in picture.names)
    least, most = min(counts.values()), max(counts.values())
    each = f"{least:,}" if least == most else f"{least:,} to {most:,}"
    kind = "labels" if form == "sigmoid" else "classes"
    return f"{len(found.pictures):,} pictures of {len(classes.names):,} {kind}, {each} of each"


def check_base(cam: CamModel) -> None:
    """Refuse a base before anything is computed on it, if its file would not load as it is.

    Raises:
        ModelError: It can't be the base.
    """
    head = linear_head(cam)
    weight, bias = torch.zeros(2, head.channels), torch.zeros(2)
    weight[0] = 1
    module = with_layer(cam.network.module, head, weight, bias)
    network = replace(cam.network, labels=("0", "1"), synsets=(), activation="softmax")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "base.safetensors"
        file.write_bytes(_file(module, network, cam, {}))
        try:
            again = fitted.load(file).module.to(cam.device)
        except ModelError as error:
            reason = str(error).removeprefix(f"{file}: ")
            raise ModelError(f"{cam.network.name} can't be the base: {reason}") from None
        sample = probe_input(module, cam.preprocessing.size)
        with torch.no_grad():
            same = torch.allclose(again(sample), module.eval()(sample), 1e-4, 1e-5)
    if not same:
        raise ModelError(
            f"{cam.network.name} can't be the base: its name and tensors do not make it again"
        )


def _file(module: nn.Module, network: Network, cam: CamModel, made: dict[str, Any]) -> bytes:
    network = replace(network, module=module)
    facts = fitted.facts_of(network, cam.head.bias, cam.preprocessing, made)
    return fitted.to_bytes(module, facts)


def _compute(
    model: CamModel,
    plan: Plan,
    store: FeatureStore,
    found: Found,
    apart: Found,
    progress: Callable[[int, int], None],
    warn: Callable[[str], None],
    stopping: Callable[[], bool],
) -> int:
    """Have the store hold what the fit needs; the number of views of each picture."""
    ours = {picture.digest: picture.path for picture in found.pictures}
    others = {picture.digest: picture.path for picture in apart.pictures}
    count = plan.views or (2 if 2 * len(ours) <= MOST_VIEWS else 1)
    wanted: dict[Key, Path] = {
        (digest, view): file for digest, file in ours.items() for view in range(count)
    }
    wanted |= {(digest, 0): file for digest, file in others.items()}
    failed = compute(
        model,
        [(file, key) for key, file in wanted.items()],
        store,
        plan.batch_size,
        plan.workers,
        plan.max_pixels,
        progress,
        warn,
        stopping,
    )
    if any(key not in store and key[0] not in failed for key in wanted):
        raise StoppedError
    for side in (found, apart):
        pictures, side.pictures = side.pictures, []
        for picture in pictures:
            if picture.digest in failed:
                side.fail(picture.path, failed[picture.digest])
            else:
                side.pictures.append(picture)
    return count


def _fitted(
    cam: CamModel,
    plan: Plan,
    store: FeatureStore,
    views: int,
    found: Found,
    apart: Found,
    classes: Classes,
) -> Result:
    pictures = [*found.pictures, *apart.pictures]
    truths = [classes.truth(picture) for picture in pictures]
    plain = store.values([(picture.digest, 0) for picture in pictures])
    digests = [picture.digest for picture in pictures]
    groups = groups_of(digests, plain, truths)
    held = _held(plan, found, truths, digests, groups)
    fitted_on = [n for n in range(len(found.pictures)) if n not in held]
    if plan.validation:
        seen = {int(groups[n]) for n in held}
        for n in [n for n in fitted_on if int(groups[n]) in seen]:
            fitted_on.remove(n)
            found.problem(pictures[n].path, "is nearly a picture held out; left out of the fit")
    kinds = shuffled(
        [digests[n] for n in fitted_on],
        _renumbered(groups[fitted_on]),
        _strata([truths[n] for n in fitted_on]),
        plan.seed,
    )
    keys = [(digests[n], view) for n in fitted_on for view in range(views)]
    features = store.values(keys).reshape(len(fitted_on), views, -1)
    truth = _matrix(truths, len(classes.names))
    examples = Examples(features, truth[fitted_on], plan.form, _balanced(plan, truth[fitted_on]))
    penalties, strength = _strength(plan, examples, kinds)
    layer = _rounded(next(path(examples, [strength])))
    wanted, held_list = plain[sorted(held)], sorted(held)
    figure = _accuracy(layer, wanted, truth[held_list], plan.form)
    _name_lone(classes, truths, held, found)
    outcome = Outcome(
        labels=classes.labels,
        form=plan.form,
        base=cam.network.name,
        fitted=_counts(truth[fitted_on]),
        held=_counts(truth[held_list]),
        penalties=tuple(penalties),
        strength=strength,
        answers=_answers(layer, wanted, pictures, truths, held_list, plan.form),
        accuracy=figure,
        majority=_majority([truths[n] for n in held_list]),
        curve=_curve(examples, kinds, strength, wanted, truth[held_list], figure),
        duplicates=_duplicates(groups, pictures),
        problems=(*found.problems, *apart.problems),
    )
    write_atomically(plan.output, _content(cam, classes, plan, outcome, layer, views, examples))
    paths = [str(picture.path) for picture in pictures]
    return Result(outcome, found.failed + apart.failed, list(zip(paths, truths, strict=True)))


def _held(
    plan: Plan,
    found: Found,
    truths: Sequence[tuple[int, ...]],
    digests: Sequence[bytes],
    groups: np.ndarray[Any, np.dtype[np.int64]],
) -> set[int]:
    ours = len(found.pictures)
    if plan.validation:
        return {*range(ours, len(truths))}
    kinds = shuffled(digests, groups, _strata(truths), plan.seed)
    return held_out(kinds, plan.holdout)


def _strata(truths: Sequence[tuple[int, ...]]) -> list[int]:
    """What each picture counts as where all classes should be on both sides: its rarest class."""
    counts = Counter(one for truth in truths for one in truth)
    return [min(truth, key=lambda one: (counts[one], one), default=-1) for truth in truths]


def _renumbered(groups: np.ndarray[Any, np.dtype[np.int64]]) -> Any:
    """Groups by the first of some pictures, in place of the first of all."""
    first: dict[int, int] = {}
    return np.array([first.setdefault(int(group), n) for n, group in enumerate(groups)], np.int64)


def _matrix(truths: Sequence[tuple[int, ...]], classes: int) -> Tensor:
    matrix = torch.zeros(len(truths), classes, dtype=torch.float64)
    for number, truth in enumerate(truths):
        matrix[number, list(truth)] = 1
    return matrix


def _balanced(plan: Plan, truth: Tensor) -> bool:
    counts = truth.sum(0)
    uneven = bool(counts.max() > UNEVEN * counts.min())
    return plan.balance == "yes" or (plan.balance == "auto" and plan.form == "softmax" and uneven)


def _strength(
    plan: Plan, examples: Examples, kinds: Sequence[Sequence[Sequence[int]]]
) -> tuple[list[Penalty], float]:
    """What cross-validation tried, and the strength to take."""
    count = min(FOLDS, max(map(len, kinds)))
    if plan.strength is not None or count < 2:
        return [], plan.strength or USUAL
    workers = min(count, plan.workers or available_cores())
    penalties = cross_validate(examples, folds_of(kinds, count), count, workers)
    return penalties, min(penalties, key=lambda one: one.loss).strength


def _rounded(layer: Layer) -> Layer:
    """The layer as the file has it: float32."""
    return Layer(layer.weight.float().double(), layer.bias.float().double())


def _accuracy(layer: Layer, features: Any, truth: Tensor, form: Form) -> Figure:
    if not len(features):
        return Figure(float("nan"), float("nan"), float("nan"))
    hits = int(right(layer(torch.from_numpy(features)), truth, form).sum())
    low, high = wilson(hits, len(truth))
    return Figure(100 * hits / len(truth), 100 * low, 100 * high)


def _counts(truth: Tensor) -> tuple[int, ...]:
    return tuple(int(count) for count in truth.sum(0))


def _majority(truths: Sequence[tuple[int, ...]]) -> float:
    most = Counter(truths).most_common(1)
    return 100 * most[0][1] / len(truths) if most else float("nan")


def _answers(
    layer: Layer,
    features: Any,
    pictures: Sequence[Labelled],
    truths: Sequence[tuple[int, ...]],
    held: Sequence[int],
    form: Form,
) -> tuple[Answer, ...]:
    probabilities = probabilities_of(layer(torch.from_numpy(features)), form).float().numpy()
    return tuple(
        Answer(str(pictures[number].path), truths[number], row)
        for number, row in zip(held, probabilities, strict=True)
    )


def _curve(
    examples: Examples,
    kinds: Sequence[Sequence[Sequence[int]]],
    strength: float,
    features: Any,
    truth: Tensor,
    last: Figure,
) -> tuple[Point, ...]:
    if len(features) < ENOUGH:
        return ()
    points = []
    for share in SHARES:
        some = first_share(kinds, share)
        layer = next(path(examples.some(some), [strength]))
        points.append(Point(len(some), _accuracy(layer, features, truth, examples.form)))
    return (*points, Point(len(examples.truth), last))


def _duplicates(groups: Any, pictures: Sequence[Labelled]) -> tuple[tuple[str, ...], ...]:
    members: dict[int, list[str]] = {}
    for number, group in enumerate(groups):
        members.setdefault(int(group), []).append(str(pictures[number].path))
    return tuple(tuple(paths) for paths in members.values() if len(paths) > 1)


def _name_lone(
    classes: Classes, truths: Sequence[tuple[int, ...]], held: set[int], found: Found
) -> None:
    """Name classes of one picture, and those of which none could be held out."""
    counts = Counter(one for truth in truths for one in truth)
    tested = {one for number in held for one in truths[number]}
    for index, name in enumerate(classes.names):
        if counts[index] == 1:
            found.problem(name, "has one picture alone: nothing says how well it is told apart")
        elif held and index not in tested:
            found.problem(name, "has none held out: its pictures are nearly the same, or too few")


def _content(
    cam: CamModel,
    classes: Classes,
    plan: Plan,
    outcome: Outcome,
    layer: Layer,
    views: int,
    examples: Examples,
) -> bytes:
    """The file's bytes."""
    figure = outcome.accuracy
    made = {
        "camtool": __version__,
        "base_sha256": cam.network.sha256,
        "fit": cam.fit,
        "fitted": outcome.fitted,
        "held_out": outcome.held,
        "views": views,
        "balanced": examples.balanced,
        "strength": outcome.strength,
        "seed": plan.seed,
        "accuracy": [figure.value, figure.low, figure.high] if outcome.answers else None,
    }
    head = linear_head(cam)
    module = with_layer(cam.network.module, head, layer.weight.float(), layer.bias.float())
    network = replace(
        cam.network, labels=classes.labels, synsets=classes.synsets, activation=plan.form
    )
    return _file(module, network, cam, made)
