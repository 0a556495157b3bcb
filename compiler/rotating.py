"""A chain of plane rotations on vectors: in rounds of disjoint pairs, or composed first where that stays small.

    one round       y = C ⊙ v + S ⊙ v[partner]                       a pass over everything
    several rounds  that only mix coordinates within blocks of size c: their product is block-diagonal, n/c blocks of
                    c×c, multiplied out once a step (n·c numbers a round) and applied as one batched product

Which rounds to compose, and up to which block size, is the planner's choice.
"""

from __future__ import annotations

import numpy as np

from padp.compiler import build as b
from padp.compiler.chains import Plane
from padp.compiler.indices import pattern
from padp.compiler.ir import Axis, Node, Type
from padp.compiler.low import Low
from padp.compiler.planner import Planner
from padp.compiler.rounds import Group, Key, grouped, schedule
from padp.compiler.taking import at_numbers, replaced

MAX_ROUNDS = 256
"""Rounds of rotations that a plan may have."""
BLOCK_SIZES = (16, 32, 64)


def rotations(p: Planner, plane: Plane, axis: Axis, v: Low, reverse: bool) -> Low:
    """R_r … R_1 v (``reverse``: R_1 … R_r v) for rotations R_t in the planes (i_t, j_t) of an index set."""
    source = plane.i.args[0] if plane.i.op == "column" else None
    if source is None or source.args or plane.j.op != "column":
        raise b.Mismatch("rotations run over an index set known from the sizes", "E307")
    n = int(v.type.item[0])
    key: Key = (source.op, source.attrs, (plane.i.attrs[1], plane.j.attrs[1]), n)
    count = len(schedule(source.op, source.attrs, *key[2], n))
    if count > MAX_ROUNDS:
        raise b.Mismatch(f"this chain of rotations takes {count} rounds, each after the other; at most "
                         f"{MAX_ROUNDS} are planned", "E307", "tree(n), whose rotations are disjoint level by level")
    entries = tuple(p.value(_stacked(p, e, axis, d)) for e, d in
                    ((plane.a, 1), (plane.b, 0), (plane.c, 0), (plane.d, 1)))
    rounds = tuple(Group(k, k + 1, ()) for k in range(count))
    ways = [(f"{count} rounds, each a pass over the vectors", _in_turn(p, key, entries, rounds, v, reverse))]
    for size in BLOCK_SIZES:
        groups = grouped(key, size)
        if any(g.blocks for g in groups):
            ways.append((f"rounds composed into blocks of at most {size}",
                         _in_turn(p, key, entries, groups, v, reverse, size)))
    return p.either("a chain of rotations", ways, v)


def _in_turn(p: Planner, key: Key, entries: tuple[Low, ...], groups: tuple[Group, ...], v: Low, reverse: bool,
             size: int = 0) -> Low:
    for g in reversed(groups) if reverse else groups:
        order = range(g.last - 1, g.first - 1, -1) if reverse else range(g.first, g.last)
        if g.blocks:
            v = _blockwise(p, key, entries, g, order, v, size)
        else:
            for k in order:
                v = _one_round(p, key, entries, k, v)
    return v


def _one_round(p: Planner, key: Key, entries: tuple[Low, ...], k: int, v: Low) -> Low:
    """y_i = a v_i + b v_j, y_j = c v_i + d v_j for the pairs of a round."""
    op, attrs, pair, n = key
    a, b_, c, d = entries
    where = (op, attrs, pair, k, n)
    partner = p.make("i:partner", where, Type((n,), kind="index"), stage=0)
    stay = p.make("spread_entries", (a, d, *where, 1), Type((n,)))
    swap = p.make("spread_entries", (b_, c, *where, 0), Type((n,)))
    moved = p.make("index_select", (v, -1, partner), Type((n,)), v.lead)
    return p.make("addcmul", (p.make("mul", (v, stay), Type((n,)), v.lead), moved, swap), Type((n,)), v.lead)


def _blockwise(p: Planner, key: Key, entries: tuple[Low, ...], g: Group, order: range, v: Low, most: int) -> Low:
    """The product of some rounds as blocks, on the coordinates that they mix."""
    n, count, size = key[3], len(g.blocks), len(g.blocks[0])
    numbers = np.array(g.blocks, dtype=np.int64).reshape(-1)
    units = p.make("unit_rows", (*key, most, g.first), Type((n,)), (size,), stage=0)
    turned = units  # row q: where the q-th coordinate of every block goes
    for k in order:
        turned = _one_round(p, key, entries, k, turned)
    matrix = p.from_rows(at_numbers(p, turned, numbers))
    split = p.make("reshape_tail", (matrix, 1, (count, size)), Type((size,), (size, count)))
    blocks = p.view("permute_tail", split, ((1, 2, 0),), Type((size, size), (count,)))
    pieces = at_numbers(p, v, numbers)
    if count == 1:
        single = p.view("select", blocks, (-3, 0), Type((size, size)))
        at = pattern(numbers, n)
        if at is not None and len(at.counts) == 1 and v.lead:
            return p.make("turned_slice", (v, single, at.offset, at.strides[0]), v.type, v.lead)
        return replaced(p, v, numbers, p.times_vectors(single, pieces))
    cut = p.make("reshape_tail", (pieces, 1, (count, size)), Type((size,), (count,)), v.lead)
    new = p.make("reshape_tail", (p.times_vectors(blocks, cut), 2, (count * size,)), Type((count * size,)), v.lead)
    return replaced(p, v, numbers, new)


def _stacked(p: Planner, entry: Node | None, axis: Axis, default: int) -> Node:
    """One entry of all rotations as a vector over them."""
    node = p.g.const(default) if entry is None else entry
    if axis not in node.type.loops:
        node = b.full(p.g, node.value, Type((axis.size,))) if node.op == "const" else \
            b.stack(p.g, b.spread(p.g, node, axis), axis, "item")
        return node
    return b.stack(p.g, node, axis, "item")
