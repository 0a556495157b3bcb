"""Quotients by norms: where a norm is 0, a quotient by it is 0.

    a / ‖v‖ = a · ‖v‖⁻¹        with 0⁻¹ = 0, as of a pseudo-inverse

A direction v / ‖v‖ has no value at v = 0, and a model's weights do have rows of zeros. What counts as a norm is what is
0 only where what it measures is 0: ‖·‖, its positive multiples, powers and roots, products and sums of norms, and
what only rearranges them. Everything else divides as numbers do. The literal reading says the same of its values
(``dense.Value.norm``).

    is_norm(node)        of a typed expression, as the program says it (rules keep the mark that ``div`` got from it)
"""

from __future__ import annotations

import sympy as sp

from padp.compiler.ir.nodes import Node

MARK = ("norm",)
"""The attribute of a ``div`` whose denominator is a norm."""

_KEPT = frozenset({"detach", "drop", "t", "lying", "spread", "expand", "slice", "take", "view", "reshape", "tile",
                   "repeat", "grouped", "stack", "sumloop"})
"""Operators whose values are those of their first argument, in another order, or sums of them."""
_ALL = frozenset({"add", "mul", "maximum", "cat", "interleave"})
"""Operators of norms that are norms where all their arguments are."""


def is_norm(node: Node) -> bool:
    """Whether a value is a norm, or 0 only where norms are."""
    match node.op:
        case "sumsq":
            return True
        case "point":
            return node.attrs[0] in ("sqrt", "abs") and is_norm(node.args[0])
        case "pow":
            return positive(node.attrs[0]) and is_norm(node.args[0])
        case "reduce":
            return node.attrs[0] in ("sum", "mean", "max") and is_norm(node.args[0])
        case "scale":
            s, a = node.args
            return (positive(s.attrs[0]) if s.op == "const" else is_norm(s)) and is_norm(a)
        case "put":
            return is_norm(node.args[0]) and is_norm(node.args[1])
        case op if op in _KEPT:
            return is_norm(node.args[0])
        case op if op in _ALL:
            return all(is_norm(a) for a in node.args)
        case _:
            return False


def positive(value: object) -> bool:
    """Whether a number, or a size, is known to be above 0."""
    if isinstance(value, (int, float)):
        return value > 0
    return isinstance(value, sp.Expr) and value.is_positive is True
