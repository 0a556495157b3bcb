"""Planning: what a program wants of its matrices, answered as tensor operations.

    value(node)      the tensor itself
    apply(M, v)      M @ v without M, where M's operator knows how
    norms(M, axis)   ‖rows‖², ‖columns‖² or ‖M‖_F² without M
    dense(A B C)     a product of matrices, associated as is cheapest

A matrix is hardly ever wanted as a matrix. ``apply`` asks its operator; a chain of factors tries every association and
takes the cheapest by ``Table.seconds``; ``W`` on tokens is the base layer's own forward. New structure is one ``case``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import sympy as sp

from padp.compiler import build as b
from padp.compiler.chains import Plane, RankOne, plane_rotation, rank_one_update
from padp.compiler.dims import product
from padp.compiler.ir import Axis, Graph, Node, Type
from padp.compiler.linear import base_product
from padp.compiler.low import Low, Table
from padp.compiler.rules import Simplifier

STORED_SECONDS_PER_BYTE = 1.0e-9
"""What keeping a byte at a site is worth in seconds a step: enough that nothing of W's size is kept for a small gain."""


MAX_ROUNDS = 256
"""Rounds of rotations that a plan may have."""


class Planner:
    """One plan: a graph, a number of tokens, training or not."""

    def __init__(self, g: Graph, weight: Node | None, tokens: int = 1024, *, train: bool = True, has_bias: bool = True,
                 on_tokens: bool = True) -> None:
        self.g, self.train, self.has_bias, self.on_tokens = g, train, has_bias, on_tokens
        self.weight = weight
        self.table = Table(tokens)
        self.rules = Simplifier(g)
        self._values: dict[int, Low] = {}
        self._applied: dict[tuple[Any, ...], Low] = {}
        self._dense: dict[tuple[int, ...], Low] = {}
        self._kept: list[Any] = []

    # ------------------------------------------------------------ making operations

    def make(self, prim: str, args: Sequence[Any], type_: Type, lead: tuple[Any, ...] = (), **more: Any) -> Low:
        return self.table.make(prim, tuple(args), type_, lead, **more)

    def lead(self, *lows: Low) -> tuple[Any, ...]:
        """The leading axes of a result: those of its arguments (there is one kind of them in an expression)."""
        return max((x.lead for x in lows), key=len)

    def seconds(self, low: Low) -> float:
        return self.table.seconds(low, train=self.train) + STORED_SECONDS_PER_BYTE * self.table.stored(low)

    def cheapest(self, candidates: Sequence[Low]) -> Low:
        return candidates[0] if len(candidates) == 1 else min(candidates, key=self.seconds)

    def view(self, prim: str, low: Low, args: Sequence[Any], type_: Type, lead: tuple[Any, ...] | None = None) -> Low:
        return self.make(prim, (low, *args), type_, low.lead if lead is None else lead, flops=0.0)

    def aligned(self, low: Low, type_: Type) -> Low:
        """``low`` with axes of size 1 where ``type_`` has a loop, family or item axis that it lacks."""
        want = [("loop", a.uid) for a in type_.loops] + [("family", k) for k in range(len(type_.family))] + \
            [("item", k) for k in range(type_.rank)]
        own = {("loop", a.uid) for a in low.type.loops}
        own |= {("family", k) for k in range(len(type_.family))} if low.type.family else set()
        own |= {("item", k) for k in range(type_.rank)} if low.type.rank else set()
        left = len(own) + (1 if low.lead else 0)
        for back, label in enumerate(reversed(want), 1):
            if label in own:
                left -= 1
            elif left > 0:
                low = self.view("unsqueeze", low, (-back,), low.type)
            if left == 0:
                break
        return low

    def elementwise(self, prim: str, type_: Type, *lows: Low, extra: Sequence[Any] = ()) -> Low:
        return self.make(prim, (*(self.aligned(x, type_) for x in lows), *extra), type_, self.lead(*lows))

    def number(self, low: Low, factor: Any) -> Low:
        """factor · low for a number."""
        value = _float(factor)
        if value == 1:
            return low
        if value == -1:
            return self.make("neg", (low,), low.type, low.lead)
        return self.make("mul", (low, value), low.type, low.lead)

    # ------------------------------------------------------------ values

    def value(self, node: Node) -> Low:
        """The tensor of a node."""
        found = self._values.get(id(node))
        if found is None:
            kept = self.table.span
            if node.args or not kept.end:  # a leaf is read where it is used, not where it is declared
                self.table.span = node.span
            found = self._values[id(node)] = self._value(node)
            self._kept.append(node)
            self.table.span = kept
        return found

    def _value(self, node: Node) -> Low:
        handler = _VALUES.get(node.op)
        if handler is not None:
            return handler(self, node)
        args = [self.value(a) for a in node.args]
        return self.make(f"k:{node.op}", (*args, *node.attrs), node.type, self.lead(*args) if args else ())

    # ------------------------------------------------------------ a matrix applied to vectors

    def apply(self, m: Node, v: Low) -> Low:
        """M @ v; v is one vector, or many along its leading axes."""
        key = (id(m), id(v))
        found = self._applied.get(key)
        if found is None:
            kept = self.table.span
            if m.args or not kept.end:
                self.table.span = m.span
            found = self._applied[key] = self._apply(m, v)
            self._kept.append((m, v))
            self.table.span = kept
        return found

    def result_type(self, m: Node, v: Low) -> Type:
        family, loops = b.united(m.type, v.type)
        return Type((m.type.item[0],), family, loops)

    def _apply(self, m: Node, v: Low) -> Low:
        handler = _APPLY.get(m.op)
        if handler is not None:
            made = handler(self, m, v)
            if made is not None:
                return made
        return self.apply_dense(m, v)

    def apply_dense(self, m: Node, v: Low) -> Low:
        """M built, then one matrix product."""
        return self.times_vectors(self.value(m), v)

    def times_vectors(self, matrix: Low, v: Low) -> Low:
        """A built matrix (or a batch of them) times vectors (or a batch of them)."""
        family, loops = b.united(matrix.type, v.type)
        type_ = Type((matrix.type.item[0],), family, loops)
        if matrix.lead:
            return self.make("matvec", (self.aligned(matrix, Type((1, 1), family, loops)), v), type_,
                             self.lead(matrix, v), flops=2 * self.table.size((*matrix.lead, *matrix.type.shape)))
        work = 2 * self.table.size((*v.lead, *type_.batch, *matrix.type.item))
        if not matrix.type.batch:
            if not v.lead and not v.type.batch:
                return self.make("mv", (matrix, v), type_, (), flops=work)
            return self.make("linear", (v, matrix), type_, v.lead, flops=work)
        if not v.type.batch:
            return self.make("linear_each", (v, matrix), type_, v.lead, flops=work)
        if b.fits(matrix.type.batch, v.type.batch) and \
                [a.uid for a in matrix.type.loops] == [a.uid for a in v.type.loops]:
            return self.make("each", (v, matrix, len(matrix.type.batch)), type_, v.lead, flops=2 * work)
        full = Type((1, 1), family, loops)
        return self.make("matvec", (self.aligned(matrix, full), self.aligned(v, Type((1,), family, loops))),
                         type_, self.lead(v), flops=4 * work)

    def chain(self, factors: tuple[Node, ...], v: Low) -> Low:
        """F₁ … F_k v: each suffix is applied to v, or multiplied out first, whichever costs less in all."""
        if not factors:
            return v
        key = ("chain", *(id(f) for f in factors), id(v))
        found = self._applied.get(key)
        if found is not None:
            return found
        candidates = [self.chain(factors[:-1], self.apply(factors[-1], v))]
        for start in range(len(factors) - 2, -1, -1):
            suffix = factors[start:]
            if suffix[0].op == "weight" and "T" in v.lead and self.on_tokens:
                break  # W on tokens stays the base layer's product
            if any(_contains_weight(f) for f in suffix) and "T" in v.lead:
                break
            if suffix[0].op == "perm" or suffix[-1].op == "perm" or not _worth(suffix, self.table.size(v.lead)):
                continue  # a permutation costs nothing on a vector
            candidates.append(self.chain(factors[:start], self.times_vectors(self.dense(suffix), v)))
        best = self.cheapest(candidates)
        self._applied[key] = best
        self._kept.append((factors, v))
        return best

    # ------------------------------------------------------------ products of matrices

    def dense(self, factors: tuple[Node, ...]) -> Low:
        """F₁ … F_k as a matrix: the cheapest association; a structured factor is applied, not built."""
        if len(factors) == 1:
            return self.value(factors[0])
        key = tuple(id(f) for f in factors)
        found = self._dense.get(key)
        if found is None:
            candidates = [self.times(factors[:k], factors[k:]) for k in range(1, len(factors))]
            found = self._dense[key] = self.cheapest(candidates)
            self._kept.append(factors)
        return found

    def times(self, left: tuple[Node, ...], right: tuple[Node, ...]) -> Low:
        """(left) (right), one of them perhaps applied by its structure."""
        batched = any(f.type.batch for f in (*left, *right))
        if len(left) == 1 and left[0].op == "diag":
            return self._scaled_matrix(left[0], self.dense(right), -1)
        if len(right) == 1 and right[0].op == "diag":
            return self._scaled_matrix(right[0], self.dense(left), -2)
        if len(left) == 1 and left[0].op == "inv" and not _easy(left[0]):
            a, x = self.value(left[0].args[0]), self.dense(right)
            return self._solve("solve", a, x)
        if len(right) == 1 and right[0].op == "inv" and not _easy(right[0]):
            a, x = self.value(right[0].args[0]), self.dense(left)
            return self._solve("solve_right", a, x)
        if len(right) == 1 and _structured(right[0]) and not batched:
            rows = self.dense(left)
            if not rows.lead:
                out = self.apply(self.rules.t(right[0]), self.as_rows(rows))
                return self.from_rows(out)
        if len(left) == 1 and _structured(left[0]) and not batched:
            columns = self.dense(right)
            if not columns.lead:
                flipped = self.view("mT", columns, (), Type((columns.type.item[1], columns.type.item[0])))
                out = self.from_rows(self.apply(left[0], self.as_rows(flipped)))
                return self.view("mT", out, (), Type((out.type.item[1], out.type.item[0])))
        return self.matmul(self.dense(left), self.dense(right))

    def _scaled_matrix(self, diagonal: Node, matrix: Low, axis: int) -> Low:
        """diag(v) M (axis −1) or M diag(v) (axis −2) as a product entry by entry."""
        v = self.value(diagonal.args[0])
        n = v.type.item[0]
        item = (n, 1) if axis == -1 else (1, n)
        spread = self.view("unsqueeze", v, (axis,), Type(item, v.type.family, v.type.loops))
        type_ = Type(matrix.type.item, *_batch(v, matrix))
        return self.elementwise("mul", type_, matrix, spread)

    def matmul(self, x: Low, y: Low) -> Low:
        family, loops = b.united(x.type, y.type)
        type_ = Type((x.type.item[0], y.type.item[1]), family, loops)
        work = 2 * self.table.size((*self.lead(x, y), *type_.shape, x.type.item[1]))
        return self.make("matmul", (self.aligned(x, Type((1, 1), family, loops)),
                                    self.aligned(y, Type((1, 1), family, loops))), type_, self.lead(x, y), flops=work)

    def _solve(self, prim: str, a: Low, x: Low) -> Low:
        family, loops = b.united(a.type, x.type)
        n = a.type.item[0]
        full = Type((1, 1), family, loops)
        work = self.table.size((*full.batch, n, n, n)) + 2 * self.table.size((*full.batch, *x.type.item, n))
        return self.make(prim, (self.aligned(a, full), self.aligned(x, full)), Type(x.type.item, family, loops),
                         flops=work)

    def as_rows(self, matrix: Low) -> Low:
        """A matrix as vectors along a leading axis."""
        return self.view("as_rows", matrix, (), Type((matrix.type.item[1],)), (matrix.type.item[0],))

    def from_rows(self, rows: Low) -> Low:
        return self.view("from_rows", rows, (), Type((rows.lead[0], rows.type.item[0])), ())

    # ------------------------------------------------------------ norms

    def norms(self, m: Node, axis: str) -> Low:
        """Sums of squares of a matrix, from its parts where that is cheaper."""
        built = self.make("sumsq", (self.value(m), axis, m.type.rank), b.sumsq(self.g, m, axis).type,
                          self.value(m).lead)
        if m.type.rank != 2 or m.type.batch:
            return built
        if axis == "col":
            expanded = self._row_norms(self.rules.t(m))
        else:
            expanded = self._row_norms(m)
        if expanded is None:
            return built
        if axis == "all":
            expanded = self.make("sum", (expanded, (-1,)), Type())
        return self.cheapest([expanded, built])

    def _row_norms(self, m: Node) -> Low | None:
        """‖X + Y‖² = ‖X‖² + 2⟨X, Y⟩ + ‖Y‖² by rows, ⟨X, L R⟩ = (X Rᵀ ⊙ L) 1, ‖L R‖² = (L (R Rᵀ) ⊙ L) 1."""
        terms = [m] if m.op != "add" else list(m.args)
        split = [_low_rank(self.g, t) for t in terms]
        if all(s is None for s in split) or sum(s is None for s in split) > 1:
            return None
        total: Low | None = None
        for k, (x, parts) in enumerate(zip(terms, split, strict=True)):
            own = self._row_dot(x, parts, None) if parts is None else self._row_dot(x, parts, parts)
            total = own if total is None else self.elementwise("add", own.type, total, own)
            for y, other in list(zip(terms, split, strict=True))[k + 1:]:
                cross = self._row_dot(x, parts, other) if other is not None else self._row_dot(y, None, parts)
                total = self.elementwise("add", own.type, total, self.number(cross, 2))
        return total

    def _row_dot(self, x: Node, left: tuple[Node, Node] | None, right: tuple[Node, Node] | None) -> Low:
        type_ = Type((x.type.item[0],))
        if right is None:
            return self.make("sumsq", (self.value(x), "row", 2), type_)
        l, r = right
        if left is None:
            inner = self.dense((x, self.rules.t(r)))
        else:
            inner = self.dense((left[0], left[1], self.rules.t(r)))
        return self.make("rowdot", (inner, self.value(l)), type_, flops=2 * self.table.size(inner.dims))

    # ------------------------------------------------------------ the base layer

    def base(self, v: Low, bias: bool) -> Low:
        """W v (+ bias) by the base layer's own forward."""
        assert self.weight is not None
        prim = "base" if bias or not self.has_bias else "base_without_bias"
        return self.make(prim, (v,), Type(self.weight.type.item[:1]), v.lead,
                         flops=2 * self.table.size((*v.lead, *self.weight.type.item)))


