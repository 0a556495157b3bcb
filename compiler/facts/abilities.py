"""What an adapter can do, each with the reason: derived from the normal form of y, for all sizes, without torch.

    capabilities(method, cases) ->
        mergeable      y = W' x + b', so the adapter can go into the layer
        batchable      examples of one batch can each have an adapter of their own
        additive       y = base(x) + delta(x)
        needs_weight   the entries of W are read, beside W @ (tokens)
        low_rank       a bound on the rank of W' − W below that of W
        knobs          numbers that may change at run time
        identity       a fresh adapter changes nothing

In y, tokens meet W in products W @ (…), which are the base layer's own forward; every other place where W stands reads
its entries: once when the adapter is attached, or at every step where learned values stand beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import product as every
from typing import Any

import sympy as sp

from padp.compiler.elaborate.cases import Case
from padp.compiler.elaborate.state import Elaborated
from padp.compiler.facts.facts import Facts
from padp.compiler.facts.fresh import Starts
from padp.compiler.ir import build as b
from padp.compiler.ir.dims import lower, product, same, show, symbol, written_out
from padp.compiler.ir.nodes import NOWHERE, Node, depends, walk
from padp.compiler.names.terms import Method, Number, Var
from padp.compiler.normal.affine import affine, beside_base, is_input, matrix_of
from padp.compiler.normal.carried import Carried
from padp.compiler.normal.decompositions import around_base
from padp.compiler.normal.normal_form import Simplifier
from padp.compiler.sizes.solve import symbolic, text
from padp.dsl.source import Span


@dataclass(frozen=True)
class Capability:
    """Whether an adapter can do something, and why. ``value``: a bound in the sizes, where there is one."""

    name: str
    holds: bool
    reason: str = ""
    value: Any = None

    def __bool__(self) -> bool:
        return self.holds

    def __repr__(self) -> str:
        return f"{'yes' if self.holds else 'no'}{f' ({self.reason})' if self.reason else ''}"


def capabilities(method: Method, cases: Sequence[Case]) -> list[Capability]:
    """What an adapter can do, for all sizes: in every case of a conditional on sizes."""
    found = [(case, _of_case(method, case.typed)) for case in cases]
    first = found[0][1]
    if len(found) == 1:
        return first
    return [_united([(case, made[k]) for case, made in found]) for k in range(len(first))]


def _united(made: Sequence[tuple[Case, Capability]]) -> Capability:
    """One capability over all cases; where they differ the reason names the case."""
    first = made[0][1]
    if all((c.holds, c.reason) == (first.holds, first.reason) for _, c in made):
        return first
    said = "; ".join(f"{_condition(case)}: {c.reason}" for case, c in made)
    values = [sp.sympify(c.value) for _, c in made if c.value is not None]
    return Capability(first.name, all(c.holds for _, c in made), said, lower(sp.Max(*values)) if values else None)


def _condition(case: Case) -> str:
    return ", ".join(("" if holds else "not ") + f"{text(test.left)} {test.op} {text(test.right)}".strip()
                     for test, holds in case.assume)


def _of_case(method: Method, typed: Elaborated) -> list[Capability]:
    rules = Simplifier(typed.graph)
    outputs = list(typed.output.args) if typed.output.op == "attn" else [typed.output]
    forms = [rules(node) for node in outputs]
    weight = next((n for n in [typed.names.get("W")] if n is not None and n.op == "weight"), None)
    if weight is not None:
        forms = [around_base(rules, node, weight) for node in forms]
    form = _Form(method, typed, rules, forms, weight)
    return [form.mergeable(), form.batchable(), form.additive(), form.needs_weight(), form.low_rank(), _knobs(method),
            _identity(typed)]


@dataclass
class _Reads:
    """How a value meets W: as ``base`` products with tokens, or by reading its entries at these nodes."""

    base: int = 0
    entries: list[Node] = field(default_factory=list[Node])
    own: list[Node] = field(default_factory=list[Node])  # matrices as large as W that every adapter has for itself


class _Form:
    """The normal form of one typed program: y, or the streams of an attention."""

    def __init__(self, method: Method, typed: Elaborated, rules: Simplifier, forms: Sequence[Node],
                 weight: Node | None) -> None:
        self.method, self.typed, self.rules, self.forms, self.weight = method, typed, rules, forms, weight
        self.carried = Carried(*forms)
        self.reads = _Reads()
        for node in forms:
            self._meet(node, self.reads)

    # ------------------------------------------------------------ where W stands

    def _meet(self, node: Node, into: _Reads) -> None:
        """A value that depends on tokens: what stands in it before tokens, and what beside them."""
        if not self._per_token(node):
            self._entries(node, into)
            return
        for k, a in enumerate(node.args):
            before = node.op == "prod" and not self._per_token(a) and any(map(self._per_token, node.args[k + 1:]))
            if before:
                self._before(a, into)
            else:
                self._meet(a, into)

    def _per_token(self, node: Node) -> bool:
        return self.carried.depends(node, is_input)

    def _of_weight(self, node: Node) -> bool:
        return self.carried.depends(node, _is_weight)

    def _moves(self, node: Node) -> bool:
        """Whether a value changes in training or with a knob."""
        return self.carried.depends(node, lambda n: n.op == "knob" or (n.op == "param" and n.attrs[1] == "learned"))

    def _before(self, matrix: Node, into: _Reads) -> None:
        """A matrix that tokens are multiplied by: W @ (…), also inside sums, products and multiples, is the base's."""
        if matrix.op == "weight":
            into.base += 1
        elif matrix.op in ("add", "prod", "scale", "expand", "grouped"):
            for a in matrix.args:
                self._before(a, into) if a.type.rank == 2 else self._entries(a, into)
        else:
            if self._as_large_as_weight(matrix) and self._moves(matrix) and self._of_weight(matrix):
                into.own.append(matrix)
            self._entries(matrix, into)

    def _as_large_as_weight(self, matrix: Node) -> bool:
        """Whether neither side is smaller than W's, and the entries are no diagonal."""
        if self.weight is None or matrix.op in ("diag", "blkdiag") or matrix.type.rank != 2:
            return False
        sides = self.weight.type.item
        return all(any(same(d, side) for side in sides) for d in matrix.type.item)

    def _entries(self, node: Node, into: _Reads) -> None:
        """The lowest values that are made from the entries of W, apart from sums and products with W."""
        if not self._of_weight(node):
            return
        if node.op == "weight" or all(not self._of_weight(a) or self._still_weight(a) for a in node.args):
            if node not in into.entries:
                into.entries.append(node)
            return
        for a in node.args:
            self._entries(a, into)

    def _still_weight(self, node: Node) -> bool:
        """Whether a value is W, a part or a sum of it: what is made of that reads the entries."""
        return node.op == "weight" or (node.op in _STILL_WEIGHT
                                       and all(not self._of_weight(a) or self._still_weight(a) for a in node.args))

    # ------------------------------------------------------------ the capabilities

    def mergeable(self) -> Capability:
        """y = W' x + b'."""
        if self.method.site == "hidden":
            return Capability("mergeable", False, "a hidden site has no weight of its own to merge into")
        for node in self.forms:
            good, culprit = affine(node)
            if not good:
                assert culprit is not None
                return Capability("mergeable", False, f"y is not affine in x: {self._line(culprit)}")
        if self.method.site == "attention":
            return Capability("mergeable", True, "into the projections, head by head")
        return Capability("mergeable", True, "y is affine in x")

    def batchable(self) -> Capability:
        """Tokens of all examples go through the base layer together; what is learned is stacked over the examples."""
        if self.reads.own:
            return Capability("batchable", False, "each adapter has a matrix as large as W of its own: "
                              f"{self._line(self.reads.own[0])}")
        return Capability("batchable", True, "what is an adapter's own meets tokens beside the base's product")

    def additive(self) -> Capability:
        """y = base(x) + delta(x), delta without the base layer."""
        if self.method.site != "linear" or self.weight is None:
            return Capability("additive", False, "its site is no single layer whose output it could add to")
        whole = self.forms[0]
        terms = [t for t in (whole.args if whole.op == "add" else (whole,)) if t.op != "bias"]
        if self.typed.mentions_bias and not any(t.op == "bias" for t in _terms(whole)):
            return Capability("additive", False, f"the bias does not stay as it is: {self._output_line()}")
        for k, term in enumerate(terms):
            others = beside_base(self.rules, term, self.weight)
            if others is None:
                continue
            rest = _Reads()
            for other in [*others, *(t for j, t in enumerate(terms) if j != k)]:
                self._meet(other, rest)
            if rest.base:
                return Capability("additive", False, f"W is applied once more in what is added: {self._output_line()}")
            return Capability("additive", True, "y is W x + bias and terms without the base layer")
        return Capability("additive", False, f"y is not W x and a sum of other terms: {self._output_line()}")

    def needs_weight(self) -> Capability:
        """Entries of W are read: at every step beside learned values, once otherwise."""
        steps = [n for n in self.reads.entries if self._moves(n)]
        once = [n for n in self.reads.entries if not self._moves(n)]
        starts = [p.declaration.span for p in self.typed.parameters.values()
                  if p.start.node is not None and depends(p.start.node, _is_weight)]
        said = ([f"at every step, {self._line(steps[0])}"] if steps else []) + \
            ([f"when attached, {self._line(once[0])}"] if once else []) + \
            ([f"for a start, {self._at(starts[0])}"] if starts and not once else [])
        if not said:
            return Capability("needs_weight", False, "W stands in W @ (…) alone, the base layer's own forward"
                              if self.reads.base and self.weight is not None else "no weight is read")
        return Capability("needs_weight", True, "; ".join(said))

    def low_rank(self) -> Capability:
        """rank(W' − W) ≤ bound."""
        weight = self.weight
        if self.method.site != "linear" or weight is None:
            return Capability("low_rank", False, "its site is no single weight that changes")
        good, culprit = affine(self.forms[0])
        if not good:
            assert culprit is not None
            return Capability("low_rank", False, f"y is not affine in x, there is no W': {self._line(culprit)}")
        full = sp.Min(*weight.type.item)
        found = matrix_of(self.rules, self.forms[0])
        bounds = [] if found is None else _choices(Ranks(self.rules).change(found[0], weight))
        least = self._in_header_terms(_least([*_choices(full), *bounds]))
        if not self._smaller(least, self._in_header_terms(full)):
            return Capability("low_rank", False, "the change can have full rank", self._full())
        return Capability("low_rank", True, f"the rank of the change is at most {show(least)}", least)

    def _full(self) -> Any:
        """min(m, n), in the header's own letters."""
        space = next(x.space for x in self.method.bound if x.name == "W")
        return lower(_plain(sp.Min(*(symbolic(d, {}) for d in space.dims))))

    def _smaller(self, bound: Any, full: Any) -> bool:
        """Whether a bound is below full rank for a large layer, with hyperparameters as they are by default."""
        defaults = {h.name: h.default.value for h in self.method.hyper if isinstance(h.default, Number)}
        gap = sp.sympify(full) - sp.sympify(bound)
        return bool(gap.subs({x: defaults.get(str(x), 10**6) for x in gap.free_symbols}).is_positive)

    def _in_header_terms(self, bound: Any) -> Any:
        """A bound with n for b·k, where a relation says n = b·k, and m for what is m in one case of a conditional."""
        bound = sp.sympify(written_out(bound))
        space = next(x.space for x in self.method.bound if x.name == "W")
        for name, d in zip(space.dims, self.weight.type.item if self.weight is not None else (), strict=True):
            if isinstance(name, Var):
                bound = bound.subs(written_out(sp.sympify(d)), symbol(name.name))
        return lower(_plain(bound))

    # ------------------------------------------------------------ places

    def _line(self, node: Node) -> str:
        """The statement that a node comes from."""
        span = node.span if node.span != NOWHERE else next((x.span for x in walk(node) if x.span != NOWHERE), NOWHERE)
        return self._output_line() if span == NOWHERE else self._at(span)

    def _output_line(self) -> str:
        spans = [span for name, _, span in self.typed.history if name == self.method.output]
        return self._at(spans[-1] if spans else self.method.span)

    def _at(self, span: Span) -> str:
        source = self.method.source
        line, _ = source.position(span.start)
        return f"line {line} ({source.line(line).split('#')[0].strip()})"


