"""Claims on the number of learned scalars, against the declarations and against each other.

    params: r(m + n)            equal to the derived formula, relations such as n = b·k written out
    O(r n) params               of that order in the sizes that it names
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sympy as sp

from padp.compiler.check.claim_grammar import Claim
from padp.compiler.facts.counts import Counted, in_header_terms
from padp.compiler.ir.dims import bare, factored, same, show, written_out
from padp.compiler.ir.nodes import Node
from padp.compiler.names.terms import Method, Var
from padp.compiler.sizes.solve import calculated
from padp.dsl.diagnostics import Diagnostic, Related


@dataclass(frozen=True, slots=True)
class _Said:
    claim: Claim
    value: Any  # in the symbols of the comment
    ground: Any  # with relations written out


class Counts:
    """Claims on the number of learned scalars: against the declarations, and against each other."""

    def __init__(self, method: Method, names: Mapping[str, Node], derived: Counted | None) -> None:
        """``derived``: the counts of the declarations, where the program is sound."""
        self.method, self.sound = method, derived is not None
        self.env = {n: v.value for n, v in names.items() if v.op == "const"}
        self.derived = derived

    def check(self, claims: Sequence[Claim]) -> list[Diagnostic]:
        said: list[_Said] = []
        found: list[Diagnostic] = []
        for claim in claims:
            assert claim.size is not None
            value = calculated(claim.size, {})
            if value is not None:
                said.append(_Said(claim, value, self.ground(value)))
            else:
                found.append(Diagnostic("N402", "this count is not checked: it is no number that the sizes give",
                                        claim.span, self.method.source, suggestion="params: r(m + n)"))
        for one in said:
            found += self.against_declarations(one)
        for k, one in enumerate(said):
            for other in said[:k]:
                found += self.against(one, other)
        return found

    def ground(self, value: Any) -> Any:
        """A formula in independent sizes: where n = b·k, n is b·k."""
        return sp.sympify(value).subs({x: self.env.get(str(x), x) for x in sp.sympify(value).free_symbols},
                                      simultaneous=True)

    def free(self, names: Iterable[str]) -> set[Any]:
        """The independent sizes that grow when these do: of n = b·k it is b, k being a choice."""
        chosen = {h.name for h in self.method.hyper}
        found: set[Any] = set()
        for name in names:
            own = bare(written_out(sp.sympify(self.env.get(name, sp.Symbol(name))))).free_symbols
            found |= {x for x in own if str(x) not in chosen} or own
        return found

    def bounded(self, value: Any, order: _Said) -> bool | None:
        """Whether a count is of the claimed order in the sizes that the claim names."""
        return _bounded(value, order.ground, self.free(str(x) for x in order.value.free_symbols))

    def beyond(self, value: Any, order: _Said) -> bool:
        """Whether a count grows with a size of the site that the claim does not name."""
        site = {d.name for x in self.method.bound for d in (*x.space.dims, *x.space.family) if isinstance(d, Var)}
        others = self.free(sorted(site)) - self.free(str(x) for x in order.value.free_symbols)
        return any(_bounded(value, order.ground, {x}) is False for x in others)

    def against_declarations(self, one: _Said) -> list[Diagnostic]:
        if self.derived is None:
            return []
        total = self.ground(self.derived.total)
        notes = [f"{name}: {show(in_header_terms(self.method, c))}" for name, c in self.derived.by_name.items()]
        if one.claim.kind == "growth":
            if self.bounded(total, one) is False or self.beyond(total, one):
                return [self.diagnostic("E401", f"{show(self.derived.total)} learned scalars are not "
                                        f"O({show(one.value)})", one, notes)]
            return []
        if _equal(total, one.ground):
            return []
        difference = in_header_terms(self.method, bare(written_out(total - one.ground)))
        notes.append(f"declared − claimed = {show(difference)}")
        return [self.diagnostic("E401", f"the comment counts {show(bare(one.value))} learned scalars, "
                                f"the declarations {show(self.derived.total)}", one, notes,
                                f"params: {show(self.derived.total)}")]

    def against(self, one: _Said, other: _Said) -> list[Diagnostic]:
        kinds = {one.claim.kind, other.claim.kind}
        if kinds == {"count"}:
            if _equal(one.ground, other.ground):
                return []
            note = f"their difference is {show(factored(bare(one.ground - other.ground)))}"
        elif kinds == {"count", "growth"}:
            exact, order = (one, other) if one.claim.kind == "count" else (other, one)
            if self.bounded(exact.ground, order) is not False:
                return []
            note = f"{show(exact.value)} grows faster than {show(order.value)}"
        else:
            return []
        here, there = _formula(one), _formula(other)
        return [Diagnostic("E404", f"two comments count the learned scalars differently: {here} here, {there} there",
                           one.claim.span, self.method.source, (Related(other.claim.span, f"{there} here"),), (note,),
                           "correct the one that is wrong")]

    def diagnostic(self, code: str, message: str, one: _Said, notes: Sequence[str],
                   suggestion: str | None = None) -> Diagnostic:
        return Diagnostic(code, message, one.claim.span, self.method.source, (), tuple(notes), suggestion)


def _formula(said: _Said) -> str:
    return f"O({show(bare(said.value))})" if said.claim.kind == "growth" else show(bare(said.value))


def _equal(a: Any, c: Any) -> bool:
    return same(bare(a), bare(c))


def _bounded(value: Any, order: Any, growing: set[Any]) -> bool | None:
    """Whether ``value`` grows at most as ``order`` when some sizes grow together, the rest staying; None: not known."""
    value, order = bare(written_out(value)), bare(written_out(order))
    if any(not x.exp.is_number for x in (value.atoms(sp.Pow) | order.atoms(sp.Pow))):
        return None  # 2ⁿ
    growing = growing & (value.free_symbols | order.free_symbols)
    if not growing & value.free_symbols:
        return None
    others = dict.fromkeys((value.free_symbols | order.free_symbols) - growing, 2)

    def ratio(t: int) -> float:
        return float((value / order).subs(others).subs(dict.fromkeys(growing, t)))

    try:
        return ratio(10**12) <= 1.5 * abs(ratio(10**6))
    except (TypeError, ValueError, ZeroDivisionError, OverflowError):
        return None
