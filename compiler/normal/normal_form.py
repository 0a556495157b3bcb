"""The normal form: sums of chains, common factors out, transposes and detaches at the leaves.

    simplify(g, node) -> node of the same meaning

Each rule is one function whose docstring is its equation; ``tests/normal/test_rules.py`` checks both sides of every
one in float64. What is left of an SVD is W minus its top part, so no rule ever has to build it. More rules are in
``operator_rules``, ``parts`` and ``decompositions``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import sympy as sp

from padp.compiler.ir import build as b
from padp.compiler.ir.budget import spend
from padp.compiler.ir.dims import least, lower, same
from padp.compiler.ir.nodes import Graph, Node, Type, walk
from padp.compiler.normal.decompositions import svd_part, whole_of
from padp.compiler.normal.operator_rules import BY_OPERATOR
from padp.compiler.normal.parts import cut, push_diag, zero_parts

READS_FAMILY = ("view", "reshape", "take", "slice", "repeat", "assemble", "grouped")
"""Operators that count the axes of a family, and so need them even where all items are equal."""


class Simplifier:
    """Rewrites bottom-up; the same node is rewritten once. ``base_moves``: W is trained too."""

    def __init__(self, g: Graph, *, base_moves: bool = False) -> None:
        self.g, self.base_moves = g, base_moves
        self._done: dict[int, Node] = {}
        self._turned: dict[int, Node] = {}  # what ``t`` made of a node: a shared part is transposed once
        self._kept: list[Node] = []  # ids stay valid while their nodes are alive

    def __call__(self, root: Node) -> Node:
        for node in walk(root):
            if id(node) in self._done:
                continue
            self.g.span = node.span
            args = tuple(self._done[id(a)] for a in node.args)
            self._done[id(node)] = self.make(node, args)
            self._kept.append(node)
        return self._done[id(root)]

    def make(self, node: Node, args: tuple[Node, ...]) -> Node:
        """``node`` over simplified arguments, rewritten."""
        spend()
        if node.type.kind == "unknown":
            return self.g.node(node.op, args, node.attrs, node.type)
        if node.op in READS_FAMILY:
            args = tuple(self.for_each(a, was.type.family) for a, was in zip(args, node.args, strict=True))
        rule = RULES.get(node.op)
        if rule is not None:
            return rule(self, node, args)
        return node if args == node.args else self.g.node(node.op, args, node.attrs, node.type)

    def for_each(self, a: Node, family: tuple[Any, ...]) -> Node:
        """A family whose items turned out to be one (v + F − F is v) as a family again."""
        if b.fits(a.type.family, family):
            return a
        type_ = Type(a.type.item, family, a.type.loops, a.type.row, a.type.kind)
        return b.full(self.g, a.attrs[0], type_) if a.op == "full" else self.g.node("expand", (a,), (), type_)

    # ------------------------------------------------------------ sums

    def add(self, terms: Sequence[Node], type_: Type) -> Node:
        """a + 0 = a;  c a + d a = (c + d) a;  A M B + A N B = A (M + N) B;  W u + W v = W (u + v)."""
        flat: list[tuple[Any, Node]] = []
        for term in terms:
            self._spread(1, term, flat)
        merged: list[tuple[Any, Node]] = []
        for c, node in flat:
            for k, (d, other) in enumerate(merged):
                if other is node:
                    merged[k] = (lower(sp.expand(d + c)) if isinstance(d + c, sp.Expr) else d + c, other)
                    break
            else:
                merged.append((c, node))
        merged = [(c, n) for c, n in merged if c != 0 and not b.is_zero(n)]
        merged = [(c, n) for c, n in self._factor(merged) if not b.is_zero(n)]
        if not merged:
            return b.zeros(self.g, type_)
        nodes = [n if c == 1 else self.scale(self.g.const(c), n) for c, n in merged]
        return nodes[0] if len(nodes) == 1 else b.add(self.g, *nodes)

    def _spread(self, c: Any, node: Node, into: list[tuple[Any, Node]]) -> None:
        if node.op == "add":
            for a in node.args:
                self._spread(c, a, into)
        elif node.op == "scale" and node.args[0].op == "const":
            self._spread(c * node.args[0].value, node.args[1], into)
        elif node.op == "const":
            into.append((c * node.value, self.g.const(1)))
        else:
            into.append((c, node))

    def _factor(self, terms: list[tuple[Any, Node]]) -> list[tuple[Any, Node]]:
        """A M B + A N B = A (M + N) B, and the same for a common left factor W alone."""
        for x in range(len(terms)):
            for y in range(x + 1, len(terms)):
                c, p = terms[x]
                d, q = terms[y]
                if p.op != "prod" or q.op != "prod" or p.args[0] is not q.args[0]:
                    continue
                most = min(len(p.args), len(q.args)) - 1
                same_end = next((k for k in range(most) if p.args[-1 - k] is not q.args[-1 - k]), most)
                if not same_end and p.args[0].op != "weight":
                    continue
                end = -same_end or None
                left = self._middle(p.args[1:end], p.args[0].type.item[1])
                right = self._middle(q.args[1:end], p.args[0].type.item[1])
                if left.type.rank != right.type.rank or not b.fits(left.type.item, right.type.item):
                    continue
                inner = self.add([self.scale(self.g.const(c), left), self.scale(self.g.const(d), right)], left.type)
                whole = self.prod((p.args[0], inner, *(p.args[end:] if end else ())))
                rest = [t for k, t in enumerate(terms) if k not in (x, y)]
                out: list[tuple[Any, Node]] = []
                self._spread(1, whole, out)
                return self._factor([*rest[:x], *out, *rest[x:]])
        return terms

    def _middle(self, factors: Sequence[Node], size: Any) -> Node:
        return self.prod(tuple(factors)) if factors else b.eye(self.g, size)

    def scale(self, s: Node, a: Node) -> Node:
        """1 a = a;  0 a = 0;  s (t a) = (s t) a;  s (diag v) = diag (s v) for a number s."""
        if b.is_zero(a):
            return a
        if s.op == "const":
            if s.value == 1:
                return a
            if s.value == 0:
                return b.zeros(self.g, a.type)
            if a.op == "const":
                return self.g.const(lower(s.value * a.value))
            if a.op == "scale" and a.args[0].op == "const":
                return self.scale(self.g.const(lower(s.value * a.args[0].value)), a.args[1])
            if a.op == "full":
                return b.full(self.g, lower(s.value * a.attrs[0]), a.type)
            if a.op == "add":
                return self.add([self.scale(s, x) for x in a.args], a.type)
        elif a.op == "scale" and a.args[0].op == "const":
            return self.scale(a.args[0], self.scale(s, a.args[1]))
        elif s.op == "scale" and s.args[0].op == "const":
            return self.scale(s.args[0], self.scale(s.args[1], a))
        elif s.op == "div" and s.args[0].op == "const" and s.args[0].value != 1:
            return self.scale(s.args[0], self.scale(b.div(self.g, self.g.const(1), s.args[1], s.attrs), a))
        if a.op == "const":
            return self.scale(a, s) if a.value != 1 else s
        return b.scale(self.g, s, a)

    # ------------------------------------------------------------ products

    def prod(self, factors: tuple[Node, ...]) -> Node:
        """I A = A;  A 0 = 0;  A (s B) = s (A B);  diag(u) diag(v) = diag(u ⊙ v);  diag(v) x = v ⊙ x;  A A⁻¹ = I."""
        if len(factors) == 1:
            return factors[0]
        result = b.prod(self.g, *factors)
        scalars: list[Node] = []
        flat: list[Node] = []
        for f in factors:
            while f.op == "scale" and (
                    (f.type.family == f.args[1].type.family and f.type.loops == f.args[1].type.loops)
                    or (f.args[0].op != "const" and f.args[1].type.rank)):
                scalars.append(f.args[0])
                f = f.args[1]
            flat.extend(f.args if f.op == "prod" else (f,))
        if any(b.is_zero(f) for f in flat):
            return b.zeros(self.g, result.type)
        flat = self._neighbours(flat)
        found = self._whole_svd(flat)
        for rule in (push_diag, cut, zero_parts):
            found = rule(self, flat) if found is None else found
        if found is not None:
            return self._scaled(scalars, self.prod(tuple(found)))
        if len(flat) == 2 and flat[0].op == "diag" and flat[1].type.rank == 1:
            node = self.mul(flat[0].args[0], flat[1])
        else:
            node = flat[0] if len(flat) == 1 else b.prod(self.g, *flat)
        return self._scaled(scalars, node)

    def _scaled(self, scalars: Sequence[Node], node: Node) -> Node:
        for s in reversed(scalars):
            node = self.scale(s, node)
        return node

    def _neighbours(self, flat: list[Node]) -> list[Node]:
        out: list[Node] = []
        for f in flat:
            out.append(f)
            while len(out) > 1:
                x, y = out[-2], out[-1]
                joined = self._pair(x, y)
                if joined is None:
                    break
                out[-2:] = list(joined.args) if joined.op == "prod" else [joined]
        return out

    def _pair(self, x: Node, y: Node) -> Node | None:
        """Two neighbours that are one factor."""
        if x.op == "eye":
            return y
        if y.op == "eye":
            return x
        if x.op == "diag" and y.op == "diag":
            return self.diag(self.mul(x.args[0], y.args[0]))
        if (x.op == "inv" and x.args[0] is y) or (y.op == "inv" and y.args[0] is x):
            return b.eye(self.g, x.type.item[0])
        if x.op == "perm" and y.op == "perm" and not x.type.loops and not y.type.loops:
            i, j = x.args[0], y.args[0]
            if self._opposite(i, j):
                return b.eye(self.g, x.type.item[0])
            return self.g.node("perm", (b.take(self.g, j, i, 1),), (), x.type)  # (P_i P_j v)_k = v_{j[i_k]}
        if x.op == "blkdiag" and y.op == "blkdiag" and b.fits(x.args[0].type.family, y.args[0].type.family):
            if same(x.args[0].type.item[1], y.args[0].type.item[0]):
                return b.blkdiag(self.g, self.prod((x.args[0], y.args[0])))
        if ((x.op == "t" and x.args[0] is y) or (y.op == "t" and y.args[0] is x)) and y.type.rank == 2:
            inner = y if x.op == "t" else x
            if inner.op == "orthonormal" and y.op == "t":  # R Rᵀ = I for orthonormal rows
                return b.eye(self.g, x.type.item[0])
        return None

    def _opposite(self, i: Node, j: Node) -> bool:
        return (i.op == "inverse_index" and i.args[0] is j) or (j.op == "inverse_index" and j.args[0] is i)

    def inverse_perm(self, a: Node) -> Node:
        """Pᵀ = P⁻¹ = the permutation with the inverse index."""
        (index,) = a.args
        inverse = index.args[0] if index.op == "inverse_index" else \
            self.g.node("inverse_index", (index,), (), index.type)
        return self.g.node("perm", (inverse,), (), a.type)

    def mul(self, a: Node, c: Node) -> Node:
        """1 ⊙ a = a;  0 ⊙ a = 0;  (s a) ⊙ c = s (a ⊙ c);  I ⊙ A is left alone."""
        if a.op == "full" and a.attrs[0] == 1:
            return c
        if c.op == "full" and c.attrs[0] == 1:
            return a
        if b.is_zero(a) or b.is_zero(c):
            return b.zeros(self.g, b.mul(self.g, a, c).type)
        for x, y in ((a, c), (c, a)):
            if x.op == "scale" and x.args[0].op == "const":
                return self.scale(x.args[0], self.mul(x.args[1], y) if x is a else self.mul(y, x.args[1]))
            if x.op == "div" and not x.attrs and x.args[0].op == "const" and x.args[0].value == 1 and x.args[1] is y:
                return b.full(self.g, 1, y.type)
        return self._outer_scales(a, c) or self._outer_scales(c, a) or b.mul(self.g, a, c)

    def _outer_scales(self, a: Node, c: Node) -> Node | None:
        """u vᵀ ⊙ M = diag(u) M diag(v);  (s u vᵀ + t 1 + …) ⊙ M = s diag(u) M diag(v) + t M + …: no u vᵀ is built."""
        if c.type.rank != 2 or c.type.row or a.type.loops or c.type.loops or "complex" in (a.type.kind, c.type.kind):
            return None
        sides: list[tuple[Node | None, Node]] = []  # a scalar or none; what scales rows and columns
        for term in a.args if a.op == "add" else (a,):
            scalar, inner = (term.args[0], term.args[1]) if term.op == "scale" else (None, term)
            if inner.op not in ("outer", "full") or (inner.op == "full" and inner.type.batch):
                return None
            sides.append((scalar, inner))
        if all(inner.op == "full" for _, inner in sides):
            return self.scale(self.g.const(a.attrs[0]), c) if a.op == "full" else None
        terms: list[Node] = []
        for scalar, inner in sides:
            if inner.op == "full":
                whole = self.scale(self.g.const(inner.attrs[0]), c)
            elif c.op == "outer":
                whole = b.outer(self.g, *(self.mul(x, y) for x, y in zip(inner.args, c.args, strict=True)))
            else:
                whole = self.prod((self.diag(inner.args[0]), c, self.diag(inner.args[1])))
            terms.append(whole if scalar is None else self.scale(scalar, whole))
        return self.add(terms, b.mul(self.g, a, c).type)

    def diag(self, v: Node) -> Node:
        """diag(1) = I;  diag(0) = 0."""
        if v.op == "full":
            n = v.type.item[0]
            if v.attrs[0] == 1 and not v.type.batch:
                return b.eye(self.g, n)
            if v.attrs[0] == 0:
                return b.zeros(self.g, v.type.with_item((n, n)))
        return b.diag(self.g, v)

    # ------------------------------------------------------------ parts

    def _whole_svd(self, flat: list[Node]) -> list[Node] | None:
        """U diag(Σ) Vᵀ = W;  U_{:,k:} diag(Σ_{k:}) Vᵀ_{k:,:} = W − U_{:,:k} diag(Σ_{:k}) Vᵀ_{:k,:}."""
        for k in range(len(flat) - 2):
            u, d, v = flat[k:k + 3]
            if d.op != "diag":
                continue
            found = svd_part(u, 0)
            if found is None or not found == svd_part(d.args[0], 1) == svd_part(v, 2):
                continue
            svd, low, high = found
            m, n = svd.args[0].type.item
            q = svd.attrs[0]
            if not same(q, lower(least(m, n))) or not same(high, q):
                continue
            matrix = svd.args[0]
            if same(low, 0):
                return [*flat[:k], matrix, *flat[k + 3:]]
            head = b.prod(self.g, b.slice_(self.g, whole_of(u), -1, 0, low),
                          b.diag(self.g, b.slice_(self.g, whole_of(d.args[0]), -1, 0, low)),
                          b.slice_(self.g, whole_of(v), -2, 0, low))
            rest = self.add([matrix, self.scale(self.g.const(-1), head)], matrix.type)
            return [*flat[:k], rest, *flat[k + 3:]]
        return None

    def slice(self, a: Node, axis: int, start: Any, stop: Any, step: Any) -> Node:
        """[A; B]_{:k} = A;  (A B)_{:k} = A_{:k} B;  a slice of a slice is a slice."""
        if step == 1:
            if a.op == "cat" and a.attrs[0] == -axis:
                at: Any = 0
                chosen: list[Node] = []
                for p in a.args:
                    size = p.type.item[p.type.rank + axis]
                    if same(at, start) or chosen:
                        chosen.append(p)
                    at = lower(at + size)
                    if chosen and same(at, stop):
                        return b.cat(self.g, chosen, -axis)
            if a.op == "slice" and a.attrs[0] == axis and a.attrs[3] == 1:
                first = a.attrs[1]
                return b.slice_(self.g, a.args[0], axis, lower(first + start), lower(first + stop))
            if a.op == "prod" and a.type.rank == 2 and not a.type.batch:
                if axis == -2:
                    return self.prod((self.slice(a.args[0], -2, start, stop, 1), *a.args[1:]))
                if axis == -1:
                    return self.prod((*a.args[:-1], self.slice(a.args[-1], -1, start, stop, 1)))
        if a.op == "full":
            return b.full(self.g, a.attrs[0], b.slice_(self.g, a, axis, start, stop, step).type)
        return b.slice_(self.g, a, axis, start, stop, step)

    # ------------------------------------------------------------ transposes, inverses, detach

    def t(self, a: Node) -> Node:
        """(A B)ᵀ = Bᵀ Aᵀ;  (A + B)ᵀ = Aᵀ + Bᵀ;  diag(v)ᵀ = diag(v);  skew(v)ᵀ = −skew(v);  (A⁻¹)ᵀ = (Aᵀ)⁻¹;  …"""
        found = self._turned.get(id(a))
        if found is None:
            found = self._turned[id(a)] = self._transposed(a)
            self._kept.append(a)
        return found

    def _transposed(self, a: Node) -> Node:
        g = self.g
        if a.type.rank != 2:
            return b.t(g, a)
        match a.op:
            case "eye" | "diag":
                return a
            case "t" if a.args[0].type.rank == 2:
                return a.args[0]
            case "full":
                return b.full(g, a.attrs[0], a.type.with_item((a.type.item[1], a.type.item[0])))
            case "prod":
                return self.prod(tuple(self.t(f) for f in reversed(a.args)))
            case "add":
                return self.add([self.t(x) for x in a.args], b.t(g, a).type)
            case "scale":
                return self.scale(a.args[0], self.t(a.args[1]))
            case "mul":
                return self.mul(self.t(a.args[0]), self.t(a.args[1]))
            case "skew":
                return self.scale(g.const(-1), a)
            case "inv":
                return self.inv(self.t(a.args[0]))
            case "perm":
                return self.inverse_perm(a)
            case "blkdiag":
                return b.blkdiag(g, self.t(a.args[0]))
            case "outer":
                return b.outer(g, a.args[1], a.args[0])
            case "cat":
                return b.cat(g, [self.t(p) for p in a.args], 3 - a.attrs[0])
            case "slice" if a.attrs[0] in (-1, -2) and a.args[0].type.rank == 2:
                axis, start, stop, step = a.attrs
                return self.slice(self.t(a.args[0]), -3 - axis, start, stop, step)
            case "fold":
                axis, side = a.attrs
                return b.fold(g, self.t(a.args[0]), self.t(a.args[1]), axis, "right" if side == "left" else "left")
            case "put" if len(a.args) == 4:
                base, value, row, col = a.args
                return b.put(g, self.t(base), value, col, row)
            case "sumloop":
                (axis,) = a.attrs
                return b.sumloop(g, self.t(a.args[0]), axis)
            case "kron":
                return g.node("kron", (self.t(a.args[0]), self.t(a.args[1])), (), b.t(g, a).type)
            case "detach":
                return self.detach(self.t(a.args[0]))
            case _:
                return b.t(g, a)

    def inv(self, a: Node) -> Node:
        """I⁻¹ = I;  diag(v)⁻¹ = diag(1/v);  blkdiag(F)⁻¹ = blkdiag(F⁻¹);  (A⁻¹)⁻¹ = A;  (s A)⁻¹ = A⁻¹/s."""
        g = self.g
        match a.op:
            case "eye":
                return a
            case "inv":
                return a.args[0]
            case "diag":
                return self.diag(b.div(g, g.const(1), a.args[0]))
            case "blkdiag" if same(*a.args[0].type.item):
                return b.blkdiag(g, self.inv(a.args[0]))
            case "perm":
                return self.inverse_perm(a)
            case "scale" if a.args[0].op == "const":
                return self.scale(g.const(lower(1 / sp.sympify(a.args[0].value))), self.inv(a.args[1]))
            case _:
                return b.inv(g, a)

    def detach(self, a: Node) -> Node:
        """detach f(a, b) = f(detach a, detach b): only leaves are cut, so nothing is recorded for backward. W and the
        bias are cut where the base is trained too."""
        cache: dict[int, Node] = {}
        for n in walk(a):
            if n.op == "input" or (n.op == "param" and n.attrs[1] == "learned") or \
                    (self.base_moves and n.op in ("weight", "bias")):
                cache[id(n)] = self.g.node("detach", (n,), (), n.type)
            elif n.op == "detach":
                cache[id(n)] = n
            else:
                args = tuple(cache[id(x)] for x in n.args)
                cache[id(n)] = n if args == n.args else self.g.node(n.op, args, n.attrs, n.type)
        return cache[id(a)]

    def sumloop(self, a: Node, axis: Any) -> Node:
        """Σᵢ c a = c Σᵢ a;  Σᵢ cᵢ uᵢ vᵢᵀ = U diag(c) V with uᵢ the columns of U and vᵢ the rows of V."""
        if a.op == "scale" and axis not in a.args[0].type.loops:
            return self.scale(a.args[0], self.sumloop(a.args[1], axis))
        if a.op == "add":
            return self.add([b.sumloop(self.g, x, axis) if axis not in x.type.loops else self.sumloop(x, axis)
                             for x in a.args], b.sumloop(self.g, a, axis).type)
        core, scalar = a, None
        if a.op == "scale":
            scalar, core = a.args
        if core.op == "outer" and a.type.loops == (axis,) and not a.type.family:
            sparse = self._sparse(core, scalar, axis)
            if sparse is not None:
                return sparse
            columns = b.stack(self.g, core.args[0], axis, "columns")
            rows = b.stack(self.g, core.args[1], axis, "item")
            if scalar is None:
                return self.prod((columns, rows))
            return self.prod((columns, b.diag(self.g, b.stack(self.g, scalar, axis, "item")), rows))
        return b.sumloop(self.g, a, axis)

    def _sparse(self, core: Node, scalar: Node | None, axis: Any) -> Node | None:
        """Σ_{(i,j) ∈ Ω} c U_{:,i} V_{j,:} = U scatter(c, Ω) V: no column is gathered."""
        u, v = core.args
        if u.op != "take" or v.op != "take" or u.attrs != (1,) or v.attrs != (2,):
            return None
        i, j = u.args[1], v.args[1]
        if not (i.op == j.op == "column" and i.args[0] is j.args[0] and i.attrs[1] == 0 and j.attrs[1] == 1):
            return None
        places = i.args[0]
        if not same(places.type.item[1], 2) or u.args[0].type.rank != 2 or v.args[0].type.rank != 2:
            return None
        values = self.g.const(1) if scalar is None else scalar
        c = self.make(b.stack(self.g, values, axis, "item"), (values,))
        shape = (u.args[0].type.item[1], v.args[0].type.item[0])
        node = self.g.node("scatter", (c, places), shape, Type(shape))
        middle = self.make(node, node.args)
        return self.prod((u.args[0], middle, v.args[0]))


RULES: dict[str, Callable[[Simplifier, Node, tuple[Node, ...]], Node]] = {
    "add": lambda s, n, a: s.add(a, n.type),
    "scale": lambda s, n, a: s.scale(*a),
    "prod": lambda s, n, a: s.prod(a),
    "mul": lambda s, n, a: s.mul(*a),
    "diag": lambda s, n, a: s.diag(*a),
    "t": lambda s, n, a: s.t(*a),
    "inv": lambda s, n, a: s.inv(*a),
    "slice": lambda s, n, a: s.slice(a[0], *n.attrs),
    "sumloop": lambda s, n, a: s.sumloop(a[0], n.attrs[0]),
    **BY_OPERATOR,
}


def simplify(g: Graph, *roots: Node) -> tuple[Node, ...]:
    """The normal form of each root; shared parts are rewritten once."""
    s = Simplifier(g)
    return tuple(s(r) for r in roots)


class InParts(Simplifier):
    """The normal form in which a product of all parts of W's decomposition stays one: U diag(Σ) Vᵀ, not W."""

    def _whole_svd(self, flat: list[Node]) -> list[Node] | None:
        return None