def _worth(suffix: Sequence[Node], tokens: float) -> bool:
    """Whether multiplying out could pay at all: not when the result is larger than all factors and the tokens together."""
    size = int(suffix[0].type.item[0]) * int(suffix[-1].type.item[1])
    parts = sum(int(f.type.item[0]) * int(f.type.item[1]) if not _structured(f) else int(f.type.item[0])
                for f in suffix)
    return size <= parts + tokens * min(int(suffix[0].type.item[0]), int(suffix[-1].type.item[1]))


def _float(value: Any) -> Any:
    if isinstance(value, sp.Expr):
        return int(value) if value.is_integer else float(value)
    return value


def _easy(node: Node) -> bool:
    return node.op == "inv" and node.args[0].op in ("diag", "eye", "perm")


def _structured(node: Node) -> bool:
    """Whether applying this factor is cheaper than building it, whatever it meets."""
    match node.op:
        case "diag" | "perm" | "blkdiag" | "fold" | "kron" | "circulant" | "outer" | "eye" | "scatter":
            return True
        case "t":
            return node.args[0].op in ("scatter", "circulant")
        case "scale":
            return _structured(node.args[1])
        case "add":
            return any(a.op == "eye" for a in node.args) and node.type.item[0] > 64
        case "prod":
            return any(_structured(f) for f in node.args) or _thin(node) is not None
        case _:
            return False


