"""Everything that is to be said about a program without torch: names, shapes, claims, lints.

    findings(source, variant, known) -> list[Diagnostic]      ``phases.check`` is what others call
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Protocol

from padp.compiler.check.claims import Declarations, check_claims
from padp.compiler.check.defaults import by_default
from padp.compiler.check.feasible import infeasible, nobody_gives
from padp.compiler.check.lints import letter_lints, start_lints, value_lints
from padp.compiler.check.lints_of_gradients import everywhere, without_gradient
from padp.compiler.check.lints_of_names import flow_lints, function_lints, nothing_learned
from padp.compiler.check.lints_of_quotients import quotients
from padp.compiler.elaborate.cases import Case
from padp.compiler.elaborate.state import Elaborated, NeedCases, of_a_mistake
from padp.compiler.ir.budget import budget
from padp.compiler.library import tree
from padp.compiler.names.comment_declarations import comments
from padp.compiler.names.terms import Method
from padp.compiler.names.variants import body_of, list_variants
from padp.compiler.normal.head_maps import attention_maps
from padp.compiler.normal.normal_form import Simplifier
from padp.dsl import syntax
from padp.dsl.diagnostics import Diagnostic, PadpError
from padp.dsl.source import Source, Span


class Known(Declarations, Protocol):
    """What the phases before give of one variant."""

    @property
    def resolved(self) -> tuple[Method, Sequence[Diagnostic]]: ...
    @property
    def cases(self) -> Sequence[Case]: ...


def findings(source: Source, variant: str | None, known: Callable[[str | None], Known]) -> list[Diagnostic]:
    """All findings on a program (all variants unless one is named), each once, in the order of the text."""
    try:
        program = tree(source)
    except PadpError as error:
        return [*(d.at(source) for d in error.diagnostics), *letter_lints(source)]
    wanted = (variant,) if variant is not None else list_variants(program) or (None,)
    by_variant: list[dict[Diagnostic, None]] = []
    with budget(source):
        for one in wanted:
            by_variant.append(dict.fromkeys(_shallow(program, source, one, known(one))))
            if any(d.code == "E105" for d in by_variant[-1]):  # what is too large is so in the others, too
                break
    own = [x.span for x in program.body if isinstance(x, syntax.Variant)]
    found: dict[Diagnostic, None] = {}
    for said in by_variant:
        found |= {d: None for d in said if not everywhere(d) or _inside(d.span, own)
                  or all(d in other for other in by_variant)}
    found |= dict.fromkeys(letter_lints(source))
    return sorted(found, key=lambda d: ((d.span or Span(0, 0)).start, d.code))


def _inside(span: Span | None, blocks: Sequence[Span]) -> bool:
    return span is not None and any(b.start <= span.start < b.end for b in blocks)


def _shallow(program: syntax.Program, source: Source, variant: str | None, known: Known) -> list[Diagnostic]:
    """The findings on one variant; E105 where its statements hang on each other deeper than can be followed."""
    found: list[Diagnostic] = []
    try:
        for diagnostic in _variant(program, variant, known):
            found.append(diagnostic)
    except PadpError as error:
        found += [replace(d.at(source), span=d.span or program.span) for d in error.diagnostics]
    except RecursionError:
        found.append(Diagnostic("E105", "the values of this program depend on each other in too long a chain",
                                program.span, source, suggestion="fewer statements, or a loop"))
    return found


def _variant(program: syntax.Program, variant: str | None, known: Known) -> Iterator[Diagnostic]:
    """The findings on one variant: each phase in turn; what needs a sound program is left out of a broken one."""
    try:
        method, names = known.resolved
    except PadpError as error:
        yield from error.diagnostics
        return
    yield from names
    if any(d.code == "E105" for d in names):
        return
    typed, problems = typing(program, method, known)
    told = {(d.code, d.message) for d in names}
    yield from (d for d in problems if (d.code, d.message) not in told)
    sound = not any(d.severity == "error" for d in (*names, *problems))
    claims = [d for d in check_claims(program, method, typed, known, sound) if not of_a_mistake(d)]
    yield from claims
    body = body_of(program, variant or method.variant)
    yield from flow_lints(method, sound)
    yield from quotients(method)
    yield from function_lints(body, method) if sound else ()
    yield from nothing_learned(method) if sound and program.header is not None else ()
    yield from nobody_gives(method) if sound and program.header is None else ()
    said = " ".join(text for text, _ in comments(body))
    if sound and method.site == "attention":
        for case in typed:
            yield from no_maps(case.typed)
    yield from without_gradient([case.typed for case in typed]) if sound else ()
    for case in typed:
        yield from value_lints(case.typed, sound)
        if sound and not _on_the_last_line(method, case, claims):
            yield from start_lints(case.typed, said)


def _on_the_last_line(method: Method, case: Case, claims: Sequence[Diagnostic]) -> bool:
    """Whether a comment behind the output is refuted: then a false ``# identity`` has been told already."""
    spans = [span for name, _, span in case.typed.history if name == method.output]
    lines = {method.source.position(span.end)[0] for span in spans[-1:]}
    refuted = (d.span for d in claims if d.code == "E403")
    return any(span is not None and method.source.position(span.start)[0] in lines for span in refuted)


def no_maps(typed: Elaborated) -> Iterator[Diagnostic]:
    """E511 where a part of an attention is no map of its projection."""
    try:
        attention_maps(typed, Simplifier(typed.graph))
    except PadpError as error:
        yield from error.diagnostics


def typing(program: syntax.Program, method: Method, known: Known) -> tuple[Sequence[Case], list[Diagnostic]]:
    """One typed program for each case of its conditionals, and all findings on their shapes."""
    try:
        typed = known.cases
    except NeedCases as need:
        return [], [Diagnostic("E307", "too many conditionals on dimensions", need.test.span, method.source)]
    found = [d for case in typed for d in case.typed.diagnostics]
    found += infeasible(method, typed[0].typed, program.header is None)
    if not any(d.severity == "error" for d in found):
        found += by_default(method, typed)
    return typed, [replace(d, source=method.source) for d in found]
