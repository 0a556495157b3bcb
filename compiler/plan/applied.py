"""A matrix applied to vectors without being built: ``APPLIED[op](planner, node, v)``, or None when only dense will do.

    diag(d) v = d ⊙ v      blkdiag(F) v = each block on its piece      (A ⊗ B) v = vec(A V Bᵀ)      P v = v[index]
    (I + c u wᵀ)-chains = compact WY      plane rotations = rounds      circulant(c) v by FFT      sparse v by gathers
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from padp.compiler.ir import build as b
from padp.compiler.ir.dims import product
from padp.compiler.ir.nodes import Axis, Node, Type
from padp.compiler.ir.patterns import RankOne, plane_rotation, rank_one_update
from padp.compiler.plan.blocks import JOINED
from padp.compiler.plan.blocks import joined as joined_blocks
from padp.compiler.plan.gathers import taken
from padp.compiler.plan.grids import apply_assemble, apply_kron
from padp.compiler.plan.planner import (
    Application,
    Planner,
    batch_of,
    hadamard_factors,
    plain_factors,
    plain_number,
)
from padp.compiler.plan.rotations import rotations
from padp.compiler.plan.steps import Low
from padp.compiler.plan.sums import side_by_side
from padp.compiler.plan.values import joined, sum_axis


def _apply_weight(p: Planner, m: Node, v: Low) -> Low | None:
    """W x is the base layer's own forward."""
    if p.on_tokens and "T" in v.lead and m is p.weight and not v.type.batch:
        return p.base(v, False)
    return None


def _apply_eye(p: Planner, m: Node, v: Low) -> Low | None:
    """I v = v."""
    return v


def _apply_scale(p: Planner, m: Node, v: Low) -> Low | None:
    """(s A) v = s (A v), the scalar where the vector is shortest."""
    s, a = m.args
    if a.op == "prod":
        return _scaled_applied(p, s, a, v)
    small_in = a.type.item[1] < a.type.item[0]
    if small_in:
        return p.apply(a, times_scalar(p, s, v))
    return times_scalar(p, s, p.apply(a, v))


def _scaled_applied(p: Planner, s: Node, a: Node, v: Low) -> Low:
    lengths = [f.type.item[0] for f in a.args] + [a.type.item[1]]
    at = min(range(len(lengths)), key=lambda k: lengths[k])
    inner = p.chain(tuple(a.args[at:]), v)
    return p.chain(tuple(a.args[:at]), times_scalar(p, s, inner))


def _apply_add(p: Planner, m: Node, v: Low) -> Low | None:
    """(A + B) v = A v + B v, thin products as one, or the sum built when it is a small dense matrix."""
    total = _added(p, m.args, v, None)
    pairs = {} if m.type.batch or v.type.batch or p.of_tokens(m) else {
        id(t): found for t in m.args if not p.keeps_base(t) for found in [plain_factors(p.g, t)] if found is not None}
    if len(pairs) > 1:
        one = side_by_side(p, list(pairs.values()), v)
        others = [t for t in m.args if id(t) not in pairs]
        total = p.either("thin products of the same vectors", [
            ("each on its own", total), ("side by side, as one", _added(p, others, v, one))], v)
    if any(p.keeps_base(t) for t in m.args):
        return total
    ways = [("each term on the vectors", total), ("the sum built, then applied", p.apply_dense(m, v))]
    by_factors = _sum_with_a_product(p, m, v)
    if by_factors is not None:
        ways.append(("the sum built, then applied; gradients of the factors through the vectors", by_factors))
    return p.either("a sum of matrices on vectors", ways, v)


def _added(p: Planner, terms: Sequence[Node], v: Low, last: Low | None) -> Low:
    """Each term on the vectors, added up, and ``last``."""
    total: Low | None = None
    for term in terms:
        sign, inner = (-1, term.args[1]) if term.op == "scale" and term.args[0].op == "const" \
            and term.args[0].value == -1 else (1, term)
        low = p.apply(inner, v)
        if total is None:
            total = p.number(low, sign)
        else:
            total = p.elementwise("add" if sign == 1 else "sub", Type(low.type.item, *batch_of(total, low)), total, low)
    if last is not None:
        total = last if total is None else p.elementwise("add", total.type, total, last)
    assert total is not None
    return total