def _thin(node: Node) -> tuple[list[Node], Node, int] | None:
    """(scalars, product, cut) of a matrix that factors through an inner dimension below half of both outer ones."""
    scalars: list[Node] = []
    while node.op == "scale":
        scalars.append(node.args[0])
        node = node.args[1]
    if node.op != "prod" or node.type.rank != 2 or node.type.batch:
        return None
    inner = [f.type.item[1] for f in node.args[:-1]]
    cut = min(range(len(inner)), key=lambda i: inner[i])
    if inner[cut] * 2 > min(node.type.item):
        return None
    return scalars, node, cut


def _low_rank(g: Graph, node: Node) -> tuple[Node, Node] | None:
    """L, R with node = L R through a thin middle; scalars go with L."""
    found = _thin(node)
    if found is None:
        return None
    scalars, product_, cut = found
    left = b.prod(g, *product_.args[:cut + 1])
    for s in scalars:
        left = b.scale(g, s, left)
    return left, b.prod(g, *product_.args[cut + 1:])


def plan(g: Graph, roots: Sequence[Node], weight: Node | None, **options: Any) -> tuple[Planner, list[Low]]:
    """The tensor operations for ``roots``, which are simplified first."""
    planner = Planner(g, weight, **options)
    simple = [planner.rules(r) for r in roots]
    return planner, [planner.value(r) for r in simple]


# ---------------------------------------------------------------- values of each operator


def _leaf(p: Planner, node: Node) -> Low:
    stage = {"param": 1 if node.op == "param" and node.attrs[-1] == "learned" else 0, "weight": 0, "bias": 0,
             "input": 2, "knob": 1}[node.op]
    lead = ("T",) if node.op == "input" else ()
    return p.make(node.op, (node.attrs[0],), node.type, lead, stage=stage, flops=0.0)


def _constant(p: Planner, node: Node) -> Low:
    value = _float(node.attrs[0]) if node.attrs else 1
    if node.op == "eye":
        return p.make("eye", (node.type.item[0],), node.type, stage=0)
    return p.make("full", (node.type.shape, value), node.type, stage=0)


def _add(p: Planner, node: Node) -> Low:
    terms = list(node.args)
    total: Low | None = None
    if node.type.rank == 1 and p.on_tokens:
        total, terms = _base_first(p, terms)
    for term in terms:
        sign, inner = (-1, term.args[1]) if term.op == "scale" and term.args[0].op == "const" \
            and term.args[0].value == -1 else (1, term)
        low = p.value(inner)
        if total is None:
            total = p.number(low, sign)
            continue
        if total.type.item != low.type.item and low.type.rank == 0:
            raise AssertionError("a scalar met a tensor in a sum")
        type_ = Type(node.type.item, *_batch(total, low), row=node.type.row)
        total = p.elementwise("add" if sign == 1 else "sub", type_, total, low)
    assert total is not None
    return total


