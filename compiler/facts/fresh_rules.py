"""The normal form of values as a fresh adapter has them: rules that hold at the start only.

What starts as 0, 1 or I goes away, equal neighbours cancel, all the parts of an svd or a qr make the whole again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sympy as sp

from padp.compiler.elaborate.norms import MARK, is_norm
from padp.compiler.facts.entries import entry, part_by_part, total_of_parts
from padp.compiler.facts.facts import Facts
from padp.compiler.facts.reflections import householder
from padp.compiler.ir import build as b
from padp.compiler.ir.dims import same
from padp.compiler.ir.nodes import Node
from padp.compiler.normal.normal_form import Simplifier

_ZERO_OF_ZERO = frozenset({
    "div", "scatter", "t", "take", "slice", "stack", "reshape", "view", "assemble", "blocks", "blkdiag", "skew",
    "circulant", "tril", "triu", "stril", "striu", "vec", "diagonal", "tile", "repeat", "fft", "ifft", "fft2", "ifft2",
    "Re", "Im",
})
"""What is 0 where its first argument is."""


class AtStart(Simplifier):
    """The normal form with what only matters for fresh values: √a ⊙ √a = a, equal neighbours, all of an svd or a qr."""

    def mul(self, a: Node, c: Node) -> Node:
        """√a ⊙ √a = a, where the root exists;  ‖v‖/‖v‖ = 1;  c ⊙ a = c a where c is one number."""
        if a is c and a.op == "point" and a.attrs[0] == "sqrt":
            return a.args[0]
        for x, y in ((a, c), (c, a)):
            if x.op == "div" and x.attrs == MARK and x.args[1] is y and x.args[0] is self.g.const(1):
                return b.full(self.g, 1, y.type)  # a norm is not 0 for almost all tensors
            if x.op in ("const", "full") and b.fits(x.type.item, y.type.item) and not x.type.batch:
                return self.scale(self.g.const(x.attrs[0]), y)
        return part_by_part(self, "mul", a, c) or part_by_part(self, "mul", c, a) or super().mul(a, c)

    def _spread(self, c: Any, node: Node, into: list[tuple[Any, Node]]) -> None:
        """Tensors of one number are multiples of that of ones."""
        if node.op == "full" and not b.is_zero(node):
            into.append((c * node.attrs[0], b.full(self.g, 1, node.type)))
        else:
            super()._spread(c, node, into)

    def _pair(self, x: Node, y: Node) -> Node | None:
        """Q R = M for the parts of a qr;  Rᵀ Qᵀ = Mᵀ."""
        for first, second, flip in ((x, y, False), (y, x, True)):
            one, other = (inner(first), inner(second)) if flip else (first, second)
            if one is not None and other is not None and one.op == other.op == "out" and one.args[0] is other.args[0] \
                    and one.args[0].op == "qr" and (one.attrs[0], other.attrs[0]) == (0, 1):
                whole = one.args[0].args[0]
                return self.t(whole) if flip else whole
        if x.op == y.op == "perm" and self._opposite(x.args[0], y.args[0]):  # in a loop too
            return b.eye(self.g, x.type.item[0])
        return super()._pair(x, y)

    def _whole_svd(self, flat: list[Node]) -> list[Node] | None:
        """U diag(Σ) Vᵀ = A B for the first e triples, e the inner dimension of A B."""
        for k in range(len(flat) - 2):
            u, d, v = flat[k:k + 3]
            if u.op == v.op == "out" and d.op == "diag" and d.args[0].op == "out" and u.args[0] is v.args[0] \
                    and d.args[0].args[0] is u.args[0] and (u.attrs[0], d.args[0].attrs[0], v.attrs[0]) == (0, 1, 2):
                matrix, triples = u.args[0].args[0], u.args[0].attrs[0]
                if matrix.op == "prod" and any(same(f.type.item[0], triples) for f in matrix.args[1:]):
                    return [*flat[:k], matrix, *flat[k + 3:]]
        return super()._whole_svd(flat)

    def scale(self, s: Node, a: Node) -> Node:
        """0 a = 0;  1 a = a, also for numbers that are the same in each turn of a loop."""
        if b.is_zero(s):
            return b.zeros(self.g, b.scale(self.g, s, a).type)
        if s.op == "full" and s.attrs[0] == 1:
            return a
        return super().scale(s, a)

    def diag(self, v: Node) -> Node:
        """diag(c v) = c diag(v) for a number c."""
        if v.op == "scale" and v.args[0].op == "const":
            return self.scale(v.args[0], self.diag(v.args[1]))
        return super().diag(v)

    def sumloop(self, a: Node, axis: Any) -> Node:
        """Σᵢ 0 = 0."""
        whole = b.sumloop(self.g, a, axis)
        return b.zeros(self.g, whole.type) if b.is_zero(a) else super().sumloop(a, axis)

    def make(self, node: Node, args: tuple[Node, ...]) -> Node:
        """What is put together again from all its parts is the whole;  a part of 0 is 0, and 0 / a;  expm(0) = I;

        H₁ H₀ = I for two equal reflections: a chain of them over rows that are equal in pairs is where it started.
        """
        match node.op:
            case "fold" if _paired_reflections(Facts(self.g), args[0], node.attrs[0]):
                return args[1]
            case op if op in _ZERO_OF_ZERO and b.is_zero(args[0]):
                return b.zeros(self.g, node.type)
            case "div" if args[0] is args[1] and (node.attrs == MARK or is_norm(args[0])):  # generically not 0
                return b.full(self.g, 1, node.type)
            case "expm" if b.is_zero(args[0]):
                return b.eye(self.g, node.type.item[0])
            case "orthonormal" | "special_orthogonal" if args[0].op == "eye":
                return args[0]
            case "put" if args[0].op == "full" and args[1].op in ("const", "full") and args[0].attrs == args[1].attrs:
                return args[0]
            case "put" if args[1].op == "full":
                args = (args[0], self.g.const(args[1].attrs[0]), *args[2:])
            case "dot":
                product = self.mul(*args)
                total = total_of_parts(self, product)
                if total is not None and not node.type.batch:
                    return total
            case "add" if len(args) == 2:
                whole = part_by_part(self, "add", *args)
                if whole is not None:
                    return whole
            case "interleave":
                whole = _interleaved(args)
                if whole is not None and b.fits(whole.type.shape, node.type.shape):
                    return whole
            case "take":
                known = entry(self, args[0], args[1], node.attrs[0])
                if known is not None and known.type == node.type:
                    return known
                whole = _put_back(*args)
                if whole is not None and b.fits(whole.type.shape, node.type.shape):
                    return whole
            case _:
                pass
        return super().make(node, args)


def _interleaved(parts: Sequence[Node]) -> Node | None:
    """The z of z[0::k], z[1::k], … in turn."""
    whole: Node | None = None
    for k, p in enumerate(parts):
        source = p.args[0] if p.op == "stack" and p.attrs[1] == "item" else None
        if source is None or source.op != "take" or source.attrs != (1,) or source.args[1].op != "iota" \
                or source.args[1].attrs != (p.attrs[0], len(parts), k) \
                or (whole is not None and source.args[0] is not whole):
            return None
        whole = source.args[0]
    return whole


def _put_back(values: Node, index: Node) -> Node | None:
    """The z of z[i], z[j] end to end, taken by the inverse of the index i, j end to end."""
    if index.op != "inverse_index" or index.args[0].op != values.op or values.op != "cat":
        return None
    whole: Node | None = None
    for p, place in zip(values.args, index.args[0].args, strict=False):
        source = p.args[0] if p.op == "stack" and p.attrs[1] == "item" else None
        if source is None or source.op != "take" or source.attrs != (1,) or source.args[1].op != "column" \
                or place.op != "take" or place.args[1].op != "const" \
                or (whole is not None and source.args[0] is not whole):
            return None
        column = source.args[1]
        if column.args[0] is not place.args[0] or column.attrs != (p.attrs[0], place.args[1].attrs[0]):
            return None
        whole = source.args[0]
    return whole if len(values.args) == len(index.args[0].args) else None


def inner(n: Node) -> Node | None:
    """The A of Aᵀ."""
    return n.args[0] if n.op == "t" else None


def _paired_reflections(f: Facts, step: Node, axis: Any) -> bool:
    """Whether every step is the reflection of a row of a tensor whose rows are equal in pairs, in order."""
    v = householder(f, step)
    while v is not None and v.op == "lying":
        v = v.args[0]
    return v is not None and v.op == "take" and v.args[0].op == "paired" and v.args[1].op == "iota" and \
        v.args[1].attrs == (axis, 1, 0) and _even(v.args[0].type.item[0]) and same(axis.size, v.args[0].type.item[0])


def _even(d: Any) -> bool:
    return bool(sp.sympify(d).is_even)
