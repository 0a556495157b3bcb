"""Statements and loops: assignments, indexed writes, and the three readings of a loop.

    for i: s_i ← e(i)               independent: the loop is an axis, all steps are one vectorised value
    for i: acc ← acc + e(i)         a sum over the axis
    for i: R ← H_i @ R              a fold: a chain that has a structured form (compiler/ir/patterns.py)

Anything else is unrolled, up to a limit, when sizes are known.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import sympy as sp

from padp.compiler.elaborate.algebra import open_size, settle, summed
from padp.compiler.elaborate.conditions import Condition
from padp.compiler.elaborate.meanings import (
    bounds,
    call,
    domain,
    index,
    inside,
    loop_variables,
    need,
    parameter,
    places,
    space_type,
    term,
)
from padp.compiler.elaborate.state import PendingWrite, State, report
from padp.compiler.ir import build as b
from padp.compiler.ir.budget import spend, working_on
from padp.compiler.ir.build import Mismatch
from padp.compiler.ir.dims import lower, same, show
from padp.compiler.ir.nodes import UNKNOWN, Axis, Node, Type, depends, walk
from padp.compiler.names.terms import Call, Let, Loop, Number, Range, Step, Term, Write
from padp.compiler.operators.index_rows import index_rows
from padp.dsl.source import Span

MAX_UNROLL = 256
"""Loops that are neither independent, nor a sum, nor a chain are unrolled up to this many steps."""


# ---------------------------------------------------------------- statements


def run_step(s: State, step: Step) -> None:
    s.g.span = step.span
    working_on(step.span)
    spend(100)
    try:
        match step:
            case Let():
                _let(s, step)
            case Write():
                _write(s, step)
            case Loop():
                _loop(s, step)
    except Mismatch as m:
        report(s, m.code, m.message, step.span, m.suggestion)


def bind(s: State, name: str, node: Node, span: Span) -> None:
    claimed = s.hypotheses.get(span.start, {}).get(name)
    if node.type.kind == "unknown" and claimed is not None:
        type_ = space_type(s, claimed)
        if type_.kind != "unknown":
            node = s.g.node("assumed", (node,), (name,), type_)
    s.env[name] = node
    s.history.append((name, node, span))


def _let(s: State, step: Let) -> None:
    if len(step.names) == 1:
        value = term(s, step.value)
        bind(s, step.names[0], value, step.span)
        return
    values = _several(s, step.value, len(step.names))
    for name, value in zip(step.names, values, strict=True):
        bind(s, name, value, step.span)


def _several(s: State, t: Term, count: int) -> tuple[Node, ...]:
    made = call(s, t) if isinstance(t, Call) else term(s, t)
    if isinstance(made, Node):
        if made.type.kind != "unknown":
            report(s, "E209", f"{count} names on the left, one value on the right", t.span)
        return tuple(b.opaque(s.g, "part", made) for _ in range(count))
    if len(made) != count:  # which the resolver has said
        return tuple(b.opaque(s.g, "part", made[0]) for _ in range(count))
    return made


def _write(s: State, step: Write) -> None:
    value = term(s, step.value)
    existing = s.env.get(step.name) or parameter(s, step.name)
    items = tuple(i if isinstance(i, Range) else term(s, i) for i in step.items) if existing is None else \
        tuple(places(s, existing, step.items))
    mistaken = any(isinstance(i, Node) and i.op in ("undeclared", "mistake") for i in items)
    if existing is None and step.name not in s.pending and mistaken:  # which has been said
        bind(s, step.name, s.g.node("mistake", (), (step.span.start, step.span.end), UNKNOWN), step.span)
        return
    if step.name in s.pending or existing is None:
        s.pending.setdefault(step.name, []).append(PendingWrite(items, value, step.span))
        return
    if b.unknown(existing, value, *(i for i in items if isinstance(i, Node))):
        bind(s, step.name, b.opaque(s.g, "write", existing, value), step.span)
        return
    if all(isinstance(i, Node) and i.type.rank == 0 for i in items):
        bind(s, step.name, _put(s, existing, items, step.op, value), step.span)
        return
    bind(s, step.name, _splice(s, existing, items, step.op, value), step.span)


def _put(s: State, base: Node, items: Sequence[Any], op: str, value: Node) -> Node:
    if len(items) == 1 and base.type.rank == 2 and not base.type.family:
        return _splice(s, base, (*items, Range(None, None)), op, value)
    if len(items) != base.type.rank or base.type.family:
        raise Mismatch(f"{len(items)} indices for {base.type}", "E305")
    if value.type.rank:
        raise Mismatch(f"one entry takes a scalar, this is {value.type}")
    items = [inside(s, i, size) for i, size in zip(items, base.type.item, strict=True)]
    if op != "←":
        old = index(s, base, list(items))
        value = b.add(s.g, old, value if op == "+=" else b.negate(s.g, value))
    return b.put(s.g, base, value, items[0], items[1] if len(items) > 1 else None)


def _splice(s: State, base: Node, items: Sequence[Any], op: str, value: Node) -> Node:
    """``base`` with one slice along one axis replaced: [before; new; after]."""
    axes = list(base.type.family + base.type.item)
    if base.type.family:
        raise Mismatch("writes into a family are not supported; write the item with a loop", "E302")
    if len(items) > base.type.rank:
        raise Mismatch(f"{len(items)} {'index' if len(items) == 1 else 'indices'} for {base.type}", "E305")
    chosen = [(k, i) for k, i in enumerate(items) if not (isinstance(i, Range) and i.start is None and i.stop is None)]
    if len(chosen) != 1:
        raise Mismatch("a write changes rows or columns: one index that is not ':'", "E302")
    position, item = chosen[0]
    axis = base.type.rank - position
    size = axes[position]
    if isinstance(item, Node):
        if item.op != "const":
            rest = (*base.type.item[:position], *base.type.item[position + 1:])
            if s.in_loop and not s.concrete and item.op in ("iota", "column") and b.fits(value.type.item, rest):
                return s.g.node("write", (base, value, item), (position,), base.type)  # unrolled when sizes are known
            raise Mismatch("the place of a row that is written is known from the sizes: a number, or a loop's index",
                           "E305", "single entries, M[j,k] ← …, or scatter")
        low = inside(s, item, size).value
        high = lower(low + 1)
        if value.type.rank == 1 and base.type.rank == 2:
            value = b.reshape(s.g, value, (1, *value.type.item)) if axis == 2 else \
                s.g.node("column_of", (value,), (), b.typed((value.type.item[0], 1), value))
    else:
        low, high = bounds(s, item, size)
    piece = b.slice_(s.g, base, -axis, low, high)
    if op == "+=":
        value = summed(s, [piece, value])
    elif op == "-=":
        value = summed(s, [piece, b.negate(s.g, value)])
    elif not b.fits(piece.type.item, value.type.item):
        raise Mismatch(f"{value.type} does not fit the place {piece.type}")
    parts = [value]
    if not same(low, 0):
        parts.insert(0, b.slice_(s.g, base, -axis, 0, low))
    if not same(high, size):
        parts.append(b.slice_(s.g, base, -axis, high, size))
    return b.cat(s.g, parts, axis)


# ---------------------------------------------------------------- loops


def _assigned(body: Sequence[Step]) -> set[str]:
    names: set[str] = set()
    for step in body:
        if isinstance(step, Let):
            names.update(step.names)
        elif isinstance(step, Write):
            names.add(step.name)
        else:
            names |= _assigned(step.body)
    return names


def _loop(s: State, loop: Loop) -> None:
    found = domain(s, loop.domain, loop.span)
    if found is None:
        for name in _assigned(loop.body):
            bind(s, name, s.g.node("undetermined", (), (name, loop.span.start), UNKNOWN), loop.span)
        return
    start, count, set_ = found
    carried = [n for n in sorted(_assigned(loop.body)) if n in s.env or parameter(s, n) is not None]
    if carried and count == 0:
        return
    if not carried:
        _independent(s, loop, start, count, set_)
        return
    before, kept = dict(s.env), len(s.diagnostics)
    history, asked = len(s.history), len(s.requirements)
    folded = _chain(s, loop, carried, start, count, set_)
    if folded is None and s.concrete:
        s.env = before
        del s.diagnostics[kept:], s.history[history:], s.requirements[asked:]
        _unroll(s, loop, start, count, set_)


def _independent(s: State, loop: Loop, start: Any, count: Any, set_: Node | None) -> None:
    outer, axis = dict(s.env), s.g.axis(count, set_)
    need(s, Condition(1, count, loop.domain.span))
    waiting = s.pending
    s.pending = {k: [] for k in waiting}
    loop_variables(s, loop.variables, axis, start, set_, loop.span)
    s.in_loop += 1
    for step in loop.body:
        run_step(s, step)
    s.in_loop -= 1
    written, s.pending = s.pending, waiting
    kept = {n: v for n, v in s.env.items() if n in s.learned}
    s.env = {**outer, **{n: v for n, v in kept.items() if n not in outer}}
    s.g.span = loop.span
    for name, writes in written.items():
        if not writes:
            continue
        if s.in_loop and any(_inner_only(w, axis) for w in writes):
            s.pending.setdefault(name, []).extend(_close(s, w, axis) for w in writes)
        else:
            try:
                bind(s, name, _define(s, name, writes, axis), writes[0].span)
            except Mismatch as m:
                report(s, m.code, m.message, writes[0].span, m.suggestion)
                bind(s, name, s.g.node("undetermined", (), (name, writes[0].span.start), UNKNOWN), writes[0].span)


def _inner_only(w: PendingWrite, axis: Axis) -> bool:
    """Whether a write still has an index of an outer loop."""
    return any(isinstance(i, Node) and any(a != axis for a in i.type.loops) for i in w.items)


def _close(s: State, w: PendingWrite, axis: Axis) -> PendingWrite:
    """s_{i,j} ← e inside ``for i: for j``: the inner axis becomes ``:``."""
    inner = [k for k, i in enumerate(w.items) if isinstance(i, Node) and axis in i.type.loops]
    if not inner:
        raise Mismatch("a write that does not depend on the innermost index overwrites itself", "E305")
    if w.value.type.rank == 0 or (w.value.type.rank == 1 and any(isinstance(i, Range) for i in w.items)):
        items = tuple(Range(None, None) if k in inner else i for k, i in enumerate(w.items))
        return PendingWrite(items, b.stack(s.g, w.value, axis, "item"), w.span)
    place = "item" if w.value.type.rank == 1 else "family"  # vectors end to end are the rows of a matrix
    return PendingWrite(tuple(i for k, i in enumerate(w.items) if k not in inner), b.stack(s.g, w.value, axis, place),
                        w.span)


def _define(s: State, name: str, writes: Sequence[PendingWrite], axis: Axis) -> Node:
    """The tensor that indexed writes define together; they must be disjoint and cover it."""
    if any(b.unknown(w.value, *(i for i in w.items if isinstance(i, Node))) for w in writes):
        return s.g.node("undetermined", tuple(w.value for w in writes), (name,), UNKNOWN)
    places: list[tuple[int, Any, Any, Node, int]] = []
    for w in writes:
        chosen = [(k, i) for k, i in enumerate(w.items) if isinstance(i, Node)]
        if len(chosen) == 1 and chosen[0][1].op == "column" and axis in chosen[0][1].type.loops:
            return _placed(s, name, writes, axis)
        if len(chosen) != 1 or chosen[0][1].op != "iota" or axis not in chosen[0][1].type.loops:
            raise Mismatch(f"{name} is defined by writes that do not run over the loop one by one", "E305",
                           "scatter(c, Ω, shape=(m, n)) for writes at the places of an index set")
        position, index = chosen[0]
        _, step, first = index.attrs
        places.append((position, step, first, w.value, len(w.items)))
    position, items = places[0][0], places[0][4]
    values = [p[3] for p in places]
    rank = values[0].type.rank
    place = "item" if rank == 0 or (rank == 1 and position == 0) else \
        "columns" if rank == 1 and items == 2 else "family"  # Z_i ← v writes a row, as Z_i of a matrix reads one
    stacked = [b.stack(s.g, v, axis, place) for v in values]
    steps, firsts = [p[1] for p in places], [p[2] for p in places]
    if len(places) == 1 and steps[0] == 1 and same(firsts[0], 0):
        return stacked[0]
    along = 1 if place == "columns" or stacked[0].type.rank == 1 else 2
    order = sorted(range(len(places)), key=lambda k: (sp.default_sort_key(sp.sympify(firsts[k]))))
    if place != "family" and all(st == len(places) for st in steps) and [firsts[k] for k in order] == list(
            range(len(places))):
        total = lower(axis.size * len(places))
        type_ = stacked[0].type
        item = (total, *type_.item[1:]) if along != 1 or type_.rank == 1 else (type_.item[0], total)
        return s.g.node("interleave", tuple(stacked[k] for k in order), (along,),
                        Type(item, type_.family, b.united(*(v.type for v in stacked))[1]))
    if place != "family" and all(st == 1 for st in steps):
        expected: Any = 0
        for k in order:
            if not same(firsts[k], expected):
                break
            expected = lower(expected + axis.size)
        else:
            return b.cat(s.g, [stacked[k] for k in order], along)
    raise Mismatch(f"the writes to {name} are not disjoint or do not cover it", "E305",
                   f"write every entry of {name} once: {name}[i], or {name}[2i] and {name}[2i+1]")


def _placed(s: State, name: str, writes: Sequence[PendingWrite], axis: Axis) -> Node:
    """Writes at the places of an index set that together are a permutation: the values, put in order."""
    indices: list[Node] = []
    columns, values = [], []
    for w in writes:
        item = w.items[0]
        if not isinstance(item, Node) or item.op != "column" or item.attrs[0] != axis or w.value.type.rank > 1 \
                or any(isinstance(i, Node) for i in w.items[1:]):
            raise Mismatch(f"the writes to {name} do not all run over the index set", "E305")
        indices.append(item)
        columns.append(b.take(s.g, item.args[0], s.g.const(item.attrs[1]), 1) if item.args[0].type.rank == 2
                       else item.args[0])
        values.append(b.stack(s.g, w.value, axis, "item"))
    places = indices[0].args[0]
    if s.concrete:
        if places.args:
            raise Mismatch(f"the places of {name} must be known from the sizes", "E305")
        chosen = [item.attrs[1] for item in indices]
        covered = sorted(row[k] for k in chosen for row in index_rows(places.op, places.attrs))
        if covered != list(range(len(covered))):
            raise Mismatch(f"the writes to {name} are not disjoint or do not cover it", "E305")
    order = b.cat(s.g, columns, 1)
    inverse = s.g.node("inverse_index", (order,), (), order.type)
    whole = b.cat(s.g, values, values[0].type.rank)
    return b.take(s.g, whole, inverse, values[0].type.rank)


def _chain(s: State, loop: Loop, carried: Sequence[str], start: Any, count: Any, set_: Node | None) -> bool | None:
    """The loop as sums and folds; None when it is neither (then it is unrolled)."""
    axis = s.g.axis(count, set_)
    outer = dict(s.env)
    marks: dict[str, Node] = {}
    for name in carried:
        value = s.env[name]
        marks[name] = s.g.node("carry", (), (name, axis), value.type)
        s.env[name] = marks[name]
    loop_variables(s, loop.variables, axis, start, set_, loop.span)
    s.in_loop += 1
    for step in loop.body:
        run_step(s, step)
    s.in_loop -= 1
    results = {n: s.env[n] for n in carried}
    starts = {n: _filled(s, outer[n], results[n]) for n in carried}
    known = {n: v for n, v in s.env.items() if n in s.learned and n not in outer}
    after = {n: v for n, v in s.env.items() if n in outer and v is not outer[n] and n not in carried}
    s.env = {**outer, **known, **{n: v for n, v in after.items() if n not in loop.variables}}
    s.g.span = loop.span
    marked = {id(m) for m in marks.values()}
    closed: dict[str, Node] = {}
    for name in carried:
        result, begin = results[name], starts[name]
        if result.type.kind == "unknown":
            closed[name] = result
            continue
        if not b.fits(result.type.item, begin.type.item):
            raise Mismatch(f"{name} is {begin.type} before the loop and {result.type} after a step: what a loop "
                           "carries keeps its shape", "E301", f"the steps one by one, {name} ← … for each, or a "
                           f"value for each step, {name}_i ← …")
        parts = _pattern(s, result, axis, name)
        if parts is None or any(depends(p, lambda n: id(n) in marked) for p in parts[1]):
            if s.concrete:
                return None
            _step_by_step(s, loop, count, set_)
            behind = [name, *_behind(name, results, marks)]
            closed[name] = s.g.node("loop", tuple(x for n in behind for x in (results[n], starts[n])),
                                    (axis, *behind), begin.type)
            continue
        kind, pieces = parts
        if kind == "sum":
            closed[name] = b.add(s.g, begin, b.sumloop(s.g, pieces[0], axis))
        else:
            if not (_structured(pieces[0], axis) and _still(begin)):
                if s.concrete:
                    return None
                _step_by_step(s, loop, count, set_)
            closed[name] = b.fold(s.g, pieces[0], begin, axis, kind)
    for name, node in closed.items():
        bind(s, name, node, loop.span)
    return True


def _behind(name: str, results: Mapping[str, Node], marks: Mapping[str, Node]) -> list[str]:
    """The other names that the loop carries and that a step of this one reads, also through the steps of others.

    What they are made of are arguments of the loop's node, where every question about it sees them.
    """
    by_mark = {id(mark): n for n, mark in marks.items()}
    found = [name]
    for at in found:
        found += [n for n in dict.fromkeys(by_mark.get(id(x)) for x in walk(results[at])) if n and n not in found]
    return found[1:]


def _filled(s: State, begin: Node, result: Node) -> Node:
    """``R ← I`` before a loop takes the size that the loop gives it."""
    hole = open_size(begin)
    if hole is not None and result.type.kind != "unknown" and result.type.rank == 2:
        return settle(s, begin, hole, result.type.item[0])
    return begin


def _pattern(s: State, result: Node, axis: Axis, name: str) -> tuple[str, tuple[Node, ...]] | None:
    """acc + e → ('sum', e);  M @ R → ('left', M);  R @ M → ('right', M)."""
    def is_carry(n: Node) -> bool:
        return n.op == "carry" and n.attrs[0] == name and n.attrs[1] == axis

    if result.op == "add":
        own = [a for a in result.args if is_carry(a)]
        rest = [a for a in result.args if not is_carry(a)]
        if len(own) == 1 and rest:
            return "sum", (b.add(s.g, *rest),)
    if result.op == "prod":
        if is_carry(result.args[-1]):
            return "left", (b.prod(s.g, *result.args[:-1]),)
        if is_carry(result.args[0]):
            return "right", (b.prod(s.g, *result.args[1:]),)
    return None


def _structured(step: Node, axis: Axis) -> bool:
    """Whether a chain of these has a form better than its factors one by one: I + rank one, or plane rotations."""
    from padp.compiler.ir.patterns import plane_rotation, rank_one_update

    return axis in step.type.loops and _still(step) and (
        rank_one_update(step) is not None or plane_rotation(step) is not None)


def _still(node: Node) -> bool:
    """Whether a matrix is the same for every token."""
    return not depends(node, lambda n: n.op == "input")


def _too_long(s: State, loop: Loop, count: Any, set_: Node | None) -> bool:
    """E307 for a loop that has to go step by step and cannot."""
    if not isinstance(count, int) or count > MAX_UNROLL:
        report(s, "E307", f"this loop carries a value through {show(count)} steps and is not a sum or a chain of "
               f"reflections or rotations; at most {MAX_UNROLL} such steps are unrolled", loop.span)
        return True
    if set_ is not None and set_.args:
        report(s, "E307", "a loop that carries a value needs an index set known from the sizes", loop.span)
        return True
    return False


def _step_by_step(s: State, loop: Loop, count: Any, set_: Node | None) -> None:
    """What is known, before the sizes are, of a loop that will be unrolled: E307, or N404 where the sizes decide.

    A count that the hyperparameters give is looked at with their defaults.
    """
    usual = {h.name: h.default.value for h in s.method.hyper if isinstance(h.default, Number)}
    known = count
    if isinstance(count, sp.Expr):
        known = lower(count.subs({x: usual[x.name] for x in count.free_symbols
                                  if isinstance(x, sp.Symbol) and x.name in usual}))
    if isinstance(count, int):
        _too_long(s, loop, count, set_)
    elif not isinstance(known, int) or known > MAX_UNROLL:
        value = f" = {known}" if isinstance(known, int) else ""
        report(s, "N404", f"this loop carries a value through {show(count)}{value} steps and is not a sum or a chain "
               f"of reflections or rotations: it is unrolled, and a layer that needs more than {MAX_UNROLL} steps is "
               "refused", loop.span)


def _unroll(s: State, loop: Loop, start: Any, count: Any, set_: Node | None) -> None:
    if _too_long(s, loop, count, set_):
        return
    rows: Sequence[Sequence[int]]
    if set_ is None:
        rows = [[start + k] for k in range(count)]
    else:
        rows = index_rows(set_.op, set_.attrs)
    for k, row in enumerate(rows):
        for name, value in zip(loop.variables, row, strict=True):
            s.env[name] = s.g.const(value)
        if set_ is not None:
            s.steps.append((set_, tuple(row), k))
        for step in loop.body:
            run_step(s, step)
        if set_ is not None:
            s.steps.pop()