def _batch(*lows: Low) -> tuple[Any, tuple[Axis, ...]]:
    return b.united(*(x.type for x in lows))


def _base_first(p: Planner, terms: list[Node]) -> tuple[Low | None, list[Node]]:
    """W v + bias is the base layer's own forward."""
    bias = [t for t in terms if t.op == "bias"]
    for k, term in enumerate(terms):
        found = base_product(p.rules, term, p.weight)
        if found is None or not bias:
            continue
        vector, rest = found
        rest_terms = [t for j, t in enumerate(terms) if j != k and t is not bias[0]]
        return p.base(p.value(vector), True), [*rest, *rest_terms]
    return None, terms


def _scale(p: Planner, node: Node) -> Low:
    s, a = node.args
    if a.op == "prod" and a.type.rank == 1:
        return _scaled_chain(p, s, a)
    if a.op == "prod" and s.op == "const" and a.type.rank == 2 and not a.type.batch:
        pair = _low_rank(p.g, a)
        if pair is not None:  # the number goes onto the smaller side
            left, right = pair
            factors = (b.scale(p.g, s, left), right) if left.type.item[0] <= right.type.item[1] else \
                (left, b.scale(p.g, s, right))
            return p.matmul(p.value(factors[0]), p.value(factors[1]))
    low = p.value(a)
    if s.op == "const":
        return p.number(low, s.value)
    scalar = p.value(s)
    type_ = Type(node.type.item, *_batch(scalar, low), row=node.type.row)
    return p.elementwise("mul", type_, low, scalar)


def _scaled_chain(p: Planner, s: Node, a: Node) -> Low:
    """s F₁ … F_k v: the scalar is applied where the vector is shortest."""
    factors, v = a.args[:-1], p.value(a.args[-1])
    lengths = [f.type.item[0] for f in factors] + [a.args[-1].type.item[0]]
    at = min(range(len(lengths)), key=lambda k: lengths[k])
    inner = p.chain(tuple(factors[at:]), v)
    if s.op == "const":
        scaled = p.number(inner, s.value)
    else:
        scalar = p.value(s)
        scaled = p.elementwise("mul", Type(inner.type.item, *_batch(scalar, inner)), inner, scalar)
    return p.chain(tuple(factors[:at]), scaled)


def _prod(p: Planner, node: Node) -> Low:
    if node.type.rank == 1:
        return p.chain(node.args[:-1], p.value(node.args[-1]))
    return p.dense(node.args)


def _t(p: Planner, node: Node) -> Low:
    low = p.value(node.args[0])
    if node.args[0].type.rank == 1:
        return p.view("unsqueeze", low, (-2,), node.type)
    return p.view("mT", low, (), node.type)


def _elementwise(prim: str) -> Callable[[Planner, Node], Low]:
    def value(p: Planner, node: Node) -> Low:
        lows = [p.value(a) for a in node.args]
        return p.elementwise(prim, Type(node.type.item, *_batch(*lows), row=node.type.row), *lows)

    return value


def _div(p: Planner, node: Node) -> Low:
    a, c = node.args
    if a.op == "const":
        low = p.value(c)
        return p.make("reciprocal" if a.value == 1 else "rdiv", (low,) if a.value == 1 else (_float(a.value), low),
                      node.type, low.lead)
    if c.op == "const":
        return p.number(p.value(a), 1 / sp.sympify(c.value))
    return _elementwise("div")(p, node)


def _point(p: Planner, node: Node) -> Low:
    low = p.value(node.args[0])
    return p.make(f"f:{node.attrs[0]}", (low,), node.type, low.lead)


def _pow(p: Planner, node: Node) -> Low:
    low = p.value(node.args[0])
    return p.make("pow", (low, _float(node.attrs[0])), node.type, low.lead)


def _outer(p: Planner, node: Node) -> Low:
    u, v = (p.value(a) for a in node.args)
    column = p.view("unsqueeze", u, (-1,), Type((u.type.item[0], 1), u.type.family, u.type.loops))
    row = p.view("unsqueeze", v, (-2,), Type((1, v.type.item[0]), v.type.family, v.type.loops))
    return p.elementwise("mul", node.type, column, row)


def _dot(p: Planner, node: Node) -> Low:
    u, v = (p.value(a) for a in node.args)
    type_ = Type((1,), *_batch(u, v))
    return p.make("dot", (p.aligned(u, type_), p.aligned(v, type_)), node.type, p.lead(u, v))


def _inv(p: Planner, node: Node) -> Low:
    low = p.value(node.args[0])
    return p.make("k:inverse", (low,), node.type, low.lead, flops=2 * p.table.size((*low.dims, low.type.item[0])))


def _sumsq(p: Planner, node: Node) -> Low:
    (a,) = node.args
    if a.type.rank == 2 and not a.type.row:
        return p.norms(a, node.attrs[0])
    low = p.value(a)
    return p.make("sumsq", (low, "all", a.type.rank), node.type, low.lead)


def _reduce(p: Planner, node: Node) -> Low:
    (a,) = node.args
    function, axis = node.attrs
    low = p.value(a)
    dims = {"row": (-1,), "col": (-2,), "all": tuple(range(-a.type.rank, 0))}[axis]
    return p.make({"sum": "sum", "mean": "mean", "max": "amax", "min": "amin"}[function], (low, dims), node.type,
                  low.lead)


def _slice(p: Planner, node: Node) -> Low:
    low = p.value(node.args[0])
    axis, start, stop, step = node.attrs
    if step == 1:
        return p.view("narrow", low, (axis, start, stop - start), node.type)
    return p.view("slice_step", low, (axis, start, stop, step), node.type)


def _take(p: Planner, node: Node) -> Low:
    a, index = node.args
    low, back = p.value(a), node.attrs[0]
    if index.op == "const":
        return p.view("select", low, (-back, index.value), node.type)
    if index.op == "iota":
        axis, step, first = index.attrs
        return _loop_from_axis(p, low, back, axis, step, first, node)
    where = p.value(index)
    if index.type.rank == 1 and not index.type.loops:
        return p.make("index_select", (low, -back, where), node.type, low.lead)
    if index.type.rank == 0 and len(index.type.loops) == 1 and not low.type.loops:
        gathered = p.make("index_select", (low, -back, where), low.type, low.lead, flops=p.table.size(node.type.shape))
        return _move_to_loops(p, gathered, back, node)
    raise b.Mismatch("an index that depends on two loops at once", "E302")


