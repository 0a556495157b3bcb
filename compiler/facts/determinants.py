"""Whether an orthogonal value is a rotation: the sign of its determinant.

    sign(facts, node) -> 1, -1, or None where no rule gives it

det I = det cayley(K) = det expm(K) = 1 for antisymmetric K;  det(I − 2 P) = (−1)^rank P for P = Pᵀ = P²;
det(A B) = det A · det B;  det Aᵀ = det A;  det A⁻¹ = 1 / det A;  det blkdiag(A₁, …, A_b) = ∏ det Aᵢ.  Only meant for
values that are orthogonal.
"""

from __future__ import annotations

from typing import Any

import sympy as sp

from padp.compiler.facts.orthogonality import cayley_pair, plane_turn
from padp.compiler.facts.reflections import reflection
from padp.compiler.ir.dims import product
from padp.compiler.ir.nodes import Node
from padp.compiler.operators.asking import TRANSPARENT, Questions


def sign(f: Questions, n: Node) -> int | None:
    """The sign of the determinant of a value that is orthogonal."""
    match n.op:
        case "eye" | "special_orthogonal" | "expm":
            return 1
        case "t" | "inv":
            return sign(f, n.args[0])
        case op if op in TRANSPARENT:
            return sign(f, n.args[0])
        case "prod":
            return _of_product(f, n)
        case "blkdiag":
            return _power(sign(f, n.args[0]), product(n.args[0].type.family))
        case "fold":
            step, start = n.args
            return _times(_power(sign(f, step), n.attrs[0].size), sign(f, start))
        case "scale" if n.args[0].op == "const" and n.args[0].attrs[0] in (1, -1):
            return _times(_power(int(n.args[0].attrs[0]), n.type.item[0]), sign(f, n.args[1]))
        case "add":
            return _of_reflection(f, n)
        case "put":
            return 1 if plane_turn(f, n) else None
        case "take" | "slice" if n.args[0].type.rank == 2 and n.args[0].type.item == n.type.item:
            return sign(f, n.args[0])  # an item of a family
        case _:
            return None


def _of_product(f: Questions, n: Node) -> int | None:
    factors, at, total = list(n.args), 0, 1
    while at < len(factors):
        if at + 1 < len(factors) and cayley_pair(f, factors[at], factors[at + 1]):
            at += 2
            continue
        own = sign(f, factors[at])
        if own is None:
            return None
        total, at = total * own, at + 1
    return total


def _of_reflection(f: Questions, n: Node) -> int | None:
    """det ±(I − 2 P) = (±1)ⁿ (−1)^rank P."""
    found = reflection(f, n)
    if found is None or found.rank is None:
        return None
    return _times(_power(found.sign, n.type.item[0]), _power(-1, found.rank))


def _times(a: int | None, c: int | None) -> int | None:
    return None if a is None or c is None else a * c


def _power(base: int | None, exponent: Any) -> int | None:
    """base to a whole power that may be symbolic: (−1)ⁿ needs to know whether n is even."""
    if base is None or base == 1:
        return base
    e = sp.sympify(exponent)
    return 1 if e.is_even else -1 if e.is_odd else None