def _terms(node: Node) -> tuple[Node, ...]:
    return node.args if node.op == "add" else (node,)


def _plain(bound: Any) -> Any:
    """A bound in symbols that are equal when their names are."""
    return bound.subs({x: symbol(x.name) for x in bound.free_symbols})


def _is_weight(node: Node) -> bool:
    return node.op == "weight"


_STILL_WEIGHT = frozenset({
    "add", "scale", "prod", "t", "detach", "slice", "take", "cat", "blocks", "reshape", "view", "expand", "spread",
    "stack", "grouped",
})


def _knobs(method: Method) -> Capability:
    """Numbers that ``padp.set`` changes at run time."""
    names = [h.name for h in method.hyper if h.knob]
    return Capability("knobs", bool(names), ", ".join(names) if names else "the header has no knob")


def _identity(typed: Elaborated) -> Capability:
    """Whether a fresh adapter changes nothing."""
    verdict = Starts(typed).identity()
    match verdict.holds:
        case True:
            return Capability("identity", True, "a fresh adapter changes nothing")
        case False:
            return Capability("identity", False, verdict.start(typed.method.output))
        case None:
            return Capability("identity", False, "no rule proves it")


# ---------------------------------------------------------------- the rank of a change


class Ranks:
    """Bounds on how far a matrix is from another one, by rules; each docstring is the rule."""

    def __init__(self, rules: Simplifier) -> None:
        self.rules, self.g, self.facts = rules, rules.g, Facts(rules.g, rules)

    def change(self, matrix: Node, weight: Node) -> Any:
        """rank(A W B − W) ≤ rank(A − I) + rank(B − I);  rank(A (W + M) B − W) ≤ that + rank M."""
        if matrix is weight:
            return sp.Integer(0)
        direct = self.difference(matrix, weight)
        if matrix.op == "prod":
            for k, f in enumerate(matrix.args):
                if f is weight or (f.op == "add" and any(a is weight for a in f.args)):
                    around = self.from_identity(matrix.args[:k]) + self.from_identity(matrix.args[k + 1:])
                    return sp.Min(direct, around + self.difference(f, weight))
        if matrix.op == "add":
            split = [t for t in matrix.args if t.op == "prod" and any(a is weight for a in t.args)]
            if len(split) == 1 and not any(t is weight for t in matrix.args):
                rest = [self.rank(t) for t in matrix.args if t is not split[0]]
                return sp.Min(direct, self.change(split[0], weight) + sum(rest, sp.Integer(0)))
        return direct

    def rank(self, matrix: Node) -> Any:
        """A bound on the rank, by the rules of ``Facts``."""
        known = self.facts.rank(matrix)
        return sp.Min(*matrix.type.item) if known is None else known

    def difference(self, matrix: Node, other: Node) -> Any:
        """rank(A − B), after equal terms are taken away."""
        return self.rank(self.rules.add([matrix, self.rules.scale(self.g.const(-1), other)], matrix.type))

    def from_identity(self, factors: Sequence[Node]) -> Any:
        """rank(A B … − I) ≤ rank(A − I) + rank(B − I) + …, where all are square; n where they are not; 0 of none."""
        if not factors:
            return sp.Integer(0)
        n = factors[0].type.item[0]
        if not all(same(*f.type.item) for f in factors):
            return n
        return sp.Min(sum((self._one_from_identity(f) for f in factors), sp.Integer(0)), n)

    def _one_from_identity(self, matrix: Node) -> Any:
        rule = _FROM_IDENTITY.get(matrix.op)
        return matrix.type.item[0] if rule is None else rule(self, matrix)


