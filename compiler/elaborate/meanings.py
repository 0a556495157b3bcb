"""Terms → typed nodes: names, calls, indices, sums, declared spaces.

    term(state, t) -> Node       errors are reported and give a node of unknown type, which is silent from then on
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sympy as sp

from padp.compiler.elaborate.algebra import as_matrix, inverted, is_open, negated, norm, power
from padp.compiler.elaborate.asks import asked, reach
from padp.compiler.elaborate.conditions import Condition, decide
from padp.compiler.elaborate.groupings import product
from padp.compiler.elaborate.state import MISTAKEN, Learned, NeedCases, Start, State, report
from padp.compiler.ir import build as b
from padp.compiler.ir.budget import TooLarge
from padp.compiler.ir.build import Mismatch
from padp.compiler.ir.dims import lower, same, show, symbol
from padp.compiler.ir.nodes import OPEN, UNKNOWN, Axis, Node, Type
from padp.compiler.names.remedies import bounded, entry_by_entry, one_a_member, whole
from padp.compiler.names.terms import (
    Arith,
    BlockTerm,
    Call,
    Choose,
    Gradient,
    Inverse,
    Item,
    Magnitude,
    Negate,
    NormOf,
    Number,
    Power,
    Range,
    SpaceTerm,
    SumOver,
    Term,
    Test,
    Text,
    Transpose,
    Var,
    counts_back,
)
from padp.compiler.operators import table as operators
from padp.dsl.diagnostics import Related
from padp.dsl.limits import MAX_CALLS
from padp.dsl.source import Span

# ---------------------------------------------------------------- terms


def dimension(s: State, t: Term) -> Any:
    """A dimension or another number that the sizes settle."""
    node = term(s, t)
    if node.op == "const":
        return node.value
    if node.type.kind == "unknown":  # an undeclared name is one number wherever it stands
        name = t.name if isinstance(t, Var) else f"{MISTAKEN}{t.span.start}"
        return s.sizes.setdefault(name, symbol(name))
    report(s, "E310", f"a size must be known when the adapter is attached; this is {node.type}", t.span)
    return symbol(f"{MISTAKEN}{t.span.start}")


def scalar(s: State, t: Term, need: str) -> Node:
    node = term(s, t)
    if node.type.kind != "unknown" and (node.type.rank or node.type.family):
        report(s, "E301", f"{need}; this is {node.type}", t.span, "sum(…) or ‖…‖_F²")
        return b.opaque(s.g, "misfit", node)
    return node


def term(s: State, t: Term) -> Node:
    """The typed node of a term; errors are reported and give an unknown."""
    kept, s.g.span = s.g.span, t.span if t.span.end else s.g.span  # of the prelude: where it is called
    s.depth += 1
    try:
        return _term(s, t)
    except Mismatch as m:
        notes, suggestion = _hints(s, t)
        places = _places(s, t)
        if sum(r.message.count("∈") for r in places) == len(_mentioned(s, t)):
            notes = notes[1:]  # the places say it all
        report(s, m.code, m.message, t.span, suggestion or m.suggestion, notes, places)
        return s.g.node("mistake", (), (t.span.start, t.span.end), UNKNOWN)
    except TooLarge as large:
        told = large.diagnostics[0]
        report(s, told.code, told.message, t.span, told.suggestion)
        return s.g.node("mistake", (), (t.span.start, t.span.end), UNKNOWN)
    finally:
        s.depth -= 1
        s.g.span = kept


def _hints(s: State, t: Term) -> tuple[list[str], str | None]:
    """Bindings of all dimensions, and another name of this program that would fit where a product does not."""
    notes = [f"here {', '.join(f'{n} ∈ {v.type}' for n, v in _mentioned(s, t))}"] if _mentioned(s, t) else []
    if isinstance(t, Call):
        return notes, entry_by_entry(t, s.method.source)
    if not isinstance(t, Arith):
        return notes, None
    left, right = term(s, t.left), term(s, t.right)
    member = one_a_member(t, left, right, s.learned) or whole(t, left, right, s.env.get)
    if member is not None:
        return [*notes, member[0]], member[1]
    condition = bounded(t, left, right)
    if condition is not None:
        return notes, condition
    if t.op not in ("@", "*"):
        return notes, None
    along = _along_a_family(t, left, right)
    if along is not None:
        return [*notes, f"@ multiplies each of the {show(right.type.family[-1])} members by itself"], along
    side, flipped = (t.right.operand, True) if isinstance(t.right, Transpose) else (t.right, False)
    if isinstance(side, Var) and left.type.rank == 2:
        for name, node in s.env.items():
            if name == side.name or node.type.rank != 2 or node.op in ("weight", "param"):
                continue
            inner = node.type.item[1 if flipped else 0]
            if right.type.rank == 2 and same(inner, right.type.item[0]):
                continue  # it fits no better
            free = isinstance(inner, sp.Expr) and inner.free_symbols - _declared(s)
            if name.startswith(side.name) and (same(inner, left.type.item[1]) or free):
                when = "" if same(inner, left.type.item[1]) else f" when {show(left.type.item[1])} = {show(inner)}"
                notes.append(f"{name} ∈ {node.type} fits here{when}")
                return notes, f"{name}{'ᵀ' if flipped else ''}"
    return notes, None


def _along_a_family(t: Arith, left: Node, right: Node) -> str | None:
    """How a product that was meant to run over the members of a family is written."""
    if left.type.family or not right.type.family or left.type.rank != 2 \
            or not same(left.type.item[1], right.type.family[-1]):
        return None
    whole = t.left.operand if left.type.row and isinstance(t.left, Transpose) else t.left
    T = whole.name if isinstance(whole, Var) else "T"
    X = t.right.name if isinstance(t.right, Var) else "X"
    over = f"Σ_{{j ∈ range({show(right.type.family[-1])})}}"
    return f"{over} {T}_j · {X}_j" if left.type.row else f"Y_i ← {over} {T}_{{i,j}} · {X}_j"


def _places(s: State, t: Term) -> list[Related]:
    """Where the sides of a term, as far as they are plain names, got the shapes that do not fit."""
    declared = {p.name: p.span for p in s.method.parameters} | {x.name: x.span for x in s.method.bound}
    bound = {name: span for name, node, span in s.history if s.env.get(name) is node}
    said: dict[Span, list[str]] = {}
    for side in (t.left, t.right) if isinstance(t, Arith) else (t,):
        names = _mentioned(s, side)
        if len(names) != 1:
            continue
        ((name, node),) = names
        span = bound.get(name) or declared.get(name)
        if span is not None and span.end and not (span.start <= t.span.start and t.span.end <= span.end):
            text = f"{name} ∈ {node.type}"
            if text not in said.setdefault(span, []):
                said[span].append(text)
    return [Related(span, " and ".join(texts)) for span, texts in said.items()]


def _declared(s: State) -> set[Any]:
    return {x for n in s.method.bound for d in s.env[n.name].type.shape if isinstance(d, sp.Expr)
            for x in d.free_symbols}


def _mentioned(s: State, t: Term) -> list[tuple[str, Node]]:
    found: dict[str, Node] = {}

    def visit(x: Any) -> None:
        if isinstance(x, Var):
            node = s.env.get(x.name)
            if node is not None and node.type.kind == "real" and node.type.rank:
                found.setdefault(x.name, node)
            return
        for key in ("left", "right", "operand", "base"):
            child = getattr(x, key, None)
            if child is not None:
                visit(child)
        for child in getattr(x, "args", ()):
            visit(child)

    visit(t)
    return list(found.items())


def _term(s: State, t: Term) -> Node:
    match t:
        case Number(value):
            return s.g.const(value)
        case Text(value):
            return s.g.node("text", (), (value,), Type(kind="text"))
        case Var(name):
            return _var(s, name)
        case Call():
            made = call(s, t)
            if not isinstance(made, Node):
                left = {"svd": "U, Σ, Vᵀ", "qr": "Q, R"}.get(t.function, ", ".join("abcd"[:len(made)]))
                raise Mismatch(f"{t.function} gives {len(made)} values; name them all on the left", "E209",
                               f"{left} ← {t.function}(…)")
            return made
        case Negate(operand):
            return negated(s, term(s, operand))
        case Arith(left=left, right=right):
            return product(s, t, term(s, left), term(s, right))
        case Power(base, exponent):
            return power(s, term(s, base), term(s, exponent))
        case Transpose(operand):
            return b.t(s.g, term(s, operand))
        case Inverse(operand):
            return inverted(s, term(s, operand))
        case Item(base, items):
            return _item(s, t, term(s, base), items)
        case Magnitude(operand):
            inner = term(s, operand)
            if inner.type.kind == "index" and inner.type.rank:
                return s.g.const(inner.type.item[0])
            if inner.op == "const":
                return s.g.const(lower(sp.Abs(inner.value)))
            return b.point(s.g, "abs", inner)
        case NormOf(operand, axis):
            return norm(s, term(s, operand), axis)
        case SumOver():
            return _sum_over(s, t)
        case Choose(then, test, otherwise):
            return term(s, then if _decide(s, test) else otherwise)
        case BlockTerm(rows):
            return _block(s, rows)
        case Gradient(name):
            known = s.env.get(name) or parameter(s, name)
            if known is not None and s.after_backward:
                return s.g.node("gradient", (known,), (), known.type)
            raise Mismatch(f"∇{name} exists after the backward pass only", "E210") if known is not None else \
                Mismatch(f"{name} is not learned", "E201")


def _var(s: State, name: str) -> Node:
    found = s.env.get(name)
    if found is not None:
        return found
    made = parameter(s, name)
    if made is not None:
        return made
    if s.pending.get(name):
        raise Mismatch(f"{name} is read before it is whole: it is defined by writes to its parts, and a loop over them "
                       "completes it", "E305", f"{name} ← [A; B] from its parts, or {name} ← zeros(…) to write into")
    if name == "I":
        s.holes += 1
        return b.eye(s.g, sp.Symbol(f"{OPEN}{s.holes}", integer=True, positive=True))
    return s.g.node("undeclared", (), (name,), UNKNOWN)


def _decide(s: State, test: Test) -> bool:
    for known, holds in s.assume:
        if known == test:
            return holds
    left = dimension(s, test.left)
    right = dimension(s, test.right) if test.right is not None else None
    match test.op:
        case "even":
            answer = sp.Eq(sp.Mod(left, 2), 0)
        case "odd":
            answer = sp.Eq(sp.Mod(left, 2), 1)
        case "=":
            answer = sp.Eq(left, right)
        case "≠":
            answer = sp.Ne(left, right)
        case "<":
            answer = sp.sympify(left) < right
        case "≤":
            answer = sp.sympify(left) <= right
        case ">":
            answer = sp.sympify(left) > right
        case "≥":
            answer = sp.sympify(left) >= right
    if answer in (True, False, sp.true, sp.false):
        return bool(answer)
    raise NeedCases(test)


def _block(s: State, rows: tuple[tuple[Term, ...], ...]) -> Node:
    grid = [[term(s, t) for t in row] for row in rows]
    flat = [n for row in grid for n in row]
    if b.unknown(*flat):
        return b.opaque(s.g, "cat", *flat)
    tallest = max(n.type.rank for n in flat)
    if tallest <= 1 and len(grid) > 1 and all(len(row) == 1 for row in grid):  # [x; 1]
        parts = [b.reshape(s.g, n, (*n.type.family, 1)) if n.type.rank == 0 and n.op != "const" else
                 b.full(s.g, n.value, Type((1,))) if n.type.rank == 0 else n for n in flat]
        return b.cat(s.g, parts, 1)
    if tallest <= 1 and len(grid) == 1 and all(n.op == "const" for n in flat):  # literal row [1, 2, 3] is a vector
        return b.cat(s.g, [b.full(s.g, n.value, Type((1,))) for n in flat], 1)
    done = []
    for row in grid:
        parts = [as_matrix(s, n) for n in row]
        done.append(b.cat(s.g, parts, 1))
    return b.cat(s.g, done, 2)


# ---------------------------------------------------------------- indexing, sums, calls


def bounds(s: State, r: Range, size: Any) -> tuple[Any, Any]:
    """Where a slice begins and ends in an axis: 0 ≤ start ≤ stop ≤ size."""
    def end(t: Term | None, default: Any) -> Any:
        if t is None:
            return default
        value = dimension(s, t)
        need(s, Condition(value, None, t.span))
        return lower(_known(size, t) + value) if counts_back(t) else value

    start, stop = end(r.start, 0), end(r.stop, size)
    require(s, 0, start, s.g.span)
    if _refuted(s, Condition(start, stop, s.g.span)):
        raise Mismatch(f"the slice {show(start)}:{show(stop)} is empty backwards", "E501" if s.concrete else "E305")
    require(s, stop, size, s.g.span)
    return start, stop


def place(s: State, t: Term, size: Any) -> Node:
    """One index of an axis, from 0 also where it is written to count from the end."""
    node = term(s, t)
    if not counts_back(t) or node.op not in ("const", "iota"):
        return node
    if node.op == "const":
        return s.g.const(lower(_known(size, t) + node.value))
    axis, step, first = node.attrs
    return s.g.node("iota", (), (axis, step, lower(_known(size, t) + first)), node.type)


def _known(size: Any, t: Term) -> Any:
    """The length of an axis that an index counts back from."""
    if is_open(size):
        raise Mismatch("this I has no size yet, and a negative index counts from the end", "E305",
                       "eye(n) has a size from the start")
    return size


def places(s: State, base: Node, items: Sequence[Term | Range]) -> list[Node | Range]:
    """The items of an index, each as it stands in its axis."""
    shape = base.type.family + base.type.item if base.type.kind != "unknown" else ()
    return [i if isinstance(i, Range) else place(s, i, shape[k]) if k < len(shape) else term(s, i)
            for k, i in enumerate(items)]


def _item(s: State, t: Item, base: Node, items: Sequence[Term | Range]) -> Node:
    nodes: list[Any] = places(s, base, items)
    if isinstance(t.base, Var):
        declared = next((p for p in s.method.parameters if p.name == t.base.name), None)
        omega = None if declared is None or declared.space.index is None else s.env.get(declared.space.index)
        if omega is not None and len(nodes) > 1 and not b.unknown(base, omega, *(n for n in nodes if isinstance(
                n, Node))):
            return _element(s, t.base.name, base, omega, nodes)
    return index(s, base, nodes)


def _element(s: State, name: str, base: Node, omega: Node, nodes: Sequence[Any]) -> Node:
    """c_{p,q} in a loop or a sum over (p, q) ∈ Ω: the number of the element that it is at, and no other's."""
    places = len(nodes) == omega.type.item[1] if omega.type.rank == 2 else False
    if places and all(isinstance(n, Node) and n.op == "const" for n in nodes):
        for set_, element, k in reversed(s.steps):
            if set_ is omega and element == tuple(n.value for n in nodes):
                return b.take(s.g, base, s.g.const(k), 1)
    if places and all(isinstance(n, Node) and n.op == "column" and n.args[0] is omega and n.attrs == (
            nodes[0].attrs[0], k) for k, n in enumerate(nodes)):
        axis = nodes[0].attrs[0]
        return b.take(s.g, base, s.g.node("iota", (), (axis, 1, 0), Type((), (), (axis,), kind="index")), 1)
    letters = ("i", "j", "k", "l")[:omega.type.item[1]] if omega.type.rank == 2 else ("i",)
    raise Mismatch(f"{name} has one number for each element of its index set, and these are not the places of the "
                   "element that the loop is at", "E305",
                   f"{name}_{{{','.join(letters)}}} in a loop over ({', '.join(letters)}): all places, in order")


