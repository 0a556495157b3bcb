"""The tensor of each operator: ``VALUES[op](planner, node)``.

Most are one torch operation with its axes aligned; products and norms ask the planner. An operator that is not here has
its dense meaning from ``kernels.py``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import numpy as np
import sympy as sp

from padp.compiler import build as b
from padp.compiler.indices import Numbers
from padp.compiler.ir import Axis, Node, Type
from padp.compiler.linear import base_product
from padp.compiler.low import Low
from padp.compiler.pairing import in_one_pass
from padp.compiler.planner import (
    Planner,
    Value,
    batch_of,
    hadamard_factors,
    low_rank,
    plain_factors,
    plain_number,
    structured,
)
from padp.compiler.taking import put_together, taken


def _leaf(p: Planner, node: Node) -> Low:
    stage = {"param": 1 if node.op == "param" and node.attrs[-1] == "learned" else 0, "weight": 0, "bias": 0,
             "input": 2, "knob": 1}[node.op]
    lead = ("T",) if node.op == "input" else ()
    moves = node.op == "input" or (node.op == "param" and stage == 1)
    return p.make(node.op, (node.attrs[0],), node.type, lead, stage=stage, grad=moves)


def _constant(p: Planner, node: Node) -> Low:
    value = plain_number(node.attrs[0]) if node.attrs else 1
    if node.op == "eye":
        return p.make("eye", (node.type.item[0],), node.type, stage=0)
    return p.make("full", (node.type.shape, value), node.type, stage=0)


def _add(p: Planner, node: Node) -> Low:
    return _total(p, node, list(node.args))


def _total(p: Planner, node: Node, terms: list[Node]) -> Low:
    """A sum, of vectors with the base layer's product first."""
    total: Low | None = None
    if node.type.rank == 1 and p.on_tokens:
        total, terms = _base_first(p, terms)
        sums, terms = _thin_products(p, terms)
        more, terms = _matrices_first(p, terms)
        for low in (*sums, *more):
            total = low if total is None else p.elementwise(
                "add", Type(node.type.item, *batch_of(total, low)), total, low)
    for term in terms:
        sign, inner = (-1, term.args[1]) if term.op == "scale" and term.args[0].op == "const" \
            and term.args[0].value == -1 else (1, term)
        low = p.value(inner)
        if total is None:
            total = p.number(low, sign)
            continue
        if total.type.item != low.type.item and low.type.rank == 0:
            raise AssertionError("a scalar met a tensor in a sum")
        type_ = Type(node.type.item, *batch_of(total, low), row=node.type.row)
        total = p.elementwise("add" if sign == 1 else "sub", type_, total, low)
    assert total is not None
    return total


def _base_first(p: Planner, terms: list[Node]) -> tuple[Low | None, list[Node]]:
    """W v + bias is the base layer's own forward."""
    bias = [t for t in terms if t.op == "bias"]
    for k, term in enumerate(terms):
        found = base_product(p.rules, term, p.weight)
        if found is None or not p.of_tokens(found[0]):
            continue
        vector, rest = _one_product(p, *found)
        if not bias and vector is found[0]:
            continue
        rest_terms = [t for j, t in enumerate(terms) if j != k and t not in bias]
        return p.base(p.value(vector), bool(bias)), [*rest, *rest_terms]
    return None, terms


def _one_product(p: Planner, vector: Node, terms: list[Node]) -> tuple[Node, list[Node]]:
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


def _scale(p: Planner, node: Node) -> Low:
    s, a = node.args
    if a.op == "prod" and a.type.rank == 1:
        return _scaled_chain(p, s, a)
    if a.op == "prod" and s.op == "const" and a.type.rank == 2 and not a.type.batch:
        pair = low_rank(p.g, a)
        if pair is not None:  # the number goes onto the smaller side
            left, right = pair
            factors = (b.scale(p.g, s, left), right) if left.type.item[0] <= right.type.item[1] else \
                (left, b.scale(p.g, s, right))
            return p.matmul(p.value(factors[0]), p.value(factors[1]))
    low = p.value(a)
    if s.op == "const":
        return p.number(low, s.value)
    scalar = p.value(s)
    type_ = Type(node.type.item, *batch_of(scalar, low), row=node.type.row)
    return p.elementwise("mul", type_, low, scalar)


