"""How large the rank of a value can be, one rule an operator, and how large it is for almost all tensors.

    RANK[node.op](f, node)      a bound, from the bounds of the parts
    reaches(node)               the rank for almost all values of the tensors, where they are independent
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import sympy as sp

from padp.compiler.ir.dims import least, lower, product
from padp.compiler.ir.nodes import Node, walk
from padp.compiler.operators.asking import TRANSPARENT, Questions


def _rank_of_product(f: Questions, n: Node) -> Any:
    """rank(A B) ≤ min(rank A, rank B)."""
    return least(*(f.rank(a) for a in n.args if a.type.rank == 2))


def _rank_of_sum(f: Questions, n: Node) -> Any:
    """rank(A + B) ≤ rank A + rank B;  the same for [A, B] and blkdiag(A, B)."""
    return sum((f.rank(a) for a in n.args), sp.Integer(0))


def _rank_kept(f: Questions, n: Node) -> Any:
    """rank(c A) ≤ rank A;  rank(Aᵀ) = rank A;  a part of A has at most its rank."""
    return f.rank(n.args[-1] if n.op == "scale" else n.args[0])


def _rank_one(f: Questions, n: Node) -> Any:
    """rank(u vᵀ) ≤ 1."""
    return sp.Integer(1)


def _rank_zero(f: Questions, n: Node) -> Any:
    """A matrix of one value has rank at most 1, 0 has rank 0."""
    return sp.Integer(0 if n.attrs[0] == 0 else 1)


def _rank_of_blocks(f: Questions, n: Node) -> Any:
    """rank(blkdiag(F)) = Σ rank Fᵢ."""
    return f.rank(n.args[0]) * product(n.args[0].type.family)


def _rank_of_kron(f: Questions, n: Node) -> Any:
    """rank(A ⊗ B) = rank A · rank B;  rank(A ⊙ B) ≤ rank A · rank B."""
    return f.rank(n.args[0]) * f.rank(n.args[1])


def _rank_of_series(f: Questions, n: Node) -> Any:
    """rank(Σᵢ Aᵢ) ≤ Σᵢ rank Aᵢ."""
    return f.rank(n.args[0]) * n.attrs[0].size


def _rank_of_scatter(f: Questions, n: Node) -> Any:
    """A matrix with c entries that are not 0 has rank at most c."""
    return sp.sympify(n.args[0].type.item[0])


RANK: dict[str, Callable[[Questions, Node], Any]] = {
    "prod": _rank_of_product, "add": _rank_of_sum, "cat": _rank_of_sum, "blkdiag_of": _rank_of_sum, "scale": _rank_kept,
    "t": _rank_kept, "slice": _rank_kept, "take": lambda f, n: _rank_kept(f, n) if n.args[0].type.rank == 2 else
    least(*n.type.item), "inv": _rank_kept, "outer": _rank_one, "full": _rank_zero, "blkdiag": _rank_of_blocks,
    "kron": _rank_of_kron, "mul": _rank_of_kron, "sumloop": _rank_of_series, "scatter": _rank_of_scatter,
    **dict.fromkeys(TRANSPARENT, _rank_kept),
}


def reaches(node: Node) -> Any | None:
    """The rank that a value has for almost all values of its tensors, where they are independent."""
    match node.op:
        case "param" if node.type.rank == 2:
            return lower(least(*node.type.item))
        case "param":
            return node.type.item[0] if node.type.rank == 1 else None
        case "t" | "diag":
            return reaches(node.args[0])
        case "scale" if node.args[0].op in ("const", "knob", "param"):
            return reaches(node.args[1])
        case "prod":
            ranks = [reaches(f) for f in node.args]
            seen: set[str] = set()
            for f in node.args:
                own = leaves(f)
                if own & seen:
                    return None
                seen |= own
            return None if any(r is None for r in ranks) else lower(least(*ranks))
        case _:
            return None


def leaves(node: Node) -> set[str]:
    """Names of the tensors that a value is made of."""
    return {str(n.attrs[0]) for n in walk(node) if n.op in ("param", "weight", "input", "bias")}
