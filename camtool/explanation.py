"""The result for one picture: its class activation maps and what they add up to."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from camtool.images import Geometry
from camtool.images.resample import upsample

if TYPE_CHECKING:
    import os

    from matplotlib.axes import Axes
    from numpy.typing import NDArray
    from PIL import Image

    from camtool.choices import Rule
    from camtool.regions.boxes import Component
    from camtool.views.overlay import Look

DEFAULT_THRESHOLD = 0.2


@dataclass(frozen=True, eq=False, repr=False)
class Explanation:
    """Class activation maps of one picture, with what they add up to.

    For every class k of the K explained,
    ``maps[k].mean() + bias[k] + residual[k] == logits[k]``. Plain data: it can be pickled and
    read on another machine.

    Attributes:
        name: What the picture is called.
        image: uint8 [H,W,3], RGB, upright.
        geometry: Where the map lies on the original picture.
        maps: float32 [K,h,w], signed, in logits, at feature resolution.
        indices: int64 [K], class indices.
        labels: [K].
        versus: [K], the label that each is contrasted with; "" where it stands alone.
        logits: float32 [K]; of a contrast the difference of two.
        bias: float32 [K], the part of each logit that belongs to no place.
        residual: float32 [K], what map and bias leave of each logit, in logits.
        exact: Whether every residual is within 1e-5 of the spread of all logits.
        probabilities: float32 [K], softmax over all classes or sigmoid of each; NaN where the
            logits are no odds.
        all_logits: float32 [classes].
        model: Name of the network.
        method: Name of the method that made the maps.
        layer: Where in the network they were made.
        steps: Points or intervals of an integration; 1 where nothing was integrated.
    """

    name: str
    image: NDArray[np.uint8]
    geometry: Geometry
    maps: NDArray[np.float32]
    indices: NDArray[np.int64]
    labels: tuple[str, ...]
    versus: tuple[str, ...]
    logits: NDArray[np.float32]
    bias: NDArray[np.float32]
    residual: NDArray[np.float32]
    exact: bool
    probabilities: NDArray[np.float32]
    all_logits: NDArray[np.float32]
    model: str
    method: str
    layer: str
    steps: int = 1

    def __repr__(self) -> str:
        found = ", ".join(
            title if np.isnan(probability) else f"{title} {probability:.1%}"
            for title, probability in zip(self.titles, self.probabilities, strict=True)
        )
        return f"<Explanation of {self.name}: {found}>"

    @property
    def titles(self) -> tuple[str, ...]:
        """What each map speaks for: its label, or both labels of a contrast."""
        pairs = zip(self.labels, self.versus, strict=True)
        return tuple(f"{one} rather than {other}" if other else one for one, other in pairs)

    def probability(self, k: int = 0) -> float | None:
        """Probability of the k-th explained class; None where the logits are no odds."""
        value = float(self.probabilities[k])
        return None if np.isnan(value) else value

    def rank(self, k: int = 0) -> int:
        """Place of the k-th explained class among all, 1 the first."""
        return int((self.all_logits > self.all_logits[self.indices[k]]).sum()) + 1

    def heatmaps(self, classes: slice = slice(None)) -> NDArray[np.float32]:
        """The maps of several of the explained classes, as from `heatmap`: float32 [K,H,W]."""
        maps = torch.from_numpy(self.maps[classes])
        return upsample(maps, self.geometry.extent, self.geometry.size).numpy()

    def heatmap(self, k: int = 0) -> NDArray[np.float32]:
        """The map of the k-th explained class on the original picture.

        Returns:
            float32 [H,W], in logits, bilinear between cell centres; NaN where the network saw
            nothing.
        """
        maps = torch.from_numpy(self.maps[k])
        return upsample(maps, self.geometry.extent, self.geometry.size).numpy()

    def components(
        self, k: int = 0, threshold: float = DEFAULT_THRESHOLD, rule: Rule = "max"
    ) -> list[Component]:
        """Connected regions of the k-th map above a cut, largest first.

        With "max" the cut is `threshold` times the map's maximum, the rule of Zhou et al. 2016,
        section 3.2, who take 20 %. A map without positive evidence has none.

        Raises:
            ValueError: The threshold lies outside 0..1.
        """
        from camtool.regions import components_of

        return components_of(self, k, threshold, rule)

    def boxes(
        self, k: int = 0, threshold: float = DEFAULT_THRESHOLD, rule: Rule = "max"
    ) -> list[tuple[int, int, int, int]]:
        """Boxes of the k-th class, (x0, y0, x1, y1) in original pixels, end-exclusive.

        The bounding boxes of `components`, largest region first.
        """
        return [component.box for component in self.components(k, threshold, rule)]

    def mask(
        self, k: int = 0, threshold: float = DEFAULT_THRESHOLD, rule: Rule = "max"
    ) -> NDArray[np.bool_]:
        """All pixels of `components`, bool [H,W] at the picture's size."""
        from camtool.regions import mask_from_map

        return mask_from_map(self.heatmap(k), threshold, rule=rule)

    def overlay(self, k: int = 0, *, boxes: bool = False, **look: Any) -> Image.Image:
        """The picture at its original size with the k-th map on it.

        Args:
            k: Which of the explained classes.
            boxes: Draw the largest box.
            **look: Fields of `camtool.Look`: signed, colormap, opacity, ...
        """
        from camtool.views.panel import overlay_of

        return overlay_of(self, k, boxes, **look)

    def panel(
        self,
        look: Look | None = None,
        *,
        boxes: bool = True,
        threshold: float = DEFAULT_THRESHOLD,
        rule: Rule = "max",
    ) -> Image.Image:
        """The picture, an overlay for each class, labels, boxes, and a colour bar in logits."""
        from camtool.views.panel import panel_of

        return panel_of(self, look, boxes=boxes, threshold=threshold, rule=rule)

    def plot(self, k: int = 0, ax: Axes | None = None, **look: Any) -> Axes:
        """The picture with the k-th map on matplotlib's axes, with a colour bar in logits.

        Args:
            k: Which of the explained classes.
            ax: Where to draw; None for axes of a new figure.
            **look: Fields of `camtool.Look`: signed, colormap, opacity, ...

        Raises:
            ImportError: matplotlib is not installed: `pip install 'camtool[plot]'`.
        """
        from camtool.views.plot import plot

        return plot(self, k, ax, **look)

    def to_dict(self, threshold: float = DEFAULT_THRESHOLD, boxes: bool = True) -> dict[str, Any]:
        """The JSON record of this picture, without the maps themselves."""
        from camtool.views.record import record_of

        return record_of(self, threshold, boxes)

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Save by the file's ending: .npz maps, .json record, .html explorer, else the panel.

        Raises:
            ValueError: Pillow knows no format of that ending.
            OSError: The file can't be written.
        """
        from camtool.views.save import save

        return save(self, Path(path))

    def part(self, classes: slice) -> Explanation:
        """The same of some of the explained classes alone."""
        names = ("maps", "indices", "logits", "bias", "residual", "probabilities")
        # Copies, so that a part does not keep the whole.
        arrays = {name: getattr(self, name)[classes].copy() for name in names}
        return replace(self, labels=self.labels[classes], versus=self.versus[classes], **arrays)

    def _repr_html_(self) -> str | None:
        from camtool.views.explorer import notebook_frame

        return notebook_frame(self)

    def _repr_png_(self) -> bytes:
        from camtool.views.save import panel_png

        return panel_png(self)
