"""A sum of terms on vectors: the base layer's product first, the others with as few products as can be.

    A₁ B₁ v + A₂ B₂ v = [A₁ A₂] [B₁; B₂] v    for thin products        A v + B v = (A + B) v    for matrices made anew
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from padp.compiler.ir import build as b
from padp.compiler.ir.nodes import Node, Type
from padp.compiler.normal.affine import base_product
from padp.compiler.plan.planner import Planner, batch_of, plain_factors, structured
from padp.compiler.plan.steps import Low


def added_up(p: Planner, node: Node, terms: list[Node]) -> Low:
    """A sum, of vectors with the base layer's product first."""
    made: Low | None = None
    if node.type.rank == 1 and p.on_tokens:
        made, terms = _base_first(p, terms)
        sums, terms = _thin_products(p, terms)
        more, terms = _matrices_first(p, terms)
        for low in (*sums, *more):
            made = low if made is None else p.elementwise(
                "add", Type(node.type.item, *batch_of(made, low)), made, low)
    for term in terms:
        sign, inner = (-1, term.args[1]) if term.op == "scale" and term.args[0].op == "const" \
            and term.args[0].value == -1 else (1, term)
        low = p.value(inner)
        if made is None:
            made = p.number(low, sign)
            continue
        if made.type.item != low.type.item and low.type.rank == 0:
            raise AssertionError("a scalar met a tensor in a sum")
        type_ = Type(node.type.item, *batch_of(made, low), row=node.type.row)
        made = p.elementwise("add" if sign == 1 else "sub", type_, made, low)
    assert made is not None
    return made


def _base_first(p: Planner, terms: list[Node]) -> tuple[Low | None, list[Node]]:
    """W v + bias is the base layer's own forward."""
    bias = [t for t in terms if t.op == "bias"]
    for k, term in enumerate(terms):
        found = base_product(p.rules, term, p.weight)
        if found is None or not p.of_tokens(found[0]):
            continue
        vector, rest = one_product(p, *found)
        if not bias and vector is found[0]:
            continue
        rest_terms = [t for j, t in enumerate(terms) if j != k and t not in bias]
        return p.base(p.value(vector), bool(bias)), [*rest, *rest_terms]
    return None, terms


def one_product(p: Planner, vector: Node, terms: list[Node]) -> tuple[Node, list[Node]]:
    """W u + W N v + … = W (u + N v) + …: the base layer is called once."""
    inside, outside = [vector], list[Node]()
    for term in terms:
        again = term.op == "prod" and term.args[0] is p.weight and term.type.rank == 1
        (inside if again else outside).append(p.rules.prod(term.args[1:]) if again else term)
    return vector if len(inside) == 1 else p.rules.add(inside, vector.type), outside


def _thin_products(p: Planner, terms: list[Node]) -> tuple[list[Low], list[Node]]:
    """L₁ R₁ v + L₂ R₂ v = [L₁, L₂] [R₁; R₂] v: thin products of the same vectors as one, and the other terms."""
    groups: dict[int, list[tuple[Node, Node, Node]]] = {}
    for term in terms:
        scalars, core = _unscaled(term)
        if core.op != "prod" or len(core.args) < 3 or not p.of_tokens(core.args[-1]) \
                or p.of_tokens(*scalars, *core.args[:-1]):
            continue
        matrix = b.prod(p.g, *core.args[:-1])
        for s in scalars:
            matrix = b.scale(p.g, s, matrix)
        parts = None if any(p.keeps_base(f) for f in core.args[:-1]) else plain_factors(p.g, matrix)
        if parts is not None:
            groups.setdefault(id(core.args[-1]), []).append((term, *parts))
    sums: list[Low] = []
    joined_terms: set[int] = set()
    for group in groups.values():
        if len(group) < 2:
            continue
        v = p.value(_vector_of(group[0][0]))
        one = side_by_side(p, [(x[1], x[2]) for x in group], v)
        lows = [p.value(x[0]) for x in group]
        each = lows[0]
        for low in lows[1:]:
            each = p.elementwise("add", Type(each.type.item, *batch_of(each, low)), each, low)
        sums.append(p.either("thin products of the same vectors",
                             [("each on its own", each), ("side by side, as one", one)], v))
        joined_terms |= {id(x[0]) for x in group}
    return sums, [t for t in terms if id(t) not in joined_terms]


def _matrices_first(p: Planner, terms: list[Node]) -> tuple[list[Low], list[Node]]:
    """A v + B v = (A + B) v for small dense matrices: one product with the vectors, and the other terms."""
    groups: dict[tuple[int, Any], list[tuple[Node, Node]]] = {}
    for term in terms:
        scalars, core = _unscaled(term)
        if core.op != "prod" or len(core.args) != 2 or not p.of_tokens(core.args[1]) or core.type.batch \
                or p.of_tokens(*scalars, core.args[0]) or p.keeps_base(core.args[0]) or structured(core.args[0]):
            continue
        matrix = core.args[0]
        for s in scalars:
            matrix = p.rules.scale(s, matrix)
        groups.setdefault((id(core.args[1]), matrix.type.item), []).append((term, matrix))
    sums: list[Low] = []
    done: set[int] = set()
    for group in (g for g in groups.values() if len(g) > 1):
        v = p.value(_vector_of(group[0][0]))
        one = p.times_vectors(p.value(p.rules.add([m for _, m in group], group[0][1].type)), v)
        each = p.value(group[0][0])
        for term, _ in group[1:]:
            each = p.elementwise("add", Type(each.type.item, *batch_of(each, p.value(term))), each, p.value(term))
        sums.append(p.either("matrices on the same vectors", [("each on its own", each), ("added up first", one)], v))
        done |= {id(term) for term, _ in group}
    return sums, [t for t in terms if id(t) not in done]


def side_by_side(p: Planner, pairs: Sequence[tuple[Node, Node]], v: Low) -> Low:
    """Σᵢ Lᵢ Rᵢ v = [L₁, L₂, …] [R₁; R₂; …] v."""
    left, right = b.cat(p.g, [x for x, _ in pairs], 1), b.cat(p.g, [y for _, y in pairs], 2)
    return p.times_vectors(p.value(left), p.times_vectors(p.value(right), v))


def _unscaled(term: Node) -> tuple[list[Node], Node]:
    """The scalars before a term, and the term without them."""
    scalars: list[Node] = []
    while term.op == "scale":
        scalars.append(term.args[0])
        term = term.args[1]
    return scalars, term


def _vector_of(term: Node) -> Node:
    return _unscaled(term)[1].args[-1]