def _scaled_chain(p: Planner, s: Node, a: Node) -> Low:
    """s F₁ … F_k v: the scalar is applied where the vector is shortest."""
    factors, v = a.args[:-1], p.value(a.args[-1])
    lengths = [f.type.item[0] for f in factors] + [a.args[-1].type.item[0]]
    at = min(range(len(lengths)), key=lambda k: lengths[k])
    inner = p.chain(tuple(factors[at:]), v)
    if s.op == "const":
        scaled = p.number(inner, s.value)
    else:
        scalar = p.value(s)
        scaled = p.elementwise("mul", Type(inner.type.item, *batch_of(scalar, inner)), inner, scalar)
    return p.chain(tuple(factors[:at]), scaled)


def _prod(p: Planner, node: Node) -> Low:
    if node.type.rank == 1:
        found = base_product(p.rules, node, p.weight) if p.on_tokens else None
        if found is not None and p.of_tokens(found[0]) and _one_product(p, *found)[0] is not found[0]:
            return _total(p, node, [node])
        return p.chain(node.args[:-1], p.value(node.args[-1]))
    return p.dense(node.args)


def _t(p: Planner, node: Node) -> Low:
    low = p.value(node.args[0])
    if node.args[0].type.rank == 1:
        return p.view("unsqueeze", low, (-2,), node.type)
    return p.view("mT", low, (), node.type)


def _elementwise(prim: str) -> Callable[[Planner, Node], Low]:
    def value(p: Planner, node: Node) -> Low:
        lows = [p.value(a) for a in node.args]
        return p.elementwise(prim, Type(node.type.item, *batch_of(*lows), row=node.type.row), *lows)

    return value


def _mul(p: Planner, node: Node) -> Low:
    """Entry by entry; of two low ranks also as one product of both ranks' product."""
    plain = _elementwise("mul")(p, node)
    if p.of_tokens(node):
        return _scaled_sum(p, node, plain)
    parts = hadamard_factors(p.g, node)
    if parts is None:
        return plain
    return p.either("two low ranks entry by entry", [("both built, then multiplied", plain),
                                                     ("as one product of rank r₁ r₂", p.dense(parts))])


def _scaled_sum(p: Planner, node: Node, plain: Low) -> Low:
    """s ⊙ (a ⊙ u + b ⊙ v) = (s ⊙ a) ⊙ u + (s ⊙ b) ⊙ v: scales that no token has meet first, once a step."""
    for s, total in (node.args, node.args[::-1]):
        if total.op != "add" or p.of_tokens(s) or not p.of_tokens(total):
            continue
        terms = [_scaled_through(p, s, term) for term in total.args]
        known = [t for t in terms if t is not None]
        if len(known) == len(terms):
            return p.either("a scaled sum of scaled vectors", [
                ("scales multiplied together first", p.value(b.add(p.g, *known))), ("the sum, then its scale", plain)])
    return plain


def _scaled_through(p: Planner, s: Node, term: Node) -> Node | None:
    """s ⊙ (c · a ⊙ u) as c · (s ⊙ a) ⊙ u, where only u depends on tokens."""
    if term.op == "scale" and term.args[0].op == "const":
        inner = _scaled_through(p, s, term.args[1])
        return None if inner is None else b.scale(p.g, term.args[0], inner)
    if term.op != "mul":
        return None
    for a, u in (term.args, term.args[::-1]):
        if not p.of_tokens(a) and p.of_tokens(u):
            return b.mul(p.g, b.mul(p.g, s, a), u)
    return None


def _div(p: Planner, node: Node) -> Low:
    a, c = node.args
    if a.op == "const":
        low = p.value(c)
        if a.value == 1:
            return p.make("reciprocal", (low,), node.type, low.lead)
        return p.make("rdiv", (plain_number(a.value), low), node.type, low.lead)
    if c.op == "const":
        return p.number(p.value(a), 1 / sp.sympify(c.value))
    return _elementwise("div")(p, node)


