"""The files that a study leaves: study.json, study.csv, study.md, curves.png and the page."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from camtool.files import write_atomically
from camtool.fit.study import Study
from camtool.fit.study_page import render
from camtool.fit.study_tables import to_csv, to_markdown


def write_files(folder: Path, study: Study, document: Mapping[str, Any]) -> list[str]:
    """Write what came of a study; curves.png only where matplotlib is installed.

    Args:
        folder: Where.
        study: Its runs are kept there.
        document: What `Study.to_json` gives.

    Returns:
        The names of the files.

    Raises:
        OSError: A file can't be written.
    """
    files: dict[str, Callable[[], bytes]] = {
        "study.json": lambda: json.dumps(document, indent=1).encode(),
        "study.csv": lambda: to_csv(document).encode(),
        "study.md": lambda: to_markdown(document).encode(),
        "study.html": lambda: render(study, document, folder).encode(),
    }
    try:
        from camtool.evaluate.curves import encode
        from camtool.fit.study_curves import draw
    except ImportError:
        pass
    else:
        files["curves.png"] = lambda: encode(draw(document))
    for name, content in files.items():
        write_atomically(folder / name, content())
    return list(files)