def _loop_from_axis(p: Planner, low: Low, back: int, axis: Axis, step: int, first: int, node: Node) -> Low:
    size = (low.type.family + low.type.item)[len(low.type.family) + low.type.rank - back]
    if step == 1:
        if first != 0 or size != axis.size:
            low = p.view("narrow", low, (-back, first, axis.size), low.type)
    elif step > 0:
        low = p.view("slice_step", low, (-back, first, first + step * (axis.size - 1) + 1, step), low.type)
    else:
        raise b.Mismatch("an index that runs backwards", "E302")
    return _move_to_loops(p, low, back, node)


def _move_to_loops(p: Planner, low: Low, back: int, node: Node) -> Low:
    """The axis ``back`` from the end becomes the newest loop axis of ``node``."""
    loops = node.type.loops
    new = next(k for k, a in enumerate(loops) if a not in low.type.loops)
    after = (len(loops) - 1 - new) + len(node.type.family) + node.type.rank
    if back == after + 1:
        return p.view("as_is", low, (), node.type)
    return p.view("movedim", low, (-back, -(after + 1)), node.type)


def _cat(p: Planner, node: Node) -> Low:
    lows = [p.value(a) for a in node.args]
    full = Type((1,) * node.type.rank, node.type.family, node.type.loops)
    return p.make("cat", (tuple(p.aligned(x, full) for x in lows), -node.attrs[0]), node.type, p.lead(*lows))


def _interleave(p: Planner, node: Node) -> Low:
    lows = [p.value(a) for a in node.args]
    full = Type((1,) * node.type.rank, node.type.family, node.type.loops)
    return p.make("interleave", (tuple(p.aligned(x, full) for x in lows), node.attrs[0]), node.type, p.lead(*lows))


def _stack(p: Planner, node: Node) -> Low:
    low = p.value(node.args[0])
    axis, place = node.attrs
    where = low.type.loops.index(axis)
    back = len(low.type.loops) - where + len(low.type.family) + low.type.rank
    target = {"item": node.type.rank, "columns": 1, "family": node.type.rank + len(node.type.family)}[place]
    if back == target:
        return p.view("as_is", low, (), node.type)
    return p.view("movedim", low, (-back, -target), node.type)


def _spread(p: Planner, node: Node) -> Low:
    low = p.value(node.args[0])
    aligned = p.aligned(low, node.type)
    return p.view("expand", aligned, (node.type.shape,), node.type)


def _expand(p: Planner, node: Node) -> Low:
    low = p.aligned(p.value(node.args[0]), node.type)
    return p.view("expand", low, (node.type.shape,), node.type)


def _sumloop(p: Planner, node: Node) -> Low:
    (a,), (axis,) = node.args, node.attrs
    joined = _joined(p, a, axis)
    if joined is not None:
        return p.value(joined)
    return _sum_axis(p, p.value(a), axis, node.type)


def _sum_axis(p: Planner, low: Low, axis: Axis, type_: Type) -> Low:
    back = len(low.type.loops) - low.type.loops.index(axis) + len(low.type.family) + low.type.rank
    return p.make("sum", (low, (-back,)), type_, low.lead, flops=p.table.size(low.dims))


def _joined(p: Planner, a: Node, axis: Axis) -> Node | None:
    """Σᵢ Aᵢ Bᵢ = [A₁ … A_N] [B₁; …; B_N] for matrices: one product instead of N and their sum."""
    scalars: list[Node] = []
    while a.op == "scale":
        scalars.append(a.args[0])
        a = a.args[1]
    if a.op != "prod" or a.type.loops != (axis,) or a.type.family:
        return None
    widths = [f.type.item[1] for f in a.args[:-1]]
    cut = min(range(len(widths)), key=lambda k: widths[k]) + 1
    first, inner = p.rules.prod(a.args[:cut]), p.rules.prod(a.args[cut:])
    for s in scalars:
        inner = p.rules.scale(s, inner)
    if axis not in first.type.loops:
        first = b.spread(p.g, first, axis)
    if axis not in inner.type.loops:
        inner = b.spread(p.g, inner, axis)
    r = first.type.item[1]
    left = p.g.node("join", (first,), (axis, "columns"), Type((first.type.item[0], axis.size * r)))
    right = p.g.node("join", (inner,), (axis, "rows"), Type((axis.size * r, *inner.type.item[1:])))
    return b.prod(p.g, left, right)


def _join(p: Planner, node: Node) -> Low:
    low = p.value(node.args[0])
    if node.attrs[1] == "columns":  # (N, p, r) → p × N r
        moved = p.view("movedim", low, (-3, -2), Type((low.type.item[0], node.attrs[0].size, low.type.item[1])))
        return p.make("flatten", (moved, -2, -1), node.type, low.lead, flops=0.0)
    start = -2 if low.type.rank == 1 else -3
    return p.make("flatten", (low, start, start + 1), node.type, low.lead, flops=0.0)


def _blkdiag(p: Planner, node: Node) -> Low:
    f = node.args[0]
    low = p.value(f)
    return p.make("k:blkdiag", (low, len(f.type.family)), node.type, low.lead)


def _reshape(p: Planner, node: Node) -> Low:
    low = p.value(node.args[0])
    axes = len(node.args[0].type.family) + node.args[0].type.rank
    if axes == 0:
        return p.view("unsqueeze", low, (-1,), node.type)
    dims = node.type.family + node.type.item
    return p.make("reshape_tail", (low, axes, dims), node.type, low.lead, flops=0.0)


def _as_is(p: Planner, node: Node) -> Low:
    return p.view("as_is", p.value(node.args[0]), (), node.type)


def _unsqueeze(*axes: int) -> Callable[[Planner, Node], Low]:
    def value(p: Planner, node: Node) -> Low:
        low = p.value(node.args[0])
        for a in axes:
            low = p.view("unsqueeze", low, (a,), node.type)
        return low

    return value


def _svd(p: Planner, node: Node) -> Low:
    low = p.value(node.args[0])
    cost = 20.0 * p.table.size((*low.type.shape, min(low.type.item)))
    full = min(low.type.item)
    return p.make("k:svd", (low, None if node.attrs[0] == full else node.attrs[0]), node.type, flops=cost)