def _point(p: Planner, node: Node) -> Low:
    low = p.value(node.args[0])
    inner = node.args[0].args[1] if node.args[0].op == "scale" else node.args[0]
    if node.attrs[0] == "sqrt" and inner.op == "sumsq":
        return p.make("root", (low,), node.type, low.lead)
    return p.make(f"f:{node.attrs[0]}", (low,), node.type, low.lead)


def _pow(p: Planner, node: Node) -> Low:
    low = p.value(node.args[0])
    return p.make("pow", (low, plain_number(node.attrs[0])), node.type, low.lead)


def _outer(p: Planner, node: Node) -> Low:
    u, v = (p.value(a) for a in node.args)
    column = p.view("unsqueeze", u, (-1,), Type((u.type.item[0], 1), u.type.family, u.type.loops))
    row = p.view("unsqueeze", v, (-2,), Type((1, v.type.item[0]), v.type.family, v.type.loops))
    return p.elementwise("mul", node.type, column, row)


def _dot(p: Planner, node: Node) -> Low:
    u, v = (p.value(a) for a in node.args)
    type_ = Type((1,), *batch_of(u, v))
    return p.make("dot", (p.aligned(u, type_), p.aligned(v, type_)), node.type, p.lead(u, v))


def _inv(p: Planner, node: Node) -> Low:
    low = p.value(node.args[0])
    return p.make("k:inverse", (low,), node.type, low.lead)


def _sumsq(p: Planner, node: Node) -> Low:
    (a,) = node.args
    if a.type.rank == 2 and not a.type.row:
        return p.norms(a, node.attrs[0])
    low = p.value(a)
    return p.make("sumsq", (low, "all", a.type.rank), node.type, low.lead)


def _reduce(p: Planner, node: Node) -> Low:
    (a,) = node.args
    function, axis = node.attrs
    low = p.value(a)
    dims = {"row": (-1,), "col": (-2,), "all": tuple(range(-a.type.rank, 0))}[axis]
    return p.make({"sum": "sum", "mean": "mean", "max": "amax", "min": "amin"}[function], (low, dims), node.type,
                  low.lead)


def _slice(p: Planner, node: Node) -> Low:
    low = p.value(node.args[0])
    axis, start, stop, step = node.attrs
    if step == 1:
        return p.view("narrow", low, (axis, start, stop - start), node.type)
    return p.view("slice_step", low, (axis, start, stop, step), node.type)


def _take(p: Planner, node: Node) -> Low:
    a, index = node.args
    low, back = p.value(a), node.attrs[0]
    if index.op == "const":
        return p.view("select", low, (-back, index.value), node.type)
    if index.type.rank == 0 and len(index.type.loops) == 1 and index.type.loops[0] in low.type.loops:
        return _take_along(p, low, back, p.value(index), node)
    if index.op == "iota":
        axis, step, first = index.attrs
        return _loop_from_axis(p, low, back, axis, step, first, node)
    last = back == 1 and a.type.rank == 1
    if index.type.rank == 1 and not index.type.loops:
        if last and a.op == "cat" and a.attrs[0] == 1:
            whole = put_together(p, [p.value(x) for x in a.args], index)
            if whole is not None:
                order = cast(Numbers, p.known_index(index))
                size = Type((len(order),))
                return _or_in_one_pass(p, whole, a.args, order, lambda parts: b.take(
                    p.g, p.g.node("cat", parts, (1,), size), index, 1))
        if last:
            return taken(p, low, index)
        return p.make("index_select", (low, -back, p.value(index)), node.type, low.lead)
    if index.type.rank == 0 and len(index.type.loops) == 1:
        type_ = _resized(low.type, back, index.type.loops[0].size)
        gathered = taken(p, low, index) if last else \
            p.make("index_select", (low, -back, p.value(index)), type_, low.lead)
        return _move_to_loops(p, gathered, back, node)
    raise b.Mismatch("an index that depends on two loops at once", "E302")


def _resized(t: Type, back: int, size: int) -> Type:
    """A type with another length of the axis ``back`` from the end."""
    axes = list(t.family + t.item)
    axes[len(axes) - back] = size
    return Type(tuple(axes[len(t.family):]), tuple(axes[:len(t.family)]), t.loops, kind=t.kind)


