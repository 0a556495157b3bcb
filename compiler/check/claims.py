"""Comments that claim are checked: shapes, counts, ranks and properties.

    comments → pieces (``comments``) → claims (``claim_grammar``) → findings (``claimed_counts``, ``claimed_values``)

A false claim is an error, one that no rule decides a note.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from padp.compiler.check.claim_grammar import Claim, Grammar
from padp.compiler.check.claimed_counts import Counts
from padp.compiler.check.claimed_values import Values
from padp.compiler.elaborate.cases import Case
from padp.compiler.elaborate.state import Elaborated
from padp.compiler.facts.counts import Counted
from padp.compiler.ir.nodes import Node
from padp.compiler.names.comments import Remark, place_of, remarks
from padp.compiler.names.terms import Method
from padp.compiler.names.variants import body_of
from padp.dsl import syntax as s
from padp.dsl.diagnostics import Diagnostic


class Declarations(Protocol):
    """What is known of a variant's declarations; asked where a comment claims a count."""

    @property
    def declared(self) -> Elaborated: ...
    @property
    def counts(self) -> Counted: ...


def check_claims(program: s.Program, method: Method, typed: Sequence[Case], known: Declarations, sound: bool
                 ) -> list[Diagnostic]:
    """What is wrong, open or unclear in the claims of one variant. ``sound``: every name is declared, every shape fits;
    only then are the counts those of the declarations."""
    source = method.source
    names = typed[0].typed.names if typed else {}
    grammar = Grammar(program, source, method, _sizes_of(names))
    made = grammar.claims(list(remarks(body_of(program, method.variant), source)))
    if program.header is not None and program.header.comment:
        at = place_of(source, program.header.comment, program.header.span.start, program.header.span)
        made += grammar.claims([Remark(program.header.comment, at, None)])
    found = [*grammar.doubts]
    counts = [c for c in made if c.kind in ("count", "growth")]
    if counts:
        derived = known.counts if sound else None
        found += Counts(method, known.declared.names, derived).check(counts)
    for case in typed:
        checker = Values(method, case.typed, program.header is None, sound)
        for claim in made:
            if claim.kind not in ("count", "growth"):
                found += checker.check(claim)
        found += checker.contradictions([c for c in made if c.kind == "shape"])
    return list(dict.fromkeys(found))


def open_properties(program: s.Program, method: Method, typed: Elaborated) -> list[Claim]:
    """The claims on values (shapes apart) of one variant, for testing with numbers."""
    grammar = Grammar(program, method.source, method, _sizes_of(typed.names))
    made = grammar.claims(list(remarks(body_of(program, method.variant), method.source)))
    return [c for c in made if c.kind in ("rank", "antisymmetric", "orthogonal", "identity")
            or (c.kind == "shape" and c.space is not None and c.space.kind in ("O", "SO", "St"))]


def _sizes_of(names: Mapping[str, Node]) -> dict[str, Node]:
    """Dimensions and hyperparameters; names that the body binds are not among them, except index sets."""
    return {n: v for n, v in names.items() if v.op == "const" or v.type.kind == "index"}
