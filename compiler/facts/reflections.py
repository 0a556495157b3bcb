"""Which sums are reflections, I − 2 P for a symmetric P with P² = P, in any of their spellings.

    reflection(f, n)     the P of ±(I − 2 P), or None
    projection(f, n)     whether a value is such a P
    householder(f, n)    the v of I − 2 v vᵀ / ‖v‖², or None

(I − 2 P)ᵀ (I − 2 P) = I − 4 P + 4 P² = I. A direction v / ‖v‖ is 0 where v is 0: P is 0 then, and I − 2 P is I.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import sympy as sp

from padp.compiler.elaborate.norms import is_norm
from padp.compiler.ir import build as b
from padp.compiler.ir.nodes import Node
from padp.compiler.operators.asking import TRANSPARENT, Questions, is_item

Parts = tuple[Any, tuple[tuple[int, Any], ...]]
"""A scalar as number · ∏ partᵖ: its number, and its parts (by id) with their powers."""
_ONE: Parts = (sp.Integer(1), ())


@dataclass(frozen=True, slots=True)
class Reflection:
    """sign · (I − 2 P). ``direction``: the v of P = v vᵀ / ‖v‖², where it is one; ``rank``: of P, where it is known."""

    sign: int
    direction: Node | None
    rank: Any | None


def reflection(f: Questions, n: Node) -> Reflection | None:
    """Whether a sum is I − 2 P or 2 P − I, and of which P."""
    parts = _eye_and_rest(f, n)
    if parts is None or len(parts[1]) != 1 or parts[0] not in (1, -1):
        return None
    sign, ((number, powers), core) = int(parts[0]), parts[1][0]
    scalar: Parts = (number / (-2 * sign), powers)
    if core.op == "outer" and core.args[0] is core.args[1] and _inverse_square(f, scalar, core.args[0]):
        return Reflection(sign, core.args[0], 1)
    return Reflection(sign, None, _rank(f, core)) if _projects(f, scalar, core) else None


def householder(f: Questions, n: Node) -> Node | None:
    """The v of I − 2 v vᵀ / ‖v‖², or None."""
    found = reflection(f, n)
    return found.direction if found is not None and found.sign == 1 else None


def projection(f: Questions, n: Node) -> bool:
    """P = Pᵀ = P²;  I − P for such a P."""
    parts = _eye_and_rest(f, n)
    if parts is None:
        return False
    eye, rest = parts
    if len(rest) != 1 or eye not in (0, 1):
        return not rest and eye in (0, 1)
    (number, powers), core = rest[0]
    return _projects(f, (number if eye == 0 else -number, powers), core)


# ---------------------------------------------------------------- what projects


def _projects(f: Questions, scalar: Parts, core: Node) -> bool:
    """Whether scalar · core is a projection."""
    if core.op == "outer" and core.args[0] is core.args[1]:
        v = core.args[0]
        return _inverse_square(f, scalar, v) or (scalar == _ONE and _unit(f, v))
    rule = PROJECTS.get(core.op)
    return scalar == _ONE and rule is not None and rule(f, core)


def _inverse_square(f: Questions, scalar: Parts, v: Node) -> bool:
    """Whether a scalar is 1 / ‖v‖², so that it makes a projection of v vᵀ."""
    return scalar == number_parts(f, [(b.sumsq(f.g, v, "all"), -1)])


def _unit(f: Questions, v: Node) -> bool:
    """Whether ‖v‖ = 1: a column of orthonormal columns, a row of orthonormal rows, ±1 at one place of 0."""
    match v.op:
        case "take" | "put" if v.type.family:
            return False
        case "take":
            side = {1: "columns", 2: "rows"}.get(v.attrs[0])
            matrix = v.args[0]
            return matrix.type.rank == 2 and ((side == "rows" and f.orthonormal(matrix, "rows")) or
                                              (side == "columns" and f.orthonormal(matrix, "columns")))
        case "put" if len(v.args) == 3:
            base, value, _ = v.args
            return base.type.rank == 1 and b.is_zero(base) and value.op == "const" and value.attrs[0] in (1, -1)
        case op if op in TRANSPARENT:
            return _unit(f, v.args[0])
        case _:
            return False


def _whole(f: Questions, n: Node) -> bool:
    """Q Qᵀ for orthonormal columns of Q;  Q P Qᵀ for such a P between them;  A (Aᵀ A)⁻¹ Aᵀ."""
    return any(_between(f, left, middle) for left, middle in _mirrored(f, n))


def _between(f: Questions, left: Node, middle: Node | None) -> bool:
    if f.orthonormal(left, "columns"):
        return middle is None or projection(f, middle)
    return _gram_inverse(f, left, middle)


def _gram_inverse(f: Questions, left: Node, middle: Node | None) -> bool:
    """Whether what stands between A and Aᵀ is (Aᵀ A)⁻¹."""
    if middle is None or middle.op != "inv":
        return False
    return f.normal(middle.args[0]) is f.normal(b.prod(f.g, b.t(f.g, left), left))


def _mirrored(f: Questions, n: Node) -> Iterator[tuple[Node, Node | None]]:
    """The ways to read a product as L M Lᵀ, or as L Lᵀ (M None)."""
    if any(a.type.rank != 2 for a in n.args):
        return
    for k in range(1, len(n.args) // 2 + 1):
        left, right = b.prod(f.g, *n.args[:k]), b.prod(f.g, *n.args[-k:])
        if f.normal(b.t(f.g, left)) is f.normal(right):
            middle = n.args[k:-k]
            yield left, b.prod(f.g, *middle) if middle else None


def _rank(f: Questions, core: Node) -> Any | None:
    """The rank of a projection: 1 of v vᵀ, the number of columns of Q in Q Qᵀ and of A in A (Aᵀ A)⁻¹ Aᵀ."""
    if core.op == "outer":
        return 1
    if core.op == "prod":
        for left, middle in _mirrored(f, core):
            if (middle is None and f.orthonormal(left, "columns")) or _gram_inverse(f, left, middle):
                return left.type.item[1]
    return None


def _all_project(f: Questions, n: Node) -> bool:
    """blkdiag(P₁, …, P_b), P ⊗ P', Pᵀ, and what only repeats or spreads a P."""
    return all(a.type.rank == 2 and projection(f, a) for a in n.args)


