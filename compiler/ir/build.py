"""Typed constructors of the IR: each checks shapes and gives the type; none rewrites anything.

The rule for every one of them: items must fit, families must agree or be absent, loop axes are united. What does not
fit raises ``Mismatch`` with the two shapes and, where there is one, the spelling that was probably meant.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

from padp.compiler.ir.dims import lower, product, same, show
from padp.compiler.ir.nodes import UNKNOWN, Axis, Graph, Kind, Node, Type
from padp.dsl.limits import MAX_TERMS


class Mismatch(Exception):
    """Shapes that do not fit. ``code`` is the diagnostic's, ``suggestion`` the spelling that was probably meant."""

    def __init__(self, message: str, code: str = "E301", suggestion: str | None = None) -> None:
        super().__init__(message)
        self.message, self.code, self.suggestion = message, code, suggestion


def fits(a: Sequence[Any], b: Sequence[Any]) -> bool:
    """Whether two shapes are equal for all sizes."""
    return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))


def unknown(*nodes: Node) -> bool:
    return any(n.type.kind == "unknown" for n in nodes)


def opaque(g: Graph, op: str, *args: Node) -> Node:
    """A node of unknown type: it flows on, and what depends on it is not reported again."""
    return g.node(op, args, (), UNKNOWN)


def united(*types: Type) -> tuple[tuple[Any, ...], tuple[Axis, ...]]:
    """The family and the loop axes of a result: families agree or are absent, loops are united by nesting."""
    loops = {axis.uid: axis for t in types for axis in t.loops}
    family: tuple[Any, ...] = ()
    for t in types:
        if not t.family:
            continue
        if family and not fits(family, t.family):
            raise Mismatch(f"two families of different sizes meet: {_dims(family)} and {_dims(t.family)}")
        family = t.family
    return family, tuple(loops[uid] for uid in sorted(loops))


def typed(item: Sequence[Any], *args: Node, row: bool = False, kind: Kind | None = None) -> Type:
    """The type of a result with this item, batched over whatever its arguments are batched over."""
    family, loops = united(*(a.type for a in args))
    if kind is None:
        kind = "complex" if any(a.type.kind == "complex" for a in args) else "real"
        if all(a.type.kind == "index" for a in args) and args:
            kind = "index"
    return Type(tuple(item), family, loops, row, kind)


def _kind(*args: Node, real: bool = False) -> Kind:
    """Of a result of numbers: complex where one of them is, unless it is ``real`` for any."""
    return "complex" if not real and any(a.type.kind == "complex" for a in args) else "real"


def _dims(dims: Sequence[Any]) -> str:
    return "×".join(show(d) for d in dims)


def is_zero(node: Node) -> bool:
    return (node.op == "full" and node.attrs[0] == 0) or (node.op == "const" and node.attrs[0] == 0)


def full(g: Graph, value: Any, type_: Type) -> Node:
    """The tensor of one value everywhere."""
    if not type_.shape:
        return g.const(value)
    return g.node("full", (), (value,), Type(type_.item, type_.family, type_.loops, type_.row))


def zeros(g: Graph, type_: Type) -> Node:
    return full(g, 0, type_)


def eye(g: Graph, n: Any) -> Node:
    return g.node("eye", (), (), Type((n, n)))


# ---------------------------------------------------------------- algebra


def _bounded(width: int, what: str, of: str) -> None:
    """E105 for what doubles with each line."""
    if width > MAX_TERMS:
        raise Mismatch(f"{what} {width} {of} when all names are written out; at most {MAX_TERMS} are read", "E105")


def add(g: Graph, *terms: Node) -> Node:
    """a + b + …: equal items."""
    if len(terms) == 1:
        return terms[0]
    if unknown(*terms):
        return opaque(g, "add", *terms)
    if any(t.type.rank == 1 for t in terms):
        terms = tuple(upright(g, t) for t in terms)
    first = terms[0]
    for other in terms[1:]:
        if not fits(first.type.item, other.type.item):
            turned = first.type.rank == 2 and fits(first.type.item, other.type.item[::-1])
            raise Mismatch(f"{first.type} and {other.type} cannot be added", "E301",
                           "transpose one of them (…ᵀ)" if turned else None)
    _bounded(sum(g.width("add", t) for t in terms), "this sum has", "terms")
    row = all(t.type.row for t in terms)
    type_ = typed(first.type.item, *terms, row=row)
    return g.node("add", terms, (), replace(type_, lying=True) if all(t.type.lying for t in terms) else type_)


