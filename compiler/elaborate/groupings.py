"""Products without parentheses that could be grouped in two ways, where the two are different values.

``@ · ⊙`` have one precedence, from left to right. Between matrices that does not matter; it does where ``@`` meets a
product entry by entry:

    R @ s · P       diag(R s) P from left to right, R diag(s) P on paper
    R @ s ⊙ u       (R s) ⊙ u                       R (s ⊙ u)
    R @ S ⊙ T       (R S) ⊙ T                       R (S ⊙ T)
    M ⊙ S @ T       (M ⊙ S) T                       M ⊙ (S T)

Where the sizes allow one of them only, it is that one from left to right that is read; the other is suggested. Where
they allow both for all sizes, the product is refused until it has its parentheses.
"""

from __future__ import annotations

from collections.abc import Iterator

from padp.compiler.elaborate.algebra import arithmetic
from padp.compiler.elaborate.state import State
from padp.compiler.ir import build as b
from padp.compiler.ir.build import Mismatch
from padp.compiler.ir.dims import same
from padp.compiler.ir.nodes import Node
from padp.compiler.names.terms import Arith, Term


def product(s: State, t: Arith, left: Node, right: Node) -> Node:
    """``left op right``; ``Mismatch`` where it could be grouped in another way as well.

    Sizes that are equal at one layer alone do not count, so only the program for all sizes is asked. The prelude has no
    places to point at: it is read as it is written.
    """
    if s.concrete or not t.span.end or t.op in ("+", "-", "//"):
        return arithmetic(s, t.op, left, right)
    s.sides[id(t)] = (left, right)
    at = _entries_first(s, t, left, right)
    if at is not None and not same(left.type.item[0], right.type.item[0]):
        one, other = _written(s, t, at)
        raise Mismatch(f"from left to right this is {one}, and {left.type} {t.op} {right.type} does not fit", "E301",
                       other)
    made = arithmetic(s, t.op, left, right)
    at = at or _product_first(s, t, left, right)
    if at is not None:
        one, other = _written(s, t, at)
        raise Mismatch(f"this could be {one} or {other}, and they are not the same", "E302", f"{other}, or {one}")
    return made


def _inner(t: Arith) -> Iterator[Arith]:
    """The products that ``t`` holds on its left without parentheses, the last one first."""
    at: Term = t.left
    while isinstance(at, Arith) and not at.grouped and at.op in ("@", "·", "⊙", "/"):
        yield at
        at = at.left


def _entries_first(s: State, t: Arith, left: Node, right: Node) -> Arith | None:
    """The last ``@`` before ``· right`` or ``⊙ right``, where what follows it could be multiplied with ``right``
    first, and that is another value."""
    last = next((a for a in _inner(t) if a.op == "@"), None) if t.op in ("·", "⊙") else None
    if last is None:
        return None
    before, after = s.sides[id(last)]
    if b.unknown(before, after, left, right) or before.type.rank != 2 or before.type.row or right.type.row:
        return None
    if not right.type.rank or left.type.rank != after.type.rank or _diagonal(before):
        return None
    vector = after.type.rank == 1
    fits = vector or (t.op == "⊙" and after.type.rank == right.type.rank == 2
                      and same(after.type.item[1], right.type.item[1]))
    return last if fits and same(after.type.item[0], right.type.item[0]) else None


def _product_first(s: State, t: Arith, left: Node, right: Node) -> Arith | None:
    """The ``⊙`` of two matrices before ``@ right``, where what follows it could be multiplied with ``right`` first, and
    that is another value."""
    last = next((a for a in _inner(t) if a.op == "⊙"), None) if t.op in ("@", "·") else None
    if last is None:
        return None
    before, after = s.sides[id(last)]
    if b.unknown(before, after, left, right) or not before.type.rank == after.type.rank == right.type.rank == 2:
        return None
    return last if same(before.type.item[1], right.type.item[1]) and not _diagonal(right) else None


def _diagonal(node: Node) -> bool:
    """Whether a matrix is written as a diagonal: that commutes with what is done entry by entry after it."""
    match node.op:
        case "diag" | "eye":
            return True
        case _ if all(same(d, 1) for d in node.type.item):  # a number
            return True
        case "prod":
            return all(map(_diagonal, node.args))
        case "scale":
            return _diagonal(node.args[1])
        case _:
            return False


def _written(s: State, t: Arith, at: Arith) -> tuple[str, str]:
    """The two ways of grouping ``t`` as they are written: from left to right, and with what is right of ``at``
    first."""
    text = s.method.source.text
    split, end = _operand(text, at.right.span.start), _operand(text, t.right.span.start)
    head, tail = text[t.span.start:split], text[split:t.span.end]
    first = text[t.span.start:end].rstrip()
    glyph = next(g for g in (".*", "·", "⊙", "@", "*") if first.endswith(g))
    return f"({first.removesuffix(glyph).rstrip()}) {glyph} {text[end:t.span.end]}", f"{head}({tail})"


def _operand(text: str, start: int) -> int:
    """Where an operand begins, with the parentheses around it."""
    at = start
    while text[:at].rstrip().endswith("("):
        at = len(text[:at].rstrip()) - 1
    return at
