"""The typed IR: an immutable expression graph with shared nodes.

    node   = (op, args, attrs) : type          made only by ``Graph.node``, which gives equal nodes one identity
    type   = loops × family × item, kind       loops: axes of the enclosing loops and sums, outermost first
                                               family: declared family axes; item: () scalar, (n,) vector, (m, n) matrix
    leaves   param[name, role] weight[name] bias[name] input[name] knob[name] const[value] eye full[value]
             iota[loop, step, first]
    algebra  add(a, ...) scale(s, a) mul(a, b) div(a, b) pow[p](a) point[f](a) prod(a, ..., z) outer(u, v) dot(u, v)
             t(a) inv(a) diag(v) blkdiag(F)
    shape    slice[axis, start, stop, step](a) take[axis](a, index) put(a, value, row, col) cat[axis](a, ...)
             reshape[dims](a) interleave[axis](a, ...) column_of(v) entry(s) lying(v)
    loops    column[loop, k](index set) carry[name, loop] stack[loop, place](a) spread[loop](a) sumloop[loop](a)
             fold[loop, side](step, start) loop[loop, name, ...](step, start, ...)
    reduce   sumsq[row|col|all](a) reduce[f, row|col|all](a)
    unknown  undeclared mistake misfit assumed ...     what an error has been reported for
    the rest an operator of the table under its name; out[k](a) is the k-th of its values

A type's tensor is laid out (tokens…, loops…, family…, item…). ``prod`` is the matrix product of two or more factors;
its last factor may be a vector. Elementwise nodes have arguments of one item shape; a missing loop or family axis means
"the same for each".
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from padp.compiler.ir.budget import spend
from padp.compiler.ir.dims import Dim, show, show_axes
from padp.dsl.source import Span

OPEN = "□"
"""How sizes of a bare ``I`` are called that nothing has settled yet."""

Kind: TypeAlias = Literal["real", "complex", "index", "text", "unknown"]
NOWHERE = Span(0, 0)


@dataclass(frozen=True, slots=True)
class Axis:
    """The axis of a loop or a sum: ``uid`` tells loops apart, ``set_`` is the index set it runs over (or None)."""

    uid: int
    size: Any
    set_: Any = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class Type:
    """What a value is. ``row`` marks the transpose of a vector (a 1×n matrix), ``lying`` a vector taken out of a
    matrix as ``M_{j,:}``, which multiplies from the other side; both: ``M_{j,:}ᵀ``, a column where only that fits."""

    item: tuple[Any, ...] = ()
    family: tuple[Any, ...] = ()
    loops: tuple[Axis, ...] = ()
    row: bool = False
    kind: Kind = "real"
    lying: bool = False

    @property
    def rank(self) -> int:
        return len(self.item)

    @property
    def batch(self) -> tuple[Any, ...]:
        return tuple(a.size for a in self.loops) + self.family if self.loops else self.family

    @property
    def shape(self) -> tuple[Any, ...]:
        return self.batch + self.item

    def with_item(self, item: tuple[Any, ...], *, row: bool = False) -> Type:
        return Type(item, self.family, self.loops, row, self.kind)

    def __str__(self) -> str:
        if self.kind == "unknown":
            return "unknown"
        if any(str(d).startswith(OPEN) for d in self.item):
            return "I of open size"
        letter = {"real": "ℝ", "complex": "ℂ", "index": "ℕ"}.get(self.kind, self.kind)
        item = letter + ("^{" + show_axes(self.item) + "}" if self.item else "")
        if self.family:
            return f"({item})^{{{show_axes(self.family)}}}"
        return item


UNKNOWN = Type(kind="unknown")


@dataclass(frozen=True, eq=False, slots=True)
class Node:
    """One expression. Compare by identity: the graph makes equal expressions one node."""

    op: str
    args: tuple[Node, ...]
    attrs: tuple[Any, ...]
    type: Type
    span: Span
    number: int

    def __repr__(self) -> str:
        return f"{self.op}{list(self.attrs) if self.attrs else ''}({', '.join(map(repr, self.args))})"

    @property
    def value(self) -> Any:
        """The number of a ``const``."""
        assert self.op == "const"
        return self.attrs[0]


class Graph:
    """Makes nodes; equal (op, args, attrs, type) give the same node."""

    def __init__(self) -> None:
        self._table: dict[Any, Node] = {}
        self._loops = 0
        self.span: Span = NOWHERE
        self._width: dict[int, int] = {}

    def node(self, op: str, args: tuple[Node, ...], attrs: tuple[Any, ...], type_: Type) -> Node:
        spend()
        fractions = tuple(k for k, a in enumerate(attrs) if isinstance(a, float))  # 1.0 == 1, but it is no index
        key = (op, tuple(id(a) for a in args), attrs, fractions, type_)
        found = self._table.get(key)
        if found is None:
            found = self._table[key] = Node(op, args, attrs, type_, self.span, len(self._table))
        return found

    def width(self, op: str, node: Node) -> int:
        """Terms of a sum (op add) or entries of an entrywise product (op mul), with the sums in it written out."""
        while node.op == "scale":
            node = node.args[1]
        if node.op != op:
            return 1
        if id(node) not in self._width:
            self._width[id(node)] = sum(self.width(op, a) for a in node.args)
        return self._width[id(node)]

    def axis(self, size: Dim, set_: Any = None) -> Axis:
        """A fresh loop axis."""
        self._loops += 1
        return Axis(self._loops, size, set_)

    def const(self, value: Any) -> Node:
        return self.node("const", (), (value,), Type())


def walk(*roots: Node) -> Iterator[Node]:
    """Every node below the roots once, arguments first."""
    seen: set[int] = set()
    spend(2)
    for root in roots:
        stack: list[tuple[Node, bool]] = [(root, False)]
        while stack:
            node, ready = stack.pop()
            if id(node) in seen:
                continue
            if ready:
                seen.add(id(node))
                if not len(seen) & 63:
                    spend(40)
                yield node
            else:
                stack.append((node, True))
                stack.extend((a, False) for a in reversed(node.args))


def depends(root: Node, test: Callable[[Node], bool]) -> bool:
    """Whether any node below ``root`` (itself included) passes the test."""
    return any(test(n) for n in walk(root))


def show_graph(*roots: Node) -> str:
    """The one printed form of the IR, for dumps and golden files."""
    names: dict[int, str] = {}
    lines: list[str] = []
    for node in walk(*roots):
        names[id(node)] = f"%{len(names)}"
        attrs = "[" + ", ".join(map(_attribute, node.attrs)) + "]" if node.attrs else ""
        args = ", ".join(names[id(a)] for a in node.args)
        lines.append(f"{names[id(node)]} = {node.op}{attrs}({args}) : {node.type}")
    lines.append("return " + ", ".join(names[id(r)] for r in roots))
    return "\n".join(lines)


def _attribute(value: Any) -> str:
    if isinstance(value, Axis):
        return f"loop{value.uid}<{show(value.size)}"
    return show(value) if not isinstance(value, (str, tuple, type(None))) else str(value)
