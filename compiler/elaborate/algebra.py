"""The algebra of typed values: what + · @ ⊙ / and powers, inverses and norms mean for each pair of ranks.

Open sizes of a bare ``I`` are settled here, by what it meets. What is not defined raises ``Mismatch`` with the spelling
that was probably meant.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import sympy as sp

from padp.compiler.elaborate.norms import MARK, is_norm, positive
from padp.compiler.elaborate.state import State, report
from padp.compiler.ir import build as b
from padp.compiler.ir.budget import spend
from padp.compiler.ir.build import Mismatch
from padp.compiler.ir.dims import bounded_power, lower, same, show
from padp.compiler.ir.nodes import OPEN, Node, Type
from padp.compiler.names.remedies import in_every_entry
from padp.compiler.operators import table as operators
from padp.dsl.limits import MAX_EXPONENT


def open_size(node: Node) -> sp.Symbol | None:
    """The open size of a bare ``I`` in a type."""
    return next((d for d in node.type.item if is_open(d)), None)


def is_open(size: Any) -> bool:
    """Whether this is the size of a bare ``I`` that nothing has settled yet."""
    return isinstance(size, sp.Symbol) and size.name.startswith(OPEN)


def settle(s: State, node: Node, hole: sp.Symbol, value: Any) -> Node:
    """``node`` with the open size settled; names bound to it are settled too. What has no open size is not looked into
    again."""
    cache: dict[int, Node] = {}

    def fix(x: Any) -> Any:
        return lower(x.subs(hole, value)) if isinstance(x, sp.Expr) and x.has(hole) else x

    def rebuild(root: Node) -> Node:
        stack = [(root, False)]
        while stack:
            n, ready = stack.pop()
            if id(n) in cache or id(n) in s.closed:
                continue
            if not ready:
                spend(1)
                stack.append((n, True))
                stack.extend((a, False) for a in n.args)
                continue
            if _own_open(n) or any(id(a) not in s.closed for a in n.args):
                args = tuple(cache.get(id(a), a) for a in n.args)
                type_ = replace(n.type, item=tuple(map(fix, n.type.item)), family=tuple(map(fix, n.type.family)))
                attrs = tuple(map(fix, n.attrs))
                cache[id(n)] = n if args == n.args and type_ == n.type and attrs == n.attrs else \
                    s.g.node(n.op, args, attrs, type_)
            else:
                s.closed.add(id(n))
        return cache.get(id(root), root)

    for name, bound in list(s.env.items()):
        s.env[name] = rebuild(bound)
    s.history[:] = [(n, rebuild(v), where) for n, v, where in s.history]
    s.requirements[:] = [replace(c, left=fix(c.left), right=fix(c.right)) for c in s.requirements]
    return rebuild(node)


def _own_open(n: Node) -> bool:
    """Whether an open size stands in a node's own type or attributes."""
    return any(isinstance(x, sp.Expr) and any(str(f).startswith(OPEN) for f in x.free_symbols)
               for x in (*n.type.item, *n.type.family, *n.attrs))


def fit(s: State, pairs: Sequence[tuple[Any, Any]], *nodes: Node) -> tuple[Node, ...]:
    """Settle open sizes so that each pair of dimensions agrees."""
    result = list(nodes)
    for x, y in pairs:
        for hole, value in ((x, y), (y, x)):
            if is_open(hole) and not same(hole, value):
                result = [settle(s, n, hole, value) for n in result]
                break
    return tuple(result)


def negated(s: State, a: Node) -> Node:
    if a.op == "const":
        return s.g.const(lower(-a.value))
    if a.op == "iota":
        return _iota(s, a, -1, 0)
    return b.negate(s.g, a)


def _iota(s: State, a: Node, factor: Any, shift: Any) -> Node:
    axis, step, first = a.attrs
    return s.g.node("iota", (), (axis, lower(step * factor), lower(first * factor + shift)), a.type)


def arithmetic(s: State, op: str, a: Node, c: Node) -> Node:
    if a.op == "const" and c.op == "const":
        return s.g.const(_fold(op, a.value, c.value))
    index = _index_arithmetic(s, op, a, c)
    if index is not None:
        return index
    match op:
        case "+":
            return summed(s, [a, c])
        case "-":
            return summed(s, [a, negated(s, c)])
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
        case "@" | "⊗":
            raise Mismatch(f"{op} is a product of matrices, and both sides are numbers", "E302", "· for numbers")
        case _:
            return lower(x * y)


def _index_arithmetic(s: State, op: str, a: Node, c: Node) -> Node | None:
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


