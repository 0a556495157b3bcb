"""Values that only rearrange: entries taken and put together, axes moved, repeated, split and joined, index sets.

    REARRANGED[op](planner, node)      the part of ``values.VALUES`` that computes nothing
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import cast

import numpy as np

from padp.compiler.ir import build as b
from padp.compiler.ir.nodes import Axis, Node, Type
from padp.compiler.operators.index_sets import Numbers
from padp.compiler.plan.gathers import put_together, taken
from padp.compiler.plan.one_pass import in_one_pass
from padp.compiler.plan.planner import Planner, Value, plain_number
from padp.compiler.plan.steps import Low


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
    if index.op == "iota" and index.attrs[1] > 0:  # one that runs backwards, v_{r-1-i}, is gathered
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
    else:
        low = p.view("slice_step", low, (-back, first, first + step * (axis.size - 1) + 1, step), low.type)
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


REARRANGED: Mapping[str, Value] = {
    "slice": _slice, "take": _take, "cat": _cat, "interleave": _interleave, "stack": _stack, "spread": _spread,
    "expand": _expand, "join": _join, "blkdiag": _blkdiag, "reshape": _reshape, "view": _as_is,
    "column_of": _unsqueeze(-1), "entry": _unsqueeze(-1, -1), "iota": _iota, "column": _column,
    **dict.fromkeys(("tree", "band", "sample", "pairs", "halves", "neighbours", "arange", "butterfly", "largest",
                     "argtop", "inverse_index"), _index),
}
