"""Which values have orthonormal rows or columns: one rule an operator, its docstring the fact.

    ORTHONORMAL[node.op](f, node, side)         True when the rule proves it

Products, Cayley pairs, reflections, rotations of a plane, chains and loops (by induction), parts of an svd or a qr.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from padp.compiler.facts.reflections import reflection
from padp.compiler.ir import build as b
from padp.compiler.ir.dims import same
from padp.compiler.ir.nodes import Node, walk
from padp.compiler.ir.patterns import plane_rotation
from padp.compiler.operators.asking import TRANSPARENT, Questions, Side, is_item


def _always(f: Questions, n: Node, side: Side) -> bool:
    """I, permutations and tensors in SO(n) are orthogonal."""
    return True


def _stored_orthonormal(f: Questions, n: Node, side: Side) -> bool:
    """A tensor in St(r, d) has orthonormal rows, one in O(n) also orthonormal columns."""
    return side == "rows" or same(*n.type.item)


def _transposed(f: Questions, n: Node, side: Side) -> bool:
    """Q has orthonormal rows when Qᵀ has orthonormal columns."""
    return f.orthonormal(n.args[0], "columns" if side == "rows" else "rows")


def _inverse(f: Questions, n: Node, side: Side) -> bool:
    """Q⁻¹ = Qᵀ for orthogonal Q."""
    return f.orthogonal(n.args[0])


def _product(f: Questions, n: Node, side: Side) -> bool:
    """(A B)(A B)ᵀ = A (B Bᵀ) Aᵀ = I;  Cayley: (I + K)(I − K)⁻¹ for antisymmetric K."""
    factors, at = list(n.args), 0
    while at < len(factors):
        if at + 1 < len(factors) and cayley_pair(f, factors[at], factors[at + 1]):
            at += 2
        elif factors[at].type.rank == 2 and f.orthonormal(factors[at], side):
            at += 1
        else:
            return False
    return True


def cayley_pair(f: Questions, x: Node, y: Node) -> bool:
    """Aᵀ A⁻¹ and A⁻¹ Aᵀ are orthogonal when A commutes with Aᵀ, as c I + K does for antisymmetric K."""
    inverse, other = (x, y) if x.op == "inv" else (y, x)
    if inverse.op != "inv":
        return False
    a = inverse.args[0]
    if a.op != "add":
        return False
    rest = [t for t in a.args if not _multiple_of_eye(t)]
    if len(rest) == len(a.args) or not rest or not all(f.antisymmetric(t) for t in rest):
        return False
    if other.op == "add":  # Aᵀ term by term: c I stays, K changes its sign
        mine = [f.normal(t if _multiple_of_eye(t) else b.negate(f.g, t)) for t in a.args]
        its = [f.normal(t) for t in other.args]
        if len(mine) == len(its) and {id(t) for t in mine} == {id(t) for t in its}:
            return True
    return f.normal(b.t(f.g, a)) is f.normal(other)


def _multiple_of_eye(n: Node) -> bool:
    return n.op == "eye" or (n.op == "scale" and n.args[0].op == "const" and n.args[1].op == "eye")


def _items(f: Questions, n: Node, side: Side) -> bool:
    """blkdiag(Q₁, …, Q_b) and Q ⊗ P have orthonormal rows when their parts have."""
    return all(f.orthonormal(a, side) for a in n.args)


def _same_items(f: Questions, n: Node, side: Side) -> bool:
    """What only repeats, spreads or detaches a value leaves its properties."""
    return f.orthonormal(n.args[0], side)


def _of_family(f: Questions, n: Node, side: Side) -> bool:
    """An item of a family has what every item has."""
    return is_item(n) and f.orthonormal(n.args[0], side)


def _multiple(f: Questions, n: Node, side: Side) -> bool:
    """−Q is orthogonal when Q is."""
    s, a = n.args
    return s.op == "const" and s.attrs[0] in (1, -1) and f.orthonormal(a, side)


def _reflection(f: Questions, n: Node, side: Side) -> bool:
    """I − 2 P is orthogonal for P = Pᵀ = P²: v vᵀ / ‖v‖² (Householder), û ûᵀ with û = u / ‖u‖, Q Qᵀ, A (Aᵀ A)⁻¹ Aᵀ."""
    return reflection(f, n) is not None


def _rotation(f: Questions, n: Node, side: Side) -> bool:
    """I with cos θ, −sin θ; sin θ, cos θ in the rows and columns i, j is orthogonal (Givens)."""
    return plane_turn(f, n)


def plane_turn(f: Questions, n: Node) -> bool:
    """Whether a value is I with the rows and columns i, j turned by an angle."""
    plane = plane_rotation(n)
    if plane is None or plane.a is None or plane.b is None or plane.c is None or plane.d is None:
        return False
    positive, negative = (plane.c, plane.b) if _minus(f, plane.b, plane.c) else (plane.b, plane.c)
    cosine = plane.a.op == "point" and plane.a.attrs[0] == "cos" and plane.a is plane.d
    sine = positive.op == "point" and positive.attrs[0] == "sin" and _minus(f, negative, positive)
    return cosine and sine and plane.a.args[0] is positive.args[0]


def _minus(f: Questions, a: Node, c: Node) -> bool:
    return a.op == "scale" and a.args[0].op == "const" and a.args[0].attrs[0] == -1 and a.args[1] is c


def _chain(f: Questions, n: Node, side: Side) -> bool:
    """A chain R ← Hᵢ @ R is orthogonal when its start and its steps are."""
    step, start = n.args
    return f.orthonormal(step, side) and f.orthonormal(start, side)


def _looped(f: Questions, n: Node, side: Side) -> bool:
    """A loop keeps what its start has and a step keeps: by induction, a step's input having it."""
    result, start = n.args[:2]
    if not f.orthonormal(start, side):
        return False
    carried = [x for x in walk(result) if x.op == "carry"]
    if any(x.attrs != (n.attrs[1], n.attrs[0]) for x in carried):
        return False
    return f.step_keeps(side, carried, result)