def _take_along(p: Planner, low: Low, back: int, where: Low, node: Node) -> Low:
    """a_{i,j} where a_i has the loop's axis already: in each step the entry that its own index names."""
    (axis,) = where.type.loops
    loop = len(low.type.loops) - low.type.loops.index(axis) + len(low.type.family) + low.type.rank
    return p.make("take_along", (low, where, -loop, -back), node.type, low.lead)


def _loop_from_axis(p: Planner, low: Low, back: int, axis: Axis, step: int, first: int, node: Node) -> Low:
    size = (low.type.family + low.type.item)[len(low.type.family) + low.type.rank - back]
    if step == 1:
        if first != 0 or size != axis.size:
            low = p.view("narrow", low, (-back, first, axis.size), low.type)
    elif step > 0:
        low = p.view("slice_step", low, (-back, first, first + step * (axis.size - 1) + 1, step), low.type)
    else:
        raise b.Mismatch("an index that runs backwards", "E302")
    return _move_to_loops(p, low, back, node)


def _move_to_loops(p: Planner, low: Low, back: int, node: Node) -> Low:
    """The axis ``back`` from the end becomes the newest loop axis of ``node``."""
    loops = node.type.loops
    new = next(k for k, a in enumerate(loops) if a not in low.type.loops)
    after = (len(loops) - 1 - new) + len(node.type.family) + node.type.rank
    if back == after + 1:
        return p.view("as_is", low, (), node.type)
    return p.view("movedim", low, (-back, -(after + 1)), node.type)


def _cat(p: Planner, node: Node) -> Low:
    lows = [p.value(a) for a in node.args]
    full = Type((1,) * node.type.rank, node.type.family, node.type.loops)
    return p.make("cat", (tuple(p.aligned(x, full) for x in lows), -node.attrs[0]), node.type, p.lead(*lows))


def _interleave(p: Planner, node: Node) -> Low:
    lows = [p.value(a) for a in node.args]
    full = Type((1,) * node.type.rank, node.type.family, node.type.loops)
    made = p.make("interleave", (tuple(p.aligned(x, full) for x in lows), node.attrs[0]), node.type, p.lead(*lows))
    if node.type.rank != 1 or node.type.batch:
        return made
    order = np.arange(int(node.type.item[0])).reshape(len(lows), -1).T.reshape(-1)
    return _or_in_one_pass(p, made, node.args, order,
                           lambda parts: p.g.node("interleave", parts, node.attrs, node.type))


def _or_in_one_pass(p: Planner, whole: Low, parts: Sequence[Node], order: Numbers,
                    together: Callable[[tuple[Node, ...]], Node]) -> Low:
    """A vector put together from parts, or made in one pass where they mix one vector's entries."""
    at_once = in_one_pass(p, parts, order, together) if "T" in whole.lead else None
    return whole if at_once is None else p.either("a vector from parts", [
        ("part by part", whole), ("all parts in one pass", at_once[0])], at_once[1])


def _stack(p: Planner, node: Node) -> Low:
    low = p.value(node.args[0])
    axis, place = node.attrs
    where = low.type.loops.index(axis)
    back = len(low.type.loops) - where + len(low.type.family) + low.type.rank
    target = {"item": node.type.rank, "columns": 1, "family": node.type.rank + len(node.type.family)}[place]
    if back == target:
        return p.view("as_is", low, (), node.type)
    return p.view("movedim", low, (-back, -target), node.type)


def _spread(p: Planner, node: Node) -> Low:
    low = p.value(node.args[0])
    aligned = p.aligned(low, node.type)
    return p.view("expand", aligned, (node.type.shape,), node.type)


def _expand(p: Planner, node: Node) -> Low:
    low = p.aligned(p.value(node.args[0]), node.type)
    return p.view("expand", low, (node.type.shape,), node.type)


def _sumloop(p: Planner, node: Node) -> Low:
    (a,), (axis,) = node.args, node.attrs
    together = joined(p, a, axis)
    if together is not None:
        return p.value(together)
    return sum_axis(p, p.value(a), axis, node.type)