def summed(s: State, terms: Sequence[Node]) -> Node:
    a, c = terms
    if b.unknown(a, c):
        return _assumed(s, b.opaque(s.g, "add", a, c), a, c)
    _refuse_complex(a, c)
    if a.type.rank == 2 and c.type.rank == 2:
        a, c = fit(s, list(zip(a.type.item, c.type.item, strict=True)), a, c)
    if (a.type.rank == 0) != (c.type.rank == 0):
        scalar, other = (a, c) if a.type.rank == 0 else (c, a)
        if is_plain_zero(scalar):
            return other
        hint = "c · I" if open_size(other) is not None else \
            in_every_entry(scalar, other, lambda node, otherwise: called(s, node, otherwise))
        raise Mismatch(f"a scalar and {other.type} are not added entry by entry here", "E302", hint)
    return b.add(s.g, a, c)


def _assumed(s: State, total: Node, *terms: Node) -> Node:
    """A sum of something unknown and something known has the shape of the latter: nothing is broadcast."""
    for known in terms:
        if known.type.kind == "real" and known.type.rank and not known.type.loops and open_size(known) is None:
            return s.g.node("assumed", (total,), ("",), known.type)
    return total


def is_plain_zero(node: Node) -> bool:
    return node.op == "const" and node.value == 0


def _refuse_complex(a: Node, c: Node) -> None:
    if "complex" in (a.type.kind, c.type.kind) and a.type.kind != c.type.kind:
        raise Mismatch(f"{a.type} and {c.type}: one is complex", "E306", "Re(…)")


def called(s: State, node: Node, otherwise: str) -> str:
    """What the program calls a value, for messages; ``otherwise`` where it has no name."""
    return next((name for name, value in s.env.items() if value is node), otherwise)


def _matmul(s: State, a: Node, c: Node) -> Node:
    if b.unknown(a, c):
        return b.opaque(s.g, "prod", a, c)
    a, c = b.stood(s.g, a, c)
    if a.type.rank == 2 and c.type.rank >= 1:
        a, c = fit(s, [(a.type.item[1], c.type.item[0])], a, c)
    return b.matmul(s.g, a, c)


def _scaled(s: State, a: Node, c: Node) -> Node | None:
    if b.unknown(a, c):
        return b.opaque(s.g, "prod", a, c)
    if a.type.rank == 0:
        return b.scale(s.g, a, c) if c.type.rank or c.type.family or a.op == "const" else b.mul(s.g, a, c)
    if c.type.rank == 0:
        return b.scale(s.g, c, a)
    return None


def _dotted(s: State, a: Node, c: Node) -> Node:
    if b.unknown(a, c):
        return b.opaque(s.g, "dotted", a, c)
    scaled = _scaled(s, a, c)
    if scaled is not None:
        return scaled
    match a.type.rank, c.type.rank:
        case 1, 1:
            return b.mul(s.g, a, c)
        case 2, 1 if not a.type.row:
            (a,) = fit(s, [(a.type.item[1], c.type.item[0])], a)
            if not same(a.type.item[1], c.type.item[0]):
                M, v = called(s, a, "M"), called(s, c, "v")
                hint = f"{v} · {M} scales rows" if same(a.type.item[0], c.type.item[0]) else None
                raise Mismatch(f"{a.type} · {c.type}: {M} · {v} scales the columns of {M}, "
                               f"{show(a.type.item[1])} ≠ {show(c.type.item[0])}", "E301", hint)
            return b.prod(s.g, a, b.diag(s.g, c))
        case 1, 2 if not c.type.row:
            (c,) = fit(s, [(c.type.item[0], a.type.item[0])], c)
            if not same(c.type.item[0], a.type.item[0]):
                v, M = called(s, a, "v"), called(s, c, "M")
                hint = f"{M} · {v} scales columns" if same(c.type.item[1], a.type.item[0]) else None
                raise Mismatch(f"{a.type} · {c.type}: {v} · {M} scales the rows of {M}, "
                               f"{show(a.type.item[0])} ≠ {show(c.type.item[0])}", "E301", hint)
            return b.prod(s.g, b.diag(s.g, a), c)
        case 2, 2 if not s.concrete and _either_product(a, c):
            left, right = called(s, a, "S"), called(s, c, "T")
            raise Mismatch(f"{left} · {right}: of two matrices of one size · could be @ or ⊙", "E302",
                           f"{left} @ {right}, or {left} ⊙ {right}")
        case _:
            return _matmul(s, a, c)


def _either_product(a: Node, c: Node) -> bool:
    """Whether two matrices could be multiplied in both ways for all sizes, and none of them is a diagonal, where only
    the matrix product is meant. Asked of a program for all sizes: those that are equal at one layer alone do not
    count."""
    sizes = (*a.type.item, *c.type.item)
    if not all(same(d, sizes[0]) for d in sizes) or same(sizes[0], 1):
        return False
    if open_size(a) is not None or open_size(c) is not None or a.type.row or c.type.row:
        return False
    ends = (a.args[-1] if a.op == "prod" else a, c.args[0] if c.op == "prod" else c)
    return not any(n.op in ("diag", "eye") for n in ends)


