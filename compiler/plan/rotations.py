"""A chain of plane rotations on vectors: in rounds of disjoint pairs, or composed first where that stays small.

    one round       y = C ⊙ v + S ⊙ v[partner]                       a pass over everything
    several rounds  that only mix coordinates within blocks of size c: their product is block-diagonal, b blocks of
                    c×c, multiplied out once a step (b·c² numbers a round) and applied as one batched product

Which rounds to compose, and up to which block size, is the planner's choice.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from padp.compiler.ir import build as b
from padp.compiler.ir.nodes import Axis, Node, Type
from padp.compiler.ir.patterns import Plane
from padp.compiler.operators.index_sets import Numbers, pattern
from padp.compiler.plan.gathers import at_numbers, constant_index, replaced
from padp.compiler.plan.planner import Planner
from padp.compiler.plan.rotation_rounds import Group, Key, grouped, partners, schedule
from padp.compiler.plan.steps import Low

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
    entries = tuple(p.value(stacked(p, e, axis, d)) for e, d in
                    ((plane.a, 1), (plane.b, 0), (plane.c, 0), (plane.d, 1)))
    rounds = tuple(Group(k, k + 1, ()) for k in range(count))
    ways = [(f"{count} rounds, each a pass over the vectors", _in_turn(p, key, entries, rounds, v, reverse))]
    for size in BLOCK_SIZES:
        groups = grouped(key, size)
        if any(g.blocks for g in groups):
            ways.append((f"rounds composed into blocks of at most {size}",
                         _in_turn(p, key, entries, groups, v, reverse)))
    return p.either("a chain of rotations", ways, v)


def _in_turn(p: Planner, key: Key, entries: tuple[Low, ...], groups: tuple[Group, ...], v: Low, reverse: bool) -> Low:
    """One group of rounds after the other. What several of them mix among a few coordinates is taken out of the vectors
    and put back once."""
    n = key[3]
    everything = np.arange(n)
    rest = list(reversed(groups)) if reverse else list(groups)
    while rest:
        run, here = _nested(rest, n)
        del rest[:len(run)]
        if len(run) == 1:
            v = _group(p, key, entries, run[0], v, everything, reverse)
            continue
        at = pattern(here, n)
        if at is not None and len(at.counts) == 1 and at.strides[0] > 0 and v.lead:
            place, size = (at.offset, at.strides[0]), Type((len(here),))
            opened = p.make("open_slice", (v, *place, len(here)), v.type, v.lead)
            rest_of_v, inner = (p.make("getitem", (opened, k), t, v.lead) for k, t in enumerate((v.type, size)))
            inner = _in_a_row(p, key, entries, run, inner, here, reverse)
            v = p.make("close_slice", (rest_of_v, inner, *place), v.type, v.lead)
        else:
            v = replaced(p, v, here, _in_a_row(p, key, entries, run, at_numbers(p, v, here), here, reverse))
    return v


def _in_a_row(p: Planner, key: Key, entries: tuple[Low, ...], run: Sequence[Group], v: Low, here: Numbers, reverse: bool
              ) -> Low:
    for g in run:
        v = _group(p, key, entries, g, v, here, reverse)
    return v


def _nested(groups: Sequence[Group], n: int) -> tuple[Sequence[Group], Numbers]:
    """The longest run at the front in which one group's coordinates, not all n, hold all the others'; those."""
    best: tuple[Sequence[Group], Numbers] = groups[:1], _coordinates(groups[0])
    for end in range(2, len(groups) + 1):
        found = [_coordinates(g) for g in groups[:end]]
        widest = max(found, key=len)
        if any(not len(c) for c in found) or len(widest) == n:
            break
        if all(np.isin(c, widest).all() for c in found):
            best = groups[:end], np.sort(widest)
    return best


def _coordinates(g: Group) -> Numbers:
    """What a group mixes, block by block."""
    return np.array(g.blocks, dtype=np.int64).reshape(-1)


def _group(p: Planner, key: Key, entries: tuple[Low, ...], g: Group, v: Low, here: Numbers, reverse: bool) -> Low:
    """The rounds of a group on vectors of the coordinates ``here``, in increasing order."""
    if not g.blocks:
        return _one_round(p, key, entries, g.first, v, here)
    n, count, size = len(here), len(g.blocks), len(g.blocks[0])
    numbers = np.searchsorted(here, _coordinates(g))
    blocks = _composed(p, key, entries, g, reverse)
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


def _composed(p: Planner, key: Key, entries: tuple[Low, ...], g: Group, reverse: bool) -> Low:
    """The product of a group's rounds as blocks: its rounds on [I I … I], whose q-th row is 1 at the q-th coordinate of
    every block."""
    count, size = len(g.blocks), len(g.blocks[0])
    turned = p.make("unit_blocks", (size, count), Type((count * size,)), (size,), stage=0)
    for k in range(g.last - 1, g.first - 1, -1) if reverse else range(g.first, g.last):
        turned = _one_round(p, key, entries, k, turned, _coordinates(g))
    split = p.make("reshape_tail", (p.from_rows(turned), 1, (count, size)), Type((size,), (size, count)))
    return p.view("permute_tail", split, ((1, 2, 0),), Type((size, size), (count,)))


def _one_round(p: Planner, key: Key, entries: tuple[Low, ...], k: int, v: Low, here: Numbers) -> Low:
    """y_i = a v_i + b v_j, y_j = c v_i + d v_j for the pairs of a round, on vectors of the coordinates ``here``."""
    op, attrs, pair, n = key
    a, b_, c, d = entries
    size = Type((len(here),))
    stay, swap = (at_numbers(p, _spread(p, key, first, second, default, k), here)
                  for first, second, default in ((a, d, 1), (b_, c, 0)))
    if len(here) == n and (here == np.arange(n)).all():
        partner = p.make("i:partner", (op, attrs, pair, k, n), Type((n,), kind="index"), stage=0)
    else:
        at = np.empty(n, dtype=np.int64)
        at[here] = np.arange(len(here))
        partner = constant_index(p, at[partners(key, k)[here]])
    moved = p.make("index_select", (v, -1, partner), size, v.lead)
    return p.make("addcmul", (p.make("mul", (v, stay), size, v.lead), moved, swap), size, v.lead)


def _spread(p: Planner, key: Key, first: Low, second: Low, default: int, k: int) -> Low:
    """The k-th of the vectors with one entry of all rotations at their i's, another at their j's, a round each."""
    op, attrs, pair, n = key
    count = len(schedule(op, attrs, *pair, n))
    pairs = int(first.type.item[0])
    at = p.make("i:places", (op, attrs, pair, n), Type((2 * pairs,), kind="index"), stage=0)
    all_ = p.make("spread_rounds", (first, second, at, n, count, default), Type((count, n)))
    return p.make("getitem", (all_, k), Type((n,)))


def stacked(p: Planner, entry: Node | None, axis: Axis, default: int) -> Node:
    """One entry of all rotations as a vector over them."""
    node = p.g.const(default) if entry is None else entry
    if axis not in node.type.loops:
        node = b.full(p.g, node.value, Type((axis.size,))) if node.op == "const" else \
            b.stack(p.g, b.spread(p.g, node, axis), axis, "item")
        return node
    return b.stack(p.g, node, axis, "item")
