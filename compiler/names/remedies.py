"""What to write instead of a term whose types do not fit, in the words of the program.

    t ∈ ℝ^H beside X ∈ (ℝ^{e×d})^H          one number a member: t ∈ (ℝ)^H, and t · X
    max(s, 0) of a vector                    maximum(s, 0), or relu(s)
    M + 1                                    M + ones(m, r)
"""

from __future__ import annotations

from collections.abc import Callable, Collection

import sympy as sp

from padp.compiler.ir.dims import same, show
from padp.compiler.ir.nodes import Node
from padp.compiler.names.terms import Arith, Call, Item, Number, Term, Var
from padp.dsl.source import Source, Span


def one_a_member(t: Arith, left: Node, right: Node, declared: Collection[str]) -> tuple[str, str] | None:
    """A note and what to write where a vector has one entry for each member of the family beside it."""
    for side, vector, family, of in ((t.left, left, right, t.right), (t.right, right, left, t.left)):
        if vector.op == "diag" and isinstance(side, Call) and len(side.args) == 1:
            side, vector = side.args[0], vector.args[0]
        if vector.type.rank != 1 or vector.type.family or vector.type.kind != "real" or len(family.type.family) != 1:
            continue
        count = family.type.family[0]
        if not same(vector.type.item[0], count):
            continue
        v, X = side.name if isinstance(side, Var) else "t", of.name if isinstance(of, Var) else "X"
        size = show(count) if show(count).isalnum() else f"{{{show(count)}}}"
        item = family.type.item
        if t.op in ("+", "-") and item:
            use = f"{v} · ones({', '.join(map(show, item))})"
        elif t.op in ("+", "-"):
            use = v
        else:
            use = f"{X} / {v}" if t.op == "/" else f"{v} · {X}"
        note = f"{v} is one vector, {X} has {show(count)} members"
        if v not in declared:
            return note, f"write it for each member, `Y_i ← {use.replace(v, f'{v}_i', 1).replace(X, f'{X}_i', 1)}`" \
                if isinstance(side, Var) and t.op not in ("+", "-") else "give it a name, and write it for each member"
        return note, f"declare `{v} ∈ (ℝ)^{size}`, one number for each member, and write `{use}`"
    return None


def whole(t: Arith, left: Node, right: Node, value: Callable[[str], Node | None]) -> tuple[str, str] | None:
    """The ``W_0 @ x`` of papers: here ``W_0`` is the first row of W, and the matrix is ``W``."""
    match t.left:
        case Item(base=Var(name=name), items=(Number(value=k),)) if left.type.rank == 1 and right.type.rank:
            matrix = value(name)
            if matrix is not None and matrix.type.rank == 2 and same(matrix.type.item[1], right.type.item[0]):
                return f"`{name}_{k}` is row {k} of {name}", f"write `{name}`, the whole matrix"
        case _:
            pass
    return None


def bounded(t: Arith, left: Node, right: Node) -> str | None:
    """``where r ≤ m``, where ℝ^{m×min(m, r)} meets ℝ^{r×n}: the condition under which a least or greatest size is
    the one that stands on the other side."""
    a, b = left.type.item, right.type.item
    if not a or not b or left.type.kind == "unknown" or right.type.kind == "unknown":
        return None
    for d, e in [(a[-1], b[0])] if t.op == "@" else [*zip(a, b, strict=False)]:
        for least, other in ((d, e), (e, d)):
            if isinstance(least, sp.Min | sp.Max) and not same(d, e) and any(same(x, other) for x in least.args):
                sign = "≤" if isinstance(least, sp.Min) else "≥"
                rest = [show(x) for x in least.args if not same(x, other)]
                bound = rest[0] if len(rest) == 1 else f"{least.func.__name__.lower()}({', '.join(sorted(rest))})"
                return f"say it in the header: where {show(other)} {sign} {bound}"
    return None


def entry_by_entry(t: Call, source: Source) -> str | None:
    """``maximum(s, 0)`` for a ``max`` of two that are no sizes."""
    if t.function not in ("max", "min") or len(t.args) != 2:
        return None
    a, c = (_written(x, source) for x in t.args)
    if a is None or c is None:
        return None
    said = f"write `{t.function}imum({a}, {c})`, entry by entry"
    zero = [other for one, other in ((t.args[0], c), (t.args[1], a)) if isinstance(one, Number) and one.value == 0]
    return f"{said}, or `relu({zero[0]})`" if zero and t.function == "max" else said


def _written(t: Term, source: Source) -> str | None:
    span: Span = t.span
    return source.slice(span) if span.end else None


def in_every_entry(scalar: Node, other: Node, called: Callable[[Node, str], str]) -> str:
    """How a number is added to a matrix or a vector."""
    name = show(scalar.value).lstrip("-") if scalar.op == "const" else called(scalar, "c")
    if name.strip("0123456789.") and len(name.split()) > 1:
        name = "c"  # a sum would need parentheses
    ones = f"ones({', '.join(map(show, other.type.item))})"
    said = f"write `{ones if name == '1' else f'{name} · {ones}'}` for {name}"
    square = other.type.rank == 2 and same(*other.type.item)
    return f"{said}, or `{'I' if name == '1' else f'{name} · I'}` for {name} on the diagonal" if square else said


def along_an_axis(name: str, first: str, rank: int | None, where: str | None) -> str:
    """``sum_row(M)`` for the ``sum(M, 1)`` of array libraries: axis 1 goes along a row, and gives one number a row."""
    if rank == 1:
        return f"write `{name}({first})`"
    ways = {"1": "row", "-1": "row", "0": "col", "-2": "col"}
    if where in ways:
        return f"write `{name}_{ways[where]}({first})`"
    return f"write `{name}_row({first})`, one number a row, `{name}_col({first})`, or `{name}({first})` of all"