def _qr(p: Planner, node: Node) -> Low:
    low = p.value(node.args[0])
    return p.make("k:qr", (low,), node.type, flops=4.0 * p.table.size((*low.type.shape, min(low.type.item))))


def _out(p: Planner, node: Node) -> Low:
    return p.make("getitem", (p.value(node.args[0]), node.attrs[0]), node.type)


def _index(p: Planner, node: Node) -> Low:
    """Index sets and index vectors: made once, at attach."""
    args = [p.value(a) for a in node.args]
    return p.make(f"i:{node.op}", (*args, *(_float(a) for a in node.attrs)), node.type, stage=0)


def _iota(p: Planner, node: Node) -> Low:
    axis, step, first = node.attrs
    return p.make("i:iota", (axis.size, step, first), node.type, stage=0)


def _column(p: Planner, node: Node) -> Low:
    low = p.value(node.args[0])
    if node.args[0].type.rank == 1:
        return p.view("as_is", low, (), node.type)
    return p.make("select", (low, -1, node.attrs[1]), node.type)


def _fold(p: Planner, node: Node) -> Low:
    """The chain as a matrix: applied to the columns of the identity."""
    size = node.type.item[1]
    identity = p.value(b.eye(p.g, size))
    out = p.apply(node, p.as_rows(identity))
    return p.view("mT", p.from_rows(out), (), node.type)


def _detach(p: Planner, node: Node) -> Low:
    low = p.value(node.args[0])
    return p.make("detach", (low,), node.type, low.lead, flops=0.0)


def _drop(p: Planner, node: Node) -> Low:
    low = p.value(node.args[0])
    return p.make("dropout", (low, float(node.attrs[0])), node.type, low.lead, stage=2)


def _kernel(*extra: str) -> Callable[[Planner, Node], Low]:
    """The dense meaning of an operator of the table; ``extra`` says what its kernel wants beside values and attrs."""

    def value(p: Planner, node: Node) -> Low:
        lows = [p.value(a) for a in node.args]
        type_ = node.type
        return p.make(f"k:{node.op}", (*lows, *(_float(a) for a in node.attrs)), type_, p.lead(*lows) if lows else ())

    del extra
    return value


def _pairwise(p: Planner, node: Node) -> Low:
    lows = [p.value(a) for a in node.args]
    return p.elementwise(f"k:{node.op}", node.type, *lows)


def _put(p: Planner, node: Node) -> Low:
    base, value, *places = (p.value(a) for a in node.args)
    full = node.type
    scalar = Type((), full.family, full.loops)
    args = [p.aligned(base, full), p.aligned(value, scalar), *(p.aligned(x, scalar) for x in places)]
    return p.make("put", (tuple(args), full.rank), full, p.lead(base, value))


_VALUES: dict[str, Callable[[Planner, Node], Low]] = {
    "param": _leaf, "weight": _leaf, "bias": _leaf, "input": _leaf, "knob": _leaf,
    "const": _constant, "full": _constant, "eye": _constant,
    "add": _add, "scale": _scale, "prod": _prod, "t": _t, "mul": _elementwise("mul"), "div": _div, "point": _point,
    "pow": _pow, "outer": _outer, "dot": _dot, "inv": _inv, "sumsq": _sumsq, "reduce": _reduce,
    "slice": _slice, "take": _take, "cat": _cat, "interleave": _interleave, "stack": _stack, "spread": _spread,
    "expand": _expand, "sumloop": _sumloop, "join": _join, "blkdiag": _blkdiag, "reshape": _reshape, "view": _as_is,
    "column_of": _unsqueeze(-1), "entry": _unsqueeze(-1, -1), "svd": _svd, "qr": _qr, "out": _out,
    "iota": _iota, "column": _column, "fold": _fold, "detach": _detach, "drop": _drop, "put": _put,
    "maximum": _pairwise, "minimum": _pairwise,
    **{name: _index for name in ("tree", "band", "sample", "pairs", "halves", "neighbours", "arange", "butterfly",
                                 "largest", "argtop", "inverse_index")},
}  # fmt: skip


# ---------------------------------------------------------------- applying each operator


def _apply_weight(p: Planner, m: Node, v: Low) -> Low | None:
    if p.on_tokens and "T" in v.lead and m is p.weight and not v.type.batch:
        return p.base(v, False)
    return None


def _apply_eye(p: Planner, m: Node, v: Low) -> Low | None:
    return v


def _apply_scale(p: Planner, m: Node, v: Low) -> Low | None:
    s, a = m.args
    if a.op == "prod":
        return _scaled_applied(p, s, a, v)
    small_in = a.type.item[1] < a.type.item[0]
    if small_in:
        return p.apply(a, _times_scalar(p, s, v))
    return _times_scalar(p, s, p.apply(a, v))


def _times_scalar(p: Planner, s: Node, v: Low) -> Low:
    if s.op == "const":
        return p.number(v, s.value)
    scalar = p.value(s)
    return p.elementwise("mul", Type(v.type.item, *_batch(scalar, v)), v, scalar)


def _scaled_applied(p: Planner, s: Node, a: Node, v: Low) -> Low:
    lengths = [f.type.item[0] for f in a.args] + [a.type.item[1]]
    at = min(range(len(lengths)), key=lambda k: lengths[k])
    inner = p.chain(tuple(a.args[at:]), v)
    return p.chain(tuple(a.args[:at]), _times_scalar(p, s, inner))


def _apply_add(p: Planner, m: Node, v: Low) -> Low | None:
    """(A + B) v = A v + B v, or the sum built when it is a small dense matrix."""
    total: Low | None = None
    for term in m.args:
        sign, inner = (-1, term.args[1]) if term.op == "scale" and term.args[0].op == "const" \
            and term.args[0].value == -1 else (1, term)
        low = p.apply(inner, v)
        if total is None:
            total = p.number(low, sign)
        else:
            total = p.elementwise("add" if sign == 1 else "sub", Type(low.type.item, *_batch(total, low)), total, low)
    assert total is not None
    if any(_contains_weight(t) for t in m.args):
        return total
    return p.cheapest([total, p.apply_dense(m, v)])


def _contains_weight(node: Node) -> bool:
    from padp.compiler.ir import walk

    return any(n.op == "weight" for n in walk(node))


def _apply_prod(p: Planner, m: Node, v: Low) -> Low | None:
    return p.chain(m.args, v)


