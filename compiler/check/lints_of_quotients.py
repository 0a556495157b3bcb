"""W312: a quotient by factors side by side. ``1/2 v`` is 1/(2 v), since factors side by side bind tighter than ``/``;
who writes it often means (1/2) v."""

from __future__ import annotations

from collections.abc import Iterator

from padp.compiler.names.scope import walk
from padp.compiler.names.terms import Arith, Method
from padp.dsl.diagnostics import Diagnostic


def quotients(method: Method) -> Iterator[Diagnostic]:
    """W312 of one variant, each place once."""
    told: set[int] = set()
    for node in walk(_terms(method)):
        if not isinstance(node, Arith) or node.op not in ("/", "//") or not node.span.end:
            continue
        by = node.right
        if isinstance(by, Arith) and by.op == "*" and not by.grouped and by.span.start not in told:
            told.add(by.span.start)
            yield _two(method, node, by)


def _terms(method: Method) -> tuple[object, ...]:
    return (method.hyper, method.bound, method.relations, method.options, method.parameters, method.functions,
            method.body, method.minimise, method.updates)


def _two(method: Method, node: Arith, by: Arith) -> Diagnostic:
    text, whole = method.source.text, method.source.slice(node.span)
    first = by
    while isinstance(first.left, Arith) and first.left.op == "*" and not first.left.grouped:
        first = first.left
    cut = first.left.span.end
    while text[cut:].lstrip()[:1] == ")" and text.count("(", by.span.start, cut) > text.count(")", by.span.start, cut):
        cut = text.index(")", cut) + 1
    over, tail = text[node.span.start:by.span.start], text[by.span.start:by.span.end]
    all_of, first_of = f"{over}({tail})", f"({text[node.span.start:cut]}) {text[cut:by.span.end].lstrip()}"
    return Diagnostic("W312", f"`{whole}` is read as {all_of}: factors side by side bind tighter than /", node.span,
                      method.source, (), (), f"{first_of} or {all_of}, whichever is meant")