def _decomposed(f: Questions, n: Node, side: Side) -> bool:
    """M = U diag(Σ) Vᵀ = Q R: U and Q have orthonormal columns, Vᵀ orthonormal rows; square ones are orthogonal."""
    whole, which = n.args[0], n.attrs[0]
    if which == 0:
        return side == "columns" or same(*n.type.item)
    return whole.op == "svd" and which == 2 and (side == "rows" or same(*n.type.item))


def _part(f: Questions, n: Node, side: Side) -> bool:
    """Some rows of orthonormal rows are orthonormal; some columns of orthonormal columns; an item of a family."""
    axis = n.attrs[0]
    if axis in (-1, -2):
        return side == ("rows" if axis == -2 else "columns") and f.orthonormal(n.args[0], side)
    return _of_family(f, n, side)


def _stacked(f: Questions, n: Node, side: Side) -> bool:
    """[G V_{:k}; V_{k:}] has orthonormal rows when V has and G is orthogonal; columns alike."""
    axis = n.attrs[0]
    if side != ("rows" if axis == 2 else "columns"):
        return False
    whole: Node | None = None
    end: Any = 0
    for p in n.args:
        turned, piece = (p.args[:-1], p.args[-1]) if p.op == "prod" and axis == 2 else \
            (p.args[1:], p.args[0]) if p.op == "prod" else ((), p)
        if piece.op != "slice" or piece.attrs[0] != -axis or piece.attrs[3] != 1 or not same(piece.attrs[1], end):
            return False
        if whole is not None and piece.args[0] is not whole:
            return False
        if turned and not f.orthogonal(b.prod(f.g, *turned)):
            return False
        whole, end = piece.args[0], piece.attrs[2]
    return whole is not None and f.orthonormal(whole, side)


def _exponential(f: Questions, n: Node, side: Side) -> bool:
    """expm(K) is orthogonal for antisymmetric K."""
    return f.antisymmetric(n.args[0])


ORTHONORMAL: dict[str, Callable[[Questions, Node, Side], bool]] = {
    "eye": _always, "perm": _always, "special_orthogonal": _always, "orthonormal": _stored_orthonormal,
    "t": _transposed, "inv": _inverse, "prod": _product, "blkdiag": _items, "blkdiag_of": _items, "kron": _items,
    "scale": _multiple, "add": _reflection, "put": _rotation, "fold": _chain, "loop": _looped, "out": _decomposed,
    "slice": _part,
    "take": _of_family, "cat": _stacked, "expm": _exponential, **dict.fromkeys(TRANSPARENT, _same_items),
}