def _join(p: Planner, node: Node) -> Low:
    low = p.value(node.args[0])
    if node.attrs[1] == "columns":  # (N, p, r) → p × N r
        moved = p.view("movedim", low, (-3, -2), Type((low.type.item[0], node.attrs[0].size, low.type.item[1])))
        return p.make("flatten", (moved, -2, -1), node.type, low.lead)
    start = -2 if low.type.rank == 1 else -3
    return p.make("flatten", (low, start, start + 1), node.type, low.lead)


def _blkdiag(p: Planner, node: Node) -> Low:
    f = node.args[0]
    low = p.value(f)
    return p.make("k:blkdiag", (low, len(f.type.family)), node.type, low.lead)


def _reshape(p: Planner, node: Node) -> Low:
    low = p.value(node.args[0])
    axes = len(node.args[0].type.family) + node.args[0].type.rank
    if axes == 0:
        return p.view("unsqueeze", low, (-1,), node.type)
    dims = node.type.family + node.type.item
    return p.make("reshape_tail", (low, axes, dims), node.type, low.lead)


def _as_is(p: Planner, node: Node) -> Low:
    return p.view("as_is", p.value(node.args[0]), (), node.type)


def _unsqueeze(*axes: int) -> Callable[[Planner, Node], Low]:
    def value(p: Planner, node: Node) -> Low:
        low = p.value(node.args[0])
        for a in axes:
            low = p.view("unsqueeze", low, (a,), node.type)
        return low

    return value


def _svd(p: Planner, node: Node) -> Low:
    """svd(M); of a thin product A B by QR of both factors, where no more triples are wanted than it can have."""
    (matrix,), (wanted,) = node.args, node.attrs
    low = p.value(matrix)
    whole = p.make("k:svd", (low, None if wanted == min(low.type.item) else wanted), node.type)
    parts = _thin_factors(p, matrix)
    if parts is None or wanted > parts[0].type.item[1] or low.lead:
        return whole
    family, loops = matrix.type.family, matrix.type.loops
    sides = tuple(p.aligned(p.value(x), Type((1, 1), family, loops)) for x in parts)
    made = p.make("svd_of_product", (*sides, wanted), node.type)
    return p.either("singular values of a thin product", [("QR of both factors, then a small decomposition", made),
                                                          ("the product built, then decomposed", whole)])


def _thin_factors(p: Planner, matrix: Node) -> tuple[Node, Node] | None:
    """A, B with matrix = A B through the smallest inner dimension, below both outer ones; scalars go with A."""
    scalars: list[Node] = []
    while matrix.op == "scale":
        scalars.append(matrix.args[0])
        matrix = matrix.args[1]
    if matrix.op != "prod" or matrix.type.rank != 2 or matrix.type.kind == "complex":
        return None
    inner = [f.type.item[1] for f in matrix.args[:-1]]
    cut = min(range(len(inner)), key=lambda k: inner[k])
    if inner[cut] >= min(matrix.type.item):
        return None
    left = b.prod(p.g, *matrix.args[:cut + 1])
    for s in scalars:
        left = b.scale(p.g, s, left)
    return left, b.prod(p.g, *matrix.args[cut + 1:])


def _qr(p: Planner, node: Node) -> Low:
    low = p.value(node.args[0])
    return p.make("k:qr", (low,), node.type)


def _out(p: Planner, node: Node) -> Low:
    return p.make("getitem", (p.value(node.args[0]), node.attrs[0]), node.type)


def _index(p: Planner, node: Node) -> Low:
    """Index sets and index vectors: made once, at attach."""
    args = [p.value(a) for a in node.args]
    return p.make(f"i:{node.op}", (*args, *(plain_number(a) for a in node.attrs)), node.type, stage=0)


def _iota(p: Planner, node: Node) -> Low:
    axis, step, first = node.attrs
    return p.make("i:iota", (axis.size, step, first), node.type, stage=0)


def _column(p: Planner, node: Node) -> Low:
    low = p.value(node.args[0])
    if node.args[0].type.rank == 1:
        return p.view("as_is", low, (), node.type)
    return p.make("select", (low, -1, node.attrs[1]), node.type)


