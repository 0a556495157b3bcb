"""``padp explain CODE``: the page of a diagnostic's code."""

from __future__ import annotations

import sys
from argparse import Namespace

from padp.cli.options import Usage
from padp.cli.output import console, table
from padp.dsl.codes import pages


def run(arguments: Namespace) -> int:
    known = pages()
    out = console()
    if arguments.code is None:
        rows = table("code", "meaning")
        for each in known.values():
            rows.add_row(each.code, each.title)
        out.print(rows)
        return 0
    page = known.get(arguments.code.upper())
    if page is None:
        raise Usage(f"no code {arguments.code}: padp explain lists them all")
    if sys.stdout.isatty():
        from rich.markdown import Markdown

        out.print(Markdown(page.text))
    else:
        print(page.text)
    return 0
