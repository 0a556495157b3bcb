"""Entries of vectors at an index, and back: as a view where the index is a pattern, else by a gather.

    taken(p, v, index)                   v[index]
    put_together(p, parts, pattern)      [part₁; part₂; …][index] in one pass, where the index runs over whole parts
    replaced(p, v, index, new)           v with v[index] ← new
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from padp.compiler.ir.nodes import Node, Type
from padp.compiler.operators.index_sets import Numbers, Pattern, known, pattern, split_axis, without
from padp.compiler.plan.planner import Planner
from padp.compiler.plan.steps import Low


def taken(p: Planner, v: Low, index: Node) -> Low:
    """v[index] along the last axis of vectors."""
    numbers = p.known_index(index)
    at = None if numbers is None or v.type.rank != 1 else pattern(numbers, int(v.type.item[0]))
    if at is not None:
        shown = shown_by(p, v, at)
        if shown is not None:
            return shown
    size = index.type.item[0] if index.type.rank else index.type.loops[0].size
    type_ = Type((size,), v.type.family, v.type.loops)
    return p.make("index_select", (v, -1, p.value(index)), type_, v.lead)


def shown_by(p: Planner, v: Low, at: Pattern) -> Low | None:
    """v[index] by reshaping, or None where the pattern's strides do not nest."""
    if at.identity:
        return v
    grid = gridded(p, v, at)
    if grid is None or len(at.counts) == 1:
        return grid
    type_ = Type((at.length,), v.type.family, v.type.loops)
    return p.make("reshape_tail", (grid, len(at.counts), (at.length,)), type_, v.lead)


def gridded(p: Planner, v: Low, at: Pattern) -> Low | None:
    """v[index] with one axis for each of the pattern's: a view."""
    if not at.counts:
        return None
    layout = at.grid()
    if layout is None:
        return None
    shape, starts, order = layout
    family, loops = v.type.family, v.type.loops

    def typed(dims: Sequence[int]) -> Type:
        return Type((dims[-1],), (*family, *dims[:-1]), loops)

    low = v if len(shape) == 1 else p.make("reshape_tail", (v, 1, shape), typed(shape), v.lead)
    sizes = list(shape)
    count_of = {a: at.counts[i] for i, a in enumerate(order)}
    for a in range(len(shape)):
        wanted = count_of.get(a, 1)
        if wanted != sizes[a]:
            sizes[a] = wanted
            low = p.view("narrow", low, (a - len(shape), starts[a], wanted), typed(sizes))
    for a in reversed(range(len(shape))):
        if a not in count_of:
            low = p.view("select", low, (a - len(sizes), 0), typed([*sizes[:a], *sizes[a + 1:]]))
            sizes.pop(a)
            order = tuple(o - 1 if o > a else o for o in order)
    if order != tuple(range(len(order))):
        low = p.view("permute_tail", low, (order,), typed([sizes[o] for o in order]))
    return low


def put_together(p: Planner, parts: Sequence[Low], index: Node) -> Low | None:
    """[part₁; part₂; …][index] as one stack, where one axis of the index's pattern runs over the parts."""
    numbers = p.known_index(index)
    pieces = [int(x.type.item[0]) for x in parts]
    at = None if numbers is None else pattern(numbers, sum(pieces))
    axis = None if at is None else split_axis(at, pieces)
    if at is None or axis is None or any(x.type != parts[0].type or x.lead != parts[0].lead for x in parts):
        return None
    inner = without(at, axis)
    first = parts[0]
    if not inner.counts:
        shown: list[Low] = [p.view("select", x, (-1, 0), Type((), x.type.family, x.type.loops)) for x in parts]
    else:
        grids = [gridded(p, x, inner) for x in parts]
        shown = [g for g in grids if g is not None]
        if len(shown) != len(parts):
            return None
    back = len(inner.counts) - axis + 1
    dims = (*inner.counts[:axis], len(parts), *inner.counts[axis:])
    family, loops = first.type.family, first.type.loops
    stacked = p.make("stack_parts", (tuple(shown), -back), Type((dims[-1],), (*family, *dims[:-1]), loops), first.lead)
    return p.make("reshape_tail", (stacked, len(dims), (at.length,)), Type((at.length,), family, loops), first.lead)


def replaced(p: Planner, v: Low, numbers: Numbers, new: Low) -> Low:
    """v with its entries at an index set to ``new``."""
    n = int(v.type.item[0])
    if len(numbers) == n:
        back = pattern(np.argsort(numbers), n)
        shown = None if back is None else shown_by(p, new, back)
        return shown if shown is not None else p.make(
            "index_select", (new, -1, constant_index(p, np.argsort(numbers))), Type((n,), v.type.family, v.type.loops),
            v.lead)
    at = pattern(numbers, n)
    if at is not None and len(at.counts) == 1 and at.strides[0] > 0:
        return p.make("replace_slice", (v, new, at.offset, at.strides[0]), v.type, v.lead)
    return p.make("replace_entries", (v, new, constant_index(p, numbers)), v.type, v.lead)


def at_numbers(p: Planner, v: Low, numbers: Numbers) -> Low:
    """v at an index given by its numbers."""
    at = pattern(numbers, int(v.type.item[0]))
    shown = None if at is None else shown_by(p, v, at)
    return shown if shown is not None else p.make(
        "index_select", (v, -1, constant_index(p, numbers)), Type((len(numbers),), v.type.family, v.type.loops), v.lead)


def constant_index(p: Planner, numbers: Numbers) -> Low:
    """An index vector from its numbers."""
    return p.make("i:given", tuple(int(k) for k in numbers), Type((len(numbers),), kind="index"), stage=0)


__all__ = ["at_numbers", "constant_index", "gridded", "known", "put_together", "replaced", "shown_by", "taken"]