def _sum_with_a_product(p: Planner, m: Node, v: Low) -> Low | None:
    """(A + c L R) v with the sum built once: backward never makes the sum's own gradient, which is as large."""
    if len(m.args) != 2 or m.type.batch or v.type.batch or "T" not in v.lead or not v.grad:
        return None
    for a, term in (m.args, m.args[::-1]):
        factor: Any = 1
        while term.op == "scale" and term.args[0].op == "const":
            factor, term = factor * term.args[0].value, term.args[1]
        if term.op == "sumloop":
            term = joined(p, term.args[0], term.attrs[0]) or term
        if term.op != "prod" or term.type.batch or p.of_tokens(m):
            continue
        inner = [f.type.item[1] for f in term.args[:-1]]
        cut = 1 + min(range(len(inner)), key=lambda i: inner[i])
        first, left, right = p.value(a), p.dense(term.args[:cut]), p.dense(term.args[cut:])
        if first.grad or not (left.grad or right.grad):
            continue
        still = [p.view("detach", x, (), x.type) if x.grad else x for x in (left, right)]
        built = p.elementwise("add", first.type, first, p.number(p.matmul(*still), factor))
        return p.make("sum_applied", (v, built, first, left, right, plain_number(factor)), Type(m.type.item[:1]),
                      v.lead)
    return None


def _apply_prod(p: Planner, m: Node, v: Low) -> Low | None:
    """(A B) v = A (B v), or neighbours multiplied out first."""
    return p.chain(m.args, v)


def _apply_diag(p: Planner, m: Node, v: Low) -> Low | None:
    """diag(d) v = d ⊙ v."""
    d = p.value(m.args[0])
    return p.elementwise("mul", Type(d.type.item, *batch_of(d, v)), v, d)


def _apply_blkdiag(p: Planner, m: Node, v: Low) -> Low | None:
    """blkdiag(F) v: each block on its own piece of v."""
    f = m.args[0]
    if v.type.family or f.type.loops or v.type.loops:
        return None
    q = f.type.item[1]
    pieces = p.make("reshape_tail", (v, 1, (*f.type.family, q)), Type((q,), f.type.family), v.lead)
    out = p.apply(f, pieces)
    size = product(f.type.family) * f.type.item[0]
    flat = p.make("reshape_tail", (out, len(f.type.family) + 1, (size,)), Type((size,)), out.lead)
    wide = joined_blocks(p, p.value(f), v)
    return flat if wide is None else p.either("many small blocks on vectors", [
        ("block by block", flat), (f"blocks joined to about {JOINED}×{JOINED} first", wide)], v)


def _spectral(p: Planner, m: Node, v: Low, transposed: bool) -> Low | None:
    """Re(iFFT₂(S)) v = Re(iFFT(S iFFT(v))) for a sparse S: transforms of vectors, S never spread out."""
    inner = m.args[0]
    if inner.op != "ifft2" or inner.args[0].op != "scatter" or m.type.batch or v.type.batch or p.of_tokens(m):
        return None
    c, places = inner.args[0].args
    rows, cols = (int(d) for d in m.type.item)
    count, size = int(c.type.item[0]), cols if transposed else rows
    bins = p.make("i:spectral_bins", (p.value(places), rows, cols), Type((3, count), kind="index"))
    weights = p.make("spectral_weights", (p.value(c), bins, rows, cols, transposed), Type((count, 2)))
    made = p.make("spectral_apply", (weights, bins, v, rows, cols, transposed), Type((size,)), v.lead)
    dense = p.rules.t(m) if transposed else m
    return p.either("a matrix of few frequencies on vectors", [
        ("transforms of the vectors", made), ("the matrix built, then applied", p.apply_dense(dense, v))], v)


def _apply_re(p: Planner, m: Node, v: Low) -> Low | None:
    """Re(iFFT₂(S)) v = Re(iFFT(S iFFT(v))): transforms of vectors."""
    return _spectral(p, m, v, False)


def _apply_mul(p: Planner, m: Node, v: Low) -> Low | None:
    """(B₁ A₁ ⊙ B₂ A₂) v through r₁ r₂ numbers, or built."""
    parts = hadamard_factors(p.g, m)
    if parts is None or p.of_tokens(m):
        return None
    return p.either("two low ranks entry by entry, on vectors", [
        ("as one product of rank r₁ r₂", p.chain(parts, v)), ("built, then applied", p.apply_dense(m, v))], v)


def _apply_perm(p: Planner, m: Node, v: Low) -> Low | None:
    """(P v)ᵢ = v at the i-th index."""
    return None if m.args[0].type.loops else taken(p, v, m.args[0])