def index(s: State, base: Node, items: Sequence[Any]) -> Node:
    if b.unknown(base, *(i for i in items if isinstance(i, Node))):
        return b.opaque(s.g, "item", base, *(i for i in items if isinstance(i, Node)))
    axes = len(base.type.family) + base.type.rank
    if len(items) > axes:
        raise Mismatch(f"{len(items)} indices for {base.type}", "E305")
    result = base
    for position in range(len(items) - 1, -1, -1):  # from the right, so that axes to the left keep their place
        item = items[position]
        axis = axes - position
        shape = base.type.family + base.type.item
        size = shape[position]
        if isinstance(item, Range):
            step = dimension(s, item.step) if item.step is not None else 1
            if not (step >= 1 if isinstance(step, int) else step.is_positive and step.is_integer):
                raise Mismatch("the step of a slice is a whole number ≥ 1", "E305")
            if is_open(size) and (item.start, item.stop) != (None, None):
                raise Mismatch("this I has no size yet, and only single entries of it can be read", "E309", "eye(n)")
            low, high = bounds(s, item, size)
            result = b.slice_(s.g, result, -(axis - _removed(items, position)), low, high, step)
            continue
        result = b.take(s.g, result, inside(s, item, size), axis - _removed(items, position))
    last = [*items, *[Range(None, None)] * (axes - len(items))][-2:] if base.type.rank == 2 else []
    if len(items) == axes and last and isinstance(last[0], Node) and last[0].type.rank == 0 \
            and isinstance(last[1], Range):
        return b.lying(s.g, result)
    return result


