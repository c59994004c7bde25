"""Videos of `camtool explain`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from camtool.cli import common

if TYPE_CHECKING:
    from camtool.clips.explain import Clip
    from camtool.model import CamModel
    from camtool.targets import Target
    from camtool.views.save import Views


def explain_clips(
    cam: CamModel,
    sources: Sequence[Path],
    base_of: Callable[[Path], Path],
    views: Views,
    targets: Sequence[Target] | None,
    batch_size: int,
) -> tuple[list[dict[str, Any]], list[dict[str, str]]]:
    """Explain videos one after the other; their records, and those that failed with the reason."""
    from camtool.cli.progress import counting
    from camtool.clips.explain import explain_clip
    from camtool.images import ImageError, display_name

    records, failed = [], []
    for source in sources:
        name = display_name(source)
        try:
            with counting("frames") as progress:
                clip = explain_clip(
                    cam,
                    source,
                    base_of(source),
                    views,
                    targets[0] if targets else None,
                    batch_size=batch_size,
                    warn=common.say,
                    progress=progress,
                )
        except ImageError as error:
            failed.append({"path": error.name, "reason": error.reason})
        except OSError as error:
            reason = f"its files can't be written ({error.strerror or error})"
            failed.append({"path": name, "reason": reason})
        else:
            records.append(_record(name, clip))
            continue
        common.say(f"{failed[-1]['path']}: {failed[-1]['reason']}")
    return records, failed


def _record(name: str, clip: Clip) -> dict[str, Any]:
    found = [moment.explanation for moment in clip.moments]
    return {
        "path": name,
        "width": clip.size[0],
        "height": clip.size[1],
        "frames": len(clip.moments),
        "seconds": round(clip.moments[-1].seconds, 3),
        "label": found[0].labels[0],
        "versus": found[0].versus[0] or None,
        "index": int(found[0].indices[0]),
        "scale": clip.scale,
        "residual": max(float(abs(one.residual[0])) for one in found),
        "files": {"clip": str(clip.path), "table": str(clip.table)},
    }


def tell(record: dict[str, Any]) -> None:
    """A video's record for people, on stdout."""
    against = f" rather than {record['versus']}" if record["versus"] else ""
    print(
        f"{record['path']}: {record['frames']:,} frames, {record['label']}{against}, "
        f"colours end at {record['scale']:.1f} logits"
    )
    for kind, path in record["files"].items():
        print(f"{kind}: {path}")