def _apply_t(p: Planner, m: Node, v: Low) -> Low | None:
    inner = m.args[0]
    if inner.op == "scatter":
        return _scatter_apply(p, inner, v, True)
    if inner.op == "circulant":
        return _circulant_apply(p, inner, v, True)
    if inner.op == "Re":
        return _spectral(p, inner, v, True)
    if inner.type.rank == 1:  # a row
        low = p.value(inner)
        type_ = Type((1,), *batch_of(low, v))
        dot = p.make("dot", (p.aligned(low, type_), p.aligned(v, type_)), Type((), *batch_of(low, v)), p.lead(low, v))
        return p.view("unsqueeze", dot, (-1,), type_)
    return None


def _apply_outer(p: Planner, m: Node, v: Low) -> Low | None:
    """u wᵀ v = u (w · v)."""
    u, w = (p.value(a) for a in m.args)
    type_ = Type((1,), *batch_of(w, v))
    dot = p.make("dot", (p.aligned(w, type_), p.aligned(v, type_)), Type((), *batch_of(w, v)), p.lead(w, v))
    return p.elementwise("mul", Type(u.type.item, *batch_of(u, dot)), dot_item(p, dot), u)


def dot_item(p: Planner, dot: Low) -> Low:
    """A scalar with an item axis of size 1, to meet a vector."""
    return p.view("unsqueeze", dot, (-1,), Type((1,), dot.type.family, dot.type.loops))


def _apply_inv(p: Planner, m: Node, v: Low) -> Low | None:
    """A⁻¹ v = the solution y of A y = v."""
    a = m.args[0]
    if p.of_tokens(a) or (a.type.batch and (v.type.batch != a.type.batch or not v.lead)) \
            or v.type.loops != a.type.loops:
        return None
    matrix = p.value(a)
    return p.make("solve_vectors", (matrix, v, len(a.type.batch)), p.result_type(m, v), v.lead)


def _apply_cat(p: Planner, m: Node, v: Low) -> Low | None:
    """[A; B] v = [A v; B v];  [A, B] v = A v_{:k} + B v_{k:}."""
    if m.type.batch:
        return None
    if m.attrs[0] == 2:
        parts = [p.apply(a, v) for a in m.args]
        full = Type((1,), *batch_of(*parts))
        return p.make("cat", (tuple(p.aligned(x, full) for x in parts), -1), p.result_type(m, v), p.lead(*parts))
    total: Low | None = None
    at = 0
    for a in m.args:
        size = a.type.item[1]
        piece = p.view("narrow", v, (-1, at, size), Type((size,), v.type.family, v.type.loops))
        low = p.apply(a, piece)
        total = low if total is None else p.elementwise("add", low.type, total, low)
        at += size
    return total


def _circulant_apply(p: Planner, m: Node, v: Low, transposed: bool) -> Low | None:
    """circulant(c) v = irfft(rfft(c) ⊙ rfft(v))."""
    if m.type.batch or v.type.batch or "complex" in (m.type.kind, v.type.kind):
        return None
    n = m.type.item[0]
    c = p.value(m.args[0])
    lead = p.lead(c, v)
    return p.make("circulant_apply", (c, v, transposed), Type((n,)), lead)


def _apply_circulant(p: Planner, m: Node, v: Low) -> Low | None:
    """circulant(c) v = irfft(rfft(c) ⊙ rfft(v))."""
    return _circulant_apply(p, m, v, False)


def _scatter_apply(p: Planner, m: Node, v: Low, transposed: bool) -> Low | None:
    """Sparse S v: gather, scale, add up."""
    c, places = m.args
    if m.type.batch or v.type.batch:
        return None
    rows, cols = m.attrs
    count, values = c.type.item[0], p.value(c)
    lead = p.lead(values, v)
    sparse = p.make("sparse_apply", (values, p.value(places), v, cols if transposed else rows, transposed),
                    Type((cols if transposed else rows,)), lead)
    if transposed or count * 8 < rows * cols:
        return sparse
    return None


def _apply_scatter(p: Planner, m: Node, v: Low) -> Low | None:
    """Sparse S v: gather, scale, add up."""
    return _scatter_apply(p, m, v, False)


