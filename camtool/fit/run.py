"""`camtool fit`: from labelled pictures to a network that knows their classes, and how well."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias

from camtool import __version__
from camtool.accelerate.memory import spare_memory
from camtool.engines.engine import never
from camtool.engines.threads import available_cores
from camtool.files import write_atomically
from camtool.fit.assess import accuracy, answers, learning_curve, majority
from camtool.fit.base import check_base, file_of
from camtool.fit.data import Classes, DataError, Found, classes_of, known_alone, read_labelled
from camtool.fit.features import compute, pooling, settings_of
from camtool.fit.finetune import Tuned, tuned
from camtool.fit.outcome import Floats, Form, Outcome, Penalty, Problem
from camtool.fit.sample import Sample, sample_of
from camtool.fit.solver import (
    USUAL,
    Examples,
    bytes_to_solve,
    cross_validate,
    fitted_layer,
    one_thread,
)
from camtool.fit.split import Kinds, folds_of
from camtool.fit.store import FeatureStore, Key
from camtool.images import MAX_PIXELS

if TYPE_CHECKING:
    from torch import Tensor

    from camtool.model import CamModel

Balance: TypeAlias = Literal["auto", "yes", "no"]

MOST_VIEWS = 4000
"""Views of all pictures up to which a picture is seen mirrored too, unless the user says."""

UNEVEN = 2
"""A class of more than so many times the pictures of another makes classes uneven."""

FOLDS = 5


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
        finetune: Train the last stage of the base further, where that is better.
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
    finetune: bool = False

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
        RunError: Another fit is computing the same features.
        StoppedError: `stopping` said so; what is computed is kept.
    """
    check_base(cam)
    found, apart = read_labelled(plan.data, plan.form, plan.folder), Found()
    classes = classes_of(found.pictures, plan.form, plan.data)
    if plan.validation:
        apart = read_labelled(plan.validation, plan.form, plan.folder)
        known_alone(apart, classes)
    warn(_counted(found, classes, plan.form))
    model, further = pooling(cam), None
    _check_memory(plan, len(found.pictures), len(classes.names), model.head.channels)
    with closing(_store(model, plan)) as store:
        views = _compute(model, plan, store, found, apart, progress, warn, stopping)
        # What could not be read may have been all of a class.
        classes = classes_of(found.pictures, plan.form, plan.data)
        known_alone(apart, classes)
        pictures = [*found.pictures, *apart.pictures]
        whole = [(picture.digest, 0) for picture in pictures]
        plain, thumbs = store.values(whole), store.thumbs(whole)
        with one_thread():
            sample = sample_of(found, apart, classes, plain, thumbs, plan.holdout, plan.seed)
            for name, told in sample.lone():
                found.problem(name, told)
        features = _features(store, sample, views)
    if plan.finetune:
        further = _tuned(cam, plan, sample, features, progress, warn, stopping)
    if further:
        cam, model = further.cam, pooling(further.cam)
        with closing(_store(model, plan)) as store:
            _compute(model, plan, store, found, apart, progress, warn, stopping)
            sample = replace(sample, plain=store.values(whole))
            features = _features(store, sample, views)
    with one_thread():
        problems = (*found.problems, *apart.problems)
        outcome = _fitted(cam, plan, sample, features, problems, further)
    paths = [str(picture.path) for picture in pictures]
    shown = list(zip(paths, sample.truths, strict=True))
    return Result(outcome, found.failed + apart.failed, shown)


def _store(model: CamModel, plan: Plan) -> FeatureStore:
    return FeatureStore(plan.folder, settings_of(model, plan.batch_size), model.head.channels)


def _features(store: FeatureStore, sample: Sample, views: int) -> Floats:
    """float32 [n,V,C], of the views of those that are fitted on."""
    keys = [(sample.pictures[n].digest, view) for n in sample.fitted for view in range(views)]
    return store.values(keys).reshape(len(sample.fitted), views, -1)


def _tuned(
    cam: CamModel,
    plan: Plan,
    sample: Sample,
    features: Floats,
    progress: Callable[[int, int], None],
    warn: Callable[[str], None],
    stopping: Callable[[], bool],
) -> Tuned | None:
    """The base with its last stage trained further, where that is better."""
    truth = sample.matrix(sample.fitted)
    examples = Examples(features, truth, plan.form, _balanced(plan, truth))
    with one_thread():
        _, strength = _strength(plan, examples, sample.kinds(plan.seed))
    found = tuned(
        cam, sample, examples, strength, plan.folder, plan.seed, plan.workers, progress, stopping
    )
    if found is None:
        raise StoppedError
    aside = "on the fitted pictures that were set aside"
    if found.epochs:
        warn(f"fine-tuned: loss {found.after:.4f} {aside}, {found.before:.4f} of the layer alone")
    else:
        warn(f"fine-tuning is no better than the layer alone {aside}: the base stays as it is")
    return found if found.epochs else None


def _views(plan: Plan, pictures: int) -> int:
    """Of each picture."""
    return plan.views or (2 if 2 * pictures <= MOST_VIEWS else 1)


