"""`camtool batch`: a folder of any size."""

from __future__ import annotations

from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, TypeAlias

import typer

from camtool.choices import TruthSource
from camtool.cli import common
from camtool.cli.stop import INTERRUPTED, leaving, stoppable
from camtool.engines import ENGINES, ray_at

if TYPE_CHECKING:
    from camtool.engines import Factory
    from camtool.folder.run import Plan, Summary
    from camtool.folder.truth import Verdict
    from camtool.model import CamModel
    from camtool.remote import Remote


CONFUSIONS_TOLD = 5

PictureFormat: TypeAlias = Literal["jpg", "png", "webp"]


@common.grouped
def batch(
    context: typer.Context,
    source: Annotated[
        str,
        typer.Argument(
            help="Folder, quoted pattern, list (text or CSV), or tar or Parquet shards; also "
            "s3://, gs://, az://, hf://, http://."
        ),
    ],
    output: Annotated[
        str, typer.Option("--output", "-o", help="Folder of the results; also s3://, gs://, az://.")
    ],
    network: common.ModelOptions,
    looks: common.LookOptions,
    target: common.Target = None,
    topk: common.TopK = 1,
    truth: Annotated[
        TruthSource,
        typer.Option(
            "--truth",
            help="Where it is said what pictures show; auto: in a list's targets, or in the names "
            "of sub-folders if most are classes.",
        ),
    ] = "auto",
    save: Annotated[
        str,
        typer.Option("--save", help="Any of overlay,panel,html,heatmap,boxes,npz,json; or none."),
    ] = "overlay",
    boxes: Annotated[bool, typer.Option("--boxes/--no-boxes", help="Boxes from the maps.")] = False,
    picture_format: Annotated[
        PictureFormat,
        typer.Option("--format", help="Kind of file of overlays, heatmaps and boxes."),
    ] = "jpg",
    results: Annotated[
        str | None,
        typer.Option(
            "--results",
            metavar="<parquet|csv|jsonl>,...",
            help="Tables, several with commas; default parquet if it is installed, else csv.",
        ),
    ] = None,
    coco: Annotated[bool, typer.Option("--coco", help="Write the boxes as COCO JSON too.")] = False,
    yolo: Annotated[
        bool, typer.Option("--yolo", help="Write the boxes as text files of YOLO too.")
    ] = False,
    report: Annotated[
        bool, typer.Option("--report/--no-report", help="Write report.html, for people.")
    ] = True,
    recursive: Annotated[
        bool, typer.Option("--recursive/--no-recursive", help="Go into sub-folders.")
    ] = True,
    overwrite: Annotated[
        bool,
        typer.Option("--overwrite", help="Explain all pictures anew, whatever the output holds."),
    ] = False,
    batch_size: common.MeasuredBatchSize = None,
    workers: common.Workers = None,
    engine: Annotated[
        str, typer.Option("--engine", metavar=f"<{'|'.join(ENGINES)}>", help="How work is divided.")
    ] = "auto",
    ray_address: Annotated[
        str | None,
        typer.Option(
            "--ray-address",
            help="Cluster for --engine ray, as host:6379; default RAY_ADDRESS, or this machine.",
        ),
    ] = None,
    max_pixels: common.MaxPixels = 100_000_000,
) -> None:
    """Explain a folder of any size.

    Stopped at any moment, by Ctrl-C or a crash, the same command continues it.
    """
    with leaving(), common.exits():
        from camtool.folder.run import Plan

        common.parts("--engine", engine, tuple(ENGINES))
        if engine == "ray" and find_spec("ray") is None:
            common.usage("--engine ray needs Ray: pip install 'camtool[ray]'")
        plan = Plan(
            source=source,
            output=_place(output),
            views=looks.views(save, boxes, picture_format),
            targets=tuple(target or ()),
            topk=topk,
            truth=truth,
            workers=workers,
            formats=_formats(results),
            coco=coco,
            yolo=yolo,
            report=report,
            recursive=recursive,
            max_pixels=max_pixels,
            overwrite=overwrite,
        )
        common.warn_idle(context, looks.idle(plan.views) | _idle(plan, engine))
        cam = network.load()
        cam.resolve(list(plan.targets) or None)
        common.tell_of(cam)
        looks.tell_calibration(cam)
        cam.fuse()
        plan = replace(plan, batch_size=batch_size or cam.measured_batch_size())
        made = ray_at(ray_address) if engine == "ray" else ENGINES[engine]
        summary = _run(cam, plan, made)
        _tell(summary, plan)
    if summary.stopped or summary.failed:
        raise typer.Exit(INTERRUPTED if summary.stopped == "interrupted" else common.SOME_FAILED)


