"""Pages of one file: everything in them, nothing fetched, and no script but their own."""

from __future__ import annotations

import base64
import hashlib
import json
import math
from collections.abc import Sequence
from functools import lru_cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import numpy as np

from camtool.views.text import display_text, percent

if TYPE_CHECKING:
    from importlib.resources.abc import Traversable

    import jinja2


def page_of(
    template: Traversable,
    styles: Sequence[Traversable],
    scripts: Sequence[Traversable] = (),
    data: str = "null",
    pictures: str = "data:",
    **values: Any,
) -> str:
    """A page by a template of jinja2, in which only this style and this script may count (CSP).

    Args:
        template: Extends "page.html", which is everything around the `body`.
        styles: Style sheets, one after the other, behind that of the colours.
        scripts: Scripts; they become one.
        data: For the script, as from `json_text`.
        pictures: Where they may come from (CSP).
        **values: For the template. Texts are escaped, every character showing; markup of the
            page's own stays as it is.
    """
    here = files("camtool.views")
    style = "".join(sheet.read_text("utf-8") for sheet in (here / "palette.css", *styles))
    script = "\n".join(part.read_text("utf-8") for part in scripts)
    return _template(template.read_text("utf-8")).render(
        style=style,
        style_hash=_csp_hash(style),
        script=script,
        script_hash=_csp_hash(script),
        data=data,
        pictures=pictures,
        **values,
    )


@lru_cache(maxsize=8)
def _template(text: str) -> jinja2.Template:
    import jinja2

    around = (files("camtool.views") / "page.html").read_text("utf-8")
    environment = jinja2.Environment(
        loader=jinja2.DictLoader({"page.html": around, "this": text}),
        autoescape=True,
        finalize=_shown,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters["percent"] = percent
    return environment.get_template("this")


def _shown(value: Any) -> Any:
    if isinstance(value, str) and not hasattr(value, "__html__"):
        return display_text(value)
    return value


def _csp_hash(text: str) -> str:
    digest = hashlib.sha256(text.encode("utf-8")).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"


def data_url(content: bytes, form: str = "jpeg") -> str:
    """A picture's file in the page itself."""
    return f"data:image/{form};base64,{base64.b64encode(content).decode()}"


def json_text(value: object) -> str:
    """ASCII JSON without ``<``, ``>`` and ``&``, so that it can't end a script element.

    A float has six significant digits and is null where it is not finite; a record is the list of
    its values, an array the base64 of its bytes.
    """
    text = json.dumps(_plain(value), separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _plain(value: Any) -> Any:
    if isinstance(value, (float, np.floating)):
        return float(f"{value:.6g}") if math.isfinite(value) else None
    if isinstance(value, np.ndarray):
        return base64.b64encode(value.tobytes()).decode()
    if isinstance(value, dict):
        return {name: _plain(one) for name, one in value.items()}
    if isinstance(value, (list, tuple)):
        return list(map(_plain, value))
    return value
