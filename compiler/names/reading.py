"""What all expressions of a program share while they are read: functions, findings, tensors from comments.

Reading never raises: a name that means nothing is reported once and stays a ``Var``.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from padp.compiler.names import terms as t
from padp.compiler.names.comment_declarations import Hypothesis
from padp.compiler.names.given import of_another_site
from padp.compiler.names.glued import product, standing
from padp.compiler.names.scope import Entry, Scope, key, nearest
from padp.compiler.names.signatures import signature
from padp.dsl import syntax as s
from padp.dsl.diagnostics import Diagnostic, Related
from padp.dsl.source import Source, Span

Place: TypeAlias = Literal["value", "size", "init", "update", "function"]
_BRACED = re.compile(r"([^\W\d_][\w\u0300-\u036f]*)_\{$")
_LANGUAGE_WORDS = {"learned", "frozen", "shared", "init", "seed"}


@dataclass
class Uses:
    """Axes that an index was seen on, while its range is looked for."""

    certain: list[tuple[t.Term, Span]] = field(default_factory=list)
    possible: list[tuple[t.Term, ...]] = field(default_factory=list)


@dataclass
class Reading(ABC):
    """The state of reading one program: ``hypotheses`` is what comments declare, ``assumed`` what of it was needed."""

    source: Source
    site: str
    hypotheses: dict[str, Hypothesis]
    functions: dict[str, int] = field(default_factory=dict)  # name → number of parameters
    training: set[str] = field(default_factory=set)  # functions that only make sense after backward
    findings: list[Diagnostic] = field(default_factory=list)
    assumed: dict[str, tuple[t.Parameter, Hypothesis | None, Span]] = field(default_factory=dict)
    sizes: set[str] = field(default_factory=set)  # keys of dimensions that only a comment mentions
    local_names: dict[str, Span] = field(default_factory=dict)  # bound in a loop that is over
    declared_at: dict[str, Span] = field(default_factory=dict)  # where the program declares a tensor, by key
    _reported: set[tuple[str, str]] = field(default_factory=set)
    muted: int = 0  # while it is not 0, findings are not recorded
    in_space: int = 0  # while the sizes of a space are read
    uses: dict[str, Uses] = field(default_factory=dict)  # of the indices whose range is looked for

    @abstractmethod
    def expr(self, e: s.Expr, scope: Scope, place: Place) -> t.Term:
        """One expression; ``expressions.Reader`` reads it, and whatever reads a part of one comes back to it."""

    def report(self, code: str, message: str, span: Span, *, suggestion: str | None = None, notes: Iterable[str] = (),
               related: Iterable[Related] = (), once: str | None = None) -> None:
        """Record a finding; with ``once``, only the first of that code and word."""
        if self.muted or (once is not None and (code, once) in self._reported):
            return
        if once is not None:
            self._reported.add((code, once))
        self.findings.append(Diagnostic(code, message, span, self.source, tuple(related), tuple(notes), suggestion))

    def undeclared(self, text: str, span: Span, scope: Scope, place: Place) -> None:
        """E201, with the nearest names and the declaration that may be missing."""
        if place == "size":
            suggestion = f"give it a value in the header: adapter NAME({text} = 8)"
        else:
            suggestion = f"declare it, `{text} ∈ ℝ^{{…}}: learned, init = 0`"
            if not text[0].isupper():
                suggestion += f", or, for a number, put it in the header, `adapter NAME({text} = 1)`"
        close = nearest(text, scope.names())
        notes = [f"names that look like it: {', '.join(close)}"] if close else []
        glued = product(text, scope)
        elsewhere = of_another_site(self.site, key(text))
        if glued is not None:
            suggestion = f"write `{standing(glued, self.source.text[:span.start])}`"
            notes = [f"letters side by side are one name, `{text}`"]
        elif elsewhere is not None and place != "size":
            instead, note = elsewhere
            suggestion = instead if instead.startswith("declare") else \
                f"{instead}, or declare it, `{text} ∈ ℝ^{{…}}: learned, init = 0`"
            notes = [note]
        before, after = self.source.text[:span.start], self.source.text[span.end:]
        braced = _BRACED.search(before) if place == "size" and after.startswith("}") else None
        if braced is not None and not glued:
            notes = ["`_{…}` takes an item of what stands before it"]
            suggestion = f"write `{braced[1]}_{text}`, one name"
        if key(text) in self.local_names:
            notes.append(f"a name that is first bound inside a loop lives for one iteration; `{text}` is one")
            suggestion = f"bind `{text}` before the loop, or write it by index"
        related: list[Related] = []
        below = self.declared_at.get(key(text))
        if below is not None and below.start > span.start and place != "size":
            related = [Related(below, "declared here")]
            suggestion = f"move the declaration of `{text}` above its first use"
        base, _, sub = key(text).partition("_")
        if sub.isalpha() and base in ("Σ", "Π"):
            suggestion = f"a sum says what its index runs over: `Σ_{{{sub} ∈ range(n)}} …`" if base == "Σ" else \
                f"a product over an index is a loop: `R ← I`, `for {sub} in range(r): R ← H_{sub} @ R`"
        if text in _LANGUAGE_WORDS:
            suggestion = f"`{text}` belongs after the colon of a declaration, `A ∈ ℝ^{{r×n}}: {text}`"
        self.report("E201", f"`{text}` is not declared", span, suggestion=suggestion, notes=notes, related=related,
                    once=key(text))

    def is_function(self, text: str, scope: Scope) -> bool:
        """Whether a name that is not bound names a function."""
        return scope.find(text) is None and (text in self.functions or signature(text) is not None)

    def is_free(self, text: str, scope: Scope) -> bool:
        """Neither bound, nor a function, nor declared by a comment."""
        return (scope.find(text) is None and scope.find(text + "ᵀ") is None and not self.is_function(text, scope)
                and key(text) not in self.hypotheses)

    def entry(self, text: str, scope: Scope, place: Place) -> Entry | None:
        """The bound name, or the one that a comment declares."""
        twice = scope.value_of.get(key(text))
        if twice is not None and place != "size":
            return twice
        return scope.find(text)

    def refuse_taken(self, index: str, span: Span, scope: Scope) -> None:
        """An index must not hide a name."""
        found = scope.find(index)
        if found is not None:
            self.report("E202", f"`{index}` is an index here and already means something else", span,
                        suggestion="another letter", related=[Related(found.span, f"`{found.name}` is bound here")])
