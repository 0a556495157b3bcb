"""Whether a value is certainly not 0: for almost all values of the tensors in it.

    generic(node)         True: not 0 for almost all tensors;  False: not known

Of every value three things are asked, and each answer no may mean "not known": whether it is not 0, whether no entry
of it is, and which tensors it moves with. Tensors are taken to be independent; W may stand in several factors.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import sympy as sp

from padp.compiler.facts.fresh_rules import inner
from padp.compiler.facts.ranks import leaves
from padp.compiler.facts.symmetry import ODD
from padp.compiler.ir.dims import same
from padp.compiler.ir.nodes import Node, walk
from padp.compiler.operators.asking import is_item


@dataclass(frozen=True, slots=True)
class Almost:
    """What holds for almost all tensors: the value is not 0; no entry is; it changes when one of these tensors does."""

    nonzero: bool = False
    everywhere: bool = False
    moved: frozenset[str] = frozenset()


_UNKNOWN = Almost()
_PARTS = frozenset({
    "t", "slice", "take", "stack", "reshape", "view", "expand", "spread", "lying", "tile", "repeat", "flatten", "vec",
    "grouped",
})
"""Made of entries of the argument, each somewhere."""
_ALL_PARTS = frozenset({"t", "stack", "reshape", "view", "expand", "spread", "lying", "tile", "repeat", "vec",
                        "grouped"})
"""Made of all of them."""
_KEPT = frozenset({"diag", "skew", "blkdiag", "inv", "sumsq", "scatter"})
"""Not 0 where the argument is not, with entries that are 0."""


def generic(node: Node) -> bool:
    """Whether a value is not 0 for almost all values of the tensors in it; False: not known."""
    known: dict[int, Almost] = {}
    for n in walk(node):
        known[id(n)] = _of(n, [known[id(a)] for a in n.args])
    return known[id(node)].nonzero


def _of(node: Node, args: Sequence[Almost]) -> Almost:
    match node.op:
        case "param" | "weight" | "input" | "bias" | "knob":
            return Almost(True, True, frozenset(leaves(node)))
        case "paired":
            return args[0]
        case "eye":
            return Almost(True)
        case "orthonormal" | "special_orthogonal":
            return Almost(True, False, args[0].moved)
        case "const" | "full":
            value = node.attrs[0]
            there = bool(sp.sympify(value).is_zero is False) if not isinstance(value, (int, float)) else value != 0
            return Almost(there, there)
        case op if op in _PARTS:
            a = args[0]
            whole = op in _ALL_PARTS or (op in ("take", "slice") and is_item(node))
            return a if a.everywhere or whole else _UNKNOWN
        case op if op in _KEPT:
            return Almost(args[0].nonzero, op == "sumsq" and args[0].everywhere, args[0].moved)
        case "div":
            return Almost(args[0].nonzero, args[0].everywhere, args[0].moved - leaves(node.args[1]))
        case "point":
            return _pointwise(node.attrs[0], args[0])
        case "add":
            own = frozenset(x for k, a in enumerate(args) for x in a.moved if not any(
                x in leaves(t) for j, t in enumerate(node.args) if j != k))
            return Almost(bool(own), bool(own) and any(a.everywhere and a.moved & own for a in args), own)
        case op if op in _PRODUCTS:
            return _product(node, args) if _independent(node) else _UNKNOWN
        case _:
            return _UNKNOWN


def _pointwise(function: str, a: Almost) -> Almost:
    moved = frozenset() if function == "sign" else a.moved
    if function in ("exp", "sigmoid", "softplus", "cos"):
        return Almost(True, True, moved)
    return Almost(a.nonzero, a.everywhere, moved) if function in ODD | {"sqrt", "abs"} else _UNKNOWN


_PRODUCTS: dict[str, Callable[[Sequence[Node], Sequence[Almost]], bool]] = {
    "scale": lambda nodes, args: True,
    "outer": lambda nodes, args: True,
    "kron": lambda nodes, args: True,
    "mul": lambda nodes, args: any(a.everywhere for a in args),
    "prod": lambda nodes, args: not _sparse_neighbours(nodes, args),
}
"""Whether a product of values that are not 0 is not 0, where they are independent."""


def _sparse_neighbours(nodes: Sequence[Node], args: Sequence[Almost]) -> bool:
    """Whether zeros of one factor may fall on what is there of the next; invertible factors between do not help."""
    rest = [a.everywhere for n, a in zip(nodes, args, strict=True) if not _regular(n, a)]
    return any(not (x or y) for x, y in pairwise(rest))


def _regular(n: Node, a: Almost) -> bool:
    """Whether a factor is invertible."""
    match n.op:
        case "eye" | "inv" | "special_orthogonal":
            return True
        case "orthonormal":
            return same(*n.type.item)
        case "diag":
            return a.nonzero and n.args[0].op in ("param", "input", "full", "bias")
        case "blkdiag":
            return n.args[0].op == "param" and same(*n.args[0].type.item)
        case _:
            return False


def _product(node: Node, args: Sequence[Almost]) -> Almost:
    """A product of independent factors, none of them 0."""
    if not all(a.nonzero for a in args) or not _PRODUCTS[node.op](node.args, args):
        return _UNKNOWN
    full = [a.everywhere or (node.op == "prod" and _regular(n, a)) for n, a in zip(node.args, args, strict=True)]
    moved = frozenset(x for k, a in enumerate(args) if all(f for j, f in enumerate(full) if j != k) for x in a.moved)
    return Almost(True, all(a.everywhere for a in args), moved)


def _independent(node: Node) -> bool:
    """Whether no tensor but W stands in two factors, or only as in Aᵀ A, which is 0 only with A."""
    seen: set[str] = set()
    for k, factor in enumerate(node.args):
        own = leaves(factor) - {"W"}
        before = node.args[k - 1]
        gram = k and (inner(factor) is before or inner(before) is factor)
        if own & seen and not gram:
            return False
        seen |= own
    return True
