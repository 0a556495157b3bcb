"""How the commands print: diagnostics, tables, numbers."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from typing import TextIO

from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress, SpinnerColumn, TextColumn
from rich.table import Table

from padp.dsl.as_text import as_text
from padp.dsl.diagnostics import Diagnostic


def console(file: TextIO | None = None) -> Console:
    """A console that does not cut tables short where there is no screen."""
    to = sys.stdout if file is None else file
    return Console(file=to, width=None if to.isatty() else 160, highlight=False, emoji=False, markup=False)


def table(*columns: str) -> Table:
    """A plain table; a column whose title starts with ``>`` holds numbers."""
    made = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for column in columns:
        made.add_column(column.lstrip(">"), justify="right" if column.startswith(">") else "left", no_wrap=True)
    return made


def show_diagnostics(diagnostics: Iterable[Diagnostic], file: TextIO | None = None) -> None:
    """Diagnostics as text, a blank line after each, in colour where there is a screen."""
    to = sys.stdout if file is None else file
    colour = to.isatty() and "NO_COLOR" not in os.environ
    for diagnostic in diagnostics:
        print(as_text(diagnostic, colour), end="\n\n", file=to)


def progress() -> Progress:
    """A line on standard error while something takes seconds; nothing where there is no screen."""
    to = console(sys.stderr)
    columns = SpinnerColumn(), TextColumn("{task.description}"), MofNCompleteColumn()
    return Progress(*columns, console=to, transient=True, disable=not to.is_terminal)


def number(value: int) -> str:
    return f"{value:,}"


def plural(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


def share(part: int, whole: int) -> str:
    """``0.87 %``, with two figures that count."""
    percent = 100 * part / whole if whole else 0.0
    return f"{percent:.2g} %" if percent < 10 else f"{percent:.0f} %"
