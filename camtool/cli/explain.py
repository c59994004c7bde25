"""`camtool explain`: where the network sees what, in one picture or a few."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from camtool.cli import common

if TYPE_CHECKING:
    from camtool.engines.engine import Failed
    from camtool.explanation import Explanation
    from camtool.model import CamModel
    from camtool.views.save import Views


def explain(
    paths: Annotated[list[Path], typer.Argument(help="Pictures.", metavar="PATH...")],
    model: common.Model = "auto",
    weights: common.Weights = None,
    labels: common.Labels = None,
    target: common.Target = None,
    topk: common.TopK = 3,
    fit: common.FitMode = "whole",
    size: common.Size = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Folder, or the panel's file; default beside PATH."),
    ] = None,
    save: Annotated[
        str, typer.Option("--save", help="Any of panel,overlay,heatmap,boxes,npz,json; or none.")
    ] = "panel",
    as_json: common.AsJson = False,
    boxes: common.Boxes = True,
    threshold: common.Threshold = 0.2,
    signed: common.Signed = False,
    colormap: common.Colormap = None,
    opacity: common.Opacity = 0.6,
    normalize: common.Normalize = "image",
    full_scale: common.FullScale = 30.0,
    device: common.Device = "auto",
    dtype: common.Dtype = "float32",
    batch_size: common.BatchSize = 8,
    max_pixels: common.MaxPixels = 100_000_000,
) -> None:
    """Show what the network sees in pictures, and where: a panel beside each picture."""
    from camtool.engines.engine import Failed
    from camtool.engines.stream import explain_stream

    with common.exits():
        views = common.make_views(
            save, boxes, threshold, signed, colormap, opacity, normalize, full_scale
        )
        cam = common.load_model(model, weights, labels, device, dtype, fit, size)
        writer = _Writer(output, paths, views, as_json)
        stream = explain_stream(cam, paths, target or None, topk, batch_size, max_pixels)
        for path, result in stream:
            if isinstance(result, Failed):
                writer.fail(result)
            else:
                writer.take(Path(str(path)), result)
        if as_json:
            print(json.dumps(writer.document(cam, dtype), indent=1))
    if writer.failed:
        raise typer.Exit(common.SOME_FAILED)


class _Writer:
    """Writes, prints and collects results as they come."""

    def __init__(self, output: Path | None, paths: list[Path], views: Views, quiet: bool) -> None:
        from camtool.views.save import Places

        self._panel = None
        if output is not None and output.suffix and not output.is_dir():
            if len(paths) > 1 or views.kinds != ("panel",):
                common.usage(f"--output {output} names one file; give a folder for several")
            self._panel = output
        self._places = Places(None if self._panel else output)
        self._views = views
        self._quiet = quiet
        self.images: list[dict[str, Any]] = []
        self.failed: list[dict[str, str]] = []

    def fail(self, failed: Failed) -> None:
        common.say(str(failed))
        self.failed.append({"path": failed.name, "reason": failed.reason})

    def take(self, path: Path, explanation: Explanation) -> None:
        from camtool.engines.engine import Failed
        from camtool.views.save import save_views

        try:
            base = self._places.base(path)
            files = save_views(explanation, base, self._views, self._panel)
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            self.fail(Failed(explanation.name, f"its files can't be written ({reason})"))
            return
        record = explanation.to_dict(self._views.threshold, self._views.boxes)
        self.images.append({**record, "files": files})
        if not self._quiet:
            _print_table(record, files)

    def document(self, cam: CamModel, dtype: str) -> dict[str, Any]:
        from camtool import __version__

        return {
            "camtool": __version__,
            "device": str(cam.device),
            "dtype": dtype,
            "model": cam.describe(),
            "images": self.images,
            "failed": self.failed,
        }


def _print_table(record: dict[str, Any], files: dict[str, str | list[str]]) -> None:
    from rich import print as show
    from rich.markup import escape
    from rich.table import Table

    table = Table(title=escape(record["path"]), title_justify="left", title_style="bold")
    for heading in ("", "label", "probability", "logit", "box x0 y0 x1 y1"):
        numeric = heading in ("", "probability", "logit")
        table.add_column(heading, justify="right" if numeric else "left")
    for rank, found in enumerate(record["explanations"], 1):
        boxes = found.get("boxes") or [{"box": ["-"]}]
        table.add_row(
            str(rank),
            escape(found["label"]),
            f"{found['probability']:.1%}",
            f"{found['logit']:.2f}",
            " ".join(str(side) for side in boxes[0]["box"]),
        )
    show(table)
    for kind, written in files.items():
        for name in [written] if isinstance(written, str) else written:
            print(f"{kind}: {name}")
