"""Rewrite rules of one operator each: ``BY_OPERATOR[node.op](s, node, args)``, with arguments in normal form.

Sums, products, transposes and slices, which call each other, are in ``rules``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import sympy as sp

from padp.compiler.elaborate.norms import MARK
from padp.compiler.ir import build as b
from padp.compiler.ir.dims import lower, same
from padp.compiler.ir.nodes import Node, Type
from padp.compiler.ir.patterns import apart
from padp.compiler.normal.decompositions import decomposed
from padp.compiler.normal.grids import assembled
from padp.compiler.operators.rewriting import Rewriting


def _div(s: Rewriting, node: Node, args: tuple[Node, ...]) -> Node:
    """a/1 = a;  0/a = 0;  a/a = 1 for entries that are never 0 is not assumed;  a/0 = 0 for a norm that is 0."""
    a, c = args
    if c.op == "const" and c.value == 1:
        return a
    if b.is_zero(a) and c.op in ("const", "full"):
        return b.zeros(s.g, node.type)
    if a.op == "const" and c.op == "full" and c.attrs[0] != 0:
        return b.full(s.g, lower(sp.sympify(a.value) / c.attrs[0]), c.type)
    if a.op == "const" and c.op == "const" and c.value != 0:
        return s.g.const(lower(sp.sympify(a.value) / c.value))
    if node.attrs == MARK and b.is_zero(c):
        return b.zeros(s.g, node.type)
    return b.div(s.g, a, c, node.attrs)


def _pow(s: Rewriting, node: Node, args: tuple[Node, ...]) -> Node:
    """(√a)² = a;  numbers."""
    (a,), (exponent,) = args, node.attrs
    if a.op == "point" and a.attrs[0] == "sqrt" and exponent == 2:
        return a.args[0]
    if a.op == "const":
        return s.g.const(lower(sp.sympify(a.value) ** exponent))
    if a.op == "full":
        return b.full(s.g, lower(sp.sympify(a.attrs[0]) ** exponent), a.type)
    return b.pow_(s.g, a, exponent)


_AT: dict[str, Callable[[Any], Any]] = {
    "cos": sp.cos, "sin": sp.sin, "exp": sp.exp, "sqrt": sp.sqrt, "tanh": sp.tanh, "abs": sp.Abs, "tan": sp.tan,
    "relu": lambda x: sp.Max(x, 0), "arctan": sp.atan, "sigmoid": lambda x: 1 / (1 + sp.exp(-x)),
    "silu": lambda x: x / (1 + sp.exp(-x)), "sign": sp.sign,
}


def _point(s: Rewriting, node: Node, args: tuple[Node, ...]) -> Node:
    """f of a tensor of one value is a tensor of one value."""
    (a,) = args
    function = node.attrs[0]
    if a.op in ("full", "const") and function in _AT and isinstance(a.attrs[0], int):
        value = _AT[function](sp.sympify(a.attrs[0]))
        if value.is_integer:
            return b.full(s.g, int(value), a.type) if a.op == "full" else s.g.const(int(value))
    if function == "sqrt" and a.op == "pow" and a.attrs[0] == 2:
        return b.point(s.g, "abs", a.args[0])
    return s.g.node("point", (a,), node.attrs, node.type)


def _skew(s: Rewriting, node: Node, args: tuple[Node, ...]) -> Node:
    """skew(0) = 0."""
    if b.is_zero(args[0]):
        return b.zeros(s.g, node.type)
    return s.g.node("skew", args, (), node.type)


def _blkdiag(s: Rewriting, node: Node, args: tuple[Node, ...]) -> Node:
    """blkdiag(I, …, I) = I;  blkdiag(0, …) = 0."""
    (f,) = args
    if f.op == "eye":
        return b.eye(s.g, node.type.item[0])
    if b.is_zero(f):
        return b.zeros(s.g, node.type)
    return b.blkdiag(s.g, s.for_each(f, node.args[0].type.family))


def _put(s: Rewriting, node: Node, args: tuple[Node, ...]) -> Node:
    """I with 1 written on its diagonal is I;  I with 0 written at (i, j), i ≠ j, is I."""
    base, value = args[0], args[1]
    if base.op == "eye" and len(args) == 4 and value.op == "const":
        row, col = args[2], args[3]
        if (row is col and value.value == 1) or (value.value == 0 and apart(row, col)):
            return base
    return s.g.node("put", args, node.attrs, node.type)


def _fold(s: Rewriting, node: Node, args: tuple[Node, ...]) -> Node:
    """A chain of identities is where it started."""
    step, start = args
    if step.op == "eye":
        return start
    return b.fold(s.g, step, start, node.attrs[0], node.attrs[1])


def _cat(s: Rewriting, node: Node, args: tuple[Node, ...]) -> Node:
    """[a_{:k}; a_{k:}] = a;  [0; 0] = 0;  [a; b] = a for a b without rows."""
    axis = node.attrs[0]
    args = _with_rows(args, axis)
    if all(b.is_zero(p.args[0] if p.op == "column_of" else p) for p in args):
        return b.zeros(s.g, node.type)
    slices = all(p.op == "slice" and p.attrs[0] == -axis and p.attrs[3] == 1 and p.args[0] is args[0].args[0]
                 for p in args)
    if slices:
        whole = args[0].args[0]
        ends = [0] + [p.attrs[2] for p in args]
        if all(same(p.attrs[1], e) for p, e in zip(args, ends, strict=False)) and b.fits(whole.type.item,
                                                                                       node.type.item):
            return whole
    return _around_rows(s, args, axis, node.type) or b.cat(s.g, args, axis)


def _with_rows(parts: tuple[Node, ...], axis: int) -> tuple[Node, ...]:
    """The parts that have a size along the axis, where they are all that the types of the others say."""
    kept = tuple(p for p in parts if not same(p.type.item[p.type.rank - axis], 0))
    known = {(p.type.family, p.type.loops) for p in kept} | {((), ())}
    return kept if kept and all((p.type.family, p.type.loops) in known for p in parts) else parts


def _around_rows(s: Rewriting, parts: tuple[Node, ...], axis: int, type_: Type) -> Node | None:
    """[A_{:k} + B; A_{k:}] = A + [B; 0] for a matrix A: what is written into rows or columns of W is added to W.

    Not for what comes out of a decomposition, whose pieces have rules of their own.
    """
    if len(type_.item) != 2:
        return None
    for piece in parts[0].args if parts[0].op == "add" else parts[:1]:
        if piece.op != "slice" or decomposed(piece) or piece.args[0].type != type_:
            continue
        whole, at, rests = piece.args[0], 0, list[Node]()
        for part in parts:
            end = lower(at + part.type.item[2 - axis])
            own = s.slice(whole, -axis, at, end, 1)
            terms = list(part.args) if part.op == "add" else [part]
            if not any(term is own for term in terms):
                break
            rests.append(s.add([term for term in terms if term is not own], part.type))
            at = end
        else:
            return s.add([whole, b.cat(s.g, rests, axis)], type_)
    return None


def _take(s: Rewriting, node: Node, args: tuple[Node, ...]) -> Node:
    """An entry of a tensor of one value is that value."""
    a, index = args
    if a.op == "full":
        return b.full(s.g, a.attrs[0], b.take(s.g, a, index, node.attrs[0]).type)
    if a.op == "take" and index.op == "const" and a.args[1].op == "const":
        pass
    return b.take(s.g, a, index, node.attrs[0])


def _stack(s: Rewriting, node: Node, args: tuple[Node, ...]) -> Node:
    """Stacking all slices of a tensor gives the tensor back."""
    (a,) = args
    axis, place = node.attrs
    if a.op in ("full", "const"):
        return b.full(s.g, a.attrs[0], node.type)
    if a.op == "take" and a.args[1].op == "iota" and a.args[1].attrs == (axis, 1, 0) \
            and axis not in a.args[0].type.loops:
        source, position = a.args[0], a.attrs[0]
        axes = source.type.family + source.type.item
        if same(axes[len(axes) - position], axis.size) and source.type.loops == node.type.loops:
            if b.fits(source.type.item, node.type.item) and b.fits(source.type.family, node.type.family):
                first = position == len(axes) or (place == "columns" and position == 1)
                if first and not (place == "columns" and position != 1):
                    return source
    if axis not in a.type.loops:
        a = b.spread(s.g, a, axis)
    return s.g.node("stack", (a,), node.attrs, node.type)


def _view(s: Rewriting, node: Node, args: tuple[Node, ...]) -> Node:
    """rows(family(M)) = M."""
    (a,) = args
    if a.op == "view" and a.args[0].type == node.type:
        return a.args[0]
    if a.op == "full":
        return b.full(s.g, a.attrs[0], node.type)
    return s.g.node(node.op, args, node.attrs, node.type)


def _sumsq(s: Rewriting, node: Node, args: tuple[Node, ...]) -> Node:
    """‖0‖ = 0;  ‖s a‖² = s² ‖a‖² for a number s."""
    (a,) = args
    if b.is_zero(a):
        return b.zeros(s.g, node.type)
    if a.op == "scale" and a.args[0].op == "const":
        return s.scale(s.g.const(lower(a.args[0].value ** 2)), b.sumsq(s.g, a.args[1], node.attrs[0]))
    return s.g.node("sumsq", (a,), node.attrs, node.type)


def _detach(s: Rewriting, node: Node, args: tuple[Node, ...]) -> Node:
    return s.detach(args[0])


def _zero_in_zero_out(s: Rewriting, node: Node, args: tuple[Node, ...]) -> Node:
    """f(0) = 0 for these."""
    if args and b.is_zero(args[0]):
        return b.zeros(s.g, node.type)
    return s.g.node(node.op, args, node.attrs, node.type)


def _scatter(s: Rewriting, node: Node, args: tuple[Node, ...]) -> Node:
    """scatter(c, band(q, 0)) = diag(c);  scatter(0, Ω) = 0."""
    c, places = args
    if places.op == "band" and same(places.attrs[1], 0) and all(same(places.attrs[0], n) for n in node.type.item):
        return s.diag(c)
    return _zero_in_zero_out(s, node, args)


def _kron(s: Rewriting, node: Node, args: tuple[Node, ...]) -> Node:
    """I ⊗ I = I;  0 ⊗ A = 0."""
    if any(b.is_zero(a) for a in args):
        return b.zeros(s.g, node.type)
    if all(a.op == "eye" for a in args):
        return b.eye(s.g, node.type.item[0])
    return s.g.node(node.op, args, node.attrs, node.type)


BY_OPERATOR: dict[str, Callable[[Rewriting, Node, tuple[Node, ...]], Node]] = {
    "div": _div, "pow": _pow, "point": _point, "skew": _skew, "blkdiag": _blkdiag, "put": _put, "fold": _fold,
    "cat": _cat, "take": _take, "stack": _stack, "view": _view, "sumsq": _sumsq, "detach": _detach, "kron": _kron,
    "lying": lambda s, n, a: a[0],
    "reshape": _view, "scatter": _scatter, "ifft2": _zero_in_zero_out,
    "Re": _zero_in_zero_out, "circulant": _zero_in_zero_out, "tile": _zero_in_zero_out, "repeat": _zero_in_zero_out,
    "outer": _zero_in_zero_out, "reduce": _zero_in_zero_out, "assemble": assembled, "vec": _zero_in_zero_out,
}
