"""`camtool explain`: where the network sees what, in one picture or a few."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from camtool.cli import common
from camtool.cli.pictures import place_of, sources_of
from camtool.cli.stop import leaving

if TYPE_CHECKING:
    from camtool.engines.engine import Failed
    from camtool.explanation import Explanation
    from camtool.model import CamModel
    from camtool.targets import Target
    from camtool.views.save import Views


@common.grouped
def explain(
    context: typer.Context,
    paths: Annotated[
        list[str],
        typer.Argument(
            help="Pictures or videos: files; of pictures also folders, quoted patterns, http(s) "
            "addresses, or - for stdin.",
            metavar="PATH...",
        ),
    ],
    network: common.ModelOptions,
    looks: common.LookOptions,
    target: common.Target = None,
    versus: Annotated[
        str | None,
        typer.Option(
            "--versus",
            help="Contrast: why the best class, or the target, and not this one; or 'next'.",
        ),
    ] = None,
    topk: common.TopK = 3,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", help="Folder, or the file of panel or html; default beside PATH."
        ),
    ] = None,
    save: Annotated[
        str,
        typer.Option("--save", help="Any of panel,html,overlay,heatmap,boxes,npz,json; or none."),
    ] = "panel",
    boxes: Annotated[bool, typer.Option("--boxes/--no-boxes", help="Boxes from the maps.")] = True,
    opened: Annotated[
        bool, typer.Option("--open", help="Show the first file that was written.")
    ] = False,
    as_json: common.AsJson = False,
    batch_size: common.BatchSize = 8,
    max_pixels: common.MaxPixels = 100_000_000,
) -> None:
    """Explain pictures: a panel beside each.

    A panel shows what the network sees, and where.
    """
    from camtool.cli.progress import counting
    from camtool.clips.frames import is_clip
    from camtool.engines.engine import Failed
    from camtool.engines.stream import explain_stream

    with leaving(), common.exits():
        views = (replace(looks, signed=True) if versus else looks).views(save, boxes)
        sources, own = sources_of(paths)
        if own:
            common.say(f"{own:,} of camtool's own pictures were left out")
        clips = [source for source in sources if is_clip(source)]
        idle = looks.idle(views)
        if target or versus:
            idle["topk"] = "with --target or --versus"
        if clips and len(clips) == len(sources):
            # Their maps are drawn, whatever --save says.
            unused = dict.fromkeys(("save", "topk", "max_pixels"), "for videos")
            idle = looks.idle(replace(views, kinds=("overlay",))) | unused
        common.warn_idle(context, idle)
        if clips and target and len(target) > 1:
            common.say(f"a video shows one class; here it is {target[0]}")
        writer = _Writer(output, len(sources), views, as_json)
        cam = network.load()
        targets = _targets(target, versus)
        sources = [source for source in sources if not is_clip(source)]
        writer.explain_clips(cam, clips, targets, batch_size)
        first = len(targets) if targets else topk
        if "html" in views.kinds:
            targets, topk, batch_size = _with_every_class(cam, targets, topk, batch_size)
        # Files at the picture's own size need all of it.
        reduced = not {"overlay", "heatmap", "boxes"} & set(views.kinds)
        stream = explain_stream(
            cam, sources, targets, topk, batch_size, max_pixels, reduced=reduced
        )
        common.tell_of(cam)
        looks.tell_calibration(cam)
        # Without the document, what is printed for each picture says how far the run is.
        with counting("pictures") if as_json and len(sources) > 1 else nullcontext() as progress:
            for number, (source, result) in enumerate(stream, 1):
                if isinstance(result, Failed):
                    writer.fail(result)
                else:
                    writer.take(place_of(source), result, first)
                if progress:
                    progress(number, len(sources))
        if as_json:
            print(json.dumps(writer.document(cam, network.dtype), indent=1))
        if opened:
            _show(writer.first)
    if writer.failed:
        raise typer.Exit(common.SOME_FAILED)


def _targets(target: list[str] | None, versus: str | None) -> list[Target] | None:
    """What is explained: of a contrast the difference first, then each of the two alone."""
    from camtool.targets import BEST, NEXT

    if versus is None:
        return list(target) if target else None
    other = NEXT if versus == "next" else versus
    targets: list[Target] = []
    for one in target or (BEST,):
        targets += [(one, other), one]
        # What comes next to a class that was named is in the contrast's own name.
        if one is BEST or other is not NEXT:
            targets.append(other)
    return targets


def _with_every_class(
    cam: CamModel, targets: list[Target] | None, topk: int, batch_size: int
) -> tuple[list[Target] | None, int, int]:
    """Targets, their number and the batch of a run whose explorers hold every class too."""
    from camtool.targets import Ranked
    from camtool.views.explorer import AFFORDABLE, MOST_CLASSES

    linear = cam.method == "cam"
    number = min(MOST_CLASSES if linear else AFFORDABLE, len(cam.labels))
    some = None if targets is None else [*targets, *map(Ranked, range(number))]
    return some, max(topk, number), batch_size if linear else 1


class _Writer:
    """Writes, prints and collects results as they come."""

    def __init__(self, output: Path | None, pictures: int, views: Views, quiet: bool) -> None:
        from camtool.views.save import Places

        self._named = None
        if output is not None and output.parts[:1] in (("s3:",), ("gs:",), ("az:",)):
            common.usage("explain writes here; camtool batch writes to an address too")
        if output is not None and output.suffix and not output.is_dir():
            fits = ("html",) if output.suffix.lower() == ".html" else ("panel",)
            if pictures > 1 or len(views.kinds) > 1:
                common.usage(f"--output {output} names one file; give a folder for several")
            if views.kinds != fits:
                common.usage(f"--output {output} is a file for --save {fits[0]}; give a folder")
            self._named = output
        self._places = Places(None if self._named else output)
        self._views = views
        self._quiet = quiet
        self.images: list[dict[str, Any]] = []
        self.clips: list[dict[str, Any]] = []
        self.failed: list[dict[str, str]] = []
        self.first: str | None = None

    def fail(self, failed: Failed) -> None:
        common.say(str(failed))
        self.failed.append({"path": failed.name, "reason": failed.reason})

    def take(self, path: Path, explored: Explanation, first: int) -> None:
        """Write the first of the maps of a picture, and all of them into its explorer."""
        from camtool.engines.engine import Failed
        from camtool.views.record import record_of
        from camtool.views.save import save_views

        explanation = explored.part(slice(first))
        try:
            base = self._places.base(path)
            files = save_views(explanation, base, self._views, self._named, explored)
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            self.fail(Failed(explanation.name, f"its files can't be written ({reason})"))
            return
        for written in files.values():
            self.first = self.first or (written if isinstance(written, str) else written[0])
        _caution(explanation)
        views = self._views
        record = record_of(explanation, views.threshold, views.boxes, views.rule)
        self.images.append({**record, "files": files})
        if not self._quiet:
            _print_table(record, files)

    def explain_clips(
        self,
        cam: CamModel,
        clips: Sequence[Path],
        targets: Sequence[Target] | None,
        batch_size: int,
    ) -> None:
        """Explain videos, before the pictures."""
        from camtool.cli.clip import explain_clips, tell

        if clips and self._named is not None:
            common.usage(f"--output {self._named} names a picture; give a folder for a video")
        done, failed = explain_clips(
            cam, clips, self._places.base, self._views, targets, batch_size
        )
        self.failed += failed
        self.clips += done
        for record in done:
            self.first = self.first or record["files"]["clip"]
            if not self._quiet:
                tell(record)

    def document(self, cam: CamModel, dtype: str) -> dict[str, Any]:
        from camtool import __version__

        return {
            "camtool": __version__,
            "device": str(cam.device),
            "dtype": dtype,
            "model": cam.describe(),
            "images": self.images,
            **({"clips": self.clips} if self.clips else {}),
            "failed": self.failed,
        }


UNLIKELY = 0.15
"""Of 130 photographs of ImageNet's classes the embedded network gives 5 so little; 4 wrongly.