def scale(g: Graph, s: Node, a: Node) -> Node:
    """s · a, s a scalar."""
    if unknown(s, a):
        return opaque(g, "scale", s, a)
    assert s.type.rank == 0
    type_ = typed(a.type.item, s, a, row=a.type.row)
    return g.node("scale", (s, a), (), replace(type_, lying=True) if a.type.lying else type_)


def lying(g: Graph, v: Node) -> Node:
    """A vector that was written as a row of a matrix, M_{j,:}."""
    return g.node("lying", (v,), (), replace(v.type, lying=True))


def times(g: Graph, factor: Any, a: Node) -> Node:
    """A number times a."""
    return scale(g, g.const(factor), a)


def negate(g: Graph, a: Node) -> Node:
    return times(g, -1, a)


def mul(g: Graph, a: Node, b: Node) -> Node:
    """a ⊙ b for equal items."""
    if unknown(a, b):
        return opaque(g, "mul", a, b)
    if not fits(a.type.item, b.type.item):
        raise Mismatch(f"{a.type} and {b.type} cannot be multiplied entry by entry")
    _bounded(g.width("mul", a) + g.width("mul", b), "this product has", "factors")
    return g.node("mul", (a, b), (), typed(a.type.item, a, b, row=a.type.row))


def div(g: Graph, a: Node, b: Node, attrs: tuple[str, ...] = ()) -> Node:
    """a / b entry by entry, or a number over b; ``attrs`` is ``norms.MARK`` where b is a norm: a / 0 is 0 then."""
    if unknown(a, b):
        return opaque(g, "div", a, b)
    if a.type.rank and b.type.rank and not fits(a.type.item, b.type.item):
        raise Mismatch(f"{a.type} cannot be divided by {b.type} entry by entry")
    item = a.type.item if a.type.rank else b.type.item
    type_ = typed(item, a, b, row=a.type.row or b.type.row)
    return g.node("div", (a, b), attrs, replace(type_, lying=True) if a.type.lying and not b.type.rank else type_)


def point(g: Graph, function: str, a: Node, *static: Any) -> Node:
    """f(a) entry by entry."""
    if unknown(a):
        return opaque(g, "point", a)
    kind = _kind(a, real=function == "abs")
    return g.node("point", (a,), (function, *static), typed(a.type.item, a, row=a.type.row, kind=kind))


def pow_(g: Graph, a: Node, exponent: Any) -> Node:
    """Entry-wise power."""
    if unknown(a):
        return opaque(g, "pow", a)
    return g.node("pow", (a,), (exponent,), typed(a.type.item, a, row=a.type.row))


def t(g: Graph, a: Node) -> Node:
    """aᵀ; of a vector: a row."""
    if unknown(a):
        return opaque(g, "t", a)
    if a.type.rank == 0:
        return a
    if a.type.rank == 1:
        return g.node("t", (a,), (), replace(typed((1, a.type.item[0]), a, row=True), lying=a.type.lying))
    if a.type.row:
        inner = a.args[0] if a.op == "t" else None
        if inner is not None and inner.type.rank == 1:
            return inner
        return g.node("take", (a, g.const(0)), (2,), typed((a.type.item[1],), a))
    m, n = a.type.item
    return g.node("t", (a,), (), typed((n, m), a))


def inv(g: Graph, a: Node) -> Node:
    """a⁻¹ of a square matrix, 1/a of a scalar."""
    if unknown(a):
        return opaque(g, "inv", a)
    if a.type.rank == 0:
        return div(g, g.const(1), a)
    if a.type.rank == 1:
        raise Mismatch(f"a vector has no inverse ({a.type})", "E302", "1 / v")
    if not same(*a.type.item):
        raise Mismatch(f"only a square matrix has an inverse; this is {a.type}", "E304")
    return g.node("inv", (a,), (), typed(a.type.item, a))


