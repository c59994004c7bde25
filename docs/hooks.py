"""What the documentation is built with: the help of every command, as the program prints it."""

from __future__ import annotations

import re

from typer.testing import CliRunner

from camtool.cli import app

_HELP = re.compile(r"^\{\{ camtool (.*?)--help \}\}$", re.MULTILINE)


def on_page_markdown(markdown: str, **_given: object) -> str:
    """Put the printed help where a page asks for it by `{{ camtool COMMAND --help }}`."""
    return _HELP.sub(lambda asked: _help(asked[1].split()), markdown)


def _help(words: list[str]) -> str:
    found = CliRunner().invoke(
        app,
        [*words, "--help"],
        prog_name="camtool",
        env={"COLUMNS": "100", "TERMINAL_WIDTH": "100"},
    )
    if found.exit_code:
        raise ValueError(f"camtool {' '.join(words)} --help: {found.output}")
    return f"```text\n{found.stdout}```"
