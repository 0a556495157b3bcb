"""Whether a value exists at all: the first operation below it that has no finite value.

    undefined(normal, root) -> Node or None       1/0, 0/0, 0⁻¹, log 0, √−1, 0^−p

``normal`` gives the normal form of a part. What stands there must be a constant to be refuted: a tensor that may take
any value is taken to be no exception.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import sympy as sp

from padp.compiler.elaborate.norms import is_norm
from padp.compiler.ir import build as b
from padp.compiler.ir.nodes import Node, walk


def undefined(normal: Callable[[Node], Node], root: Node) -> Node | None:
    """The first operation below ``root`` that is not defined, ``root`` included."""
    return next((n for n in walk(root) if n.op in _OUTSIDE and _OUTSIDE[n.op](normal, n)), None)


def steep_at_zero(n: Node) -> bool:
    """Whether the derivative of an operation is infinite where its argument is 0: a root of what is no norm."""
    if n.op == "point":
        return n.attrs[0] == "sqrt" and not is_norm(n.args[0])
    return n.op == "pow" and 0 < sp.sympify(n.attrs[0]) < 1 and not is_norm(n.args[0])


def _divided(normal: Callable[[Node], Node], n: Node) -> bool:
    """a / 0, except for a quotient whose attributes say what it is there."""
    return not n.attrs and b.is_zero(normal(n.args[1]))


def _inverted(normal: Callable[[Node], Node], n: Node) -> bool:
    """0⁻¹, and solve(0, B)."""
    return b.is_zero(normal(n.args[0]))


def _raised(normal: Callable[[Node], Node], n: Node) -> bool:
    """0^−p;  cᵖ for c < 0 and p between whole numbers."""
    base, exponent = _number(normal(n.args[0])), sp.sympify(n.attrs[0])
    if base is None:
        return False
    return bool((exponent.is_negative and base.is_zero) or (base.is_negative and exponent.is_integer is False))


def _of_entries(normal: Callable[[Node], Node], n: Node) -> bool:
    """log c for c ≤ 0;  √c for c < 0."""
    if n.attrs[0] not in ("log", "sqrt"):
        return False
    value = _number(normal(n.args[0]))
    return value is not None and bool(value.is_nonpositive if n.attrs[0] == "log" else value.is_negative)


def _number(n: Node) -> Any | None:
    """The number that a value, or every entry of it, is."""
    return sp.sympify(n.attrs[0]) if n.op in ("const", "full") else None


_OUTSIDE: dict[str, Callable[[Callable[[Node], Node], Node], bool]] = {
    "div": _divided, "inv": _inverted, "solve": _inverted, "pow": _raised, "point": _of_entries,
}