def diag(g: Graph, v: Node) -> Node:
    """diag(v)."""
    if unknown(v):
        return opaque(g, "diag", v)
    if v.type.rank != 1:
        raise Mismatch(f"diag takes a vector, this is {v.type}", "E301",
                       "diagonal(M) for the diagonal of a matrix" if v.type.rank == 2 else None)
    n = v.type.item[0]
    return g.node("diag", (v,), (), typed((n, n), v))


def outer(g: Graph, u: Node, v: Node) -> Node:
    """u vᵀ."""
    return g.node("outer", (u, v), (), typed((u.type.item[0], v.type.item[0]), u, v))


def dot(g: Graph, u: Node, v: Node) -> Node:
    """uᵀ v."""
    if not fits(u.type.item, v.type.item):
        raise Mismatch(f"{u.type} and {v.type} have no inner product")
    return g.node("dot", (u, v), (), typed((), u, v))


def prod(g: Graph, *factors: Node) -> Node:
    """The matrix product of two or more factors, the last may be a vector."""
    if len(factors) == 1:
        return factors[0]
    if unknown(*factors):
        return opaque(g, "prod", *factors)
    flat: list[Node] = []
    for f in factors:
        flat.extend(f.args if f.op == "prod" and f.type.kind != "unknown" else (f,))
    _bounded(len(flat), "this product has", "factors")
    last = flat[-1]
    for left, right in pairwise(flat):
        if not same(left.type.item[1], right.type.item[0]):
            raise Mismatch(f"inner dimensions differ: {left.type} @ {right.type}")
    item = (flat[0].type.item[0], *last.type.item[1:])
    return g.node("prod", tuple(flat), (), typed(item, *flat, row=flat[0].type.row and last.type.rank == 2))


def upright(g: Graph, a: Node) -> Node:
    """M_{j,:}ᵀ as the column that it is; everything else stays."""
    if not (a.type.row and a.type.lying):
        return a
    v = t(g, a)
    return v.args[0] if v.op == "lying" else v


def stood(g: Graph, a: Node, b: Node) -> tuple[Node, Node]:
    """The sides of a product, M_{j,:}ᵀ as a column where it is one: A M_{j,:}ᵀ, M_{i,:} M_{j,:}ᵀ, M_{j,:}ᵀ M_{i,:}.

    In M_{j,:}ᵀ x and u M_{j,:}ᵀ it is the transpose of a vector, as in uᵀ x and u vᵀ.
    """
    if (a.type.rank == 2 and not same(a.type.item[1], 1)) or (a.type.rank == 1 and a.type.lying):
        b = upright(g, b)
    return (upright(g, a), b) if b.type.rank == 1 and b.type.lying else (a, b)


def matmul(g: Graph, a: Node, b: Node) -> Node:
    """a @ b with the readings of rows and vectors: u vᵀ, uᵀ v, M v, vᵀ M."""
    if unknown(a, b):
        return opaque(g, "prod", a, b)
    if a.type.rank == 0 or b.type.rank == 0:
        raise Mismatch(f"@ is the matrix product; {a.type} @ {b.type} has a scalar", "E302", "· for scaling")
    if a.type.rank == 1:
        if b.type.row:
            return outer(g, a, t(g, b))
        if b.type.rank == 1 and b.type.lying != a.type.lying:
            return outer(g, a, b) if b.type.lying else dot(g, a, b)
        if a.type.lying and b.type.rank == 2:
            return matmul(g, t(g, a), b)
        if b.type.rank == 1:
            raise Mismatch(f"{a.type} @ {b.type} is not a matrix product", "E302", "uᵀ @ v, u @ vᵀ or u ⊙ v")
        if b.type.rank == 2 and same(b.type.item[0], 1):
            return outer(g, a, g.node("take", (b, g.const(0)), (2,), typed((b.type.item[1],), b)))
        raise Mismatch(f"inner dimensions differ: {a.type} @ {b.type}", "E301", "vᵀ @ M")
    if not same(a.type.item[1], b.type.item[0]):
        hint = None
        if b.type.rank == 2 and same(a.type.item[1], b.type.item[1]):
            hint = "transpose the right side (…ᵀ)"
        elif same(a.type.item[0], b.type.item[0]):
            hint = "transpose the left side (…ᵀ)"
        raise Mismatch(f"inner dimensions differ: {a.type} @ {b.type} needs "
                       f"{show(a.type.item[1])} = {show(b.type.item[0])}", "E301", hint)
    if a.type.row and b.type.rank == 1:
        return dot(g, t(g, a), b)
    return prod(g, a, b)


