"""``padp check FILE…``: 0 when there is nothing to say but notes, 1 when there are errors or warnings."""

from __future__ import annotations

from argparse import Namespace
from collections import Counter

from padp.checking import check_source
from padp.cli.options import read_program
from padp.cli.output import console, plural, progress, show_diagnostics
from padp.dsl.diagnostics import Diagnostic
from padp.dsl.render import render_github, render_json


def run(arguments: Namespace) -> int:
    sources = [read_program(file) for file in arguments.files]
    found: list[Diagnostic] = []
    with progress() as bar:
        for source in bar.track(sources, description="checking"):
            found += check_source(source, arguments.variant, arguments.numerics)
    match arguments.format:
        case "json":
            print(render_json(found))
        case "github":
            if found:
                print(render_github(found))
        case _:
            show_diagnostics(found)
            console().print(_summary(found, len(sources)))
    return 1 if any(diagnostic.severity != "note" for diagnostic in found) else 0


def _summary(found: list[Diagnostic], files: int) -> str:
    counts = Counter(diagnostic.severity for diagnostic in found)
    parts = [plural(counts[severity], severity) for severity in ("error", "warning", "note") if counts[severity]]
    where = plural(files, "file")
    return f"{', '.join(parts)} in {where}" if parts else f"{where} checked, all is well"