def _apply_sumloop(p: Planner, m: Node, v: Low) -> Low | None:
    """(Σᵢ Mᵢ) v = Σᵢ (Mᵢ v), joined into one product where the terms are products."""
    (a,), (axis,) = m.args, m.attrs
    if v.type.loops and axis in v.type.loops:
        return None
    together = joined(p, a, axis)
    if together is not None:
        left, right = together.args
        built = p.value(right)
        ways = [("all terms side by side, the right factors built",
                 p.times_vectors(p.value(left), p.times_vectors(built, v))),
                ("the sum built, then applied", p.times_vectors(p.matmul(p.value(left), built), v))]
        inner = p.apply(right.args[0], v)  # (lead, N, r)
        if inner.type.batch == (axis.size,) and inner.type.loops == (axis,):
            flat = p.make("flatten", (inner, -2, -1), Type((right.type.item[0],)), inner.lead)
            ways.append(("all terms side by side, factor after factor", p.times_vectors(p.value(left), flat)))
            each = p.apply(left.args[0], inner)
            ways.append(("term by term, added up", sum_axis(p, each, axis, p.result_type(m, v))))
        return p.either("a sum of products over an index, on vectors", ways, v)
    low = p.apply(a, v)
    return sum_axis(p, low, axis, Type(low.type.item, low.type.family,
                                        tuple(x for x in low.type.loops if x != axis)))


def _apply_fold(p: Planner, m: Node, v: Low) -> Low | None:
    """A chain of reflections or of plane rotations, on vectors: never multiplied out."""
    step, start = m.args
    axis, side = m.attrs
    update, plane = rank_one_update(step), plane_rotation(step)
    if update is None and plane is None:
        raise b.Mismatch("this chain has no structured form", "E302")
    if v.type.batch:
        return None
    if side == "left":  # (H_r … H_1 S) v
        v = p.apply(start, v)
    if update is not None:
        v = _reflections(p, update, axis, v, reverse=side == "right")
    else:
        assert plane is not None
        v = rotations(p, plane, axis, v, reverse=side == "right")
    return p.apply(start, v) if side == "right" else v  # (S H_1 … H_r) v


def _reflections(p: Planner, u: RankOne, axis: Axis, v: Low, reverse: bool) -> Low:
    """Compact WY: H_1 H_2 … H_r = I − A T⁻¹ Bᵀ-like, from r×r products only.

    With Hᵢ = I + cᵢ uᵢ wᵢᵀ, y = H_r … H_1 v (``reverse``: H_1 … H_r v) is v + U s, where s solves a triangular system
    (I − stril(C W Uᵀ)) s = C W v, rows of U and W being uᵢ and wᵢ; ``reverse`` takes the upper triangle.
    """
    rows_u, rows_w = (p.value(b.stack(p.g, x if axis in x.type.loops else b.spread(p.g, x, axis), axis, "item"))
                      for x in (u.u, u.w))
    scalar: Low | None = None
    number: Any = 1
    for s in u.c:
        if s.op == "const":
            number = number * s.value
            continue
        if axis not in s.type.loops:
            s = b.spread(p.g, s, axis)
        low = p.value(b.stack(p.g, s, axis, "item"))
        scalar = low if scalar is None else p.elementwise("mul", low.type, scalar, low)
    r, n = rows_w.type.item
    scaled = rows_w
    if scalar is not None:
        column = p.view("unsqueeze", p.number(scalar, number), (-1,), Type((r, 1)))
        scaled = p.elementwise("mul", Type((r, n)), rows_w, column)
    elif number != 1:
        scaled = p.number(rows_w, number)
    gram = p.make("matmul", (scaled, p.view("mT", rows_u, (), Type((n, r)))), Type((r, r)))
    middle = p.make("wy", (gram, scaled, reverse), Type((r, n)))
    s_low = p.make("linear", (v, middle), Type((r,)), v.lead)
    flipped = p.view("mT", rows_u, (), Type((n, r)))
    change = p.make("linear", (s_low, flipped), Type((n,)), v.lead)
    return p.elementwise("add", Type((n,)), v, change)


APPLIED: Mapping[str, Application] = {
    "weight": _apply_weight, "eye": _apply_eye, "scale": _apply_scale, "add": _apply_add, "prod": _apply_prod,
    "diag": _apply_diag, "blkdiag": _apply_blkdiag, "perm": _apply_perm, "t": _apply_t, "outer": _apply_outer,
    "inv": _apply_inv, "cat": _apply_cat, "kron": apply_kron, "circulant": _apply_circulant,
    "scatter": _apply_scatter, "sumloop": _apply_sumloop, "fold": _apply_fold, "Re": _apply_re,
    "mul": _apply_mul, "assemble": apply_assemble,
}


def times_scalar(p: Planner, s: Node, v: Low) -> Low:
    if s.op == "const":
        return p.number(v, s.value)
    scalar = p.value(s)
    return p.elementwise("mul", Type(v.type.item, *batch_of(scalar, v)), v, scalar)