def _hadamard(s: State, a: Node, c: Node) -> Node:
    if b.unknown(a, c):
        return b.opaque(s.g, "mul", a, c)
    match a.type.rank, c.type.rank:
        case (0, _) | (_, 0):
            if a.type.rank == c.type.rank:
                return b.mul(s.g, a, c)
            raise Mismatch(f"⊙ takes equal shapes; {a.type} ⊙ {c.type} has a scalar", "E302", "· for scaling")
        case 1, 2:
            if not same(a.type.item[0], c.type.item[0]):
                v, M = called(s, a, "v"), called(s, c, "M")
                if same(a.type.item[0], c.type.item[1]):
                    report(s, "E301", f"{v} ⊙ {M} scales rows: {v} ∈ {a.type}, but {M} has "
                           f"{show(c.type.item[0])} rows", s.g.span,
                           f"{M} ⊙ {v} scales columns, the only reading that fits", (f"{M} ∈ {c.type}",))
                    return b.prod(s.g, c, b.diag(s.g, a))
                raise Mismatch(f"{v} ⊙ {M} scales rows: {v} ∈ {a.type} does not fit {M} ∈ {c.type}")
            return b.prod(s.g, b.diag(s.g, a), c)
        case 2, 1:
            if not same(a.type.item[1], c.type.item[0]):
                M, v = called(s, a, "M"), called(s, c, "v")
                hint = f"{v} ⊙ {M} scales rows" if same(a.type.item[0], c.type.item[0]) else None
                raise Mismatch(f"{M} ⊙ {v} scales columns: {v} ∈ {c.type} does not fit {M} ∈ {a.type}", "E301", hint)
            return b.prod(s.g, a, b.diag(s.g, c))
        case _:
            if a.type.rank == 2 and c.type.rank == 2:
                a, c = fit(s, list(zip(a.type.item, c.type.item, strict=True)), a, c)
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


def _quotient(s: State, a: Node, c: Node) -> Node:
    if b.unknown(a, c):
        return b.opaque(s.g, "div", a, c)
    if c.type.rank == 0:
        if a.type.rank == 0:
            return _over(s, a, c)
        inverse = s.g.const(_fold("/", 1, c.value)) if c.op == "const" else _over(s, s.g.const(1), c)
        return b.scale(s.g, inverse, a)
    if c.type.rank == 2:
        raise Mismatch(f"division by a matrix ({c.type})", "E302", "A @ B⁻¹, or A ⊙ (1/B) entry by entry")
    if a.type.rank <= 1:
        return _over(s, a, c)
    axis = norm_axis(c)
    if axis is None:
        raise Mismatch(f"{a.type} / {c.type}: which axis?", "E302", "diag(1/v) @ M for rows, M @ diag(1/v) for columns")
    position = 0 if axis == "row" else 1
    if not same(a.type.item[position], c.type.item[0]):
        raise Mismatch(f"{show(c.type.item[0])} {axis} norms do not fit {a.type}")
    scale = b.diag(s.g, _over(s, s.g.const(1), c))
    return b.prod(s.g, scale, a) if axis == "row" else b.prod(s.g, a, scale)


def _over(s: State, a: Node, c: Node) -> Node:
    """a / c entry by entry; 0 where c is a norm that is 0."""
    return b.div(s.g, a, c, MARK if is_norm(c) else ())


_EXPONENTS = f"an exponent up to {MAX_EXPONENT}"


def power(s: State, base: Node, exponent: Node) -> Node:
    if exponent.op != "const":
        raise Mismatch("an exponent is a number", "E302")
    value = exponent.value
    if base.op == "const":
        result = bounded_power(base.value, value)
        if result is None:
            written = f"{show(base.value, factor=True)}^{show(value, factor=True)}"
            raise Mismatch(f"{written} is too large", "E105", _EXPONENTS)
        return s.g.const(result)
    if isinstance(value, (int, float)) and abs(value) > MAX_EXPONENT:
        raise Mismatch(f"the exponent {show(value)} is too large", "E105", _EXPONENTS)
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
    if isinstance(value, (int, float, sp.Expr)) and positive(-value) and is_norm(base):
        return _over(s, s.g.const(1), base if value == -1 else b.pow_(s.g, base, -value))
    return b.pow_(s.g, base, value)


def inverted(s: State, a: Node) -> Node:
    if a.op == "const":
        return s.g.const(_fold("/", 1, a.value))
    if a.type.rank == 0 and is_norm(a):
        return _over(s, s.g.const(1), a)
    return b.inv(s.g, a)


def norm(s: State, a: Node, axis: str | None) -> Node:
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


def as_matrix(s: State, n: Node) -> Node:
    """In a grid of blocks a vector is a column, a scalar a 1×1 block."""
    if n.type.rank == 2:
        return n
    if n.type.rank == 1:
        return s.g.node("column_of", (n,), (), b.typed((n.type.item[0], 1), n))
    if n.op == "const":
        return b.full(s.g, n.value, Type((1, 1)))
    return s.g.node("entry", (n,), (), b.typed((1, 1), n))