def inside(s: State, item: Node, size: Any) -> Node:
    """An index of an axis of ``size`` entries, from 0: whole numbers, the least ≥ 0, the greatest below ``size``."""
    if item.op == "const":
        if isinstance(item.value, (int, sp.Expr)):
            need(s, Condition(item.value, None, s.g.span))
        elif not isinstance(item.value, int):
            raise Mismatch(f"an index is a whole number, this is {show(item.value)}", "E305")
        lowest, after = item.value, lower(item.value + 1)
    elif item.type.kind != "index":
        raise Mismatch(f"an index is a number, a loop index or an index vector; this is {item.type}", "E305")
    elif item.op == "iota":
        axis, step, first = item.attrs
        if axis.size == 0:
            return item
        for value in (step, first):
            need(s, Condition(value, None, s.g.span))
        last = lower(first + step * (axis.size - 1))
        lowest, highest = (last, first) if sp.sympify(step).is_negative else (first, last)
        after = lower(highest + 1)
    else:
        lowest, after = 0, reach(item)[0]
    require(s, 0, lowest, s.g.span)
    if after is not None:
        require(s, after, size, s.g.span, index=True)
    return item


def _removed(items: Sequence[Any], position: int) -> int:
    """How many axes to the right of ``position`` a scalar index has removed already."""
    return sum(1 for i in items[position + 1:] if isinstance(i, Node) and i.type.rank == 0)