def _place(output: str) -> Path | Remote:
    from camtool.images import display_name
    from camtool.remote import READ_ONLY, Remote, RemoteError, place_at, shown

    try:
        place = place_at(output)
    except RemoteError as error:
        common.usage(f"{display_name(shown(output))}: {error}")
    if isinstance(place, Remote) and place.scheme in READ_ONLY:
        common.usage(f"{display_name(place)}: nothing can be written there")
    return place


def _idle(plan: Plan, engine: str) -> dict[str, str]:
    """Options that have no effect, each with the reason."""
    from camtool.views.save import PER_CLASS

    idle = {}
    if plan.targets:
        idle["topk"] = "with --target"
    if engine != "ray":
        idle["ray_address"] = "without --engine ray"
    if not set(plan.views.kinds) & set(PER_CLASS):
        idle["picture_format"] = "where nothing of that kind is saved"
    return idle


def _formats(results: str | None) -> tuple[str, ...]:
    from camtool.folder.names import FORMATS
    from camtool.folder.results import parquet_available

    if results is None:
        if parquet_available():
            return ("parquet",)
        common.say("writing results.csv; for Parquet: pip install 'camtool[parquet]'")
        return ("csv",)
    asked = common.parts("--results", results, FORMATS)
    wanted = tuple(form for form in FORMATS if form in asked)
    if "parquet" in wanted and not parquet_available():
        common.usage("--results parquet needs pyarrow: pip install 'camtool[parquet]'")
    return wanted


def _run(cam: CamModel, plan: Plan, engine: Factory) -> Summary:
    from camtool.accelerate.memory import keep_freed_memory
    from camtool.cli.progress import progress
    from camtool.errors import EngineError
    from camtool.folder.lists import SourceError
    from camtool.folder.run import FolderRun
    from camtool.folder.workspace import RunError

    keep_freed_memory()
    try:
        with stoppable() as stopping, progress() as show:
            return FolderRun(cam, plan, show, common.say, engine).run(stopping)
    except (SourceError, RunError, EngineError) as error:
        common.usage(str(error))


def _tell(summary: Summary, plan: Plan) -> None:
    from camtool.images import display_name

    lines = [
        f"{summary.done:,} of {summary.total:,} pictures explained, {summary.new:,} now, in "
        f"{summary.seconds:.1f} s ({summary.rate:.1f} a second)."
    ]
    failed = plan.output / "failed.csv"
    if summary.failed:
        where = f"; {display_name(failed)} says why" if failed.exists() else ""
        lines.append(f"{summary.failed:,} failed{where}.")
    if summary.changed:
        lines.append(f"{summary.changed:,} changed meanwhile: the same command does them again.")
    if summary.skipped:
        lines.append(f"Files that are no pictures: {summary.skipped:,}.")
    if summary.own:
        lines.append(f"{summary.own:,} of camtool's own were left out.")
    look = plan.output / ("report.html" if plan.report else f"results.{plan.formats[0]}")
    if look.exists():
        lines.append(f"Look at {display_name(look)}.")
    if summary.stopped:
        lines.append(f"Stopped ({summary.stopped}): the same command continues.")
    print(" ".join(lines))
    if summary.verdict:
        _tell_verdict(summary.verdict)


def _tell_verdict(verdict: Verdict) -> None:
    print(f"Right: {verdict}.")
    for one in verdict.confusions[:CONFUSIONS_TOLD]:
        print(f"{one.pictures:7,} × {one.truth} taken for {one.predicted}")