def _check_memory(plan: Plan, pictures: int, classes: int, channels: int) -> None:
    """Refuse what would not fit, before anything is computed."""
    views, spare = _views(plan, pictures), spare_memory()
    needed = bytes_to_solve(pictures * views, channels, classes)
    if 0 < spare < needed:
        raise DataError(
            f"{plan.data}: {pictures:,} pictures of {classes:,} classes would take with "
            f"--views {views} {needed / 1e9:.1f} GB of memory, and {spare / 1e9:.1f} are free; "
            f"take fewer {'views (--views 1)' if views > 1 else 'pictures'}"
        )


def _counted(found: Found, classes: Classes, form: Form) -> str:
    counts = Counter(name for picture in found.pictures for name in picture.names)
    least, most = min(counts.values()), max(counts.values())
    each = f"{least:,}" if least == most else f"{least:,} to {most:,}"
    kind = "labels" if form == "sigmoid" else "classes"
    told = f"{len(found.pictures):,} pictures of {len(classes.names):,} {kind}, {each} of each"
    if form == "softmax" and len(classes.names) == 2:
        told += (
            "; maps of two classes show what tells one from the other: with a third folder, of "
            "pictures of neither, they show more of the whole"
        )
    return told


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
    count = _views(plan, len(ours))
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
    sample: Sample,
    features: Floats,
    problems: tuple[Problem, ...],
    further: Tuned | None,
) -> Outcome:
    """Fit, measure, and write the file.

    Args:
        cam: The base.
        plan: What to do.
        sample: The pictures.
        features: float32 [n,V,C], of the views of those that are fitted on.
        problems: What was found to be wrong with the data.
        further: How the base was trained further, if it was. Then the strength is chosen on the
            pictures that it was not trained on, and there is no learning curve, for that would take
            a base trained on fewer pictures.
    """
    truth = sample.matrix(sample.fitted)
    examples = Examples(features, truth, plan.form, _balanced(plan, truth))
    kinds = sample.kinds(plan.seed)
    penalties, strength = _strength(plan, examples, kinds, further.aside if further else ())
    layer = fitted_layer(examples, strength)
    figure = accuracy(layer, sample, examples)
    outcome = Outcome(
        labels=sample.classes.labels,
        form=plan.form,
        base=cam.network.name,
        fitted=_counts(truth),
        held=_counts(sample.matrix(sample.held)),
        penalties=tuple(penalties),
        strength=strength,
        answers=answers(layer, sample, examples),
        accuracy=figure,
        majority=majority(sample),
        curve=() if further else learning_curve(sample, examples, kinds, strength, figure),
        duplicates=tuple(
            tuple(str(sample.pictures[number].path) for number in group)
            for group in sample.duplicates()
        ),
        problems=problems,
    )
    made = _made(cam, plan, outcome, features.shape[1], examples.balanced)
    made |= {"finetuned": further.epochs} if further else {}
    weight, bias = layer.weight.float(), layer.bias.float()
    write_atomically(plan.output, file_of(cam, weight, bias, sample.classes, plan.form, made))
    return outcome


def _balanced(plan: Plan, truth: Tensor) -> bool:
    counts = truth.sum(0)
    uneven = bool(counts.max() > UNEVEN * counts.min())
    return plan.balance == "yes" or (plan.balance == "auto" and plan.form == "softmax" and uneven)


def _strength(
    plan: Plan, examples: Examples, kinds: Kinds, aside: Sequence[int] = ()
) -> tuple[list[Penalty], float]:
    """What cross-validation tried, and the strength to take.

    Where some pictures were set aside, each strength is tried on those.
    """
    count = 1 if aside else min(FOLDS, max(map(len, kinds)))
    if plan.strength is not None or (count < 2 and not aside):
        return [], plan.strength or USUAL
    folds = dict.fromkeys(aside, 0) if aside else folds_of(kinds, count)
    rows = len(examples.features) * examples.features.shape[1]
    each = bytes_to_solve(rows, examples.features.shape[2], examples.truth.shape[1])
    spare = spare_memory() or count * each
    workers = min(count, plan.workers or available_cores(), max(1, spare // each))
    penalties = cross_validate(examples, folds, count, workers)
    return penalties, min(penalties, key=lambda one: one.loss).strength


def _counts(truth: Tensor) -> tuple[int, ...]:
    return tuple(int(count) for count in truth.sum(0))


def _made(
    cam: CamModel, plan: Plan, outcome: Outcome, views: int, balanced: bool
) -> dict[str, Any]:
    """How the network was made; no times and no paths, for the same fit gives the same bytes."""
    figure = outcome.accuracy
    return {
        "camtool": __version__,
        "base_sha256": cam.network.sha256,
        "fit": cam.fit,
        "fitted": outcome.fitted,
        "held_out": outcome.held,
        "views": views,
        "balanced": balanced,
        "strength": outcome.strength,
        "seed": plan.seed,
        "accuracy": [figure.value, figure.low, figure.high] if outcome.answers else None,
    }