def _sum_over(s: State, t: SumOver) -> Node:
    found = domain(s, t.domain, t.span)
    if found is None:
        return s.g.node("undetermined", (), (t.span.start,), UNKNOWN)
    start, count, set_ = found
    need(s, Condition(1, count, t.domain.span))  # a sum of nothing has no shape
    axis = s.g.axis(count, set_)
    kept = {n: s.env.get(n) for n in t.indices}
    loop_variables(s, t.indices, axis, start, set_, t.span)
    body = term(s, t.body)
    for n, v in kept.items():
        if v is None:
            s.env.pop(n, None)
        else:
            s.env[n] = v
    return b.sumloop(s.g, body, axis)


def call(s: State, t: Call) -> Node | tuple[Node, ...]:
    name = operators.ALIASES.get(t.function, t.function)
    if t.function in s.functions:
        return _apply(s, t)
    if name == "attn":
        args = tuple(term(s, v) for _, v in t.kwargs)
        type_ = Type() if s.method.site == "attention" else UNKNOWN  # elsewhere it has been refused by name
        return s.g.node("attn", args, tuple(k for k, _ in t.kwargs), type_)
    if name == "range":
        raise Mismatch("range(…) stands after `in` only", "E210", "arange(n) for an index vector")
    args = tuple(term(s, a) for a in t.args)
    kwargs = {k: _tuple(s, v) for k, v in t.kwargs}
    if name in ("ema", "keep", "cubic"):
        return _after_backward(s, name, args)
    entry = operators.OPERATORS.get(name)
    if entry is None:
        return b.opaque(s.g, f"call:{name}", *args)
    low, high = entry.arity
    if name == "grouped" and len(args) == 1:
        args = (*args, s.env.get("H") or s.g.const(args[0].type.family[-1] if args[0].type.family else 1))
    if not low <= len(args) <= high:
        raise Mismatch(f"{name} takes {low if low == high else f'{low} to {high}'} argument{'s' * (high != 1)}, "
                       f"not {len(args)}", "E209", entry.signature)
    extra = [k for k in kwargs if k not in entry.keywords]
    if extra:
        raise Mismatch(f"{name} has no argument called {extra[0]}", "E209", entry.signature)
    if b.unknown(*args):
        outputs = {"svd": 3, "qr": 2}.get(name, 1)
        made = b.opaque(s.g, f"call:{name}", *args)
        return made if outputs == 1 else tuple(s.g.node("part", (made,), (k,), UNKNOWN) for k in range(outputs))
    first = next((a for a in args if a.type.kind == "complex"), None)
    if first is not None and name not in operators.TAKES_COMPLEX:
        raise Mismatch(f"{name} takes real numbers, this is {first.type}", "E306", "Re(…), Im(…) or |…|")
    for condition in asked(name, args, kwargs, s.g.span):
        need(s, condition, f"{name}: ")
    return entry.make(s.g, args, kwargs)


