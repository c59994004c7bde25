"""`camtool explain`: where the network sees what, in one picture or a few."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from camtool.cli import common
from camtool.cli.stop import leaving

if TYPE_CHECKING:
    from camtool.engines.engine import Failed
    from camtool.explanation import Explanation
    from camtool.model import CamModel
    from camtool.views.save import Views


@common.grouped
def explain(
    paths: Annotated[list[Path], typer.Argument(help="Pictures.", metavar="PATH...")],
    network: common.ModelOptions,
    looks: common.LookOptions,
    target: common.Target = None,
    topk: common.TopK = 3,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Folder, or the panel's file; default beside PATH."),
    ] = None,
    save: Annotated[
        str, typer.Option("--save", help="Any of panel,overlay,heatmap,boxes,npz,json; or none.")
    ] = "panel",
    boxes: Annotated[bool, typer.Option("--boxes/--no-boxes", help="Boxes from the maps.")] = True,
    as_json: common.AsJson = False,
    batch_size: common.BatchSize = 8,
    max_pixels: common.MaxPixels = 100_000_000,
) -> None:
    """Show what the network sees in pictures, and where: a panel beside each picture."""
    from camtool.engines.engine import Failed
    from camtool.engines.stream import explain_stream

    with leaving(), common.exits():
        views = looks.views(save, boxes)
        cam = network.load()
        writer = _Writer(output, paths, views, as_json)
        # Files at the picture's own size need all of it.
        reduced = not {"overlay", "heatmap", "boxes"} & set(views.kinds)
        stream = explain_stream(
            cam, paths, target or None, topk, batch_size, max_pixels, reduced=reduced
        )
        for path, result in stream:
            if isinstance(result, Failed):
                writer.fail(result)
            else:
                writer.take(Path(str(path)), result)
        if as_json:
            print(json.dumps(writer.document(cam, network.dtype), indent=1))
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
        from camtool.views.record import record_of
        from camtool.views.save import save_views

        try:
            base = self._places.base(path)
            files = save_views(explanation, base, self._views, self._panel)
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            self.fail(Failed(explanation.name, f"its files can't be written ({reason})"))
            return
        views = self._views
        record = record_of(explanation, views.threshold, views.boxes, views.rule)
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
    from rich.markup import escape
    from rich.table import Table

    from camtool.images import display_name

    table = Table(title=escape(record["path"]), title_justify="left", title_style="bold")
    for heading in ("", "label", "probability", "logit", "box x0 y0 x1 y1"):
        numeric = heading in ("", "probability", "logit")
        table.add_column(heading, justify="right" if numeric else "left")
    for rank, found in enumerate(record["explanations"], 1):
        boxes = found.get("boxes") or [{"box": ["-"]}]
        table.add_row(
            str(rank),
            escape(found["label"]),
            "-" if found["probability"] is None else f"{found['probability']:.1%}",
            f"{found['logit']:.2f}",
            " ".join(str(side) for side in boxes[0]["box"]),
        )
    common.show_table(table)
    for kind, written in files.items():
        for name in [written] if isinstance(written, str) else written:
            print(f"{kind}: {display_name(name)}")
