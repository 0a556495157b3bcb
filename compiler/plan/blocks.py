"""Permutations and block-diagonal matrices whose product is block-diagonal again, in wider blocks.

    P_F … blkdiag(F₂) P₁ blkdiag(F₁) P₀      mixes each coordinate with few others (a butterfly's first factors): the
                                             product is n/c blocks of c×c between the coordinates that meet

Multiplied out once a step (n·c numbers a factor) and applied as one batch of products, where factor by factor is a pass
over all vectors each.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import TypeAlias

import numpy as np

from padp.compiler.ir.nodes import Node, Type
from padp.compiler.operators.index_sets import Numbers
from padp.compiler.plan.gathers import at_numbers
from padp.compiler.plan.planner import Planner
from padp.compiler.plan.steps import Low

WIDEST = 64
"""Coordinates of a block up to which factors are composed."""
Step: TypeAlias = "tuple[str, int, bytes]"


def composable(factors: Sequence[Node], start: int, end: int) -> bool:
    """Whether factors ``start`` to ``end`` are a piece to compose: two block-diagonal ones or more and all permutations
    around them; a permutation between two pieces goes with the right one."""
    piece = factors[start:end]
    if sum(f.op == "blkdiag" for f in piece) < 2 or not all(_plain(f) for f in piece):
        return False
    run_ends = end == len(factors) or not _plain(factors[end])
    return (start == 0 or factors[start - 1].op != "perm") and (piece[-1].op == "blkdiag" or run_ends)


def inside_run(factors: Sequence[Node], start: int, end: int) -> bool:
    """Whether factors ``start`` to ``end`` are only a part of such factors in a row."""
    return all(_plain(f) for f in factors[start:end]) and (
        (start > 0 and _plain(factors[start - 1])) or (end < len(factors) and _plain(factors[end])))


def _plain(f: Node) -> bool:
    """A permutation, or a block-diagonal matrix of square blocks; one, not many."""
    if f.type.batch:
        return False
    if f.op == "perm":
        return not f.args[0].type.loops
    return f.op == "blkdiag" and len(f.args[0].type.family) == 1 and f.args[0].type.item[0] == f.args[0].type.item[1]


def composed(p: Planner, factors: Sequence[Node], v: Low) -> tuple[int, Low] | None:
    """(c, the product of ``factors`` on vectors as blocks of c×c), or None where blocks get too wide or unequal."""
    if v.type.batch or v.type.rank != 1:
        return None
    steps: list[Step] = []
    for f in reversed(factors):
        if f.op == "perm":
            numbers = p.known_index(f.args[0])
            if numbers is None:
                return None
            steps.append(("perm", 0, numbers.tobytes()))
        else:
            steps.append(("blocks", int(f.args[0].type.item[0]), b""))
    n = int(v.type.item[0])
    found = meeting(tuple(steps), n)
    if found is None:
        return None
    inside, outside = found
    count, size = inside.shape
    turned = p.make("unit_blocks", (size, count), Type((n,)), (size,), stage=0)
    turned = at_numbers(p, turned, np.argsort(inside.reshape(-1)))  # row q: 1 at the q-th coordinate of every block
    for f in reversed(factors):
        if f.op == "perm":
            numbers = p.known_index(f.args[0])
            assert numbers is not None
            turned = at_numbers(p, turned, numbers)
        else:
            turned = on_pieces(p, p.value(f.args[0]), turned)
    matrix = p.from_rows(at_numbers(p, turned, outside.reshape(-1)))
    split = p.make("reshape_tail", (matrix, 1, (count, size)), Type((size,), (size, count)))
    blocks = p.view("permute_tail", split, ((1, 2, 0),), Type((size, size), (count,)))
    pieces = at_numbers(p, v, inside.reshape(-1))
    narrow = on_pieces(p, blocks, pieces)
    wide = joined(p, blocks, pieces)
    new = narrow if wide is None else p.either("composed blocks on vectors", [
        ("block by block", narrow), (f"joined to about {JOINED}×{JOINED} first", wide)], v)
    return size, at_numbers(p, new, np.argsort(outside.reshape(-1)))


@lru_cache(maxsize=256)
def meeting(steps: tuple[Step, ...], n: int) -> tuple[Numbers, Numbers] | None:
    """(inputs, outputs) of each block, a row a block: coordinates that meet on the way; None where not equally many."""
    at = np.arange(n, dtype=np.int64)  # from which input what stands here comes
    least = at.copy()  # for each input the least one that it has met
    for kind, size, index in steps:
        if kind == "perm":
            at = at[np.frombuffer(index, dtype=np.int64)]
            continue
        while True:
            rows = least[at].reshape(-1, size)
            lower = rows.min(1, keepdims=True)
            if (rows == lower).all():
                break
            new = np.arange(n, dtype=np.int64)
            np.minimum.at(new, rows, lower)
            least = new[least]
    wide = np.bincount(least)
    size = int(wide[0])
    if size > WIDEST or not np.isin(wide, (0, size)).all():
        return None
    inside = np.argsort(least, kind="stable").reshape(-1, size)
    outside = np.argsort(least[at], kind="stable").reshape(-1, size)
    return inside, outside


# ---------------------------------------------------------------- blocks on pieces of vectors


JOINED = 32
"""Blocks smaller than this are joined: products of tiny matrices run far below a machine's speed."""


def on_pieces(p: Planner, blocks: Low, v: Low) -> Low:
    """Each block on its own piece of every vector, all pieces end to end."""
    (k, q), family = blocks.type.item, blocks.type.family
    pieces = p.make("reshape_tail", (v, 1, (*family, q)), Type((q,), family), v.lead)
    out = p.times_vectors(blocks, pieces)
    count = int(np.prod([int(d) for d in family]))
    return p.make("reshape_tail", (out, len(family) + 1, (count * k,)), Type((count * k,)), out.lead)


def joined(p: Planner, blocks: Low, v: Low) -> Low | None:
    """Neighbouring small blocks as one: blkdiag of blkdiags; None where nothing is small or fits."""
    k, q = blocks.type.item
    count = int(blocks.type.family[0]) if len(blocks.type.family) == 1 else 0
    fitting = range(2, max(2, JOINED // int(max(k, q))) + 1)
    together = max((g for g in fitting if count % g == 0), default=1) if count else 1
    if together == 1 or max(k, q) * together > JOINED or blocks.lead:
        return None
    split = p.make("reshape_tail", (blocks, 3, (count // together, together, k, q)),
                   Type((k, q), (count // together, together)))
    wide = p.make("k:blkdiag", (split, 1), Type((k * together, q * together), (count // together,)))
    return on_pieces(p, wide, v)
