"""The tensor of each operator: ``VALUES[op](planner, node)``.

Most are one torch operation with its axes aligned; products and norms ask the planner. An operator that is not here has
its dense meaning from ``kernels/dense.py``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import sympy as sp

from padp.compiler.elaborate.norms import MARK, is_norm
from padp.compiler.ir import build as b
from padp.compiler.ir.nodes import Axis, Node, Type
from padp.compiler.normal.affine import base_product
from padp.compiler.plan.planner import Planner, Value, batch_of, hadamard_factors, low_rank, plain_number
from padp.compiler.plan.rearranging import REARRANGED
from padp.compiler.plan.steps import Low
from padp.compiler.plan.sums import added_up, one_product


def _leaf(p: Planner, node: Node) -> Low:
    learned = node.op == "param" and node.attrs[-1] == "learned"
    stage = {"param": int(learned or p.base_moves), "weight": int(p.base_moves), "bias": int(p.base_moves),
             "input": 2, "knob": 1}[node.op]
    lead = ("T",) if node.op == "input" else ()
    moves = node.op == "input" or learned or (p.base_moves and node.op in ("weight", "bias"))
    return p.make(node.op, (node.attrs[0],), node.type, lead, stage=stage, grad=moves)


def _constant(p: Planner, node: Node) -> Low:
    value = plain_number(node.attrs[0]) if node.attrs else 1
    if node.op == "eye":
        return p.make("eye", (node.type.item[0],), node.type, stage=0)
    return p.make("full", (node.type.shape, value), node.type, stage=0)


def _add(p: Planner, node: Node) -> Low:
    return added_up(p, node, list(node.args))


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
        if found is not None and p.of_tokens(found[0]) and one_product(p, *found)[0] is not found[0]:
            return added_up(p, node, [node])
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
    if node.attrs == MARK:  # a · c⁻¹
        low = p.value(c)
        inverse = p.make("inverse_norm", (low,), c.type, low.lead)
        if a.op == "const":
            return p.number(inverse, a.value)
        over = p.value(a)
        return p.elementwise("mul", Type(node.type.item, *batch_of(over, inverse), row=node.type.row), over, inverse)
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
    if node.attrs[0] == "sqrt" and is_norm(node.args[0]):
        return p.make("root", (low,), node.type, low.lead)
    return p.make(f"f:{node.attrs[0]}", (low,), node.type, low.lead)


def _pow(p: Planner, node: Node) -> Low:
    low = p.value(node.args[0])
    if 0 < node.attrs[0] < 1 and is_norm(node.args[0]):
        return p.make("pow", (p.make("root", (low,), node.type, low.lead), plain_number(2 * node.attrs[0])), node.type,
                      low.lead)
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


def _sumloop(p: Planner, node: Node) -> Low:
    (a,), (axis,) = node.args, node.attrs
    together = joined(p, a, axis)
    if together is not None:
        return p.value(together)
    return sum_axis(p, p.value(a), axis, node.type)


def _svd(p: Planner, node: Node) -> Low:
    """svd(M); of a thin product A B by QR of both factors, where no more triples are wanted than it can have."""
    (matrix,), (wanted,) = node.args, node.attrs
    low = p.value(matrix)
    whole = p.make("k:svd", (low, None if wanted == min(low.type.item) else wanted), node.type, low.lead)
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
    return p.make("k:qr", (low,), node.type, low.lead)


def _out(p: Planner, node: Node) -> Low:
    whole = p.value(node.args[0])
    return p.make("getitem", (whole, node.attrs[0]), node.type, whole.lead)


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
    "sumloop": _sumloop, "svd": _svd, "qr": _qr, "out": _out, "fold": _fold, "detach": _detach, "drop": _drop,
    "put": _put, "maximum": _pairwise, "minimum": _pairwise, **REARRANGED,
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
