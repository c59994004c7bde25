"""Accuracy and localization of a network, as `camtool evaluate` measures them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from camtool.evaluate import Mode
from camtool.evaluate.predictions import MapSettings, MapStore
from camtool.evaluate.run import evaluate
from camtool.model import CamModel

if TYPE_CHECKING:
    from camtool.evaluate.datasets import Dataset
    from camtool.evaluate.results import EvaluationResult
    from camtool.networks import Network


def measure(
    network: Network,
    dataset: Dataset,
    size: int | None = None,
    device: str = "cpu",
    mode: Mode = "plain",
) -> EvaluationResult:
    """Measure a network on a data set; no number differs from that of `camtool evaluate`.

    Args:
        network: Its parameters are read as they are now.
        dataset: Pictures with their boxes.
        size: Side of the input in pixels; None for the network's own.
        device: Where it runs.
        mode: As `camtool evaluate --mode`.
    """
    model = CamModel(network, device=device, size=size)
    model.fuse()
    settings, store = MapSettings.of(model), MapStore(None, dataset.root)
    return evaluate(dataset, settings, store, lambda: model, mode=mode)


def line(result: EvaluationResult) -> str:
    """What was found, in one line."""
    metrics = result.localization.metrics
    known, centre, _ = metrics["max_box_acc"]
    return (
        f"size {result.settings.size}: top-1 {result.top1:.2f} %, top-5 {result.top5:.2f} %; "
        f"localization, label given {known.value:.2f} % (threshold {known.threshold:.3f}), top-1 "
        f"{metrics['top1_loc_best'].network.value:.2f} %, centre box {centre.value:.2f} %"
    )