def _after_backward(s: State, name: str, args: tuple[Node, ...]) -> Node:
    """The shape of a moving average, of what is kept of a tensor, of a schedule."""
    if not s.after_backward:
        raise Mismatch(f"{name} belongs in `after backward`", "E210")
    if name == "cubic":
        return s.g.node(name, args, (), Type())
    value = args[0]
    if name == "keep" and not b.unknown(*args[:2]) and not b.fits(value.type.shape, args[1].type.shape):
        raise Mismatch(f"keep needs a score for each entry: {args[1].type} does not fit {value.type}")
    return s.g.node(name, args, (), value.type)


def _tuple(s: State, t: Term) -> Node:
    if isinstance(t, BlockTerm) and len(t.rows) == 1:
        return s.g.node("tuple", tuple(term(s, x) for x in t.rows[0]), (), Type(kind="text"))
    if isinstance(t, Call) and t.function == "tuple":
        return s.g.node("tuple", tuple(term(s, x) for x in t.args), (), Type(kind="text"))
    return term(s, t)


def _apply(s: State, t: Call) -> Node:
    function = s.functions[t.function]
    if len(t.args) != len(function.parameters) or t.kwargs:
        raise Mismatch(f"{t.function} takes {len(function.parameters)} arguments, here are {len(t.args)}", "E209")
    if s.calls >= MAX_CALLS:
        raise Mismatch(f"functions are called more than {MAX_CALLS} deep", "E105")
    args = [term(s, a) for a in t.args]
    s.calls += 1
    outer = dict(s.env)
    s.env.update(zip(function.parameters, args, strict=True))
    known = set(s.learned)
    result = term(s, function.body)
    s.calls -= 1
    made = {n: s.env[n] for n in s.learned if n not in known and n in s.env}
    # a function's own names end with it; sizes of a bare I that it settled stay settled through the result
    s.env = {**outer, **made}
    return result


