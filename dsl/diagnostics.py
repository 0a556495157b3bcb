"""A diagnostic is data: what is wrong, where, what was seen beside it, and one thing to try.

``dsl/as_text.py`` and ``dsl/render.py`` (JSON, GitHub) draw it; ``PadpError`` carries a list of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

from padp.dsl.as_text import as_text
from padp.dsl.source import Source, Span

Severity: TypeAlias = Literal["error", "warning", "note"]
_SEVERITY: dict[str, Severity] = {"E": "error", "W": "warning", "N": "note"}


@dataclass(frozen=True, slots=True)
class Related:
    """A second place that matters to a diagnostic, and why."""

    span: Span
    message: str


@dataclass(frozen=True)
class Diagnostic:
    """One finding. ``code`` is E1xx syntax, E2xx names, E3xx shapes, E4xx claims, E5xx sites and models, W, N."""

    code: str
    message: str
    span: Span | None = None
    source: Source | None = None
    related: tuple[Related, ...] = ()
    notes: tuple[str, ...] = ()
    suggestion: str | None = None

    @property
    def severity(self) -> Severity:
        return _SEVERITY[self.code[0]]

    def at(self, source: Source) -> Diagnostic:
        """The same finding with its source filled in (kept when it has one)."""
        return self if self.source is not None else replace(self, source=source)

    def __str__(self) -> str:
        return as_text(self)


class PadpError(Exception):
    """A program, a size or a model that padp refuses. ``diagnostics`` says what, where and what to try."""

    def __init__(self, diagnostics: Diagnostic | Sequence[Diagnostic]) -> None:
        self.diagnostics: tuple[Diagnostic, ...] = (
            (diagnostics,) if isinstance(diagnostics, Diagnostic) else tuple(diagnostics)
        )
        super().__init__(self.diagnostics)

    def __str__(self) -> str:
        return "\n\n".join(str(d) for d in self.diagnostics)


def refuse(code: str, message: str, span: Span | None = None, *, suggestion: str | None = None,
           notes: Sequence[str] = (), related: Sequence[Related] = (), source: Source | None = None) -> PadpError:
    """A ``PadpError`` of one diagnostic, for ``raise refuse(...)``."""
    return PadpError(Diagnostic(code, message, span, source, tuple(related), tuple(notes), suggestion))
