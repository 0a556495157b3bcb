"""``padp.check``: everything that is to be said about a program, as data."""

from __future__ import annotations

from os import PathLike

from padp.dsl.diagnostics import Diagnostic, PadpError
from padp.dsl.source import Source


def check(
    program: str | PathLike[str], variant: str | None = None, numerics: bool = False
) -> list[Diagnostic]:
    """The findings on a path, a name of the library or a program text, in the order of the text; [] when it is clean.

    All variants are checked unless one is named. ``numerics`` tests in float64, at small sizes, the claims that no rule
    proves, and drops the N401 of those that hold; it imports torch, nothing else here does.

    Raises PadpError only where there is no program: a path or a name that does not exist.
    """
    from padp.compiler.library import load

    return check_source(load(program), variant, numerics)


def check_source(source: Source, variant: str | None = None, numerics: bool = False) -> list[Diagnostic]:
    """``check`` of a source that has been read."""
    from padp.compiler.phases import check as check_statically

    found = [diagnostic.at(source) for diagnostic in check_statically(source, variant)]
    if numerics and not any(diagnostic.severity == "error" for diagnostic in found):
        from padp.compiler.numerics.numerics import settle

        try:
            found = settle(source, variant, found)
        except PadpError as error:
            found += [diagnostic.at(source) for diagnostic in error.diagnostics]
    return sorted(found, key=lambda d: (d.span.start if d.span else 0, d.code))