def _apply_diag(p: Planner, m: Node, v: Low) -> Low | None:
    d = p.value(m.args[0])
    return p.elementwise("mul", Type(d.type.item, *_batch(d, v)), v, d)


def _apply_blkdiag(p: Planner, m: Node, v: Low) -> Low | None:
    """blkdiag(F) v: each block on its own piece of v."""
    f = m.args[0]
    if v.type.family or f.type.loops or v.type.loops:
        return None
    q = f.type.item[1]
    pieces = p.make("reshape_tail", (v, 1, (*f.type.family, q)), Type((q,), f.type.family), v.lead, flops=0.0)
    out = p.apply(f, pieces)
    size = product(f.type.family) * f.type.item[0]
    return p.make("reshape_tail", (out, len(f.type.family) + 1, (size,)), Type((size,)), v.lead, flops=0.0)


def _apply_perm(p: Planner, m: Node, v: Low) -> Low | None:
    return p.make("index_select", (v, -1, p.value(m.args[0])), v.type, v.lead) if not m.args[0].type.loops else None


def _apply_t(p: Planner, m: Node, v: Low) -> Low | None:
    inner = m.args[0]
    if inner.op == "scatter":
        return _scatter_apply(p, inner, v, True)
    if inner.op == "circulant":
        return _circulant_apply(p, inner, v, True)
    if inner.type.rank == 1:  # a row
        low = p.value(inner)
        type_ = Type((1,), *_batch(low, v))
        dot = p.make("dot", (p.aligned(low, type_), p.aligned(v, type_)), Type((), *_batch(low, v)), p.lead(low, v))
        return p.view("unsqueeze", dot, (-1,), type_)
    return None


def _apply_outer(p: Planner, m: Node, v: Low) -> Low | None:
    """u wᵀ v = u (w · v)."""
    u, w = (p.value(a) for a in m.args)
    type_ = Type((1,), *_batch(w, v))
    dot = p.make("dot", (p.aligned(w, type_), p.aligned(v, type_)), Type((), *_batch(w, v)), p.lead(w, v))
    return p.elementwise("mul", Type(u.type.item, *_batch(u, dot)), dot_item(p, dot), u)


def dot_item(p: Planner, dot: Low) -> Low:
    """A scalar with an item axis of size 1, to meet a vector."""
    return p.view("unsqueeze", dot, (-1,), Type((1,), dot.type.family, dot.type.loops))


def _apply_inv(p: Planner, m: Node, v: Low) -> Low | None:
    a = m.args[0]
    if a.type.batch and (v.type.batch != a.type.batch or not v.lead) or v.type.loops != a.type.loops:
        return None
    matrix = p.value(a)
    n = a.type.item[0]
    work = p.table.size((*a.type.batch, n, n, n)) + 8 * p.table.size((*v.dims, n))  # triangular solves are slow
    return p.make("solve_vectors", (matrix, v, len(a.type.batch)), p.result_type(m, v), v.lead, flops=work)


def _apply_cat(p: Planner, m: Node, v: Low) -> Low | None:
    """[A; B] v = [A v; B v];  [A, B] v = A v_{:k} + B v_{k:}."""
    if m.type.batch:
        return None
    if m.attrs[0] == 2:
        parts = [p.apply(a, v) for a in m.args]
        full = Type((1,), *_batch(*parts))
        return p.make("cat", (tuple(p.aligned(x, full) for x in parts), -1), p.result_type(m, v), v.lead)
    total: Low | None = None
    at = 0
    for a in m.args:
        size = a.type.item[1]
        piece = p.view("narrow", v, (-1, at, size), Type((size,), v.type.family, v.type.loops))
        low = p.apply(a, piece)
        total = low if total is None else p.elementwise("add", low.type, total, low)
        at += size
    return total


def _apply_kron(p: Planner, m: Node, v: Low) -> Low | None:
    """(A ⊗ B) vec(V) = vec(A V Bᵀ), row-major."""
    a, c = m.args
    if m.type.batch or v.type.batch:
        return None
    (s, q), (u, w) = a.type.item, c.type.item
    grid = p.make("reshape_tail", (v, 1, (q, w)), Type((w,), (q,)), v.lead, flops=0.0)
    right = p.apply(c, grid)
    flipped = p.view("mT", right, (), Type((q,), (u,)))
    left = p.apply(a, flipped)
    back = p.view("mT", left, (), Type((u,), (s,)))
    return p.make("reshape_tail", (back, 2, (s * u,)), Type((s * u,)), v.lead, flops=0.0)


def _circulant_apply(p: Planner, m: Node, v: Low, transposed: bool) -> Low | None:
    """circulant(c) v = irfft(rfft(c) ⊙ rfft(v))."""
    if m.type.batch or v.type.batch:
        return None
    n = m.type.item[0]
    c = p.value(m.args[0])
    cost = 15.0 * p.table.size(v.dims)
    fast = p.make("circulant_apply", (c, v, transposed), Type((n,)), v.lead, flops=cost)
    return fast


def _apply_circulant(p: Planner, m: Node, v: Low) -> Low | None:
    return _circulant_apply(p, m, v, False)


def _scatter_apply(p: Planner, m: Node, v: Low, transposed: bool) -> Low | None:
    """Sparse S v: gather, scale, add up."""
    c, places = m.args
    if m.type.batch or v.type.batch:
        return None
    rows, cols = m.attrs
    count = c.type.item[0]
    sparse = p.make("sparse_apply", (p.value(c), p.value(places), v, cols if transposed else rows, transposed),
                    Type((cols if transposed else rows,)), v.lead, flops=6.0 * p.table.size((*v.lead, count)))
    if transposed or count * 8 < rows * cols:
        return sparse
    return None


def _apply_scatter(p: Planner, m: Node, v: Low) -> Low | None:
    return _scatter_apply(p, m, v, False)


def _apply_sumloop(p: Planner, m: Node, v: Low) -> Low | None:
    """(Σᵢ Mᵢ) v = Σᵢ (Mᵢ v), joined into one product where the terms are products."""
    (a,), (axis,) = m.args, m.attrs
    if v.type.loops and axis in v.type.loops:
        return None
    joined = _joined(p, a, axis)
    if joined is not None:
        left, right = joined.args
        built = p.value(right)
        candidates = [p.times_vectors(p.value(left), p.times_vectors(built, v)),
                      p.times_vectors(p.matmul(p.value(left), built), v)]
        inner = p.apply(right.args[0], v)  # (lead, N, r)
        if axis in inner.type.loops:
            flat = p.make("flatten", (inner, -2, -1), Type((right.type.item[0],)), v.lead, flops=0.0)
            candidates.append(p.times_vectors(p.value(left), flat))
        return p.cheapest(candidates)
    low = p.apply(a, v)
    return _sum_axis(p, low, axis, Type(low.type.item, low.type.family,
                                        tuple(x for x in low.type.loops if x != axis)))


