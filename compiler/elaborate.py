"""Resolved program → typed IR.

    elaborate(method, sizes=None) -> Elaborated

Without sizes every dimension is a symbol and the result proves shapes for all of them; with sizes every dimension is a
number and the result is what gets planned. The code is the same: a dimension is an int or a sympy expression. Loops and
sums become axes (``for i`` over independent elements is one vectorised value); a chain ``R ← Hᵢ @ R`` becomes a ``fold``.
Errors are collected; what depends on one is of unknown type and silent.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import sympy as sp

from padp.compiler import build as b
from padp.compiler import operators
from padp.compiler.build import Mismatch
from padp.compiler.dims import lower, same, show, symbol
from padp.compiler.ir import UNKNOWN, Axis, Graph, Node, Type, depends, walk
from padp.compiler.terms import (
    Arith, BlockTerm, Call, Choose, Gradient, Hyperparameter, Inverse, Item, Let, Loop, Magnitude, Method, Negate,
    NormOf, Number, Parameter, Power, Range, SpaceTerm, Step, SumOver, Term, Test, Text, Transpose, Var, Write,
)  # fmt: skip
from padp.dsl.diagnostics import Diagnostic, Related
from padp.dsl.source import Span

MAX_UNROLL = 256
"""Loops that are neither independent, nor a sum, nor a chain are unrolled up to this many steps."""

INITIALISERS = ("kaiming", "kaiming_normal", "xavier", "normal", "uniform", "trunc_normal", "orthogonal")
WRAPPERS = ("pairs", "unit_std")


class NeedCases(Exception):
    """A conditional on dimensions that symbols do not decide: the caller elaborates each case."""

    def __init__(self, test: Test) -> None:
        super().__init__(test)
        self.test = test


@dataclass(frozen=True)
class Start:
    """How a parameter starts: a named initialiser with its numbers and wrappers, or an expression."""

    kind: str | None = None
    numbers: tuple[float, ...] = ()
    wrappers: tuple[str, ...] = ()
    node: Node | None = None


@dataclass(frozen=True)
class Learned:
    """A declared tensor with its concrete (or symbolic) type."""

    declaration: Parameter
    node: Node
    stored: tuple[Any, ...]
    start: Start


@dataclass(frozen=True)
class Elaborated:
    """The typed program: ``output`` is y (bias included), ``penalty`` the sum of ``minimise`` terms or None."""

    method: Method
    graph: Graph
    output: Node
    penalty: Node | None
    parameters: Mapping[str, Learned]
    names: Mapping[str, Node]
    sizes: Mapping[str, Any]
    mentions_bias: bool
    diagnostics: tuple[Diagnostic, ...] = ()
    history: tuple[tuple[str, Node, Span], ...] = ()
    requirements: tuple[tuple[str, Any, Any, Span], ...] = ()


@dataclass
class _Write:
    items: tuple[Node | Range, ...]
    value: Node
    span: Span


@dataclass
class _State:
    method: Method
    g: Graph
    concrete: bool
    env: dict[str, Node] = field(default_factory=dict)
    sizes: dict[str, Any] = field(default_factory=dict)
    hypotheses: Mapping[int, Mapping[str, SpaceTerm]] = field(default_factory=dict)
    learned: dict[str, Learned] = field(default_factory=dict)
    diagnostics: list[Diagnostic] = field(default_factory=list)
    pending: dict[str, list[_Write]] = field(default_factory=dict)
    functions: dict[str, Any] = field(default_factory=dict)
    history: list[tuple[str, Node, Span]] = field(default_factory=list)
    requirements: list[tuple[str, Any, Any, Span]] = field(default_factory=list)
    local: list[set[str]] = field(default_factory=list)
    holes: int = 0
    depth: int = 0
    in_loop: int = 0
    assume: tuple[tuple[Test, bool], ...] = ()


def elaborate(method: Method, sizes: Mapping[str, Any] | None = None, hyper: Mapping[str, Any] | None = None,
              has_bias: bool | frozenset[str] = True, assume: tuple[tuple[Test, bool], ...] = (),
              hypotheses: Mapping[int, Mapping[str, SpaceTerm]] | None = None) -> Elaborated:
    """The typed IR of ``method``: symbolic without ``sizes``, concrete with them.

    ``hypotheses`` gives, by the offset of a statement, spaces claimed in its comment: they stand in where a type is
    unknown. Raises ``NeedCases`` when a conditional on dimensions is open.
    """
    s = _State(method, Graph(), sizes is not None, assume=assume, hypotheses=hypotheses or {})
    s.functions = {f.name: f for f in method.functions}
    _bind_numbers(s, sizes, hyper or {})
    _bind_site(s, has_bias)
    for step in method.body:
        _step(s, step)
    for p in method.parameters:
        _parameter(s, p.name)
    output, mentions = _output(s)
    penalty = None
    for term in method.minimise:
        value = _scalar(s, term, "minimise takes a scalar")
        penalty = value if penalty is None else b.add(s.g, penalty, value)
    for name in list(s.learned):
        s.learned[name] = _with_start(s, s.learned[name])
    return Elaborated(method, s.g, output, penalty, s.learned, s.env, s.sizes, mentions, tuple(s.diagnostics),
                      tuple(s.history), tuple(s.requirements))


def report(s: _State, code: str, message: str, span: Span, suggestion: str | None = None,
           notes: Sequence[str] = (), related: Sequence[Related] = ()) -> None:
    """Record a finding; repeated ones are kept once."""
    found = Diagnostic(code, message, span, s.method.source, tuple(related), tuple(notes), suggestion)
    if found not in s.diagnostics:
        s.diagnostics.append(found)


# ---------------------------------------------------------------- what the header and the site provide


def _symbol_of(h: Hyperparameter, even: bool) -> sp.Symbol:
    default = h.default
    if isinstance(default, Number) and isinstance(default.value, float):
        return sp.Symbol(h.name, real=True, positive=True if default.value > 0 else None)
    if isinstance(default, Number) and default.value == 0:
        return sp.Symbol(h.name, integer=True, nonnegative=True)
    return symbol(h.name, even=even or None)


def _bind_numbers(s: _State, sizes: Mapping[str, Any] | None, hyper: Mapping[str, Any]) -> None:
    even = {t.left.name for t in s.method.relations if t.op == "even" and isinstance(t.left, Var)} | _halved(s.method)
    for h in s.method.hyper:
        if h.knob:
            s.env[h.name] = s.g.node("knob", (), (h.name,), Type())
        elif h.name in hyper:
            value = hyper[h.name]
            s.env[h.name] = s.g.node("text", (), (value,), Type(kind="text")) if isinstance(value, str) \
                else s.g.const(value)
        elif isinstance(h.default, Text):
            s.env[h.name] = s.g.node("text", (), (h.default.value,), Type(kind="text"))
        else:
            s.env[h.name] = s.g.const(_symbol_of(h, h.name in even))
    for name, value in (sizes or {}).items():
        s.sizes[name] = value
        if name not in s.env:
            s.env[name] = s.g.const(value)
    s.env.setdefault("π", s.g.const(sp.pi))
    if sizes is not None:
        return
    named = {h.name for h in s.method.hyper}
    defined = {t.left.name: t.right for t in s.method.relations
               if t.op == "=" and isinstance(t.left, Var) and t.left.name not in named}
    for name in sorted(dimension_names(s.method, [x for said in s.hypotheses.values() for x in said.values()])):
        if name not in s.env and name not in defined:
            value = symbol(name, even=name in even)
            s.sizes[name], s.env[name] = value, s.g.const(value)
    for test, holds in s.assume:  # m ≥ n is m = n + δ with δ ≥ 0; its contrary n = m + δ with δ > 0
        big, small = (test.left, test.right) if (test.op in ("≥", ">")) == holds else (test.right, test.left)
        if isinstance(big, Var) and isinstance(small, Var):
            delta = sp.Symbol(f"({big.name} − {small.name})", integer=True, nonnegative=True)
            value = s.sizes[small.name] + delta
            s.sizes[big.name], s.env[big.name] = value, s.g.const(value)
    for test in s.method.relations:  # e ≤ d: d is e + δ with δ ≥ 0
        big, small = (test.right, test.left) if test.op in ("≤", "<") else (test.left, test.right)
        if test.op in ("≤", "<", "≥", ">") and isinstance(big, Var) and isinstance(small, Var) and \
                big.name not in named and small.name in s.env and s.env[small.name].op == "const":
            delta = sp.Symbol(f"({big.name} − {small.name})", integer=True, nonnegative=True)
            value = s.env[small.name].value + delta
            s.sizes[big.name], s.env[big.name] = value, s.g.const(value)
    for test in s.method.relations:  # in order, so that N = ceil(q/r) sees q
        if test.op != "=" or not isinstance(test.left, Var) or test.right is None:
            continue
        value = dimension(s, test.right)
        if test.left.name in named:
            continue
        s.sizes[test.left.name], s.env[test.left.name] = value, s.g.const(value)


def _halved(method: Method) -> set[str]:
    """Dimensions that a declared space halves: ℝ^{m/2} is only there for even m."""
    return {d.left.name for p in method.parameters for d in (*p.space.dims, *p.space.family)
            if isinstance(d, Arith) and d.op == "/" and isinstance(d.left, Var) and d.right == Number(2)}


def dimension_names(method: Method, hypotheses: Sequence[SpaceTerm] = ()) -> set[str]:
    """Every name that stands in a declared dimension, a relation, or a space that only a comment claims."""
    found: set[str] = set()
    bound = {x.name for x in method.bound} | {p.name for p in method.parameters}

    def visit(term: Any) -> None:
        if isinstance(term, Var):
            found.add(term.name)
        elif isinstance(term, (Arith,)):
            visit(term.left)
            visit(term.right)
        elif isinstance(term, Call):
            for a in term.args:
                visit(a)
        elif isinstance(term, (Power,)):
            visit(term.base)
        elif isinstance(term, (Negate, Magnitude)):
            visit(term.operand)

    for space in [x.space for x in method.bound] + [p.space for p in method.parameters] + list(hypotheses):
        for d in (*space.dims, *space.family):
            visit(d)
    for test in method.relations:
        visit(test.left)
        visit(test.right)
    lets = {n for st in method.body if isinstance(st, Let) for n in st.names}
    return {n for n in found if n not in bound and n not in ("π", "I") and n not in lets}


def _bind_site(s: _State, has_bias: bool | frozenset[str]) -> None:
    for bound in s.method.bound:
        type_ = space_type(s, bound.space)
        if bound.name in ("x", "h"):
            s.env[bound.name] = s.g.node("input", (), (bound.name,), type_)
        elif bound.name == "bias" or bound.name.startswith("b_"):
            there = bound.name in has_bias if isinstance(has_bias, frozenset) else has_bias
            s.env[bound.name] = s.g.node("bias", (), (bound.name,), type_) if there else b.zeros(s.g, type_)
        else:
            s.env[bound.name] = s.g.node("weight", (), (bound.name,), type_)


def space_type(s: _State, space: SpaceTerm) -> Type:
    """The type that a declared space stands for."""
    kind: Any = {"ℂ": "complex", "ℕ": "index"}.get(space.kind, "real")
    if space.index is not None:
        omega = s.env.get(space.index)
        if omega is None or omega.type.kind == "unknown":
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


def _whole(s: _State, d: Term) -> Any:
    """A declared dimension; with sizes it must come out as a whole number ≥ 0."""
    value = dimension(s, d)
    if s.concrete and not (isinstance(value, int) and value >= 0):
        from padp.compiler.sizes import text

        used = {n: v for n, v in s.sizes.items() if n in text(d)}
        here = ", ".join(f"{n} = {v}" for n, v in used.items())
        report(s, "E501", f"the dimension {text(d)} is {show(value)}, not a whole number", d.span,
               notes=(f"here {here}",) if here else ())
        return None
    return value


def _parameter(s: _State, name: str) -> Node | None:
    """The node of a declared tensor, made when it is first used (its space may name an index set)."""
    if name in s.learned:
        return s.learned[name].node
    declaration = next((p for p in s.method.parameters if p.name == name), None)
    if declaration is None:
        return None
    type_ = space_type(s, declaration.space)
    kept, s.g.span = s.g.span, declaration.span
    leaf = s.g.node("param", (), (name, declaration.role), type_)
    node = leaf
    if declaration.space.kind in ("O", "St", "SO") and declaration.role == "learned" and type_.kind != "unknown":
        node = s.g.node("orthonormal" if declaration.space.kind != "SO" else "special_orthogonal", (leaf,), (), type_)
    s.g.span = kept
    s.learned[name] = Learned(declaration, node, type_.shape, Start())
    s.env.setdefault(name, node)
    return node


def _with_start(s: _State, p: Learned) -> Learned:
    init = p.declaration.init
    if init is None:
        default = "zeros" if p.declaration.role == "learned" else "kaiming"
        return Learned(p.declaration, p.node, p.stored, Start(default))
    return Learned(p.declaration, p.node, p.stored, start_of(s, init, p.node.type))


def start_of(s: _State, init: Term, type_: Type) -> Start:
    """The initial value as a named start, or as an expression of what stands before."""
    match init:
        case Number(value):
            return Start("zeros") if value == 0 else Start("ones") if value == 1 else Start("constant", (value,))
        case Var(name) if name in INITIALISERS and name not in s.env:
            return Start(name)
        case Call(name, args) if name in WRAPPERS and len(args) == 1:
            inner = start_of(s, args[0], type_)
            if inner.kind is not None:
                return Start(inner.kind, inner.numbers, (name, *inner.wrappers))
        case Call(name, args) if name in INITIALISERS:
            return Start(name, tuple(_number(s, a) for a in args))
        case _:
            pass
    node = term(s, init)
    if node.type.kind != "unknown" and type_.kind != "unknown":
        if node.type.rank == 0 and type_.rank:
            node = b.scale(s.g, node, b.full(s.g, 1, type_))
        elif not _fits_each(_free(s, node, type_).type, type_):
            report(s, "E301", f"the start has the shape {node.type}, the declaration says {type_}", init.span)
        node = _free(s, node, type_)
    return Start(node=node)


def _fits_each(start: Type, type_: Type) -> bool:
    """Whether a start has the declared shape, or that of each item of a declared family."""
    return b.fits(start.item, type_.item) and (not start.family or b.fits(start.family, type_.family))


def _free(s: _State, node: Node, type_: Type) -> Node:
    """A bare ``I`` as the start of a matrix takes its size."""
    if node.op == "eye" and _hole(node) is not None and type_.rank == 2:
        return b.eye(s.g, type_.item[0])
    return node


def _number(s: _State, t: Term) -> float:
    node = term(s, t)
    value = node.value if node.op == "const" else None
    if value is None:
        report(s, "E310", "an initialiser takes numbers", t.span)
        return 0.0
    return float(value) if not isinstance(value, sp.Expr) or not value.free_symbols else value  # type: ignore[return-value]


def _output(s: _State) -> tuple[Node, bool]:
    name = s.method.output
    value = s.env.get(name)
    if value is None or (name == "h" and value.op == "input"):
        report(s, "E207", f"the program never assigns {name}", s.method.span, f"{name} ← …")
        return s.g.node("missing", (), (), UNKNOWN), True
    mentions = any(n.op == "bias" for n in walk(value))
    wanted = {"y": _row_count(s), "h": _bound_item(s, "h")}.get(name) if s.method.site != "attention" else None
    if value.type.kind != "unknown" and wanted is not None and not b.fits(value.type.item, wanted):
        span = next((where for n, _, where in reversed(s.history) if n == name), s.method.span)
        report(s, "E301", f"{name} is {value.type}, it must be ℝ^{{{'×'.join(show(d) for d in wanted)}}}", span)
        return b.opaque(s.g, "misfit", value), mentions
    if value.type.kind not in ("unknown", "real") and value.op != "attn":
        span = next((where for n, _, where in reversed(s.history) if n == name), s.method.span)
        report(s, "E306", f"{name} is {value.type}, it must be real", span, "Re(…)")
        return b.opaque(s.g, "misfit", value), mentions
    return value, mentions


def _bound_item(s: _State, name: str) -> tuple[Any, ...] | None:
    """The item shape of what the site provides under that name."""
    bound = next((x for x in s.method.bound if x.name == name), None)
    return None if bound is None else space_type(s, bound.space).item


def _row_count(s: _State) -> tuple[Any, ...] | None:
    """The shape of y: the rows of W."""
    item = _bound_item(s, "W")
    return None if item is None else item[:1]


# ---------------------------------------------------------------- statements


def _step(s: _State, step: Step) -> None:
    s.g.span = step.span
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


def _bind(s: _State, name: str, node: Node, span: Span) -> None:
    claimed = s.hypotheses.get(span.start, {}).get(name)
    if node.type.kind == "unknown" and claimed is not None:
        type_ = space_type(s, claimed)
        if type_.kind != "unknown":
            node = s.g.node("assumed", (node,), (name,), type_)
    s.env[name] = node
    if s.local:
        s.local[-1].add(name)
    s.history.append((name, node, span))


def _let(s: _State, step: Let) -> None:
    if len(step.names) == 1:
        value = term(s, step.value)
        _bind(s, step.names[0], value, step.span)
        return
    values = _several(s, step.value, len(step.names))
    for name, value in zip(step.names, values, strict=True):
        _bind(s, name, value, step.span)


def _several(s: _State, t: Term, count: int) -> tuple[Node, ...]:
    made = _call(s, t) if isinstance(t, Call) else term(s, t)
    if isinstance(made, Node):
        if made.type.kind != "unknown":
            report(s, "E209", f"{count} names on the left, one value on the right", t.span)
        return tuple(b.opaque(s.g, "part", made) for _ in range(count))
    if len(made) != count:
        report(s, "E209", f"{count} names on the left, {len(made)} values on the right", t.span)
        made = (*made, *made)[:count] if len(made) else made
    return made


def _write(s: _State, step: Write) -> None:
    value = term(s, step.value)
    items = tuple(_range(s, i) if isinstance(i, Range) else term(s, i) for i in step.items)
    existing = s.env.get(step.name) or _parameter(s, step.name)
    if step.name in s.pending or existing is None:
        s.pending.setdefault(step.name, []).append(_Write(items, value, step.span))
        return
    if b.unknown(existing, value, *(i for i in items if isinstance(i, Node))):
        _bind(s, step.name, b.opaque(s.g, "write", existing, value), step.span)
        return
    if all(isinstance(i, Node) and i.type.rank == 0 for i in items):
        _bind(s, step.name, _put(s, existing, items, step.op, value), step.span)
        return
    _bind(s, step.name, _splice(s, existing, items, step.op, value), step.span)


def _put(s: _State, base: Node, items: Sequence[Any], op: str, value: Node) -> Node:
    if len(items) == 1 and base.type.rank == 2 and not base.type.family:
        return _splice(s, base, (*items, Range(None, None)), op, value)
    if len(items) != base.type.rank or base.type.family:
        raise Mismatch(f"{len(items)} indices for {base.type}", "E305")
    if value.type.rank:
        raise Mismatch(f"one entry takes a scalar, this is {value.type}")
    if op != "←":
        old = _index(s, base, list(items))
        value = b.add(s.g, old, value if op == "+=" else b.negate(s.g, value))
    return b.put(s.g, base, value, items[0], items[1] if len(items) > 1 else None)


def _splice(s: _State, base: Node, items: Sequence[Any], op: str, value: Node) -> Node:
    """``base`` with one slice along one axis replaced: [before; new; after]."""
    axes = list(base.type.family + base.type.item)
    if base.type.family:
        raise Mismatch("writes into a family are not supported; write the item with a loop", "E302")
    chosen = [(k, i) for k, i in enumerate(items) if not (isinstance(i, Range) and i.start is None and i.stop is None)]
    if len(chosen) != 1:
        raise Mismatch("a write changes rows or columns: one index that is not ':'", "E302")
    position, item = chosen[0]
    axis = base.type.rank - position
    size = axes[position]
    if isinstance(item, Node):
        start, stop = item, b.add(s.g, item, s.g.const(1))
        if item.op != "const":
            raise Mismatch("a row index must be a number here", "E305")
        low, high = item.value, lower(item.value + 1)
        if value.type.rank == base.type.rank - 1:
            value = b.reshape(s.g, value, (1, *value.type.item)) if axis == 2 else value
        del start, stop
    else:
        low, high = _bounds(s, item, size)
    _require(s, "≤", high, size, s.g.span)
    piece = b.slice_(s.g, base, -axis, low, high)
    if op == "+=":
        value = _sum(s, [piece, value])
    elif op == "-=":
        value = _sum(s, [piece, b.negate(s.g, value)])
    elif not b.fits(piece.type.item, value.type.item):
        raise Mismatch(f"{value.type} does not fit the place {piece.type}")
    parts = [value]
    if not same(low, 0):
        parts.insert(0, b.slice_(s.g, base, -axis, 0, low))
    if not same(high, size):
        parts.append(b.slice_(s.g, base, -axis, high, size))
    return b.cat(s.g, parts, axis)


def _require(s: _State, op: str, left: Any, right: Any, span: Span) -> None:
    """A relation that the sizes must keep: checked now when they are numbers, carried otherwise."""
    if isinstance(left, int) and isinstance(right, int):
        if not (left <= right if op == "≤" else left == right):
            report(s, "E501" if s.concrete else "E305", f"{left} {op} {right} does not hold", span)
        return
    if op == "≤" and (sp.sympify(right) - sp.sympify(left)).is_nonnegative:
        return
    s.requirements.append((op, left, right, span))


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


def _loop(s: _State, loop: Loop) -> None:
    domain = _domain(s, loop.domain, loop.span)
    if domain is None:
        for name in _assigned(loop.body):
            _bind(s, name, s.g.node("undetermined", (), (name, loop.span.start), UNKNOWN), loop.span)
        return
    start, count, set_ = domain
    if count == 0 and isinstance(count, int):
        return
    carried = [n for n in sorted(_assigned(loop.body)) if n in s.env or _parameter(s, n) is not None]
    if not carried:
        _independent(s, loop, start, count, set_)
        return
    before, kept = dict(s.env), len(s.diagnostics)
    history = len(s.history)
    folded = _chain(s, loop, carried, start, count, set_)
    if folded is None and s.concrete:
        s.env = before
        del s.diagnostics[kept:], s.history[history:]
        _unroll(s, loop, start, count, set_)


def _domain(s: _State, t: Term, span: Span) -> tuple[Any, Any, Node | None] | None:
    """(first value, number of steps, index set or None)."""
    if isinstance(t, Call) and t.function == "range":
        values = [dimension(s, a) for a in t.args]
        start, stop = (0, values[0]) if len(values) == 1 else (values[0], values[1])
        return start, lower(stop - start), None
    node = term(s, t)
    if node.type.kind == "unknown":
        return None
    if node.type.kind != "index":
        report(s, "E307", f"a loop runs over range(…) or an index set, this is {node.type}", span)
        return None
    return 0, node.type.item[0], node


def _variables(s: _State, names: Sequence[str], axis: Axis, start: Any, set_: Node | None, span: Span) -> None:
    if set_ is None:
        if len(names) != 1:
            raise Mismatch(f"{len(names)} names for the one number of a range", "E209")
        s.env[names[0]] = s.g.node("iota", (), (axis, 1, start), Type((), (), (axis,), kind="index"))
        return
    arity = 1 if set_.type.rank == 1 else set_.type.item[1]
    if len(names) != arity:
        raise Mismatch(f"{len(names)} names for index tuples of {show(arity)}", "E209")
    for k, name in enumerate(names):
        s.env[name] = s.g.node("column", (set_,), (axis, k), Type((), (), (axis,), kind="index"))


def _independent(s: _State, loop: Loop, start: Any, count: Any, set_: Node | None) -> None:
    outer, axis = dict(s.env), s.g.axis(count, set_)
    waiting = s.pending
    s.pending = {k: [] for k in waiting}
    _variables(s, loop.variables, axis, start, set_, loop.span)
    s.local.append(set())
    s.in_loop += 1
    for step in loop.body:
        _step(s, step)
    s.in_loop -= 1
    locals_ = s.local.pop()
    written, s.pending = s.pending, waiting
    kept = {n: v for n, v in s.env.items() if n in s.learned}
    s.env = {**outer, **{n: v for n, v in kept.items() if n not in outer}}
    del locals_
    s.g.span = loop.span
    for name, writes in written.items():
        if not writes:
            continue
        if s.in_loop and any(_inner_only(w, axis) for w in writes):
            s.pending.setdefault(name, []).extend(_close(s, w, axis) for w in writes)
        else:
            try:
                _bind(s, name, _define(s, name, writes, axis), writes[0].span)
            except Mismatch as m:
                report(s, m.code, m.message, writes[0].span, m.suggestion)
                _bind(s, name, s.g.node("undetermined", (), (name, writes[0].span.start), UNKNOWN), writes[0].span)


def _inner_only(w: _Write, axis: Axis) -> bool:
    """Whether a write still has an index of an outer loop."""
    return any(isinstance(i, Node) and any(a != axis for a in i.type.loops) for i in w.items)


def _close(s: _State, w: _Write, axis: Axis) -> _Write:
    """s_{i,j} ← e inside ``for i: for j``: the inner axis becomes ``:``."""
    inner = [k for k, i in enumerate(w.items) if isinstance(i, Node) and axis in i.type.loops]
    if not inner:
        raise Mismatch("a write that does not depend on the innermost index overwrites itself", "E305")
    if w.value.type.rank == 0 or (w.value.type.rank == 1 and any(isinstance(i, Range) for i in w.items)):
        items = tuple(Range(None, None) if k in inner else i for k, i in enumerate(w.items))
        return _Write(items, b.stack(s.g, w.value, axis, "item"), w.span)
    return _Write(tuple(i for k, i in enumerate(w.items) if k not in inner), b.stack(s.g, w.value, axis, "family"),
                  w.span)


def _define(s: _State, name: str, writes: Sequence[_Write], axis: Axis) -> Node:
    """The tensor that indexed writes define together; they must be disjoint and cover it."""
    if any(b.unknown(w.value) for w in writes):
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
    place = "item" if rank == 0 or (rank == 1 and items == 2 and position == 0) else \
        "columns" if rank == 1 and items == 2 else "family"
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


def _placed(s: _State, name: str, writes: Sequence[_Write], axis: Axis) -> Node:
    """Writes at the places of an index set that together are a permutation: the values, put in order."""
    columns, values = [], []
    for w in writes:
        item = w.items[0]
        if not isinstance(item, Node) or item.op != "column" or item.attrs[0] != axis or w.value.type.rank > 1 \
                or any(isinstance(i, Node) for i in w.items[1:]):
            raise Mismatch(f"the writes to {name} do not all run over the index set", "E305")
        columns.append(b.take(s.g, item.args[0], s.g.const(item.attrs[1]), 1) if item.args[0].type.rank == 2
                       else item.args[0])
        values.append(b.stack(s.g, w.value, axis, "item"))
    places = writes[0].items[0].args[0]  # type: ignore[union-attr]
    if s.concrete:
        from padp.compiler.kernels import index_rows

        if places.args:
            raise Mismatch(f"the places of {name} must be known from the sizes", "E305")
        chosen = [w.items[0].attrs[1] for w in writes]  # type: ignore[union-attr]
        covered = sorted(row[k] for k in chosen for row in index_rows(places.op, places.attrs))
        if covered != list(range(len(covered))):
            raise Mismatch(f"the writes to {name} are not disjoint or do not cover it", "E305")
    order = b.cat(s.g, columns, 1)
    inverse = s.g.node("inverse_index", (order,), (), order.type)
    whole = b.cat(s.g, values, values[0].type.rank)
    return b.take(s.g, whole, inverse, values[0].type.rank)


def _chain(s: _State, loop: Loop, carried: Sequence[str], start: Any, count: Any, set_: Node | None) -> bool | None:
    """The loop as sums and folds; None when it is neither (then it is unrolled)."""
    axis = s.g.axis(count, set_)
    outer = dict(s.env)
    marks: dict[str, Node] = {}
    for name in carried:
        value = s.env[name]
        marks[name] = s.g.node("carry", (), (name, axis), value.type)
        s.env[name] = marks[name]
    _variables(s, loop.variables, axis, start, set_, loop.span)
    s.in_loop += 1
    for step in loop.body:
        _step(s, step)
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
            raise Mismatch(f"{name} is {begin.type} before the loop and {result.type} after a step", "E301")
        parts = _pattern(s, result, axis, name)
        if parts is None or any(depends(p, lambda n: id(n) in marked) for p in parts[1]):
            if s.concrete:
                return None
            closed[name] = s.g.node("loop", (result, begin), (axis, name), begin.type)
            continue
        kind, pieces = parts
        if kind == "sum":
            closed[name] = b.add(s.g, begin, b.sumloop(s.g, pieces[0], axis))
        else:
            if s.concrete and not _structured(pieces[0], axis):
                return None
            closed[name] = b.fold(s.g, pieces[0], begin, axis, kind)
    for name, node in closed.items():
        _bind(s, name, node, loop.span)
    return True


def _filled(s: _State, begin: Node, result: Node) -> Node:
    """``R ← I`` before a loop takes the size that the loop gives it."""
    hole = _hole(begin)
    if hole is not None and result.type.kind != "unknown" and result.type.rank == 2:
        return _substitute(s, begin, hole, result.type.item[0])
    return begin


def _pattern(s: _State, result: Node, axis: Axis, name: str) -> tuple[str, tuple[Node, ...]] | None:
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
    from padp.compiler.chains import plane_rotation, rank_one_update

    return axis in step.type.loops and (rank_one_update(step) is not None or plane_rotation(step) is not None)


def _unroll(s: _State, loop: Loop, start: Any, count: Any, set_: Node | None) -> None:
    if not isinstance(count, int) or count > MAX_UNROLL:
        report(s, "E307", f"this loop carries a value through {show(count)} steps and is not a sum or a chain of "
               f"reflections or rotations; at most {MAX_UNROLL} such steps are unrolled", loop.span)
        return
    rows: Sequence[Sequence[int]]
    if set_ is None:
        rows = [[start + k] for k in range(count)]
    else:
        from padp.compiler.kernels import index_rows

        if set_.args:
            report(s, "E307", "a loop that carries a value needs an index set known from the sizes", loop.span)
            return
        rows = index_rows(set_.op, set_.attrs)
    for row in rows:
        for name, value in zip(loop.variables, row, strict=True):
            s.env[name] = s.g.const(value)
        for step in loop.body:
            _step(s, step)


# ---------------------------------------------------------------- terms


def dimension(s: _State, t: Term) -> Any:
    """A dimension or another number that the sizes settle."""
    node = term(s, t)
    if node.op == "const":
        return node.value
    if node.type.kind == "unknown":  # an undeclared name is one number wherever it stands
        name = t.name if isinstance(t, Var) else f"?{t.span.start}"
        return s.sizes.setdefault(name, symbol(name))
    report(s, "E310", f"a size must be known when the adapter is attached; this is {node.type}", t.span)
    return symbol(f"?{t.span.start}")


def _scalar(s: _State, t: Term, need: str) -> Node:
    node = term(s, t)
    if node.type.kind != "unknown" and (node.type.rank or node.type.family):
        report(s, "E301", f"{need}; this is {node.type}", t.span, "sum(…) or ‖…‖_F²")
        return b.opaque(s.g, "misfit", node)
    return node


def term(s: _State, t: Term) -> Node:
    """The typed node of a term; errors are reported and give an unknown."""
    kept, s.g.span = s.g.span, t.span
    s.depth += 1
    try:
        return _term(s, t)
    except Mismatch as m:
        notes, suggestion = _hints(s, t)
        report(s, m.code, m.message, t.span, suggestion or m.suggestion, notes)
        return s.g.node("mistake", (), (t.span.start, t.span.end), UNKNOWN)
    finally:
        s.depth -= 1
        s.g.span = kept


def _hints(s: _State, t: Term) -> tuple[list[str], str | None]:
    """Bindings of all dimensions, and another name of this program that would fit where a product does not."""
    notes = [f"here {', '.join(f'{n} ∈ {v.type}' for n, v in _mentioned(s, t))}"] if _mentioned(s, t) else []
    if not (isinstance(t, Arith) and t.op in ("@", "*")):
        return notes, None
    left, right = term(s, t.left), term(s, t.right)
    side, flipped = (t.right.operand, True) if isinstance(t.right, Transpose) else (t.right, False)
    if isinstance(side, Var) and left.type.rank == 2:
        for name, node in s.env.items():
            if name == side.name or node.type.rank != 2 or node.op in ("weight", "param"):
                continue
            inner = node.type.item[1 if flipped else 0]
            free = isinstance(inner, sp.Expr) and inner.free_symbols - _declared(s)
            if name.startswith(side.name) and (same(inner, left.type.item[1]) or free):
                when = "" if same(inner, left.type.item[1]) else f" when {show(left.type.item[1])} = {show(inner)}"
                notes.append(f"{name} ∈ {node.type} fits here{when}")
                return notes, f"{name}{'ᵀ' if flipped else ''}"
    del right
    return notes, None


def _declared(s: _State) -> set[Any]:
    return {x for n in s.method.bound for d in s.env[n.name].type.shape if isinstance(d, sp.Expr)
            for x in d.free_symbols}


def _mentioned(s: _State, t: Term) -> list[tuple[str, Node]]:
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


def _term(s: _State, t: Term) -> Node:
    match t:
        case Number(value):
            return s.g.const(value)
        case Text(value):
            return s.g.node("text", (), (value,), Type(kind="text"))
        case Var(name):
            return _var(s, name)
        case Call():
            made = _call(s, t)
            if not isinstance(made, Node):
                raise Mismatch(f"{t.function} gives {len(made)} values; name them all on the left", "E209",
                               "U, Σ, Vᵀ ← svd(W)")
            return made
        case Negate(operand):
            return _negate(s, term(s, operand))
        case Arith(op, left, right):
            return _arith(s, op, term(s, left), term(s, right))
        case Power(base, exponent):
            return _power(s, term(s, base), term(s, exponent))
        case Transpose(operand):
            return b.t(s.g, term(s, operand))
        case Inverse(operand):
            return _invert(s, term(s, operand))
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
            return _norm(s, term(s, operand), axis)
        case SumOver():
            return _sum_over(s, t)
        case Choose(then, test, otherwise):
            return term(s, then if _decide(s, test) else otherwise)
        case BlockTerm(rows):
            return _block(s, rows)
        case Gradient(name):
            known = _parameter(s, name)
            raise Mismatch(f"∇{name} exists after the backward pass only", "E210") if known is not None else \
                Mismatch(f"{name} is not learned", "E201")


def _var(s: _State, name: str) -> Node:
    found = s.env.get(name)
    if found is not None:
        return found
    made = _parameter(s, name)
    if made is not None:
        return made
    if name == "I":
        s.holes += 1
        return b.eye(s.g, sp.Symbol(f"□{s.holes}", integer=True, positive=True))
    return s.g.node("undeclared", (), (name,), UNKNOWN)


def _hole(node: Node) -> sp.Symbol | None:
    """The open size of a bare ``I`` in a type."""
    for d in node.type.item:
        if isinstance(d, sp.Symbol) and d.name.startswith("□"):
            return d
    return None


def _substitute(s: _State, node: Node, hole: sp.Symbol, value: Any) -> Node:
    """``node`` with the open size settled; names bound to it are settled too."""
    cache: dict[int, Node] = {}

    def fix(x: Any) -> Any:
        return lower(x.subs(hole, value)) if isinstance(x, sp.Expr) and x.has(hole) else x

    def rebuild(root: Node) -> Node:
        for n in walk(root):
            if id(n) in cache:
                continue
            args = tuple(cache[id(a)] for a in n.args)
            type_ = Type(tuple(map(fix, n.type.item)), tuple(map(fix, n.type.family)), n.type.loops, n.type.row,
                         n.type.kind)
            attrs = tuple(map(fix, n.attrs))
            cache[id(n)] = n if args == n.args and type_ == n.type and attrs == n.attrs else \
                s.g.node(n.op, args, attrs, type_)
        return cache[id(root)]

    for name, bound in list(s.env.items()):
        s.env[name] = rebuild(bound)
    s.history[:] = [(n, rebuild(v), where) for n, v, where in s.history]
    return rebuild(node)


def _fit(s: _State, pairs: Sequence[tuple[Any, Any]], *nodes: Node) -> tuple[Node, ...]:
    """Settle open sizes so that each pair of dimensions agrees."""
    result = list(nodes)
    for x, y in pairs:
        for hole, value in ((x, y), (y, x)):
            if isinstance(hole, sp.Symbol) and hole.name.startswith("□") and not same(hole, value):
                result = [_substitute(s, n, hole, value) for n in result]
                break
    return tuple(result)


def _negate(s: _State, a: Node) -> Node:
    if a.op == "const":
        return s.g.const(lower(-a.value))
    if a.op == "iota":
        return _iota(s, a, -1, 0)
    return b.negate(s.g, a)


def _iota(s: _State, a: Node, factor: Any, shift: Any) -> Node:
    axis, step, first = a.attrs
    return s.g.node("iota", (), (axis, lower(step * factor), lower(first * factor + shift)), a.type)


def _arith(s: _State, op: str, a: Node, c: Node) -> Node:
    if a.op == "const" and c.op == "const":
        return s.g.const(_fold(op, a.value, c.value))
    index = _index_arithmetic(s, op, a, c)
    if index is not None:
        return index
    match op:
        case "+":
            return _sum(s, [a, c])
        case "-":
            return _sum(s, [a, _negate(s, c)])
        case "@":
            return _matmul(s, a, c)
        case "*":
            return _scaled(s, a, c) or _matmul(s, a, c)
        case "·":
            return _dotted(s, a, c)
        case "⊙":
            return _hadamard(s, a, c)
        case "⊗":
            return b.opaque(s.g, "kron", a, c) if b.unknown(a, c) else operators.kron(s.g, a, c)
        case "/":
            return _quotient(s, a, c)
        case _:
            raise Mismatch("// is for dimensions", "E302", "/")


def _fold(op: str, x: Any, y: Any) -> Any:
    match op:
        case "+":
            return lower(x + y)
        case "-":
            return lower(x - y)
        case "/":
            if y == 0:
                raise Mismatch("division by zero", "E302")
            exact = isinstance(x, (int, sp.Expr)) and isinstance(y, (int, sp.Expr))
            return lower(sp.sympify(x) / sp.sympify(y)) if exact else lower(x / y)
        case "//":
            if y == 0:
                raise Mismatch("division by zero", "E302")
            return lower(sp.floor(sp.sympify(x) / sp.sympify(y)))
        case _:
            return lower(x * y)


def _index_arithmetic(s: _State, op: str, a: Node, c: Node) -> Node | None:
    """2i + 1 and the like stay indices."""
    if a.op == "iota" and c.op == "const" and isinstance(c.value, (int, sp.Expr)):
        match op:
            case "+":
                return _iota(s, a, 1, c.value)
            case "-":
                return _iota(s, a, 1, -c.value)
            case "*" | "·":
                return _iota(s, a, c.value, 0)
            case _:
                return None
    if c.op == "iota" and a.op == "const" and isinstance(a.value, (int, sp.Expr)):
        match op:
            case "+":
                return _iota(s, c, 1, a.value)
            case "-":
                return _iota(s, c, -1, a.value)
            case "*" | "·":
                return _iota(s, c, a.value, 0)
            case _:
                return None
    return None


def _sum(s: _State, terms: Sequence[Node]) -> Node:
    a, c = terms
    if b.unknown(a, c):
        return _assumed(s, b.opaque(s.g, "add", a, c), a, c)
    _refuse_complex(a, c)
    if a.type.rank == 2 and c.type.rank == 2:
        a, c = _fit(s, list(zip(a.type.item, c.type.item, strict=True)), a, c)
    if a.type.rank == 0 and c.type.rank > 0 or c.type.rank == 0 and a.type.rank > 0:
        scalar, other = (a, c) if a.type.rank == 0 else (c, a)
        if is_plain_zero(scalar):
            return other
        hint = "c · I" if other.type.rank == 2 else f"c · ones({show(other.type.item[0])})"
        raise Mismatch(f"a scalar and {other.type} are not added entry by entry here", "E302", hint)
    return b.add(s.g, a, c)


def _assumed(s: _State, total: Node, *terms: Node) -> Node:
    """A sum of something unknown and something known has the shape of the latter: nothing is broadcast."""
    for known in terms:
        if known.type.kind == "real" and known.type.rank and not known.type.loops and _hole(known) is None:
            return s.g.node("assumed", (total,), ("",), known.type)
    return total


def is_plain_zero(node: Node) -> bool:
    return node.op == "const" and node.value == 0


def _refuse_complex(a: Node, c: Node) -> None:
    if "complex" in (a.type.kind, c.type.kind) and a.type.kind != c.type.kind:
        raise Mismatch(f"{a.type} and {c.type}: one is complex", "E306", "Re(…)")


def _matmul(s: _State, a: Node, c: Node) -> Node:
    if b.unknown(a, c):
        return b.opaque(s.g, "prod", a, c)
    if a.type.rank == 2 and c.type.rank >= 1:
        a, c = _fit(s, [(a.type.item[1], c.type.item[0])], a, c)
    return b.matmul(s.g, a, c)


def _scaled(s: _State, a: Node, c: Node) -> Node | None:
    if b.unknown(a, c):
        return b.opaque(s.g, "prod", a, c)
    if a.type.rank == 0:
        return b.scale(s.g, a, c) if c.type.rank or c.type.family or a.op == "const" else b.mul(s.g, a, c)
    if c.type.rank == 0:
        return b.scale(s.g, c, a)
    return None


def _dotted(s: _State, a: Node, c: Node) -> Node:
    if b.unknown(a, c):
        return b.opaque(s.g, "dotted", a, c)
    scaled = _scaled(s, a, c)
    if scaled is not None:
        return scaled
    match a.type.rank, c.type.rank:
        case 1, 1:
            return b.mul(s.g, a, c)
        case 2, 1 if not a.type.row:
            (a,) = _fit(s, [(a.type.item[1], c.type.item[0])], a)
            if not same(a.type.item[1], c.type.item[0]):
                hint = "v · M scales rows" if same(a.type.item[0], c.type.item[0]) else None
                raise Mismatch(f"{a.type} · {c.type}: M · v scales the columns of M, "
                               f"{show(a.type.item[1])} ≠ {show(c.type.item[0])}", "E301", hint)
            return b.prod(s.g, a, b.diag(s.g, c))
        case 1, 2 if not c.type.row:
            (c,) = _fit(s, [(c.type.item[0], a.type.item[0])], c)
            if not same(c.type.item[0], a.type.item[0]):
                hint = "M · v scales columns" if same(c.type.item[1], a.type.item[0]) else None
                raise Mismatch(f"{a.type} · {c.type}: v · M scales the rows of M, "
                               f"{show(a.type.item[0])} ≠ {show(c.type.item[0])}", "E301", hint)
            return b.prod(s.g, b.diag(s.g, a), c)
        case _:
            return _matmul(s, a, c)


def _hadamard(s: _State, a: Node, c: Node) -> Node:
    if b.unknown(a, c):
        return b.opaque(s.g, "mul", a, c)
    match a.type.rank, c.type.rank:
        case (0, _) | (_, 0):
            if a.type.rank == c.type.rank:
                return b.mul(s.g, a, c)
            raise Mismatch(f"⊙ takes equal shapes; {a.type} ⊙ {c.type} has a scalar", "E302", "· for scaling")
        case 1, 2:
            if not same(a.type.item[0], c.type.item[0]):
                if same(a.type.item[0], c.type.item[1]):
                    report(s, "E301", f"v ⊙ M scales rows: v ∈ {a.type}, but M has {show(c.type.item[0])} rows",
                           s.g.span, "M ⊙ v scales columns, the only reading that fits",
                           (f"M ∈ {c.type}",))
                    return b.prod(s.g, c, b.diag(s.g, a))
                raise Mismatch(f"v ⊙ M scales rows: v ∈ {a.type} does not fit M ∈ {c.type}")
            return b.prod(s.g, b.diag(s.g, a), c)
        case 2, 1:
            if not same(a.type.item[1], c.type.item[0]):
                hint = "v ⊙ M scales rows" if same(a.type.item[0], c.type.item[0]) else None
                raise Mismatch(f"M ⊙ v scales columns: v ∈ {c.type} does not fit M ∈ {a.type}", "E301", hint)
            return b.prod(s.g, a, b.diag(s.g, c))
        case _:
            if a.type.rank == 2 and c.type.rank == 2:
                a, c = _fit(s, list(zip(a.type.item, c.type.item, strict=True)), a, c)
            return b.mul(s.g, a, c)


def norm_axis(node: Node) -> str | None:
    """'row' or 'col' when a vector is one norm (or other statistic) a row or a column."""
    match node.op:
        case "sumsq":
            return str(node.attrs[0]) if node.attrs[0] != "all" else None
        case "reduce":
            return str(node.attrs[1]) if node.attrs[1] != "all" else None
        case "point" | "detach" | "pow" | "clamp":
            return norm_axis(node.args[0])
        case "scale":
            return norm_axis(node.args[1])
        case "maximum" | "minimum":
            return norm_axis(node.args[0]) or norm_axis(node.args[1])
        case _:
            return None


def _quotient(s: _State, a: Node, c: Node) -> Node:
    if b.unknown(a, c):
        return b.opaque(s.g, "div", a, c)
    if c.type.rank == 0:
        if a.type.rank == 0:
            return b.div(s.g, a, c)
        inverse = s.g.const(_fold("/", 1, c.value)) if c.op == "const" else b.div(s.g, s.g.const(1), c)
        return b.scale(s.g, inverse, a)
    if c.type.rank == 2:
        raise Mismatch(f"division by a matrix ({c.type})", "E302", "A @ B⁻¹, or A ⊙ (1/B) entry by entry")
    if a.type.rank <= 1:
        if a.type.rank == 0 and a.op != "const" and a.type.rank != c.type.rank:
            return b.div(s.g, a, c)
        return b.div(s.g, a, c)
    axis = norm_axis(c)
    if axis is None:
        raise Mismatch(f"{a.type} / {c.type}: which axis?", "E302", "diag(1/v) @ M for rows, M @ diag(1/v) for columns")
    position = 0 if axis == "row" else 1
    if not same(a.type.item[position], c.type.item[0]):
        raise Mismatch(f"{show(c.type.item[0])} {axis} norms do not fit {a.type}")
    scale = b.diag(s.g, b.div(s.g, s.g.const(1), c))
    return b.prod(s.g, scale, a) if axis == "row" else b.prod(s.g, a, scale)


def _power(s: _State, base: Node, exponent: Node) -> Node:
    if exponent.op != "const":
        raise Mismatch("an exponent is a number", "E302")
    value = exponent.value
    if base.op == "const":
        return s.g.const(lower(sp.sympify(base.value) ** value))
    if b.unknown(base):
        return b.opaque(s.g, "pow", base)
    if base.type.rank == 2:
        if not same(*base.type.item):
            raise Mismatch(f"only a square matrix has powers; this is {base.type}", "E304", "M ⊙ M entry by entry")
        if not isinstance(value, int) or value < 0:
            raise Mismatch("a matrix power takes a whole exponent ≥ 0", "E302", "M⁻¹ for the inverse")
        if value == 0:
            return b.eye(s.g, base.type.item[0])
        return b.prod(s.g, *([base] * value)) if value > 1 else base
    if value == 1:
        return base
    return b.pow_(s.g, base, value)


def _invert(s: _State, a: Node) -> Node:
    if a.op == "const":
        return s.g.const(_fold("/", 1, a.value))
    return b.inv(s.g, a)


def _norm(s: _State, a: Node, axis: str | None) -> Node:
    if b.unknown(a):
        return b.opaque(s.g, "norm", a)
    if a.type.rank == 2 and not a.type.row:
        if axis is None:
            raise Mismatch("the norm of a matrix names its axis", "E303", "‖M‖_row, ‖M‖_col or ‖M‖_F")
        which = {"row": "row", "col": "col", "F": "all"}[axis]
        return b.point(s.g, "sqrt", b.sumsq(s.g, a, which))
    if axis in ("row", "col"):
        raise Mismatch(f"‖·‖_{axis} takes a matrix, this is {a.type}", "E303", "‖v‖")
    if a.type.rank == 0:
        return b.point(s.g, "abs", a)
    return b.point(s.g, "sqrt", b.sumsq(s.g, a, "all"))


def _decide(s: _State, test: Test) -> bool:
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


def _block(s: _State, rows: tuple[tuple[Term, ...], ...]) -> Node:
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
        parts = [_as_matrix(s, n) for n in row]
        done.append(b.cat(s.g, parts, 1))
    return b.cat(s.g, done, 2)


def _as_matrix(s: _State, n: Node) -> Node:
    """In a grid of blocks a vector is a column, a scalar a 1×1 block."""
    if n.type.rank == 2:
        return n
    if n.type.rank == 1:
        return s.g.node("column_of", (n,), (), b.typed((n.type.item[0], 1), n))
    if n.op == "const":
        return b.full(s.g, n.value, Type((1, 1)))
    return s.g.node("entry", (n,), (), b.typed((1, 1), n))


# ---------------------------------------------------------------- indexing, sums, calls


@dataclass(frozen=True)
class _Bounds:
    start: Any
    stop: Any
    step: Any


def _range(s: _State, r: Range) -> Range:
    return r


def _bounds(s: _State, r: Range, size: Any) -> tuple[Any, Any]:
    def end(t: Term | None, default: Any) -> Any:
        if t is None:
            return default
        value = dimension(s, t)
        negative = value < 0 if isinstance(value, int) else value.is_negative
        return lower(size + value) if negative else value

    start, stop = end(r.start, 0), end(r.stop, size)
    if isinstance(start, int) and isinstance(stop, int) and start > stop:
        raise Mismatch(f"the slice {start}:{stop} is empty backwards", "E305")
    return start, stop


def _item(s: _State, t: Item, base: Node, items: Sequence[Term | Range]) -> Node:
    nodes: list[Any] = [i if isinstance(i, Range) else term(s, i) for i in items]
    if isinstance(t.base, Var):
        declared = next((p for p in s.method.parameters if p.name == t.base.name), None)
        if declared is not None and declared.space.index is not None and all(
                isinstance(n, Node) and n.op == "column" for n in nodes) and nodes:
            axis = nodes[0].attrs[0]
            omega = s.env.get(declared.space.index)
            if all(n.attrs[0] == axis for n in nodes) and nodes[0].args[0] is omega and len(nodes) > 1:
                return b.take(s.g, base, s.g.node("iota", (), (axis, 1, 0), Type((), (), (axis,), kind="index")), 1)
    return _index(s, base, nodes)


def _index(s: _State, base: Node, items: Sequence[Any]) -> Node:
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
            low, high = _bounds(s, item, size)
            _require(s, "≤", high, size, s.g.span)
            result = b.slice_(s.g, result, -(axis - _removed(items, position)), low, high, step)
            continue
        if item.op == "const":
            value = item.value
            if isinstance(value, int) and value < 0:
                value = lower(size + value)
            if not isinstance(value, (int, sp.Expr)) or (isinstance(value, sp.Expr) and not value.is_integer):
                raise Mismatch(f"an index is a whole number, this is {show(value)}", "E305")
            _require(s, "≤", lower(value + 1), size, s.g.span)
            item = s.g.const(value)
        elif item.type.kind != "index":
            raise Mismatch(f"an index is a number, a loop index or an index vector; this is {item.type}", "E305")
        elif item.op == "iota":
            axis_, step_, first = item.attrs
            _require(s, "≤", lower(first + step_ * (axis_.size - 1) + 1), size, s.g.span)
        result = b.take(s.g, result, item, axis - _removed(items, position))
    last = [*items, *[Range(None, None)] * (axes - len(items))][-2:] if base.type.rank == 2 else []
    if len(items) == axes and last and isinstance(last[0], Node) and last[0].type.rank == 0 \
            and isinstance(last[1], Range):
        return b.lying(s.g, result)
    return result


def _removed(items: Sequence[Any], position: int) -> int:
    """How many axes to the right of ``position`` a scalar index has removed already."""
    return sum(1 for i in items[position + 1:] if isinstance(i, Node) and i.type.rank == 0)


def _sum_over(s: _State, t: SumOver) -> Node:
    domain = _domain(s, t.domain, t.span)
    if domain is None:
        return s.g.node("undetermined", (), (t.span.start,), UNKNOWN)
    start, count, set_ = domain
    axis = s.g.axis(count, set_)
    kept = {n: s.env.get(n) for n in t.indices}
    _variables(s, t.indices, axis, start, set_, t.span)
    body = term(s, t.body)
    for n, v in kept.items():
        if v is None:
            s.env.pop(n, None)
        else:
            s.env[n] = v
    return b.sumloop(s.g, body, axis)


MAX_CALLS = 60
"""Functions of the language may call each other this deep."""


def _call(s: _State, t: Call) -> Node | tuple[Node, ...]:
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
        raise Mismatch(f"{name} belongs in `after backward`", "E210")
    entry = operators.OPERATORS.get(name)
    if entry is None:
        return b.opaque(s.g, f"call:{name}", *args)
    low, high = entry.arity
    if name == "grouped" and len(args) == 1:
        args = (*args, s.env.get("H") or s.g.const(args[0].type.family[-1] if args[0].type.family else 1))
    if not low <= len(args) <= high:
        raise Mismatch(f"{name} takes {low if low == high else f'{low} to {high}'} argument{'s' * (high != 1)}, "
                       f"here are {len(args)}", "E209", entry.signature)
    extra = [k for k in kwargs if k not in entry.keywords]
    if extra:
        raise Mismatch(f"{name} has no argument called {extra[0]}", "E209", entry.signature)
    if b.unknown(*args):
        outputs = {"svd": 3, "qr": 2}.get(name, 1)
        made = b.opaque(s.g, f"call:{name}", *args)
        return made if outputs == 1 else tuple(s.g.node("part", (made,), (k,), UNKNOWN) for k in range(outputs))
    return entry.make(s.g, args, kwargs)


def _tuple(s: _State, t: Term) -> Node:
    if isinstance(t, BlockTerm) and len(t.rows) == 1:
        return s.g.node("tuple", tuple(term(s, x) for x in t.rows[0]), (), Type(kind="text"))
    if isinstance(t, Call) and t.function == "tuple":
        return s.g.node("tuple", tuple(term(s, x) for x in t.args), (), Type(kind="text"))
    return term(s, t)


def _apply(s: _State, t: Call) -> Node:
    function = s.functions[t.function]
    if len(t.args) != len(function.parameters) or t.kwargs:
        raise Mismatch(f"{t.function} takes {len(function.parameters)} arguments, here are {len(t.args)}", "E209")
    if s.depth > MAX_CALLS * 4:
        raise Mismatch("functions are nested too deeply", "E105")
    args = [term(s, a) for a in t.args]
    outer = dict(s.env)
    s.env.update(zip(function.parameters, args, strict=True))
    known = set(s.learned)
    result = term(s, function.body)
    made = {n: s.env[n] for n in s.learned if n not in known and n in s.env}
    # a function's own names end with it; sizes of a bare I that it settled stay settled through the result
    s.env = {**outer, **made}
    return result
