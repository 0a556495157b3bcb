"""A vector put together from parts that mix entries of one other vector: one pass for all parts.

    y[P₁] = c₁₁ ⊙ v[P₁] + c₁₂ ⊙ v[P₂]
    y[P₂] = c₂₁ ⊙ v[P₁] + c₂₂ ⊙ v[P₂]    as    y = C ⊙ v + S ⊙ v[partner]

C and S are put together once a step, from coefficients alone. Part by part is views of v and a stack; for many tokens
that moves less, for one token it is more operations.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from padp.compiler.ir.nodes import Node, Type
from padp.compiler.operators.index_sets import Numbers
from padp.compiler.plan.gathers import at_numbers
from padp.compiler.plan.planner import Planner
from padp.compiler.plan.rotations import stacked
from padp.compiler.plan.steps import Low


@dataclass(frozen=True)
class _Term:
    """coefficient · v[index] in each step of a loop; None is 1."""

    coefficient: Node | None
    taken: Node
    index: Numbers


def in_one_pass(p: Planner, parts: Sequence[Node], order: Numbers, together: Callable[[tuple[Node, ...]], Node]
                ) -> tuple[Low, Low] | None:
    """[part₁; part₂; …][order] in one pass, and v; None where the parts are nothing of the kind.

    ``together`` puts other parts together in that order.
    """
    if any(x.op != "stack" or x.type.rank != 1 or x.type.family or x.type.loops for x in parts):
        return None
    found = [_terms(p, x.args[0]) for x in parts]
    known = [terms for terms in found if terms]
    if len(known) != len(parts) or len({len(terms) for terms in known}) != 1:
        return None
    v = known[0][0].taken.args[0]
    n = len(order)
    if any(t.taken.args[0] is not v for terms in known for t in terms) or v.type != Type((n,)) \
            or not np.array_equal(np.sort(order), np.arange(n)):
        return None
    place = np.split(np.argsort(order), np.cumsum([len(terms[0].index) for terms in known])[:-1])
    rows = [[t for stays in (True, False) for t in terms if np.array_equal(t.index, at) == stays]
            for terms, at in zip(known, place, strict=True)]  # what stays comes first
    low = p.value(v)
    type_, total = Type((n,)), None
    for k in range(len(rows[0])):
        column = [terms[k] for terms in rows]
        moved = at_numbers(p, low, np.concatenate([t.index for t in column])[order])
        c = p.value(together(tuple(stacked(p, t.coefficient, x.attrs[0], 1)
                                   for t, x in zip(column, parts, strict=True))))
        total = p.make("mul", (moved, c), type_, low.lead) if total is None else \
            p.make("addcmul", (total, moved, c), type_, low.lead)
    assert total is not None
    return total, low


def _terms(p: Planner, e: Node) -> list[_Term] | None:
    """e as a sum of coefficients times entries of a vector of each token."""
    if e.op == "take" and p.of_tokens(e) and e.attrs[0] == 1:
        index = _index(p, e.args[1])
        return None if index is None else [_Term(None, e, index)]
    if e.op == "add":
        parts = [_terms(p, a) for a in e.args]
        known = [t for t in parts if t is not None]
        return [t for terms in known for t in terms] if len(known) == len(parts) else None
    if e.op not in ("mul", "scale") or len(e.args) != 2:
        return None
    first, second = e.args
    if p.of_tokens(first):
        first, second = second, first
    terms = _terms(p, second)
    if terms is None or p.of_tokens(first) or first.type.rank:
        return None
    times = p.rules.scale if e.op == "scale" else p.rules.mul
    return [_Term(first if t.coefficient is None else times(first, t.coefficient), t.taken, t.index) for t in terms]


def _index(p: Planner, node: Node) -> Numbers | None:
    """What an index is in the steps of its loop."""
    if node.op == "iota":
        axis, step, first = node.attrs
        return np.arange(first, first + step * axis.size, step)
    return p.known_index(node)
