"""What a network pools of pictures, and of mirrored and cropped views of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import closing
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from camtool.engines import ENGINES
from camtool.engines.engine import Failed, Job, Request, never
from camtool.engines.settings import model_settings
from camtool.engines.threads import available_cores
from camtool.fit.base import linear_head, with_layer
from camtool.fit.store import SIDE, Feature, FeatureStore, Key
from camtool.model import CamModel
from camtool.opencv import cv2

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from camtool.explanation import Explanation
    from camtool.prepared import Prepared

VIEWS_VERSION = 1
"""Of what `changed` does with a picture: features of other views are not taken for these."""

SMALLEST = 0.7
"""Least share of each side that a crop keeps."""


class Recent:
    """The pictures that were read last, so that no view of one decodes it again.

    Args:
        kept: How many; as many as are read at once suffice, for views of one follow one another.
    """

    def __init__(self, kept: int) -> None:
        self._kept = max(2, kept)
        self._lock = Lock()
        self._read: dict[Path, Future[Prepared]] = {}

    def get(self, path: Path, read: Callable[[], Prepared]) -> Prepared:
        """What is read of a path: by whoever comes first, and the others wait."""
        with self._lock:
            first = path not in self._read
            future = self._read.setdefault(path, Future())
            for old in list(self._read)[: -self._kept]:
                del self._read[old]
        if first:
            try:
                future.set_result(read())
            except BaseException as error:
                future.set_exception(error)
        return future.result()


@dataclass(frozen=True, slots=True)
class View(Job):
    """A picture as it is, mirrored, or cropped, on its way to the network.

    Attributes:
        source: The file.
        key: SHA-256 of the file, and the number of the view; 0 is the picture as it is.
        recent: What other views may have read.
    """

    source: Path
    key: Key = (b"", 0)
    recent: Recent = field(default_factory=lambda: Recent(1))

    def prepared(self, model: CamModel, request: Request) -> Prepared:
        """The view, and a small picture of it in place of the original.

        Raises:
            ImageError: The picture can't be read.
        """
        read = partial(model.prepare, self.source, request.max_pixels, reduced=True)
        whole = self.recent.get(self.source, read)
        if self.key[1]:
            seen = model.prepare(changed(whole.image, *self.key))
            whole = replace(seen, name=whole.name)
        pixels = model.pixels_of(whole)
        small = cv2.resize(pixels, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
        return replace(whole, pixels=pixels, image=np.asarray(small, np.uint8))


def changed(image: NDArray[np.uint8], digest: bytes, view: int) -> NDArray[np.uint8]:
    """A view of a picture.

    Args:
        image: uint8 [H,W,3].
        digest: Of its file: where a crop lies hangs on it and on the view alone.
        view: 1 for the picture mirrored; from 2 on crops of its aspect, every other one mirrored.
    """
    if view == 1:
        return np.ascontiguousarray(image[:, ::-1])
    random = np.random.default_rng([view, *digest])
    share = random.uniform(SMALLEST, 1)
    height, width = (max(1, round(side * share)) for side in image.shape[:2])
    top = random.integers(image.shape[0] - height, endpoint=True)
    left = random.integers(image.shape[1] - width, endpoint=True)
    crop = image[top : top + height, left : left + width]
    return np.ascontiguousarray(crop[:, ::-1] if view % 2 else crop)


def pooling(cam: CamModel) -> CamModel:
    """A model whose logits are exactly what another one pools: its last layer is the identity.

    Raises:
        ModelError: Its head is not linear.
    """
    head = linear_head(cam)
    ones, zeros = torch.eye(head.channels), torch.zeros(head.channels)
    module = with_layer(cam, ones, zeros)
    network = replace(cam.network, module=module, labels=(), synsets=(), notes=())
    device, dtype = str(cam.device), str(cam.dtype).removeprefix("torch.")
    model = CamModel(
        network, None, device, dtype, cam.fit, preprocessing=cam.preprocessing, method="cam"
    )
    model.fuse()
    return model


def settings_of(model: CamModel, batch_size: int) -> dict[str, Any]:
    """Everything that features depend on, to their last digit, as JSON."""
    return {
        **model_settings(model),
        "preprocessing": asdict(model.preprocessing),
        "device": model.device.type,
        "fused": model.fused,
        "batch_size": batch_size,
        "torch": torch.__version__,
        "views": VIEWS_VERSION,
    }


@dataclass(frozen=True)
class _Unreadable:
    digest: bytes
    reason: str


class _Pooled:
    """Work that keeps the logits alone, which are the pooled features."""

    def finish(self, job: View, explanation: Explanation, _milliseconds: float) -> Feature:
        shape, values = explanation.geometry.input, explanation.all_logits
        return Feature(job.key, shape, values, explanation.image)

    def fail(self, job: View, failed: Failed) -> _Unreadable:
        return _Unreadable(job.key[0], failed.reason)


def compute(
    model: CamModel,
    views: Sequence[tuple[Path, Key]],
    store: FeatureStore,
    batch_size: int,
    workers: int | None = None,
    max_pixels: int = 100_000_000,
    progress: Callable[[int, int], None] = lambda done, total: None,
    warn: Callable[[str], None] = print,
    stopping: Callable[[], bool] = never,
) -> dict[bytes, str]:
    """Compute the features of those views that a store lacks, and keep them there.

    Args:
        model: As from `pooling`.
        views: Every view of the run in its order, for the batches hang on it: one that was cut
            short ends with the bytes of one that was not.
        store: Where they go.
        batch_size: Most views to a forward pass.
        workers: Threads of each kind; None for as many as there are cores.
        max_pixels: Refuse larger pictures.
        progress: Told how many of how many are done.
        warn: Told what people should know.
        stopping: Asked now and then whether to begin no more.

    Returns:
        By the SHA-256 of its file, why a picture can't be read.
    """
    recent = Recent(workers or available_cores())
    jobs = [
        View(n, path, None, store.shape(key), key, recent) for n, (path, key) in enumerate(views)
    ]
    total, done = sum(job.shape is None for job in jobs), 0
    failed: dict[bytes, str] = {}
    if not total:
        return {}
    engine = ENGINES["threads"](model, Request((), 1, batch_size, max_pixels), workers, warn)
    with closing(engine.run(jobs, _Pooled(), stopping)) as chunks:
        for chunk in chunks:
            store.append([found for found in chunk if isinstance(found, Feature)])
            failed |= {one.digest: one.reason for one in chunk if isinstance(one, _Unreadable)}
            done += len(chunk)
            progress(done, total)
    return failed
