"""The panel: the picture, its overlays with label, probability, logit and boxes, colour bars."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from camtool.views import legend, text
from camtool.views.overlay import NO_EVIDENCE, Look, Scale, overlays_of

if TYPE_CHECKING:
    from camtool.choices import Rule
    from camtool.explanation import Explanation

_MARGIN = 32
_GAP = 28
_TITLE, _LABEL, _BODY = 26, 20, 16
_LONG_SIDE = 480
_SHORT_SIDE = 96
_LONGEST_SIDE = 1200
_CELL_WIDTH = 250
_CONTENT_WIDTH = 520
_ASPECT = 1.6
_HAIRLINE = (214, 214, 218)
_BOX_WIDTH = 1 / 200
_MOST_BOXES = 5


@dataclass(frozen=True, eq=False)
class Tile:
    """One map of the panel.

    Attributes:
        image: uint8 [H, W, 3], the overlay at the picture's size, without boxes.
        label: Name of the class.
        probability: 0 to 1, or None where the network gives none.
        logit: The score that the map adds up to.
        boxes: (x0, y0, x1, y1) in pixels of the picture, end-exclusive; numbered in this order
            where there are several.
        scale: Logits at the ends of the colour bar.
        rank: Place among the classes, from 1, or None.
        contrast: Whether the map is the difference of two, and the logit too.
        peak: Largest evidence of this map in logits; with it, a map without evidence is named
            as such also on a scale that it shares with others.
    """

    image: NDArray[np.uint8]
    label: str
    probability: float | None
    logit: float
    boxes: Sequence[tuple[int, int, int, int]]
    scale: Scale
    rank: int | None
    peak: float | None = None
    contrast: bool = False

    @property
    def empty(self) -> bool:
        """Whether the map holds no evidence to show."""
        return self.scale.empty or (self.peak is not None and self.peak <= NO_EVIDENCE)


def draw_boxes(
    image: NDArray[np.uint8], boxes: Sequence[tuple[int, int, int, int]]
) -> NDArray[np.uint8]:
    """Draw boxes as white lines between dark ones, which show on any background.

    The lines lie inside the boxes and grow with the picture.

    Args:
        image: uint8 [H, W, 3].
        boxes: (x0, y0, x1, y1) in pixels, end-exclusive.

    Returns:
        uint8 [H, W, 3], a copy.
    """
    drawn = image.copy()
    white = max(1, round(_BOX_WIDTH * math.sqrt(image.shape[0] * image.shape[1])))
    dark = max(1, white // 2)
    for x0, y0, x1, y1 in boxes:
        inside = drawn[max(y0, 0) : max(y1, 0), max(x0, 0) : max(x1, 0)]
        _frame(inside, 0, white + 2 * dark, text.INK)
        _frame(inside, dark, white, text.WHITE)
    return drawn


def panel(
    picture: NDArray[np.uint8],
    tiles: Sequence[Tile],
    look: Look,
    *,
    title: str,
    footer: str = "",
    size: tuple[int, int] | None = None,
    note: str = "",
) -> Image.Image:
    """Lay out a picture and its overlays on a white sheet.

    Args:
        picture: uint8 [H, W, 3], of any size and aspect.
        tiles: The overlays, best first.
        look: The display that the overlays were painted with.
        title: Headline, usually the file's name.
        footer: Small print, broken into lines as needed.
        size: (W, H) of the original, where `picture` is a smaller one of it.
        note: A line more for what is said of the colours.

    Returns:
        RGB image.
    """
    height, width = picture.shape[:2]
    shown = _tile_size(width, height)
    cell_width = max(_CELL_WIDTH, shown[0] + 2)
    cells = [_picture_cell(picture, tiles, look, shown, cell_width, size or (width, height), note)]
    cells += [_tile_cell(tile, look, shown, cell_width) for tile in tiles]
    grid = _grid(cells)
    content = max(_CONTENT_WIDTH, grid.width)
    heading = text.elide(title, _TITLE, content, middle=True)
    head = text.line([(heading, text.INK)], _TITLE, content)
    small = text.wrap(footer, legend.SIZE, content)
    foot = [text.line([(part, text.GREY)], legend.SIZE, content) for part in small]
    sheet = _stack([head, _space(16), grid, *([_space(20)] if foot else []), *foot])
    return ImageOps.expand(sheet, _MARGIN, text.WHITE)


def panel_of(
    explanation: Explanation,
    look: Look | None = None,
    *,
    boxes: bool = True,
    threshold: float,
    rule: Rule = "max",
) -> Image.Image:
    """The panel of an explanation: a tile for each class, and what the maps add up to.

    Args:
        explanation: The result.
        look: The display; None for the default.
        boxes: Draw each map's largest box.
        threshold: Of the boxes.
        rule: Of the threshold.
    """
    look = look or Look()
    painted, high = overlays_of(explanation, look)
    tiles = [
        Tile(
            image=picture,
            label=title,
            probability=explanation.probability(k),
            logit=float(explanation.logits[k]),
            boxes=_shown(explanation, k, threshold, rule) if boxes else (),
            scale=_scale(explanation.maps[k], float(high[k]), look),
            rank=explanation.rank(k),
            peak=float(
                np.abs(explanation.maps[k]).max() if look.signed else explanation.maps[k].max()
            ),
            contrast=bool(explanation.versus[k]),
        )
        for k, (title, picture) in enumerate(zip(explanation.titles, painted, strict=True))
    ]
    return panel(
        explanation.image,
        tiles,
        look,
        title=Path(explanation.name).name,
        footer=_footer(explanation),
        size=explanation.geometry.size,
        note=_cut(threshold, rule) if boxes else "",
    )


def _peak(heat: NDArray[np.float32], look: Look) -> float:
    return float(np.abs(heat).max() if look.signed else heat.max())


def _scale(heat: NDArray[np.float32], high: float, look: Look) -> Scale:
    """The scale of a map; of a signed one that holds nothing against its class only the half."""
    against = look.signed and (look.normalize != "image" or float(heat.min()) < -NO_EVIDENCE)
    return Scale(-high if against else 0.0, high)


def _cut(threshold: float, rule: Rule) -> str:
    """Where boxes were cut, in words."""
    share = f"{100 * threshold:.3g} %"
    places = {
        "max": f"above {share} of the map's maximum",
        "percentile": f"above {share} of the map's pixels",
        "otsu": "above Otsu's threshold of the map",
        "ivr": f"above {share} of the way from the map's 45th percentile to its maximum",
    }
    return f"boxes: {places[rule]}"


COMPLETE = ("cam", "integrated", "stages")


def _shown(
    explanation: Explanation, k: int, threshold: float, rule: Rule
) -> list[tuple[int, int, int, int]]:
    """The largest boxes, in pixels of the picture that is shown."""
    height, width = explanation.image.shape[:2]
    original = np.zeros((explanation.geometry.size[1], explanation.geometry.size[0], 0))
    return _scaled(explanation.boxes(k, threshold, rule)[:_MOST_BOXES], original, (width, height))


def _footer(explanation: Explanation) -> str:
    rows, columns = explanation.maps.shape[1:]
    geometry = explanation.geometry
    missing = text.number(float(np.abs(explanation.residual).max()))
    adds_up = "" if explanation.exact else f" within {missing}"
    if not explanation.exact and explanation.method not in COMPLETE:
        sum_of = f"{explanation.method}: does not add up to the logit"
    else:
        score = "logit, or difference of logits" if any(explanation.versus) else "logit"
        sum_of = f"{explanation.method}: mean of the map + bias = {score}{adds_up}"
    return (
        f"{explanation.model} · fit {geometry.fit}, input {geometry.input[1]}×{geometry.input[0]}, "
        f"map {columns}×{rows} · {sum_of}"
    )


def overlay_of(
    explanation: Explanation, k: int = 0, boxes: bool = False, **look: Any
) -> Image.Image:
    """The picture of an explanation at its original size with the k-th map on it.

    Args:
        explanation: The result.
        k: Which of the explained classes.
        boxes: Draw the largest box.
        **look: Fields of `Look`.

    Raises:
        IndexError: So many classes are not explained.
    """
    k = range(len(explanation.labels))[k]
    painted = next(overlays_of(explanation, Look(**look), slice(k, k + 1))[0])
    return Image.fromarray(draw_boxes(painted, explanation.boxes(k)[:1]) if boxes else painted)


def _picture_cell(
    picture: NDArray[np.uint8],
    tiles: Sequence[Tile],
    look: Look,
    size: tuple[int, int],
    width: int,
    original: tuple[int, int],
    note: str,
) -> Image.Image:
    blocks = [
        _framed(_resample(picture, size)),
        _space(8),
        text.line([("Picture", text.INK)], _LABEL, width),
        text.line([(f"{original[0]} x {original[1]} pixels", text.GREY)], _BODY, width),
    ]
    if tiles:
        blocks += [_space(8), *_legend(tiles, look, width, note)]
    return _stack(blocks)


def _legend(tiles: Sequence[Tile], look: Look, width: int, note: str) -> list[Image.Image]:
    """Explain the colours; a bar that all tiles have in common stands here once."""
    notes = [*legend.notes(look), note]
    said = [part for each in notes for part in text.wrap(each, legend.SIZE, width)]
    lines = [text.line([(s, text.GREY)], legend.SIZE, width) for s in said]
    if look.normalize == "image":
        return lines
    common = max((tile.scale for tile in tiles), key=lambda scale: scale.high)
    return [legend.bar(look, common, width), _space(4), *lines]


def _tile_cell(tile: Tile, look: Look, size: tuple[int, int], width: int) -> Image.Image:
    boxes = [] if tile.empty else _scaled(tile.boxes, tile.image, size)
    image = draw_boxes(_resample(tile.image, size), boxes)
    if len(boxes) > 1:
        image = _numbered(image, boxes)
    told = tile.probability is not None and not tile.contrast
    odds = [(text.percent(tile.probability or 0.0), text.INK)] if told else []
    score = f"{'difference of logits' if tile.contrast else 'logit'} {tile.logit:.2f}"
    blocks = [
        _framed(image),
        _space(8),
        *_label(tile, width),
        text.line([*odds, (score, text.GREY)], _BODY, width),
    ]
    if tile.empty:
        nothing = "no evidence" if look.signed else "no positive evidence"
        blocks += [_space(8), text.line([(nothing, text.GREY)], legend.SIZE, width)]
    elif look.normalize == "image":
        blocks += [_space(8), legend.bar(look, tile.scale, width)]
        if look.signed and tile.scale.low == 0:
            blocks += [text.line([("no evidence against it", text.GREY)], legend.SIZE, width)]
    return _stack(blocks)


def _label(tile: Tile, width: int) -> list[Image.Image]:
    """The name of the class; of a contrast both names, on as many lines as they need."""
    if tile.contrast:
        lines = text.wrap(tile.label, _LABEL, width)
        return [text.line([(part, text.INK)], _LABEL, width) for part in lines]
    rank = [(f"{tile.rank}", text.GREY)] if tile.rank is not None else []
    return [text.line([*rank, (tile.label, text.INK)], _LABEL, width)]


def _numbered(
    image: NDArray[np.uint8], boxes: Sequence[tuple[int, int, int, int]]
) -> NDArray[np.uint8]:
    """Write the number of each box into its upper left corner."""
    sheet = Image.fromarray(image)
    for number, (x0, y0, x1, y1) in enumerate(boxes, 1):
        room = math.ceil(text.width_of(str(number), legend.SIZE)) + 1
        label = text.line([(str(number), text.INK)], legend.SIZE, room)
        label = ImageOps.expand(label, (3, 0), text.WHITE)
        if label.width < x1 - x0 and label.height < y1 - y0:
            sheet.paste(label, (x0, y0))
    return np.asarray(sheet)


def _tile_size(width: int, height: int) -> tuple[int, int]:
    """Fit the long side; a very narrow picture may grow until its short side can be seen."""
    long, short = max(width, height), min(width, height)
    scale = max(_LONG_SIDE / long, min(_SHORT_SIDE / short, _LONGEST_SIDE / long))
    if scale > 2:
        scale = math.floor(scale)
    return max(1, round(width * scale)), max(1, round(height * scale))


def _resample(image: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """Resize; the pixels of a tiny picture stay visible as squares."""
    enlarged = size[0] >= 2 * image.shape[1]
    method = Image.Resampling.NEAREST if enlarged else Image.Resampling.LANCZOS
    return np.asarray(Image.fromarray(image).resize(size, method, reducing_gap=3.0))


def _scaled(
    boxes: Sequence[tuple[int, int, int, int]], image: NDArray[Any], size: tuple[int, int]
) -> list[tuple[int, int, int, int]]:
    across, down = size[0] / image.shape[1], size[1] / image.shape[0]
    return [
        (round(x0 * across), round(y0 * down), round(x1 * across), round(y1 * down))
        for x0, y0, x1, y1 in boxes
    ]


def _frame(image: NDArray[np.uint8], inset: int, width: int, colour: text.Colour) -> None:
    """Colour the edges of a picture, in place."""
    rows, columns = image.shape[0] - inset, image.shape[1] - inset
    within = image[inset:rows, inset:columns]
    for edge in (within[:width], within[-width:], within[:, :width], within[:, -width:]):
        edge[...] = colour


def _grid(cells: Sequence[Image.Image]) -> Image.Image:
    width = max(cell.width for cell in cells)
    columns = _columns(len(cells), width, max(cell.height for cell in cells))
    rows = [_row(cells[i : i + columns], width) for i in range(0, len(cells), columns)]
    spaced = [block for row in rows for block in (_space(_GAP), row)]
    return _stack(spaced[1:])


def _columns(count: int, width: int, height: int) -> int:
    """Choose the columns that bring the sheet near a page's aspect and leave few cells empty."""

    def penalty(columns: int) -> float:
        rows = math.ceil(count / columns)
        empty = 1 - count / (rows * columns)
        return abs(math.log(columns * width / (rows * height) / _ASPECT)) + 2 * empty

    return min(range(1, count + 1), key=penalty)


def _row(cells: Sequence[Image.Image], width: int) -> Image.Image:
    pitch = width + _GAP
    height = max(cell.height for cell in cells)
    row = Image.new("RGB", (pitch * len(cells) - _GAP, height), text.WHITE)
    for column, cell in enumerate(cells):
        row.paste(cell, (column * pitch, 0))
    return row


def _stack(blocks: Sequence[Image.Image]) -> Image.Image:
    width = max(block.width for block in blocks)
    sheet = Image.new("RGB", (width, sum(block.height for block in blocks)), text.WHITE)
    top = 0
    for block in blocks:
        sheet.paste(block, (0, top))
        top += block.height
    return sheet


def _framed(image: NDArray[np.uint8]) -> Image.Image:
    return ImageOps.expand(Image.fromarray(image), 1, _HAIRLINE)


def _space(height: int) -> Image.Image:
    return Image.new("RGB", (1, height), text.WHITE)