def _apply_fold(p: Planner, m: Node, v: Low) -> Low | None:
    step, start = m.args
    axis, side = m.attrs
    update, plane = rank_one_update(step), plane_rotation(step)
    if v.type.batch or (update is None and plane is None):
        raise b.Mismatch("this chain has no structured form", "E302")
    if side == "left":  # (H_r … H_1 S) v
        v = p.apply(start, v)
    if update is not None:
        v = _reflections(p, update, axis, v, reverse=side == "right")
    else:
        assert plane is not None
        v = _rotations(p, plane, axis, v, reverse=side == "right")
    return p.apply(start, v) if side == "right" else v  # (S H_1 … H_r) v


def _reflections(p: Planner, u: RankOne, axis: Axis, v: Low, reverse: bool) -> Low:
    """Compact WY: H_1 H_2 … H_r = I − A T⁻¹ Bᵀ-like, from r×r products only.

    With Hᵢ = I + cᵢ uᵢ wᵢᵀ, y = H_r … H_1 v (``reverse``: H_1 … H_r v) is v + U s, where s solves a triangular system
    (I − stril(C W Uᵀ)) s = C W v, rows of U and W being uᵢ and wᵢ; ``reverse`` takes the upper triangle.
    """
    rows_u, rows_w = (p.value(b.stack(p.g, x if axis in x.type.loops else b.spread(p.g, x, axis), axis, "item"))
                      for x in (u.u, u.w))
    scalar: Low | None = None
    number: Any = 1
    for s in u.c:
        if s.op == "const":
            number = number * s.value
            continue
        if axis not in s.type.loops:
            s = b.spread(p.g, s, axis)
        low = p.value(b.stack(p.g, s, axis, "item"))
        scalar = low if scalar is None else p.elementwise("mul", low.type, scalar, low)
    r, n = rows_w.type.item
    scaled = rows_w
    if scalar is not None:
        column = p.view("unsqueeze", p.number(scalar, number), (-1,), Type((r, 1)))
        scaled = p.elementwise("mul", Type((r, n)), rows_w, column)
    elif number != 1:
        scaled = p.number(rows_w, number)
    gram = p.make("matmul", (scaled, p.view("mT", rows_u, (), Type((n, r)))), Type((r, r)), flops=2.0 * r * r * n)
    middle = p.make("wy", (gram, scaled, reverse), Type((r, n)), flops=1.0 * r * r * n)
    s_low = p.make("linear", (v, middle), Type((r,)), v.lead, flops=2 * p.table.size((*v.lead, r, n)))
    flipped = p.view("mT", rows_u, (), Type((n, r)))
    change = p.make("linear", (s_low, flipped), Type((n,)), v.lead, flops=2 * p.table.size((*v.lead, r, n)))
    return p.elementwise("add", Type((n,)), v, change)


def _rotations(p: Planner, plane: Plane, axis: Axis, v: Low, reverse: bool) -> Low:
    """Rounds of disjoint rotations: each round mixes every coordinate with its partner, all at once.

    y_i = a v_i + b v_j, y_j = c v_i + d v_j for the pairs of a round: y = C ⊙ v + S ⊙ v[partner].
    """
    from padp.compiler.rounds import schedule

    source = plane.i.args[0] if plane.i.op == "column" else None
    if source is None or source.args or plane.j.op != "column":
        raise b.Mismatch("rotations run over an index set known from the sizes", "E307")
    n = v.type.item[0]
    rounds = schedule(source.op, source.attrs, plane.i.attrs[1], plane.j.attrs[1], n)
    entries = [p.value(_stacked(p, e, axis, d)) for e, d in
               ((plane.a, 1), (plane.b, 0), (plane.c, 0), (plane.d, 1))]
    if len(rounds) > MAX_ROUNDS:
        raise b.Mismatch(f"this chain of rotations takes {len(rounds)} rounds, each after the other; at most "
                         f"{MAX_ROUNDS} are planned", "E307", "tree(n), whose rotations are disjoint level by level")
    pair = (plane.i.attrs[1], plane.j.attrs[1])
    order = range(len(rounds)) if not reverse else range(len(rounds) - 1, -1, -1)
    own, other = Type((n,)), Type((n,), kind="index")
    a, b_, c, d = entries
    for k in order:
        key = (source.op, source.attrs, pair, k, n)
        partner = p.make("i:partner", key, other, stage=0)
        stay = p.make("spread_entries", (a, d, *key, 1), own)
        swap = p.make("spread_entries", (b_, c, *key, 0), own)
        moved = p.make("index_select", (v, -1, partner), Type((n,)), v.lead)
        v = p.make("addcmul", (p.make("mul", (v, stay), Type((n,)), v.lead), moved, swap), Type((n,)), v.lead)
    return v


def _stacked(p: Planner, entry: Node | None, axis: Axis, default: int) -> Node:
    node = p.g.const(default) if entry is None else entry
    if axis not in node.type.loops:
        node = b.full(p.g, node.value, Type((axis.size,))) if node.op == "const" else \
            b.stack(p.g, b.spread(p.g, node, axis), axis, "item")
        return node
    return b.stack(p.g, node, axis, "item")


def _apply_detach(p: Planner, m: Node, v: Low) -> Low | None:
    return None


_APPLY: dict[str, Callable[[Planner, Node, Low], Low | None]] = {
    "weight": _apply_weight, "eye": _apply_eye, "scale": _apply_scale, "add": _apply_add, "prod": _apply_prod,
    "diag": _apply_diag, "blkdiag": _apply_blkdiag, "perm": _apply_perm, "t": _apply_t, "outer": _apply_outer,
    "inv": _apply_inv, "cat": _apply_cat, "kron": _apply_kron, "circulant": _apply_circulant,
    "scatter": _apply_scatter, "sumloop": _apply_sumloop, "fold": _apply_fold,
}  # fmt: skip
