"""Neighbouring operations that one call does: fewer passes over what each token has.

    v Mᵀ + b     = linear(v, M, b)          for a vector b, the same for all v
    a + v Mᵀ     = add_linear(a, v, M)      the product adds to a as it goes
    a + c v Mᵀ   = add_linear(a, v, M, c)   for a number c, wherever it stands
    a ± b ⊙ c    = addcmul(a, b, c, ±1)
    a + (p + q)  = (a + p) + q              for products p and q, so that both add to a as they go
    A + c L R    = add_linear(A, L, Rᵀ, c)  for large matrices
    c (D v)      = (c D) v                  for a number c and a matrix D of a few entries
    each(v, M)   = each(v, packed(M))       for kept matrices that do not lie in order
    √ sumsq(A)   = norm(A)                  one call where torch is fast at it

Only where the inner result is read nowhere else: what is shared is still made once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

from padp.compiler.ir.nodes import Type
from padp.compiler.plan.costs import count
from padp.compiler.plan.search import Estimate
from padp.compiler.plan.steps import Low, Table, in_order, order, source

LARGE = 1 << 16
"""Numbers from which on a matrix is large."""
_WITHOUT_BIAS = {"linear": 2, "sum_applied": 6}
"""Products that can take a bias, with their number of arguments without."""
_OF_ENTRIES = ("spectral_apply", "sparse_apply", "circulant_apply", "circulant_grid")
"""Matrices that are applied by the numbers that make them, which are the first argument."""


def fused(table: Table, roots: Sequence[Low], e: Estimate) -> tuple[Low, ...]:
    """The same roots with neighbours fused; ``e`` knows what is kept from call to call."""
    made = _rewritten(table, _rewritten(table, roots, _one_after_the_other), _fused)

    def packed(table: Table, low: Low, readers: Readers, done: Done) -> Low | None:
        return _packed(table, low, readers, done) if low.prim == "each" and e.stored_for(low, low.ins[1]) else None

    return made if e.regime.train else _rewritten(table, made, packed)


Readers: TypeAlias = "dict[int, int]"
"""How often a value is read."""
Done: TypeAlias = "dict[int, Low]"
"""What became of a value."""


def _rewritten(table: Table, roots: Sequence[Low], rule: Callable[[Table, Low, Readers, Done], Low | None]
               ) -> tuple[Low, ...]:
    """The roots with a rule applied to every value, what it is made of first."""
    found_in = order(*roots)
    readers: Readers = {}
    for low in found_in:
        for x in low.ins:
            readers[id(x)] = readers.get(id(x), 0) + 1
    for r in roots:
        readers[id(r)] = readers.get(id(r), 0) + 1
    done: Done = {}

    def new(a: Any) -> Any:
        if isinstance(a, Low):
            return done[id(a)]
        return tuple(new(x) for x in a) if isinstance(a, tuple) else a

    for low in found_in:
        found = rule(table, low, readers, done)
        if found is None and any(done[id(x)] is not x for x in low.ins):
            table.span = low.span
            found = table.make(low.prim, tuple(new(a) for a in low.args), low.type, low.lead, stage=low.stage)
        done[id(low)] = found or low
    return tuple(done[id(r)] for r in roots)


def _fused(table: Table, low: Low, readers: Readers, done: Done) -> Low | None:
    match low.prim:
        case "add" | "sub":
            return _sum(table, low, readers, done)
        case "root":
            return _norm(table, low, readers, done)
        case "mul":
            return _scaled(table, low, readers, done)
        case _:
            return None


def _one_after_the_other(table: Table, low: Low, readers: Readers, done: Done) -> Low | None:
    """a + (p + q) as (a + p) + q for products p and q of each token, so that both can add to a."""
    if low.prim != "add" or "T" not in low.lead or len(low.ins) != 2:
        return None
    for a, both in (low.ins, low.ins[::-1]):
        if both.prim == "add" and readers[id(both)] == 1 and not _is_product(a) and len(both.ins) == 2 \
                and a.dims == both.dims == low.dims and all(_is_product(x) and x.dims == low.dims for x in both.ins):
            p, q = (done[id(x)] for x in both.ins)
            table.span = both.span
            return table.make("add", (table.make("add", (done[id(a)], p), low.type, low.lead), q), low.type, low.lead)
    return None


def _scaled(table: Table, low: Low, readers: Readers, done: Done) -> Low | None:
    """c · (what numbers a few entries make of each token), c a number."""
    inner = low.ins[0]
    if len(low.ins) != 1 or inner.prim not in _OF_ENTRIES or readers[id(inner)] > 1 or "T" not in low.lead \
            or low.args[0] is not inner:
        return None
    entries, *rest = (done[id(x)] if isinstance(x, Low) else x for x in inner.args)
    if "T" in entries.lead:
        return None
    table.span = low.span
    scaled = table.make("mul", (entries, low.args[1]), entries.type, entries.lead)
    return table.make(inner.prim, (scaled, *rest), low.type, low.lead)


def _packed(table: Table, low: Low, readers: Readers, done: Done) -> Low | None:
    """Small matrices that are kept for many calls, but lie in another order than they are read, are laid out anew."""
    v, m = low.ins
    whole = source(m)
    if m.stage != 1 or m is whole or in_order(m) or readers[id(m)] > 1 or readers[id(whole)] > 1 \
            or count(m.dims) != count(whole.dims):
        return None
    packed = table.make("packed", (done[id(m)],), m.type, m.lead)
    return table.make(low.prim, (done[id(v)], packed, *low.args[2:]), low.type, low.lead)


def _is_product(low: Low) -> bool:
    """v Mᵀ, −v Mᵀ or c v Mᵀ."""
    while low.prim == "neg" or (low.prim == "mul" and len(low.ins) == 1):
        low = low.ins[0]
    return low.prim == "linear"


def _norm(table: Table, low: Low, readers: Readers, done: Done) -> Low | None:
    """√ of a sum of squares that nobody else reads."""
    (squares,) = low.args
    if squares.prim != "sumsq" or readers[id(squares)] > 1:
        return None
    a, axis, rank = squares.args
    table.span = low.span
    return table.make("norm", (done[id(a)], axis, rank), low.type, low.lead)


def _sum(table: Table, low: Low, readers: Readers, done: Done) -> Low | None:
    """a ± (a product that nobody else reads), where it pays: where there is one for each token, or a large one."""
    if len(low.args) != 2 or not all(isinstance(a, Low) for a in low.args):
        return None
    if "T" not in low.lead and (low.type.rank != 2 or low.lead or low.type.batch or count(low.dims) < LARGE):
        return None
    first, second = low.args
    ways = [(first, second, -1 if low.prim == "sub" else 1)]
    if low.prim == "add":
        ways.append((second, first, 1))
    for total, part, sign in ways:
        inner, factor = part, sign
        single = readers[id(inner)] == 1
        if inner.prim == "mul" and len(list(inner.inputs())) == 1 and not isinstance(inner.args[1], Low):
            inner, factor = inner.args[0], sign * inner.args[1]
            single = single and readers[id(inner)] == 1
        elif inner.prim == "neg":
            inner, factor = inner.args[0], -sign
            single = single and readers[id(inner)] == 1
        if single and inner.prim == "linear" and total.dims == low.dims == inner.dims:
            table.span = inner.span
            first, m = inner.args
            if first.prim == "mul" and len(first.ins) == 1 and isinstance(first.args[0], Low) \
                    and readers[id(first)] == 1:
                factor, first = factor * first.args[1], first.args[0]
            elif first.prim == "neg" and readers[id(first)] == 1:
                factor, first = -factor, first.args[0]
            return table.make("add_linear", (done[id(total)], done[id(first)], done[id(m)], factor), low.type, low.lead)
        if single and inner.prim == "matmul" and "T" not in low.lead and total.dims == low.dims == inner.dims:
            table.span = inner.span
            left, right = (done[id(x)] for x in inner.args)
            flipped = right.args[0] if right.prim == "mT" else \
                table.make("mT", (right,), Type(right.type.item[::-1]), right.lead)
            return table.make("add_linear", (done[id(total)], left, flipped, factor), low.type, low.lead)
        if single and factor == 1 and len(inner.args) == _WITHOUT_BIAS.get(inner.prim) and inner.dims == low.dims \
                and not total.lead and total.dims == low.type.item:
            table.span = inner.span
            given = (done[id(x)] if isinstance(x, Low) else x for x in inner.args)
            return table.make(inner.prim, (*given, done[id(total)]), low.type, low.lead)
        if "T" not in low.lead:
            continue
        if readers[id(part)] == 1 and part.prim == "mul" and part.dims == low.dims and len(part.ins) == 2:
            table.span = part.span
            u, c = (done[id(x)] for x in part.args)
            return table.make("addcmul", (done[id(total)], u, c, sign), low.type, low.lead)
    return None
