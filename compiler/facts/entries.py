"""Entries of tensors that are put together from numbers: one-hots, masks, what was written into zeros.

    [1; zeros(n − 1)]_0 = 1        ([1; 0; 0] ⊙ [0; u])        e ← zeros(n); e[0] ← 1       eye(n)_{0}

    entry(rules, a, index, axis)         a at a place, where it is known which part that is
    part_by_part(rules, op, a, c)        a ⊙ c and aᵀ c, cut where one of them is put together

A place is a number or runs with a loop; where it may lie in two parts nothing is said.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, Protocol

import sympy as sp

from padp.compiler.ir import build as b
from padp.compiler.ir.dims import lower, same
from padp.compiler.ir.nodes import Graph, Node


class Rules(Protocol):
    """What these rules ask of the normal form."""

    g: Graph

    def slice(self, a: Node, axis: int, start: Any, stop: Any, step: Any) -> Node: ...

    def mul(self, a: Node, c: Node) -> Node: ...

    def add(self, terms: Sequence[Node], type_: Any) -> Node: ...


def entry(s: Rules, a: Node, index: Node, axis: int) -> Node | None:
    """[a; c]_i = a_i or c_{i − len a};  a with v written at i is v there, a elsewhere;  I_{i,j} = 1 or 0."""
    reach = _reach(index)
    if a.op in ("full", "const"):
        return b.full(s.g, a.attrs[0], b.take(s.g, a, index, axis).type) if a.type.rank else None
    if reach is None or a.type.family or a.type.loops:
        return None
    match a.op:
        case "cat" if a.attrs[0] == axis:
            return _in_part(s, a, index, reach)
        case "cat" if a.type.rank == 2:
            taken = [entry(s, p, index, axis) or b.take(s.g, p, index, axis) for p in a.args]
            return joined(s, taken)
        case "put" if len(a.args) == 3:
            there = _reach(a.args[2])
            if there is not None and there[0] == there[1] == reach[0] == reach[1]:
                return a.args[1]
            if _apart(reach, there):
                return entry(s, a.args[0], index, axis) or b.take(s.g, a.args[0], index, axis)
        case "take" if a.args[0].op == "eye":
            there = _reach(a.args[1])
            if there is not None and there[0] == there[1] == reach[0] == reach[1]:
                return s.g.const(1)
            if _apart(reach, there):
                return b.zeros(s.g, b.take(s.g, a, index, axis).type)
        case _:
            pass
    return None


def joined(s: Rules, parts: Sequence[Node]) -> Node:
    """Vectors end to end; one of a single number where all of them are."""
    whole = b.cat(s.g, parts, 1)
    if all(p.op == "full" and p.attrs[0] == parts[0].attrs[0] for p in parts):
        return b.full(s.g, parts[0].attrs[0], whole.type)
    return whole


def part_by_part(s: Rules, op: Literal["mul", "add"], a: Node, c: Node) -> Node | None:
    """[a; d] ⊙ c = [a ⊙ c_{:k}; d ⊙ c_{k:}], and sums, where a part is a number and c has one there too; else None."""
    if not (a.type.rank == c.type.rank == 1 and _in_parts(a) and _in_parts(c)) or a.type != c.type:
        return None
    at: Any = 0
    made: list[Node] = []
    for p in a.args:
        end = lower(at + p.type.item[0])
        other = s.slice(c, -1, at, end, 1)
        if other.op == "slice" and not b.is_zero(p):
            return None
        made.append(s.mul(p, other) if op == "mul" else s.add([p, other], p.type))
        at = end
    return joined(s, made)


def total_of_parts(s: Rules, product: Node) -> Node | None:
    """The sum of the entries of [a; 0; …], where each part is a single number."""
    parts = product.args if product.op == "cat" else (product,)
    if any(p.op != "full" for p in parts):
        return None
    total = sum((sp.sympify(p.attrs[0]) * sp.sympify(p.type.item[0]) for p in parts), sp.Integer(0))
    return s.g.const(lower(total))


def _in_parts(a: Node) -> bool:
    return a.op == "cat" and a.attrs == (1,) and not a.type.loops and any(p.op == "full" for p in a.args)


def _in_part(s: Rules, a: Node, index: Node, reach: tuple[Any, Any]) -> Node | None:
    first, last = reach
    at: Any = 0
    axis = a.attrs[0]
    for k, p in enumerate(a.args):
        end = lower(at + p.type.item[p.type.rank - axis])
        if not _known(sp.sympify(first) - sp.sympify(at)):
            return None
        if k == len(a.args) - 1 or _known(sp.sympify(end) - 1 - sp.sympify(last)):
            moved = _moved(s.g, index, at)
            return entry(s, p, moved, axis) or b.take(s.g, p, moved, axis)
        if not same(first, last) and not _known(sp.sympify(first) - sp.sympify(end)):
            return None
        at = end
    return None


def _known(gap: Any) -> bool:
    """Whether a difference of places is not negative for all sizes."""
    return bool(sp.expand(gap).is_nonnegative)


def _moved(g: Graph, index: Node, by: Any) -> Node:
    """The same place counted from ``by``."""
    if index.op == "const":
        return g.const(lower(sp.sympify(index.value) - by))
    axis, step, first = index.attrs
    return g.node("iota", (), (axis, step, lower(first - by)), index.type)


def _reach(index: Node) -> tuple[Any, Any] | None:
    """The first and the last place that an index takes, counted from the start; None where that is not known."""
    if index.op == "const" and isinstance(index.value, (int, sp.Integer)) and index.value >= 0:
        return index.value, index.value
    if index.op == "iota" and sp.sympify(index.attrs[1]).is_positive and sp.sympify(index.attrs[2]).is_nonnegative:
        axis, step, first = index.attrs
        return first, lower(first + step * (axis.size - 1))
    return None


def _apart(one: tuple[Any, Any], other: tuple[Any, Any] | None) -> bool:
    """Whether two ranges of places have none in common."""
    if other is None:
        return False
    return any(_known(sp.sympify(low) - 1 - sp.sympify(high)) for (_, high), (low, _) in ((one, other), (other, one)))