def sumsq(g: Graph, a: Node, axis: str) -> Node:
    """Sums of squares: 'row' one a row, 'col' one a column, 'all' one in all."""
    if unknown(a):
        return opaque(g, "sumsq", a)
    item = {"row": a.type.item[:1], "col": a.type.item[1:], "all": ()}[axis]
    return g.node("sumsq", (a,), (axis,), typed(item, a, kind="real"))


def reduce_(g: Graph, function: str, a: Node, axis: str) -> Node:
    """sum, mean, max, min over 'row' (one a row), 'col' or 'all'."""
    if unknown(a):
        return opaque(g, "reduce", a)
    if axis != "all" and a.type.rank != 2:
        raise Mismatch(f"{function}_{axis} takes a matrix, this is {a.type}", "E301", f"{function}(…)")
    item = {"row": a.type.item[:1], "col": a.type.item[1:], "all": ()}[axis]
    return g.node("reduce", (a,), (function, axis), typed(item, a, kind=_kind(a)))


# ---------------------------------------------------------------- pieces


def slice_(g: Graph, a: Node, axis: int, start: Any, stop: Any, step: Any = 1) -> Node:
    """a along an axis (negative: items from the end, −1 is the last) from start to stop."""
    if unknown(a):
        return opaque(g, "slice", a)
    shape = list(a.type.family + a.type.item)
    size = shape[axis]
    if same(start, 0) and same(stop, size) and step == 1:
        return a
    shape[axis] = lower((stop - start) if step == 1 else -((start - stop) // step))
    cut = len(a.type.family)
    type_ = Type(tuple(shape[cut:]), tuple(shape[:cut]), a.type.loops, a.type.row, a.type.kind)
    return g.node("slice", (a,), (axis, start, stop, step), type_)


def take(g: Graph, a: Node, index: Node, axis: int) -> Node:
    """One element (a scalar index) or a gather (an index vector) of a along an axis counted from the end: 1 is last.

    A scalar index removes the axis; an index vector replaces it. Loop axes of the index become loop axes of the result.
    """
    if unknown(a, index):
        return opaque(g, "take", a, index)
    shape = list(a.type.family + a.type.item)
    position = len(shape) - axis
    cut = len(a.type.family)
    _, loops = united(a.type, index.type)
    if index.type.rank == 1:
        shape[position] = index.type.item[0]
    else:
        del shape[position]
        if position < cut:
            cut -= 1
    type_ = Type(tuple(shape[cut:]), tuple(shape[:cut]), loops, False, a.type.kind)
    return g.node("take", (a, index), (axis,), type_)


def cat(g: Graph, parts: Sequence[Node], axis: int) -> Node:
    """Parts end to end: axis 2 stacks rows of matrices (vcat), axis 1 columns of matrices or entries of vectors."""
    if len(parts) == 1:
        return parts[0]
    if unknown(*parts):
        return opaque(g, "cat", *parts)
    first = parts[0].type
    for p in parts[1:]:
        rest = [(x, y) for k, (x, y) in enumerate(zip(first.item, p.type.item, strict=False)) if k != first.rank - axis]
        if p.type.rank != first.rank or not all(same(x, y) for x, y in rest):
            raise Mismatch(f"{first} and {p.type} cannot stand {'above' if axis == 2 else 'beside'} each other")
    item = list(first.item)
    total: Any = 0
    for p in parts:
        total = total + p.type.item[first.rank - axis]
    item[first.rank - axis] = lower(total)
    type_ = typed(item, *parts)
    there = [p for p in parts if p.type.item[first.rank - axis] != 0]
    if there and typed(item, *there) == type_:  # what has no entries is nothing, unless it says a family or a loop
        parts = there
    return parts[0] if len(parts) == 1 and parts[0].type == type_ else g.node("cat", tuple(parts), (axis,), type_)


def put(g: Graph, a: Node, value: Node, row: Node, col: Node | None) -> Node:
    """A copy of a with one entry set: a[row] or a[row, col]."""
    if unknown(a, value):
        return opaque(g, "put", a, value)
    args = (a, value, row) if col is None else (a, value, row, col)
    return g.node("put", args, (), typed(a.type.item, *args, kind=_kind(a, value)))


def sumloop(g: Graph, a: Node, axis: Axis) -> Node:
    """Σ over a loop axis."""
    if unknown(a):
        return opaque(g, "sumloop", a)
    if axis not in a.type.loops:
        return scale(g, g.const(axis.size), a)
    loops = tuple(x for x in a.type.loops if x != axis)
    return g.node("sumloop", (a,), (axis,), replace(a.type, loops=loops))


def stack(g: Graph, a: Node, axis: Axis, place: str) -> Node:
    """A loop axis becomes an axis of the value: 'item' (scalars → vector, vectors → rows), 'columns' or 'family'."""
    if unknown(a):
        return opaque(g, "stack", a)
    if axis not in a.type.loops:
        a = spread(g, a, axis)
    loops = tuple(x for x in a.type.loops if x != axis)
    if place == "item":
        type_ = Type((axis.size, *a.type.item), a.type.family, loops, False, a.type.kind)
    elif place == "columns":
        type_ = Type((*a.type.item, axis.size), a.type.family, loops, False, a.type.kind)
    else:
        type_ = Type(a.type.item, (axis.size, *a.type.family), loops, a.type.row, a.type.kind)
    return g.node("stack", (a,), (axis, place), type_)


def spread(g: Graph, a: Node, axis: Axis) -> Node:
    """The same value for each step of a loop."""
    loops = tuple(sorted({*a.type.loops, axis}, key=lambda x: x.uid))
    return g.node("spread", (a,), (axis,), Type(a.type.item, a.type.family, loops, a.type.row, a.type.kind))


def fold(g: Graph, step: Node, start: Node, axis: Axis, side: str) -> Node:
    """``R ← start; for i: R ← step_i @ R`` (side 'left') or ``R ← R @ step_i`` (side 'right')."""
    if unknown(step, start):
        return opaque(g, "fold", step, start)
    loops = tuple(x for x in united(step.type, start.type)[1] if x != axis)
    return g.node("fold", (step, start), (axis, side), Type(start.type.item, start.type.family, loops))


def blkdiag(g: Graph, f: Node) -> Node:
    """blkdiag of a family of p×q matrices: (b·p)×(b·q)."""
    if unknown(f):
        return opaque(g, "blkdiag", f)
    if f.type.rank != 2 or not f.type.family:
        raise Mismatch(f"blkdiag takes a family of matrices, this is {f.type}", "E301",
                       "declare it as (ℝ^{k×k})^b" if f.type.rank == 2 else None)
    b = product(f.type.family)
    p, q = f.type.item
    return g.node("blkdiag", (f,), (), Type((lower(b * p), lower(b * q)), (), f.type.loops))


def reshape(g: Graph, a: Node, dims: Sequence[Any]) -> Node:
    """Row-major; the last one or two dims are the item."""
    if unknown(a):
        return opaque(g, "reshape", a)
    if not same(product(dims), product(a.type.family + a.type.item)):
        raise Mismatch(f"{a.type} has {show(product(a.type.family + a.type.item))} entries, "
                       f"{_dims(dims)} has {show(product(dims))}")
    cut = max(0, len(dims) - 2)
    type_ = Type(tuple(dims[cut:]), tuple(dims[:cut]), a.type.loops, False, a.type.kind)
    return g.node("reshape", (a,), tuple(dims), type_)