`benchmarks/unlikely.py` counts them.
"""


def _caution(explanation: Explanation) -> None:
    """Say where not even the best class is likely, or where it is compared with itself."""
    # Two classes may have one label; their logits differ.
    if explanation.versus[0] == explanation.labels[0] and explanation.logits[0] == 0:
        common.say(
            f"{explanation.name}: its best class is {explanation.labels[0]} itself; --versus next "
            "compares it with the runner-up"
        )
    best = explanation.probability()
    if best is not None and explanation.rank() == 1 and best < UNLIKELY:
        classes = len(explanation.all_logits)
        common.say(
            f"{explanation.name}: none of the {classes:,} classes is likely (the best has "
            f"{best:.1%}): the network may not know this thing"
        )


def _show(path: str | None) -> None:
    """Open a file in whatever shows such files."""
    if path is None:
        common.say("--open: nothing was written")
    elif typer.launch(path):
        common.say(f"--open: nothing on this machine shows {path}")


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
            escape(found["label"] + (f" rather than {found['versus']}" if found["versus"] else "")),
            "-" if found["probability"] is None else f"{found['probability']:.1%}",
            f"{found['logit']:.2f}",
            " ".join(str(side) for side in boxes[0]["box"]),
        )
    common.show_table(table)
    for kind, written in files.items():
        for name in [written] if isinstance(written, str) else written:
            print(f"{kind}: {display_name(name)}")