def _item_projects(f: Questions, n: Node) -> bool:
    """An item of a family has what every item has."""
    return is_item(n) and projection(f, n.args[0])


PROJECTS: dict[str, Callable[[Questions, Node], bool]] = {
    "prod": _whole, "blkdiag": _all_project, "blkdiag_of": _all_project, "kron": _all_project, "t": _all_project,
    "take": _item_projects, "slice": _item_projects, **dict.fromkeys(TRANSPARENT, _all_project),
}


# ---------------------------------------------------------------- sums, their scalars drawn out


def _eye_and_rest(f: Questions, n: Node) -> tuple[Any, list[tuple[Parts, Node]]] | None:
    """A square sum as c I + Σ scalarᵢ coreᵢ, equal terms drawn together; None where a multiple of I is no number."""
    terms = _terms(f, n) if n.type.rank == 2 else None
    if terms is None:
        return None
    found: dict[tuple[int, tuple[tuple[int, Any], ...]], tuple[Any, Node]] = {}
    for scalars, core in terms:
        if not b.is_zero(core):
            number, powers = number_parts(f, [(s, 1) for s in scalars])
            mark = (id(core), powers)
            found[mark] = (found.get(mark, (0, core))[0] + number, core)
    if any(core.op == "eye" and powers for (_, powers), (_, core) in found.items()):
        return None
    eye = sum((number for number, core in found.values() if core.op == "eye"), sp.Integer(0))
    return eye, [((number, powers), core) for (_, powers), (number, core) in found.items()
                 if core.op != "eye" and number != 0]


MOST_TERMS = 64
"""A sum of more terms than this is not looked into."""


def _terms(f: Questions, n: Node) -> list[tuple[list[Node], Node]] | None:
    """The terms of a sum, each without the scalars in it:  s (A + B);  (s A) B;  (s u) (t v)ᵀ."""
    found: list[tuple[list[Node], Node]] = []
    stack: list[tuple[list[Node], Node]] = [([], n)]
    while stack:
        scalars, x = stack.pop()
        match x.op:
            case "add":
                stack += [(scalars, a) for a in x.args]
            case "scale":
                stack.append(([*scalars, x.args[0]], x.args[1]))
            case "prod" if x.type.rank == 2:
                own, factors = _drawn_out(x.args)
                found.append(([*scalars, *own], b.prod(f.g, *factors)))
            case "outer" if not x.args[0].type.family:
                (left, u), (right, w) = (_vector(f, a) for a in x.args)
                found.append(([*scalars, *left, *right], b.outer(f.g, u, w)))
            case _:
                found.append((scalars, x))
        if len(stack) + len(found) > MOST_TERMS:
            return None
    return found


