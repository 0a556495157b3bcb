"""Planning: what a program wants of its matrices, answered as tensor operations.

    value(node)      the tensor itself
    apply(M, v)      M @ v without M, where M's operator knows how
    norms(M, axis)   ‖rows‖², ‖columns‖² or ‖M‖_F² without M
    dense(A B C)     a product of matrices, associated as is cheapest

A matrix is hardly ever wanted as a matrix. ``apply`` asks its operator; a chain of factors has every association.
Where there are several ways, all of them are kept as a ``choice``, and ``settle`` takes the cheapest set of ways for a
regime (``plan/search.py``). ``W`` on tokens is the base layer's own forward. What an operator knows stands in
``plan/values.py`` and ``plan/applied.py``, one function an operator.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, TypeAlias

import sympy as sp

from padp.compiler.ir import build as b
from padp.compiler.ir.nodes import Axis, Graph, Node, Type, walk
from padp.compiler.normal.normal_form import InParts, Simplifier
from padp.compiler.operators.index_sets import Numbers, known
from padp.compiler.plan.costs import count
from padp.compiler.plan.search import Decision, Estimate, Regime, settle
from padp.compiler.plan.steps import Low, Table
from padp.dsl.source import Span

LONG = 8
"""Factors of a product: up to here every association of neighbours is looked at, of a longer one few."""

Value: TypeAlias = "Callable[[Planner, Node], Low]"
Application: TypeAlias = "Callable[[Planner, Node, Low], Low | None]"


class Composing(Protocol):
    """How neighbours in a chain become one factor of blocks (``blocks.py``)."""

    def composable(self, factors: Sequence[Node], start: int, end: int) -> bool: ...
    def inside_run(self, factors: Sequence[Node], start: int, end: int) -> bool: ...
    def composed(self, p: Planner, factors: Sequence[Node], v: Low) -> tuple[int, Low] | None: ...


class Planner:
    """One plan: a graph, a number of tokens, training or not."""

    def __init__(self, g: Graph, weight: Node | None, values: Mapping[str, Value], applied: Mapping[str, Application],
                 composing: Composing, regime: Regime, *, has_bias: bool = True, on_tokens: bool = True,
                 base_moves: bool = False) -> None:
        self.base_moves = base_moves
        self.g, self.regime, self.has_bias, self.on_tokens = g, regime, has_bias, on_tokens
        self.weight = weight
        self._value_of, self._apply_of, self._composing = values, applied, composing
        self.table = Table()
        self.estimate = Estimate(regime, {})
        self.rules: Simplifier = Simplifier(g, base_moves=base_moves)
        self.uses: list[tuple[Node, Low, Span]] = []  # which matrix was applied by its own rule, to what end, and where
        self._free: Planner | None = None
        self._values: dict[int, Low] = {}
        self._applied: dict[tuple[Any, ...], Low] = {}
        self._dense: dict[tuple[int, ...], Low] = {}
        self._moves: dict[int, bool] = {}
        self._kept: list[Any] = []
        self._known: dict[int, Numbers | None] = {}

    def without_base(self) -> Planner:
        """A planner to which W is a matrix like any other; what both make of equal parts is the same value."""
        if self._free is None:
            made = Planner(self.g, None, self._value_of, self._apply_of, self._composing, self.regime,
                           has_bias=False, base_moves=self.base_moves)
            made.table, made.estimate, made.rules, made.uses = self.table, self.estimate, self.rules, self.uses
            self._free = made
        return self._free

    def in_parts(self) -> Planner:
        """A planner to which the parts of a decomposition of W are no W, also where they are all of them."""
        made = Planner(self.g, self.weight, self._value_of, self._apply_of, self._composing, self.regime,
                       has_bias=self.has_bias, base_moves=self.base_moves)
        made.table, made.estimate = self.table, self.estimate
        made.rules = InParts(self.g, base_moves=self.base_moves)
        return made

    def keeps_base(self, node: Node) -> bool:
        """Whether applying this matrix is the base layer's own product."""
        return self.weight is not None and applies_weight(node)

    # ------------------------------------------------------------ making operations

    def make(self, prim: str, args: Sequence[Any], type_: Type, lead: tuple[Any, ...] = (), **more: Any) -> Low:
        return self.table.make(prim, tuple(args), type_, lead, **more)

    def lead(self, *lows: Low) -> tuple[Any, ...]:
        """The leading axes of a result: those of its arguments (there is one kind of them in an expression)."""
        leads = {x.lead for x in lows if x.lead}
        if len(leads) > 1:
            raise AssertionError(f"two kinds of leading axes meet: {leads}")
        return leads.pop() if leads else ()

    def either(self, question: str, ways: Sequence[tuple[str, Low]], above: Low | None = None) -> Low:
        """One of several ways to a tensor; which one is settled when the whole plan is known.

        The way that looks best on its own is where the search starts from; all of them use ``above``, which counts
        nothing.
        """
        distinct = list({id(low): (label, low) for label, low in reversed(ways)}.values())[::-1]
        if len(distinct) == 1:
            return distinct[0][1]
        made = self.table.choice([low for _, low in distinct], [label for label, _ in distinct], question)
        if id(made) not in self.estimate.picks:
            costs = [self.estimate.total(low, above=above) for _, low in distinct]
            self.estimate.picks[id(made)] = costs.index(min(costs))
        return made

    def settle(self, *roots: Low, regime: Regime | None = None) -> tuple[tuple[Low, ...], tuple[Decision, ...]]:
        """The roots with every choice made for a regime, and the decisions."""
        return settle(self.table, self.estimate.picks, roots, regime or self.regime)

    def tokens_of(self, lead: Sequence[Any]) -> float:
        """How many vectors there are along leading axes."""
        return float(count(tuple(self.regime.tokens if d == "T" else d for d in lead)))

    def view(self, prim: str, low: Low, args: Sequence[Any], type_: Type, lead: tuple[Any, ...] | None = None) -> Low:
        return self.make(prim, (low, *args), type_, low.lead if lead is None else lead)

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
        value = plain_number(factor)
        if value == 1:
            return low
        if value == -1:
            return self.make("neg", (low,), low.type, low.lead)
        return self.make("mul", (low, value), low.type, low.lead)

    def known_index(self, node: Node) -> Numbers | None:
        """The numbers of an index vector that the sizes determine; None for another."""
        if id(node) not in self._known:
            self._known[id(node)] = known(node)
            self._kept.append(node)
        return self._known[id(node)]

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
        handler = self._value_of.get(node.op)
        if handler is not None:
            return handler(self, node)
        args = [self.value(a) for a in node.args]
        if len(args) > 1:  # their loops and families side by side; scalars with axes for the items that they meet
            family, loops = batch_of(*args)
            args = [a if a.type.kind == "index" else
                    self.aligned(a, Type(a.type.item or node.type.item, family, loops)) for a in args]
        return self.make(f"k:{node.op}", (*args, *node.attrs), node.type, self.lead(*args) if args else ())

    def per_token(self, low: Low) -> Low:
        """y for each token, also where it is the same for all of them."""
        if "T" in low.lead:
            return low
        x = self.make("input", ("x",), Type(), ("T",), stage=2, grad=True)
        return self.make("per_token", (low, x), low.type, ("T",))

    def of_tokens(self, *nodes: Node) -> bool:
        """Whether any of these depends on x: then it is a matrix for each token."""
        for node in walk(*(n for n in nodes if id(n) not in self._moves)):
            if id(node) not in self._moves:
                self._moves[id(node)] = node.op == "input" or any(self._moves[id(a)] for a in node.args)
                self._kept.append(node)
        return any(self._moves[id(n)] for n in nodes)

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
        handler = self._apply_of.get(m.op)
        if handler is not None:
            made = handler(self, m, v)
            if made is not None:
                self.uses.append((m, made, self.table.span))
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
            return self.make("matvec", (self.aligned(matrix, Type((1, 1), family, loops)),
                                        self.aligned(v, Type((1,), family, loops))), type_, self.lead(matrix, v))
        if not matrix.type.batch:
            if not v.lead and not v.type.batch:
                return self.make("mv", (matrix, v), type_, ())
            return self.make("linear", (v, matrix), type_, v.lead)
        if not v.type.batch:
            return self.make("linear_each", (v, matrix), type_, v.lead)
        if b.fits(matrix.type.batch, v.type.batch) and \
                [a.uid for a in matrix.type.loops] == [a.uid for a in v.type.loops]:
            return self.make("each", (v, matrix, len(matrix.type.batch)), type_, v.lead)
        full = Type((1, 1), family, loops)
        return self.make("matvec", (self.aligned(matrix, full), self.aligned(v, Type((1,), family, loops))),
                         type_, self.lead(v))

    def chain(self, factors: tuple[Node, ...], v: Low) -> Low:
        """F₁ … F_k v: neighbours are applied one by one, or multiplied out first, whichever costs less in all.

        From the right, the cheapest way to each point is kept: k² ways are looked at, not 2ᵏ; of a long chain, those
        that multiply out at most ``LONG`` neighbours, or all of it.
        """
        if not factors:
            return v
        key = ("chain", *(id(f) for f in factors), id(v))
        found = self._applied.get(key)
        if found is not None:
            return found
        ends: list[list[tuple[str, Low]]] = [[] for _ in factors] + [[("", v)]]  # ends[k]: ways to F_{k+1} … v
        for end in range(len(factors), 0, -1):
            question = f"{len(factors) - end} factors on vectors: one by one, or some multiplied out first"
            so_far = self.either(question, ends[end], v)
            ends[end - 1].append((f"factor {end} last, on the vectors", self.apply(factors[end - 1], so_far)))
            for start in range(end - 2, -1, -1):
                piece = factors[start:end]
                if "T" in v.lead and (self.keeps_base(piece[0]) or self.keeps_base(factors[end - 1])):
                    break
                if end - start > LONG and (start > 0 or end < len(factors)):
                    continue
                made = self._composing.composed(self, piece, so_far) \
                    if self._composing.composable(factors, start, end) else None
                if made is not None:
                    ends[start].append((f"factors {start + 1} to {end} composed into blocks of {made[0]}", made[1]))
                if made is not None or self._composing.inside_run(factors, start, end):
                    continue  # nothing as large as W for what stays in blocks
                if piece[0].op == "perm" or piece[-1].op == "perm" or not worth_trying(piece, self.tokens_of(v.lead)):
                    continue  # a permutation costs nothing on a vector
                ends[start].append((f"factors {start + 1} to {end} multiplied out first",
                                    self.times_vectors(self.dense(piece), so_far)))
        best = self.either(f"{len(factors)} factors on vectors: one by one, or some multiplied out first", ends[0], v)
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
            points = range(1, len(factors)) if len(factors) <= LONG else (len(factors) // 2,)
            ways = [(f"the first {k} by the last {len(factors) - k}", self.times(factors[:k], factors[k:]))
                    for k in points]
            found = self._dense[key] = self.either(f"a product of {len(factors)} matrices: in which order", ways)
            self._kept.append(factors)
        return found

    def times(self, left: tuple[Node, ...], right: tuple[Node, ...]) -> Low:
        """(left) (right), one of them perhaps applied by its structure."""
        batched = any(f.type.batch for f in (*left, *right)) or self.of_tokens(*left, *right)
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
        if len(right) == 1 and structured(right[0]) and not batched:
            rows = self.dense(left)
            if not rows.lead:
                out = self.apply(self.rules.t(right[0]), self.as_rows(rows))
                return self.from_rows(out)
        if len(left) == 1 and structured(left[0]) and not batched:
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
        type_ = Type(matrix.type.item, *batch_of(v, matrix))
        return self.elementwise("mul", type_, matrix, spread)

    def matmul(self, x: Low, y: Low) -> Low:
        family, loops = b.united(x.type, y.type)
        type_ = Type((x.type.item[0], y.type.item[1]), family, loops)
        return self.make("matmul", (self.aligned(x, Type((1, 1), family, loops)),
                                    self.aligned(y, Type((1, 1), family, loops))), type_, self.lead(x, y))

    def _solve(self, prim: str, a: Low, x: Low) -> Low:
        family, loops = b.united(a.type, x.type)
        full = Type((1, 1), family, loops)
        return self.make(prim, (self.aligned(a, full), self.aligned(x, full)), Type(x.type.item, family, loops),
                         self.lead(a, x))

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
        if m.type.rank != 2 or m.type.batch or m.type.kind == "complex" or self.of_tokens(m):
            return built
        if axis == "col":
            expanded = self._row_norms(self.rules.t(m))
        else:
            expanded = self._row_norms(m)
        if expanded is None:
            return built
        if axis == "all":
            expanded = self.make("sum", (expanded, (-1,)), Type())
        return self.either("norms of a sum", [("from the norms and products of its parts", expanded),
                                              ("from the sum itself", built)])

    def _row_norms(self, m: Node) -> Low | None:
        """‖X + Y‖² = ‖X‖² + 2⟨X, Y⟩ + ‖Y‖² by rows, ⟨X, L R⟩ = (X Rᵀ ⊙ L) 1, ‖L R‖² = (L (R Rᵀ) ⊙ L) 1."""
        terms = [m] if m.op != "add" else list(m.args)
        split = [low_rank(self.g, t) for t in terms]
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
        thin_left, r = right
        if left is None:
            inner = self.dense((x, self.rules.t(r)))
        else:
            inner = self.dense((left[0], left[1], self.rules.t(r)))
        return self.make("rowdot", (inner, self.value(thin_left)), type_)

    # ------------------------------------------------------------ the base layer

    def base(self, v: Low, bias: bool) -> Low:
        """W v (+ bias) by the base layer's own forward."""
        assert self.weight is not None
        prim = "base" if bias or not self.has_bias else "base_without_bias"
        return self.make(prim, (v,), Type(self.weight.type.item[:1]), v.lead)


def worth_trying(suffix: Sequence[Node], tokens: float) -> bool:
    """Whether multiplying out could pay at all: not when the result outgrows all factors and tokens."""
    size = int(suffix[0].type.item[0]) * int(suffix[-1].type.item[1])
    parts = sum(int(f.type.item[0]) * int(f.type.item[1]) if not structured(f) else int(f.type.item[0])
                for f in suffix)
    return size <= parts + tokens * min(int(suffix[0].type.item[0]), int(suffix[-1].type.item[1]))


def plain_number(value: Any) -> Any:
    """A number as torch takes it: exact where it is a whole number of 64 bits."""
    if isinstance(value, sp.Expr):
        value = int(value) if value.is_integer else float(value)
    if isinstance(value, int) and abs(value) >= 2**63:
        if abs(value) >= 2**1000:
            raise b.Mismatch("this number is too large to compute with", "E105")
        return float(value)
    return value


def _easy(node: Node) -> bool:
    return node.op == "inv" and node.args[0].op in ("diag", "eye", "perm")


def structured(node: Node) -> bool:
    """Whether applying this factor is cheaper than building it, whatever it meets."""
    match node.op:
        case "diag" | "perm" | "blkdiag" | "fold" | "kron" | "circulant" | "outer" | "eye" | "scatter":
            return True
        case "t":
            return node.args[0].op in ("scatter", "circulant")
        case "scale":
            return structured(node.args[1])
        case "add":
            return any(a.op == "eye" for a in node.args) and node.type.item[0] > 64
        case "prod":
            return any(structured(f) for f in node.args) or thin(node) is not None
        case _:
            return False


def thin(node: Node) -> tuple[list[Node], Node, int] | None:
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


def low_rank(g: Graph, node: Node) -> tuple[Node, Node] | None:
    """L, R with node = L R through a thin middle; scalars go with L."""
    found = thin(node)
    if found is None:
        return hadamard_factors(g, node)
    scalars, product_, cut = found
    left = b.prod(g, *product_.args[:cut + 1])
    for s in scalars:
        left = b.scale(g, s, left)
    return left, b.prod(g, *product_.args[cut + 1:])


def plain_factors(g: Graph, node: Node) -> tuple[Node, Node] | None:
    """L, R with node = L R through a thin middle, where no factor is better applied by its structure."""
    core = node
    while core.op == "scale":
        core = core.args[1]
    if core.op == "prod" and any(structured(f) and f.op != "diag" for f in core.args):
        return None
    return low_rank(g, node)


def hadamard_factors(g: Graph, node: Node) -> tuple[Node, Node] | None:
    """B₁ A₁ ⊙ B₂ A₂ = (B₁ ∗ B₂)(A₁ ∗ A₂): of ranks r₁ and r₂ a product through r₁ r₂; scalars go with the left side.

    B₁ ∗ B₂ has the Kronecker products of rows, A₁ ∗ A₂ those of columns (Khatri–Rao).
    """
    scalars: list[Node] = []
    while node.op == "scale":
        scalars.append(node.args[0])
        node = node.args[1]
    if node.op != "mul" or node.type.rank != 2 or node.type.batch or node.type.kind == "complex":
        return None
    first, second = (low_rank(g, a) for a in node.args)
    if first is None or second is None or int(first[1].type.item[0] * second[1].type.item[0]) * 2 > min(node.type.item):
        return None
    left = _kronecker_rows(g, first[0], second[0])
    for s in scalars:
        left = b.scale(g, s, left)
    return left, b.t(g, _kronecker_rows(g, b.t(g, first[1]), b.t(g, second[1])))


def _kronecker_rows(g: Graph, a: Node, c: Node) -> Node:
    """Row i is a_i ⊗ c_i."""
    n, r, q = a.type.item[0], a.type.item[1], c.type.item[1]
    rows = [g.node("view", (x,), (), Type(x.type.item[1:], x.type.item[:1])) for x in (a, c)]
    return g.node("view", (g.node("kron_vectors", tuple(rows), (), Type((r * q,), (n,))),), (), Type((n, r * q)))


def batch_of(*lows: Low) -> tuple[Any, tuple[Axis, ...]]:
    return b.united(*(x.type for x in lows))


def applies_weight(node: Node) -> bool:
    """Whether applying this matrix applies W itself: then it stays a product of the base layer."""
    match node.op:
        case "weight":
            return True
        case "add" | "prod" | "t" | "cat" | "detach":
            return any(applies_weight(a) for a in node.args)
        case "scale":
            return applies_weight(node.args[1])
        case _:
            return False