def space_type(s: State, space: SpaceTerm) -> Type:
    """The type that a declared space stands for."""
    kind: Any = {"ℂ": "complex", "ℕ": "index"}.get(space.kind, "real")
    if space.index is not None:
        omega = s.env.get(space.index)
        if omega is None or omega.type.kind == "unknown" or not omega.type.rank:
            return UNKNOWN
        return Type((omega.type.item[0],))
    dims = tuple(_whole(s, d) for d in space.dims)
    family = tuple(_whole(s, d) for d in space.family)
    if None in (*dims, *family):
        return UNKNOWN
    if space.kind in ("O", "SO"):
        dims = (dims[0], dims[0])
    if len(dims) > 2:
        family, dims = (*family, *dims[:-2]), dims[-2:]
    return Type(dims, family, kind=kind)


def _whole(s: State, d: Term) -> Any:
    """A declared dimension; with sizes it must come out as a whole number ≥ 0."""
    value = dimension(s, d)
    if not s.concrete:
        for condition in (Condition(value, None, d.span), Condition(0, value, d.span)):
            hold(s, condition, "the dimension")
    if s.concrete and not (isinstance(value, int) and value >= 0):
        from padp.compiler.sizes.solve import symbolic, text

        used = {n: v for n, v in s.sizes.items() if n in {str(x) for x in symbolic(d, {}).free_symbols}}
        here = ", ".join(f"{n} = {v}" for n, v in used.items())
        said = f"the dimension {text(d)} is {show(value)}, not a whole number ≥ 0"
        if all(said != known.message for known in s.diagnostics):  # once, wherever it stands
            report(s, "E501", said, d.span, notes=(f"here {here}",) if here else ())
        return None
    return value