def _drawn_out(factors: Sequence[Node]) -> tuple[list[Node], list[Node]]:
    """The scalars of factors, and the factors without them."""
    scalars: list[Node] = []
    left: list[Node] = []
    for a in factors:
        while a.op == "scale" and a.type.rank == 2:
            scalars.append(a.args[0])
            a = a.args[1]
        left.append(a)
    return scalars, left


def _vector(f: Questions, v: Node) -> tuple[list[Node], Node]:
    """s v as its scalar and v;  row i of diag(d) M as dᵢ and row i of M;  a column of M diag(d) alike."""
    scalars: list[Node] = []
    while True:
        if v.op == "scale":
            scalars.append(v.args[0])
            v = v.args[1]
            continue
        found = _of_scaled_rows(f, v) if v.op == "take" else None
        if found is None:
            return scalars, v
        scalars.append(found[0])
        v = found[1]


def _of_scaled_rows(f: Questions, v: Node) -> tuple[Node, Node] | None:
    """Row i of diag(d) M as dᵢ and row i of M, column j of M diag(d) as dⱼ and column j of M."""
    whole, index, axis = v.args[0], v.args[1], v.attrs[0]
    if whole.op != "prod" or whole.type.rank != 2 or whole.type.family or axis not in (1, 2):
        return None
    d, rest = (whole.args[0], whole.args[1:]) if axis == 2 else (whole.args[-1], whole.args[:-1])
    if d.op != "diag":
        return None
    return b.take(f.g, d.args[0], index, 1), b.take(f.g, b.prod(f.g, *rest), index, axis)


# ---------------------------------------------------------------- scalars


def number_parts(f: Questions, product: Sequence[tuple[Node, Any]]) -> Parts:
    """The number and the parts of a product of scalars, each with its power; √ is split only where what is below it is
    never negative."""
    parts: dict[int, Any] = {}
    number: Any = sp.Integer(1)

    def visit(x: Node, power: Any) -> None:
        nonlocal number
        match x.op:
            case "const" | "full":
                number = number * sp.sympify(x.attrs[0]) ** power
            case "scale" | "mul":
                visit(x.args[0], power)
                visit(x.args[1], power)
            case "div":
                visit(x.args[0], power)
                visit(x.args[1], -power)
            case "point" if x.attrs[0] == "sqrt" and (power % 2 == 0 or _never_negative(x.args[0])):
                visit(x.args[0], sp.Rational(power) / 2)
            case "pow" if isinstance(x.attrs[0], int):
                visit(x.args[0], power * x.attrs[0])
            case "dot" if x.args[0] is x.args[1]:
                visit(b.sumsq(f.g, x.args[0], "all"), power)
            case "take" if _entry(f, x) is not None:
                visit(_entry(f, x) or x, power)
            case "spread" | "expand" | "detach":
                visit(x.args[0], power)
            case _:
                parts[id(x)] = parts.get(id(x), 0) + power

    for scalar, power in product:
        visit(scalar, sp.Integer(power))
    return sp.nsimplify(number), tuple(sorted((k, p) for k, p in parts.items() if p))


def _never_negative(x: Node) -> bool:
    return is_norm(x) or (x.op == "dot" and x.args[0] is x.args[1])


def _entry(f: Questions, x: Node) -> Node | None:
    """An entry of what is computed entry by entry, as that of the entries:  (a / c)ᵢ = aᵢ / cᵢ;  (√a)ᵢ = √aᵢ;
    (‖M‖²_row)ᵢ = ‖Mᵢ‖²;  (‖M‖²_col)ⱼ = ‖M_{:,j}‖²."""
    (whole, index), g = x.args, f.g
    if whole.type.rank != 1 or whole.type.family or x.attrs != (1,):
        return None
    if whole.op == "sumsq" and whole.attrs[0] in ("row", "col") and whole.args[0].type.rank == 2:
        return b.sumsq(g, b.take(g, whole.args[0], index, 2 if whole.attrs[0] == "row" else 1), "all")
    if whole.op not in ("div", "point", "pow", "detach"):
        return None
    entries = tuple(b.take(g, a, index, 1) if a.type.rank == 1 else a for a in whole.args)
    return g.node(whole.op, entries, whole.attrs, x.type)
