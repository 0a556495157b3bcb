"""Everything that is to be said about a program without torch: names, shapes, claims, lints.

    check(source, variant=None) -> list[Diagnostic]      require(source) raises when there are errors
"""

from __future__ import annotations

from functools import lru_cache

from padp.compiler.cases import cases
from padp.compiler.elaborate import NeedCases
from padp.compiler.names import list_variants, resolve_leniently
from padp.compiler.program import tree
from padp.compiler.terms import Method
from padp.dsl.diagnostics import Diagnostic, PadpError
from padp.dsl.source import Source


def check(source: Source, variant: str | None = None) -> list[Diagnostic]:
    """All findings on a program (all variants unless one is named), each once."""
    try:
        program = tree(source)
    except PadpError as error:
        return [d.at(source) for d in error.diagnostics]
    found: list[Diagnostic] = []
    wanted = (variant,) if variant is not None else list_variants(program) or (None,)
    for one in wanted:
        try:
            method, names = resolve_leniently(program, source, one)
        except PadpError as error:
            names, method = list(error.diagnostics), None
        for d in [*names, *(typing(method) if method is not None else [])]:
            if d not in found:
                found.append(d)
    return found


def typing(method: Method) -> list[Diagnostic]:
    """Shape findings of one resolved program, for all cases of its conditionals."""
    try:
        return [d for case in cases(method) for d in case.typed.diagnostics]
    except NeedCases as need:
        return [Diagnostic("E307", "too many conditionals on dimensions", need.test.span, method.source)]


@lru_cache(maxsize=256)
def _errors(source: Source) -> tuple[Diagnostic, ...]:
    return tuple(d for d in check(source) if d.severity == "error")


def require(source: Source) -> None:
    """Raise PadpError with every error of a program."""
    errors = _errors(source)
    if errors:
        raise PadpError(errors)
