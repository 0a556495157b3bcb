"""Claims on shapes, ranks and properties, against the typed program.

    Values(method, typed, …).check(claim)       what is wrong with a claim, or open
    value_of(typed, claim)                      the value that a claim speaks of
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sympy as sp

from padp.compiler.check.claim_grammar import Claim
from padp.compiler.elaborate.elaborate import dimension_names
from padp.compiler.elaborate.state import Elaborated
from padp.compiler.facts.facts import Facts
from padp.compiler.facts.fresh import Starts
from padp.compiler.facts.ranks import reaches
from padp.compiler.ir.dims import bare, same, show, written_out
from padp.compiler.ir.nodes import Node, Type, depends
from padp.compiler.names.scope import key, split
from padp.compiler.names.terms import Method, Number, SpaceTerm
from padp.compiler.sizes.solve import calculated
from padp.dsl.diagnostics import Diagnostic, Related
from padp.dsl.source import Span


class Values:
    """Claims on shapes, ranks and properties, against the typed program of one case."""

    def __init__(self, method: Method, typed: Elaborated, free: bool, sound: bool) -> None:
        self.method, self.typed, self.free, self.sound = method, typed, free, sound
        self.env: dict[str, Any] = {n: v.value for n, v in typed.names.items() if v.op == "const"}
        self.env |= {n: v for n, v in typed.sizes.items() if n not in self.env}
        if free:  # a size that is named in comments only is what the first of them makes it
            declared = dimension_names(method)
            self.env = {n: v for n, v in self.env.items() if n in declared or n not in typed.sizes}
        self.facts = Facts(typed.graph)
        self.starts = Starts(typed, self.facts.rules)

    def check(self, claim: Claim) -> list[Diagnostic]:
        node = value_of(self.typed, claim)
        if claim.kind == "identity" and claim.name is not None and key(claim.name) == key(self.method.output):
            return self._at_start(claim) if self.sound else []
        if node is None or node.type.kind == "unknown":
            return []
        match claim.kind:
            case "shape":
                return self._shape(claim, node)
            case _ if not self.sound:
                return []
            case "rank":
                return self._rank(claim, node)
            case _:
                return self._property(claim, node)

    def report(self, code: str, message: str, claim: Claim, notes: Sequence[str] = (),
               suggestion: str | None = None, related: Sequence[Related] = ()) -> list[Diagnostic]:
        return [Diagnostic(code, message, claim.span, self.method.source, tuple(related), tuple(notes), suggestion)]

    # shapes

    def claimed(self, space: SpaceTerm) -> Type | None:
        """The type that a claimed space stands for; a size that is named only here is a symbol."""
        if space.index is not None:
            omega = self.typed.names.get(space.index)
            return None if omega is None or omega.type.kind == "unknown" else Type((omega.type.item[0],))
        dims = [calculated(d, self.env) for d in space.dims]
        family = [calculated(d, self.env) for d in space.family]
        if any(d is None for d in (*dims, *family)):
            return None
        if space.kind in ("O", "SO"):
            dims = [dims[0], dims[0]]
        kind: Any = {"ℂ": "complex", "ℕ": "index"}.get(space.kind, "real")
        return Type(tuple(dims), tuple(family), kind=kind)

    def _shape(self, claim: Claim, node: Node) -> list[Diagnostic]:
        assert claim.space is not None
        type_, derived = self.claimed(claim.space), self._named(claim, node)
        if type_ is None:
            return []
        axes = [*zip(type_.item, derived.item, strict=False)]
        if type_.family:
            axes += [*zip(type_.family, derived.family, strict=False)]
        self._settle(axes)
        type_ = self.claimed(claim.space) or type_
        wrong = [f"{axis}: {show(written_out(c))} claimed, {show(written_out(d))} derived, "
                 f"difference {show(_difference(c, d))}"
                 for axis, c, d in zip(_axes(derived), type_.item, derived.item, strict=False) if not same(c, d)] \
            if len(type_.item) == len(derived.item) else ["another number of axes"]
        if type_.family and (len(type_.family) != len(derived.family)
                             or not all(same(c, d) for c, d in zip(type_.family, derived.family, strict=True))):
            wrong.append("another family")
        if type_.kind != derived.kind:
            wrong.append(f"{derived.kind} numbers")
        if wrong:
            return self.report("E402", f"{claim.name} is {_shown(derived)}, the comment says {_shown(type_)}", claim,
                               wrong, f"{claim.name} ∈ {_shown(derived)}")
        if claim.space.kind in ("O", "SO", "St") and self.sound:
            return self._property(claim, node)
        return []

    def _named(self, claim: Claim, node: Node) -> Type:
        """The type of what a claim names: of v_i, where v is what has been found, that of an item or a row of it."""
        own = key(claim.name or "")
        if split(claim.name or "") is None or own in {key(n) for n in (*self.typed.parameters, *self.typed.names)} \
                or any(key(n) == own for n, _, _ in self.typed.history):
            return node.type
        whole = node.type
        item, family = (whole.item, whole.family[1:]) if whole.family else (whole.item[1:], ())
        return Type(item, family, kind=whole.kind)

    def _settle(self, axes: Sequence[tuple[Any, Any]]) -> None:
        """A size that only comments name is what the first of them claims it to be."""
        for claimed, derived in axes:
            if self.free and isinstance(claimed, sp.Symbol) and str(claimed) not in self.env:
                self.env[str(claimed)] = derived

    def contradictions(self, claims: Sequence[Claim]) -> list[Diagnostic]:
        """Two claims on one value that differ."""
        found: list[Diagnostic] = []
        values = [value_of(self.typed, claim) for claim in claims]
        types = [None if claim.space is None else self.claimed(claim.space) for claim in claims]
        for k, one in enumerate(claims):
            for j, other in enumerate(claims[:k]):
                here, there = values[k], values[j]
                if one.name is None or other.name is None or here is not there or key(one.name) != key(other.name):
                    continue
                a, c = types[k], types[j]
                if a is None or c is None or here is None:
                    continue
                if len(a.item) != len(c.item) or not all(same(x, y) for x, y in zip(a.item, c.item, strict=True)):
                    found += self.report("E404", f"two comments give {one.name} different shapes: {_shown(a)} here, "
                                         f"{_shown(c)} there", one, related=[Related(other.span, f"{_shown(c)} here")])
        return found

    # ranks and properties

    def _rank(self, claim: Claim, node: Node) -> list[Diagnostic]:
        assert claim.size is not None
        bound = calculated(claim.size, self.env)
        if bound is None or node.type.rank != 2:
            why = f"{claim.name} is {_shown(node.type)}, and a rank is that of a matrix" if bound is not None else \
                "it is no number that the sizes give"
            return self.report("N402", f"this rank is not checked: {why}", claim)
        known = self.facts.rank(node)
        if known is not None and _at_most(known, bound):
            return []
        reached = reaches(node)
        if reached is not None and self._larger_somewhere(reached, bound):
            return self.report("E403", f"{claim.name} has rank {show(reached)}, the comment says {show(bound)}", claim,
                               [f"derived − claimed = {show(_difference(reached, bound))}"], f"rank {show(reached)}")
        notes = [f"the rules give rank ≤ {show(known)}"] if known is not None else []
        return self.report("N401", f"no rule proves that {claim.name} has rank at most {show(bound)}", claim, notes,
                           "padp check --numerics tests it")

    def _larger_somewhere(self, a: Any, c: Any) -> bool:
        """Whether a > c at some admissible sizes: large dimensions, hyperparameters as they are by default."""
        sizes = {h.name: h.default.value for h in self.method.hyper if isinstance(h.default, Number)}
        gap = sp.sympify(a) - sp.sympify(c)
        values = {x: sizes.get(str(x), 10**6 if not str(x).startswith("(") else 0) for x in gap.free_symbols}
        answer = gap.subs(values)
        return bool(answer.is_positive) and not self.method.relations

    def _property(self, claim: Claim, node: Node) -> list[Diagnostic]:
        kind = claim.kind if claim.kind != "shape" else "orthogonal"
        what = {"orthogonal": "orthogonal", "antisymmetric": "antisymmetric", "identity": "the identity"}[kind]
        if kind == "orthogonal" and claim.space is not None and claim.space.kind == "St":
            what = "of orthonormal rows"
        if kind == "orthogonal" and claim.space is not None and claim.space.kind == "SO":
            what = "a rotation"
        holds = self.facts.holds(what, node)
        if holds is None and self.starts.fails(what, node, self.facts):
            holds = False
        if holds is True:
            return []
        if holds is False:
            mirrored = ["its determinant is −1"] if what == "a rotation" and self.facts.orthogonal(node) else []
            return self.report("E403", f"{claim.name} is not {what}", claim,
                               mirrored or self.starts.reasons(node))
        return self.report("N401", f"no rule proves that {claim.name} is {what}", claim, (),
                           "padp check --numerics tests it")

    def _at_start(self, claim: Claim) -> list[Diagnostic]:
        """``identity`` on the line of the output: W305 and N401 of the lints tell of it; a proof against it is E403."""
        verdict = self.starts.identity()
        if verdict.holds is False:
            return self.report("E403", "a fresh adapter is not the identity: "
                               f"{verdict.start(self.method.output)}", claim)
        return []


def value_of(typed: Elaborated, claim: Claim) -> Node | None:
    """The value that a claim speaks of: what its line assigns (after the loop, when it is carried through one), or what
    the name stands for there."""
    name = claim.name
    if name is None:
        return None
    names = {key(name)} | ({key(parts[0])} if (parts := split(name)) is not None else set())
    history = [(n, node, span) for n, node, span in typed.history if key(n) in names]
    if claim.statement is not None:
        own = [k for k, (_, _, span) in enumerate(history) if span.start == claim.statement.start]
        if own:
            return _closed(history, own[-1])
    before = [k for k, (_, _, span) in enumerate(history) if span.start <= claim.span.start]
    if before:
        return _closed(history, before[-1])
    for known, p in typed.parameters.items():
        if key(known) in names:
            return p.node
    bound = {key(x.name) for x in typed.method.bound}
    return next((typed.names[n] for n in typed.names if key(n) in names & bound), None)


def _closed(history: Sequence[tuple[str, Node, Span]], at: int) -> Node:
    """The value itself, or, where it is one step of a chain, the value of the whole chain."""
    name, node, span = history[at]
    if depends(node, lambda n: n.op == "carry" and n.attrs[0] == name):
        for other, later, around in history[at + 1:]:
            if other == name and around.start <= span.start and span.end <= around.end and not depends(
                    later, lambda n: n.op == "carry" and n.attrs[0] == name):
                return later
    return node


def _axes(type_: Type) -> tuple[str, ...]:
    return ("rows", "columns") if type_.rank == 2 else ("entries",)


def _difference(a: Any, c: Any) -> Any:
    return sp.expand(bare(a) - bare(c))


def _at_most(a: Any, c: Any) -> bool:
    if same(a, c):
        return True
    a, c = sp.sympify(a), sp.sympify(c)
    if isinstance(c, sp.Min):
        return all(_at_most(a, x) for x in c.args)
    if isinstance(a, sp.Min) and any(_at_most(x, c) for x in a.args):
        return True
    if isinstance(a, sp.Pow) and isinstance(a.base, sp.Min) and a.exp.is_positive:  # min(m, r)² ≤ r²
        return any(_at_most(x ** a.exp, c) for x in a.base.args)
    factors = sp.Mul.make_args(a)
    smallest = next((f for f in factors if isinstance(f, sp.Min)), None)
    if smallest is not None and len(factors) > 1 and all(f.is_nonnegative for f in factors):
        return any(_at_most(a / smallest * x, c) for x in smallest.args)
    return bool((c - a).is_nonnegative)


def _shown(type_: Type) -> str:
    """A type with sizes as they are in the header."""
    item, family = tuple(written_out(d) for d in type_.item), tuple(written_out(d) for d in type_.family)
    return str(Type(item, family, (), False, type_.kind))