def _no_change(r: Ranks, n: Node) -> Any:
    """I − I = 0."""
    return sp.Integer(0)


def _sum(r: Ranks, n: Node) -> Any:
    """rank(I + M − I) = rank M."""
    return r.difference(n, b.eye(r.g, n.type.item[0]))


def _chain(r: Ranks, n: Node) -> Any:
    """H_k … H₁ R − I = Σ H_k … (H_i − I) … R: rank at most Σ rank(H_i − I) + rank(R − I)."""
    step, start = n.args
    return n.attrs[0].size * r.from_identity((step,)) + r.from_identity((start,))


def _product(r: Ranks, n: Node) -> Any:
    """rank(A B − I) ≤ rank(A − I) + rank(B − I);  (I + K)⁻¹ (I − K) − I = −2 (I + K)⁻¹ K has the rank of K."""
    if len(n.args) == 2 and any(f.op == "inv" for f in n.args):
        top, inverse = (n.args[0], n.args[1]) if n.args[1].op == "inv" else (n.args[1], n.args[0])
        return r.difference(top, inverse.args[0])
    return r.from_identity(n.args)


def _inside(r: Ranks, n: Node) -> Any:
    """Aᵀ − I and A⁻¹ − I have the rank of A − I."""
    return r.from_identity((n.args[0],))