def _fold(p: Planner, node: Node) -> Low:
    """The chain as a matrix: applied to the columns of the identity."""
    size = node.type.item[1]
    identity = p.value(b.eye(p.g, size))
    out = p.apply(node, p.as_rows(identity))
    return p.view("mT", p.from_rows(out), (), node.type)


def _detach(p: Planner, node: Node) -> Low:
    low = p.value(node.args[0])
    return p.make("detach", (low,), node.type, low.lead)


def _drop(p: Planner, node: Node) -> Low:
    low = p.value(node.args[0])
    return p.make("dropout", (low, float(node.attrs[0])), node.type, low.lead, stage=2)


def _pairwise(p: Planner, node: Node) -> Low:
    lows = [p.value(a) for a in node.args]
    return p.elementwise(f"k:{node.op}", node.type, *lows)


def _put(p: Planner, node: Node) -> Low:
    base, value, *places = (p.value(a) for a in node.args)
    full = node.type
    scalar = Type((), full.family, full.loops)
    args = [p.aligned(base, full), p.aligned(value, scalar), *(p.aligned(x, scalar) for x in places)]
    return p.make("put", (tuple(args), full.rank), full, p.lead(base, value))


VALUES: Mapping[str, Value] = {
    "param": _leaf, "weight": _leaf, "bias": _leaf, "input": _leaf, "knob": _leaf,
    "const": _constant, "full": _constant, "eye": _constant,
    "add": _add, "scale": _scale, "prod": _prod, "t": _t, "mul": _mul, "div": _div, "point": _point,
    "pow": _pow, "outer": _outer, "dot": _dot, "inv": _inv, "sumsq": _sumsq, "reduce": _reduce,
    "slice": _slice, "take": _take, "cat": _cat, "interleave": _interleave, "stack": _stack, "spread": _spread,
    "expand": _expand, "sumloop": _sumloop, "join": _join, "blkdiag": _blkdiag, "reshape": _reshape, "view": _as_is,
    "column_of": _unsqueeze(-1), "entry": _unsqueeze(-1, -1), "svd": _svd, "qr": _qr, "out": _out,
    "iota": _iota, "column": _column, "fold": _fold, "detach": _detach, "drop": _drop, "put": _put,
    "maximum": _pairwise, "minimum": _pairwise,
    **dict.fromkeys(("tree", "band", "sample", "pairs", "halves", "neighbours", "arange", "butterfly", "largest",
                     "argtop", "inverse_index"), _index),
}


# ---------------------------------------------------------------- sums over loops


def sum_axis(p: Planner, low: Low, axis: Axis, type_: Type) -> Low:
    back = len(low.type.loops) - low.type.loops.index(axis) + len(low.type.family) + low.type.rank
    return p.make("sum", (low, (-back,)), type_, low.lead)


def joined(p: Planner, a: Node, axis: Axis) -> Node | None:
    """Σᵢ Aᵢ Bᵢ = [A₁ … A_N] [B₁; …; B_N] for matrices: one product instead of N and their sum."""
    scalars: list[Node] = []
    while a.op == "scale":
        scalars.append(a.args[0])
        a = a.args[1]
    if a.op != "prod" or a.type.loops != (axis,) or a.type.family:
        return None
    widths = [f.type.item[1] for f in a.args[:-1]]
    cut = min(range(len(widths)), key=lambda k: widths[k]) + 1
    first, inner = p.rules.prod(a.args[:cut]), p.rules.prod(a.args[cut:])
    for s in scalars:
        inner = p.rules.scale(s, inner)
    if axis not in first.type.loops:
        first = b.spread(p.g, first, axis)
    if axis not in inner.type.loops:
        inner = b.spread(p.g, inner, axis)
    r = first.type.item[1]
    left = p.g.node("join", (first,), (axis, "columns"), Type((first.type.item[0], axis.size * r)))
    right = p.g.node("join", (inner,), (axis, "rows"), Type((axis.size * r, *inner.type.item[1:])))
    return b.prod(p.g, left, right)
