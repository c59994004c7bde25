"""The result for one picture: its class activation maps and every view of them."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from camtool.device import true_float32
from camtool.files import write_atomically
from camtool.images import Geometry
from camtool.images.resample import upsample
from camtool.opencv import cv2
from camtool.regions.boxes import Component, components_from_map

if TYPE_CHECKING:
    import os

    from numpy.typing import NDArray
    from PIL import Image
    from torch import Tensor

    from camtool.views.overlay import Look

DEFAULT_THRESHOLD = 0.2

_JPEG_SIDE = 65_500
"""Pixels; libjpeg's own limit (JPEG_MAX_DIMENSION in jmorecfg.h)."""


@dataclass(frozen=True, repr=False)
class Explanation:
    """Class activation maps of one picture, with what they add up to.

    For every class k of the K explained, ``maps[k].mean() + bias[k] == logits[k]``.

    Attributes:
        name: What the picture is called.
        image: uint8 [H,W,3], RGB, upright.
        geometry: Where the map lies on the original picture.
        maps: float32 [K,h,w], signed, in logits, at feature resolution.
        indices: int64 [K], class indices.
        labels: [K].
        logits: float32 [K].
        bias: float32 [K], the part of each logit that belongs to no place.
        probabilities: float32 [K], softmax over all classes.
        all_logits: float32 [classes].
        model: Name of the network.
        device: Where maps are brought to the picture's size.
    """

    name: str
    image: NDArray[np.uint8]
    geometry: Geometry
    maps: NDArray[np.float32]
    indices: NDArray[np.int64]
    labels: tuple[str, ...]
    logits: NDArray[np.float32]
    bias: NDArray[np.float32]
    probabilities: NDArray[np.float32]
    all_logits: NDArray[np.float32]
    model: str
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    def __repr__(self) -> str:
        found = ", ".join(
            f"{label} {probability:.1%}"
            for label, probability in zip(self.labels, self.probabilities, strict=True)
        )
        return f"<Explanation of {self.name}: {found}>"

    def _heats(self, classes: slice | int) -> Tensor:
        maps = torch.from_numpy(self.maps[classes]).to(self.device)
        with true_float32(self.device):
            return upsample(maps, self.geometry.extent, self.geometry.size)

    def heatmap(self, k: int = 0) -> NDArray[np.float32]:
        """The map of the k-th explained class on the original picture.

        Returns:
            float32 [H,W], in logits, bilinear between cell centres; NaN where the network saw
            nothing.
        """
        return self._heats(k).cpu().numpy()

    @cached_property
    def _components(self) -> dict[tuple[int, float], list[Component]]:
        return {}

    def components(self, k: int = 0, threshold: float = DEFAULT_THRESHOLD) -> list[Component]:
        """Connected regions above `threshold` times the map's maximum, largest first.

        The rule of Zhou et al. 2016, section 3.2, who take 20 %. A map without positive evidence
        has none.

        Raises:
            ValueError: The threshold lies outside 0..1.
        """
        if (k, threshold) not in self._components:
            found = components_from_map(self.heatmap(k), threshold, components="all")
            self._components[k, threshold] = found
        return self._components[k, threshold]

    def boxes(
        self, k: int = 0, threshold: float = DEFAULT_THRESHOLD
    ) -> list[tuple[int, int, int, int]]:
        """Boxes of the k-th class, (x0, y0, x1, y1) in original pixels, end-exclusive.

        The bounding boxes of `components`, largest region first.
        """
        return [component.box for component in self.components(k, threshold)]

    def overlays(
        self, look: Look | None = None, classes: slice = slice(None)
    ) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        """The picture with each map on it.

        Returns:
            uint8 [K,H,W,3], and float32 [K], the upper end of each colour scale in logits.
        """
        from camtool.views.overlay import Look, paint, scale_of

        look = look or Look()
        heats = self._heats(classes).cpu().numpy()
        high = scale_of(heats, look)
        return paint(self.image, heats, high, look), high

    def overlay(self, k: int = 0, *, boxes: bool = False, **look: Any) -> Image.Image:
        """The picture at its original size with the k-th map on it.

        Args:
            k: Which of the explained classes.
            boxes: Draw the largest box.
            **look: Fields of `camtool.views.overlay.Look`: signed, colormap, opacity, ...
        """
        from PIL import Image

        from camtool.views.overlay import Look
        from camtool.views.panel import draw_boxes

        painted = self.overlays(Look(**look), slice(k, k + 1 or None))[0][0]
        return Image.fromarray(draw_boxes(painted, self.boxes(k)[:1]) if boxes else painted)

    def panel(
        self,
        look: Look | None = None,
        *,
        boxes: bool = True,
        threshold: float = DEFAULT_THRESHOLD,
    ) -> Image.Image:
        """The picture, an overlay for each class, labels, boxes, and a colour bar in logits."""
        from camtool.views.overlay import Look, Scale
        from camtool.views.panel import Tile, panel

        look = look or Look()
        painted, high = self.overlays(look)
        tiles = [
            Tile(
                image=painted[k],
                label=label,
                probability=float(self.probabilities[k]),
                logit=float(self.logits[k]),
                boxes=self.boxes(k, threshold)[:1] if boxes else (),
                scale=Scale(-float(high[k]) if look.signed else 0.0, float(high[k])),
                rank=self._rank(k),
                peak=float(self.maps[k].max()),
            )
            for k, label in enumerate(self.labels)
        ]
        return panel(self.image, tiles, look, title=Path(self.name).name, footer=self._footer())

    def _rank(self, k: int) -> int:
        return int((self.all_logits > self.logits[k]).sum()) + 1

    def _footer(self) -> str:
        rows, columns = self.maps.shape[1:]
        seen = self.geometry.input
        return (
            f"{self.model} · fit {self.geometry.fit}, input {seen[1]}×{seen[0]}, "
            f"map {columns}×{rows} · mean of the map + bias = logit"
        )

    def to_dict(self, threshold: float = DEFAULT_THRESHOLD, boxes: bool = True) -> dict[str, Any]:
        """The JSON record of this picture, without the maps themselves."""
        width, height = self.geometry.size
        return {
            "path": self.name,
            "width": width,
            "height": height,
            "geometry": {
                "fit": self.geometry.fit,
                "region": list(self.geometry.region),
                "input": list(self.geometry.input),
            },
            "explanations": [
                self._class_dict(k, threshold, boxes) for k in range(len(self.labels))
            ],
        }

    def _class_dict(self, k: int, threshold: float, boxes: bool) -> dict[str, Any]:
        heat = self.maps[k]
        record: dict[str, Any] = {
            "index": int(self.indices[k]),
            "label": self.labels[k],
            "logit": float(self.logits[k]),
            "probability": float(self.probabilities[k]),
            "bias": float(self.bias[k]),
            "map": {
                "height": heat.shape[0],
                "width": heat.shape[1],
                "min": float(heat.min()),
                "max": float(heat.max()),
                "mean": float(heat.mean(dtype=np.float64)),
            },
        }
        if boxes:
            record["boxes"] = [
                {"box": list(found.box), "threshold": threshold, "share": found.share}
                for found in self.components(k, threshold)
            ]
        return record

    def to_npz(self) -> bytes:
        """The maps and their numbers as a compressed NumPy archive.

        Returns:
            An .npz file: maps float32 [K,h,w]; indices int64, labels str, logits, bias and
            probabilities float32, all [K]; region int64 [4], (x0, y0, x1, y1) in original pixels
            that the maps cover; size int64 [2], (W, H).
        """
        stream = io.BytesIO()
        np.savez_compressed(
            stream,
            maps=self.maps,
            indices=self.indices,
            labels=np.array(self.labels, dtype=np.str_),
            logits=self.logits,
            bias=self.bias,
            probabilities=self.probabilities,
            region=np.array(self.geometry.region, dtype=np.int64),
            size=np.array(self.geometry.size, dtype=np.int64),
        )
        return stream.getvalue()

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Save by the file's ending: .npz the maps, .json the record, else the panel.

        Raises:
            ValueError: Pillow knows no format of that ending.
            OSError: The file can't be written.
        """
        path = Path(path)
        if path.suffix == ".npz":
            write_atomically(path, self.to_npz())
        elif path.suffix == ".json":
            write_atomically(path, json.dumps(self.to_dict(), indent=1).encode())
        else:
            write_atomically(path, encode(self.panel(), path.suffix))
        return path

    def _repr_png_(self) -> bytes:
        return encode(self.panel(), ".png")


def encode(picture: Image.Image | NDArray[np.uint8], suffix: str, quality: int = 90) -> bytes:
    """A picture as a file's bytes.

    Args:
        picture: A PIL image or uint8 [H,W,3], in RGB.
        suffix: The file's ending, as ".png" or ".jpg".
        quality: For the formats that lose something.

    Raises:
        ValueError: Pillow writes no format of that ending.
        OSError: The format can't hold the picture.
    """
    from PIL import Image

    form = Image.registered_extensions().get(suffix.lower())
    if form is None:
        raise ValueError(f"no picture format has the ending {suffix!r}; use .png, .jpg or .webp")
    if form == "JPEG":
        return _jpeg(np.asarray(picture), quality)
    if not isinstance(picture, Image.Image):
        picture = Image.fromarray(picture)
    stream = io.BytesIO()
    picture.save(stream, form, quality=quality)
    return stream.getvalue()


def _jpeg(picture: NDArray[np.uint8], quality: int) -> bytes:
    """By OpenCV: Pillow's encoder holds Python's lock, and with it the other threads of a run."""
    height, width = picture.shape[:2]
    if max(height, width) > _JPEG_SIDE:
        raise OSError(f"{width}×{height} pixels are too many for a JPEG; choose PNG")
    bgr = cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)
    return cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes()


def split_batch(
    packed: NDArray[np.float32], shapes: Sequence[tuple[int, ...]]
) -> list[NDArray[np.float32]]:
    """Undo the packing of a batch's results into one array for one copy to the host.

    Args:
        packed: float32 [N, total].
        shapes: Shape of each part for one picture.

    Returns:
        One array [N, *shape] for each part.
    """
    ends = np.cumsum([int(np.prod(shape)) for shape in shapes])
    parts = np.split(packed, ends[:-1], axis=1)
    return [part.reshape(len(packed), *shape) for part, shape in zip(parts, shapes, strict=True)]