def _blocks(r: Ranks, n: Node) -> Any:
    """blkdiag(F) − I has the rank Σ rank(F_i − I)."""
    return product(n.args[0].type.family) * r.from_identity((n.args[0],))


def _plane(r: Ranks, n: Node) -> Any:
    """I with entries written in rows and columns i, j differs from I in these two rows."""
    rows: set[int] = set()
    while n.op == "put" and len(n.args) == 4:
        rows.add(id(n.args[2]))
        n = n.args[0]
    return len(rows) + r.from_identity((n,))


_FROM_IDENTITY: dict[str, Callable[[Ranks, Node], Any]] = {
    "eye": _no_change, "add": _sum, "fold": _chain, "prod": _product, "t": _inside, "inv": _inside, "blkdiag": _blocks,
    "put": _plane, "detach": _inside, "expand": _inside, "spread": _inside,
}


def _choices(bound: Any, limit: int = 64) -> list[Any]:
    """A bound as the least of several: min(a, c) + min(d, e) = min(a + d, a + e, c + d, c + e)."""
    bound = sp.sympify(bound)
    match bound:
        case sp.Min():
            return [x for a in bound.args for x in _choices(a)]
        case sp.Pow(base=base, exp=exponent) if base.has(sp.Min) and exponent.is_positive:
            return [sp.expand(a ** exponent) for a in _choices(base)]
        case sp.Add() | sp.Mul() if bound.has(sp.Min):
            parts = [_choices(a) for a in bound.args]
            if len(list(every(*parts))) <= limit and (bound.is_Add or all(a.is_nonnegative for a in bound.args)):
                return [sp.expand(bound.func(*chosen)) for chosen in every(*parts)]
            return [bound]
        case _:
            return [bound]


def _least(values: Sequence[Any]) -> Any:
    """The least of several bounds, without those that are never smaller than another at sizes from 2."""
    kept: list[Any] = []
    for v in dict.fromkeys(values):
        if not any(_never_smaller(v, k) for k in kept):
            kept = [*(k for k in kept if not _never_smaller(k, v)), v]
    return lower(sp.Min(*kept))


def _never_smaller(a: Any, c: Any) -> bool:
    """Whether a ≥ c at all sizes from 2, as far as signs show it; tried with numbers first, which is cheap."""
    gap = sp.sympify(a) - sp.sympify(c)
    names = sorted(gap.free_symbols, key=str)
    for k in (0, 1, 2):
        tried = gap.subs({x: 2 + (5 * j + 7 * k) % 11 for j, x in enumerate(names)})
        if tried.is_negative:
            return False
    shifted = {x: 2 + sp.Symbol(str(x), integer=True, nonnegative=True) for x in names}
    return bool(sp.expand(gap.subs(shifted)).is_nonnegative)