def parameter(s: State, name: str) -> Node | None:
    """The node of a declared tensor, made when it is first used (its space may name an index set)."""
    if name in s.learned:
        return s.learned[name].node
    declaration = next((p for p in s.method.parameters if p.name == name), None)
    if declaration is None:
        return None
    type_ = space_type(s, declaration.space)
    if declaration.space.kind == "St" and type_.rank == 2:
        hold(s, Condition(type_.item[0], type_.item[1], declaration.space.span), "orthonormal rows")
    kept, s.g.span = s.g.span, declaration.span
    leaf = s.g.node("param", (), (name, declaration.role), type_)
    node = leaf
    if declaration.space.kind in ("O", "St", "SO") and type_.kind != "unknown":
        node = s.g.node("orthonormal" if declaration.space.kind != "SO" else "special_orthogonal", (leaf,), (), type_)
    s.g.span = kept
    s.learned[name] = Learned(declaration, node, type_.shape, Start())
    s.env.setdefault(name, node)
    return node


def need(s: State, condition: Condition, what: str = "") -> None:
    """Settled now where it can be, carried to the sizes otherwise; ``Mismatch`` for what no sizes satisfy."""
    if _refuted(s, condition):
        raise Mismatch(what + broken(condition), "E501" if s.concrete else "E308")


def require(s: State, left: Any, right: Any, span: Span, index: bool = False) -> None:
    """left ≤ right, for an index or a slice to stay inside its axis; reported, and read on."""
    condition = Condition(left, right, span, index)
    if _refuted(s, condition):
        outside(s, condition)


def hold(s: State, condition: Condition, what: str) -> None:
    """The same for a declared space."""
    if _refuted(s, condition):
        report(s, "E501" if s.concrete else "E308", f"{what}: {broken(condition)}", condition.span)


def _refuted(s: State, condition: Condition) -> bool:
    answer = decide(condition, s.facts)
    if answer is None and condition not in s.requirements:
        s.requirements.append(condition)
    return answer is False


def outside(s: State, condition: Condition) -> None:
    """E305, at known sizes E501: an index that leaves its axis."""
    report(s, "E501" if s.concrete else "E305", f"outside of its axis: {broken(condition)}", condition.span,
           "indices count from 0 to the length of their axis less 1")


def broken(condition: Condition) -> str:
    """How a condition is told that no sizes satisfy."""
    return f"{show(condition.left)} is not a whole number" if condition.right is None else f"{condition} does not hold"


def domain(s: State, t: Term, span: Span) -> tuple[Any, Any, Node | None] | None:
    """(first value, number of steps, index set or None)."""
    if isinstance(t, Call) and t.function == "range":
        values = [dimension(s, a) for a in t.args]
        if any(isinstance(v, sp.Symbol) and v.name.startswith(MISTAKEN) for v in values):
            return None
        start, stop = (0, values[0]) if len(values) == 1 else (values[0], values[1])
        for value in values:
            need(s, Condition(value, None, t.span))
        need(s, Condition(start, stop, t.span))
        return start, lower(stop - start), None
    node = term(s, t)
    if node.type.kind == "unknown":
        return None
    if node.type.kind != "index":
        report(s, "E307", f"a loop runs over range(…) or an index set, this is {node.type}", span)
        return None
    return 0, node.type.item[0], node


def loop_variables(s: State, names: Sequence[str], axis: Axis, start: Any, set_: Node | None, span: Span) -> None:
    if set_ is None:
        if len(names) != 1:  # the resolver has said so
            for name in names:
                s.env[name] = s.g.node("undetermined", (), (name, span.start), UNKNOWN)
            return
        s.env[names[0]] = s.g.node("iota", (), (axis, 1, start), Type((), (), (axis,), kind="index"))
        return
    arity = 1 if set_.type.rank == 1 else set_.type.item[1]
    if len(names) != arity:
        raise Mismatch(f"{len(names)} names for index tuples of {show(arity)}", "E209")
    for k, name in enumerate(names):
        s.env[name] = s.g.node("column", (set_,), (axis, k), Type((), (), (axis,), kind="index"))
