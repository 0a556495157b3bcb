"""Which values are antisymmetric, symmetric or diagonal: one rule an operator, its docstring the fact.

    ANTISYMMETRIC[node.op](f, node), SYMMETRIC[node.op](f, node), DIAGONAL[node.op](f, node)
"""

from __future__ import annotations

from collections.abc import Callable

from padp.compiler.ir.nodes import Node
from padp.compiler.operators.asking import TRANSPARENT, Questions, is_item

ODD = frozenset({"sin", "tan", "tanh", "arctan", "sign"})


# ---------------------------------------------------------------- antisymmetric


def _skew(f: Questions, n: Node) -> bool:
    """skew(v) is antisymmetric."""
    return True


def _all_antisymmetric(f: Questions, n: Node) -> bool:
    """Sums, blocks, inverses and transposes of antisymmetric matrices are antisymmetric."""
    return all(f.antisymmetric(a) for a in n.args)


def _scaled_antisymmetric(f: Questions, n: Node) -> bool:
    """c A is antisymmetric when A is."""
    return f.antisymmetric(n.args[1])


def _entrywise_antisymmetric(f: Questions, n: Node) -> bool:
    """An odd function, entry by entry, keeps antisymmetry."""
    return n.attrs[0] in ODD and f.antisymmetric(n.args[0])


def _item_antisymmetric(f: Questions, n: Node) -> bool:
    """An item of a family has what every item has."""
    return is_item(n) and f.antisymmetric(n.args[0])


ANTISYMMETRIC: dict[str, Callable[[Questions, Node], bool]] = {
    "skew": _skew, "add": _all_antisymmetric, "blkdiag": _all_antisymmetric, "blkdiag_of": _all_antisymmetric,
    "inv": _all_antisymmetric, "t": _all_antisymmetric, "scale": _scaled_antisymmetric,
    "point": _entrywise_antisymmetric, "take": _item_antisymmetric, "slice": _item_antisymmetric,
    **dict.fromkeys(TRANSPARENT, _all_antisymmetric),
}


# ---------------------------------------------------------------- symmetric


def _plainly_symmetric(f: Questions, n: Node) -> bool:
    """I and diag(v) are symmetric."""
    return True


def _all_symmetric(f: Questions, n: Node) -> bool:
    """Sums, blocks, inverses, powers, transposes and Kronecker products of symmetric matrices are symmetric."""
    return all(f.symmetric(a) for a in n.args)


def _scaled_symmetric(f: Questions, n: Node) -> bool:
    """c A is symmetric when A is."""
    return f.symmetric(n.args[1])


def _outer_symmetric(f: Questions, n: Node) -> bool:
    """v vᵀ is symmetric."""
    return n.args[0] is n.args[1]


SYMMETRIC: dict[str, Callable[[Questions, Node], bool]] = {
    "eye": _plainly_symmetric, "diag": _plainly_symmetric, "add": _all_symmetric, "blkdiag": _all_symmetric,
    "inv": _all_symmetric, "t": _all_symmetric, "point": _all_symmetric, "pow": _all_symmetric, "kron": _all_symmetric,
    "expm": _all_symmetric, "scale": _scaled_symmetric, "outer": _outer_symmetric,
    **dict.fromkeys(TRANSPARENT, _all_symmetric),
}


# ---------------------------------------------------------------- diagonal


def _plainly_diagonal(f: Questions, n: Node) -> bool:
    """I and diag(v) are diagonal."""
    return True


def _all_diagonal(f: Questions, n: Node) -> bool:
    """Sums, products, inverses, transposes and Kronecker products of diagonal matrices are diagonal."""
    return all(a.type.rank == 2 and f.diagonal(a) for a in n.args)


def _scaled_diagonal(f: Questions, n: Node) -> bool:
    """c A is diagonal when A is."""
    return f.diagonal(n.args[1])


DIAGONAL: dict[str, Callable[[Questions, Node], bool]] = {
    "eye": _plainly_diagonal, "diag": _plainly_diagonal, "add": _all_diagonal, "prod": _all_diagonal,
    "inv": _all_diagonal, "t": _all_diagonal, "kron": _all_diagonal, "blkdiag": _all_diagonal,
    "scale": _scaled_diagonal, **dict.fromkeys(TRANSPARENT, _all_diagonal),
}
