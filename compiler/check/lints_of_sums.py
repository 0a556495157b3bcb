"""W307: terms of a sum that cancel, and what is left of the statement in which they meet.

    h + Rᵀ (R h + b − R h)      `R @ h` cancels; what is left is h + Rᵀ b
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Any

from padp.compiler.elaborate.state import Elaborated
from padp.compiler.facts.facts import Facts
from padp.compiler.ir.budget import spend
from padp.compiler.ir.nodes import Node, walk
from padp.compiler.operators.formulas import formula
from padp.dsl.diagnostics import Diagnostic
from padp.dsl.limits import MAX_TERMS
from padp.dsl.source import Span


def cancelling(typed: Elaborated, roots: Sequence[Node]) -> list[Diagnostic]:
    """W307: a sum that holds a term and its negative."""
    found: list[Diagnostic] = []
    inner: set[int] = set()  # sums inside sums speak once, as the outer one
    told: set[int] = set()
    facts = Facts(typed.graph)
    for node in reversed(list(walk(*roots))):
        if node.op != "add" or id(node) in inner:
            continue
        _mark_inner(node, inner)
        gone = _opposite(node, lambda term: (1, term)) or _opposite(node, lambda term: _numbered(facts, term))
        if not gone or any(id(t[-1]) in told for t in gone):
            continue
        told |= {id(t) for group in gone for t in group}
        found.append(_cancelled(typed, node, [t[-1] for t in gone], {id(t) for group in gone for t in group}))
    return found


def _opposite(node: Node, read: Callable[[Node], tuple[Any, Node]]) -> list[list[Node]]:
    """Groups of equal terms of a sum whose numbers add up to 0; ``read`` takes a term as a number times its core."""
    weights: dict[int, Any] = {}
    terms: dict[int, list[Node]] = {}
    for factor, term in sum_terms(node):
        number, core = read(term)
        weights[id(core)] = weights.get(id(core), 0) + factor * number
        terms.setdefault(id(core), []).append(term)
    return [group for k, group in terms.items()
            if weights[k] == 0 and len(group) > 1 and group[0].op not in ("const", "full")]


def _numbered(facts: Facts, term: Node) -> tuple[Any, Node]:
    """A term as a number times what is one node for equal terms: (2 B) A and B A are 2 and 1 times B A."""
    normal = term if term.type.kind == "unknown" else facts.normal(term)
    if normal.op == "scale" and normal.args[0].op == "const":
        return normal.args[0].attrs[0], normal.args[1]
    return 1, normal


def _mark_inner(node: Node, inner: set[int]) -> None:
    for a in node.args:
        while a.op in ("assumed", "scale") and a.args:
            if a.op == "scale" and a.args[0].op != "const":
                break
            a = a.args[-1]
        if a.op == "add" and id(a) not in inner:
            inner.add(id(a))
            _mark_inner(a, inner)


def _cancelled(typed: Elaborated, node: Node, gone: Sequence[Node], dead: set[int]) -> Diagnostic:
    """The finding, with what is left of the statement in which the terms meet."""
    span, name, whole = node.span, None, node
    for n, value, where in typed.history:
        if where.start <= node.span.start and node.span.end <= where.end:
            span, name, whole = where, n, value
            break
    names = names_before(typed, span)
    names = {k: v for k, v in names.items() if not _holds(k, node)}
    left = _rest(typed, whole, node, dead)
    what = ", ".join(f"`{formula(t, {k: v for k, v in names.items() if k not in dead})}`" for t in gone)
    text = formula(left, names)
    said = f"; what is left is {name} = {text}" if name is not None else f"; what is left is {text}"
    return Diagnostic("W307", f"{what} cancel{'s' if len(gone) == 1 else ''} in this sum{said}", node.span,
                      typed.method.source,
                      suggestion="another tensor in one of the two places, if the difference is meant")


def _holds(number: int, node: Node) -> bool:
    """Whether the named value is a part of the sum that is to be written out."""
    parts: set[int] = set()

    def visit(n: Node) -> None:
        parts.add(id(n))
        if n.op in ("add", "assumed") or (n.op == "scale" and n.args[0].op == "const"):
            for a in n.args:
                if a.op in ("add", "assumed", "scale"):
                    visit(a)

    visit(node)
    return number in parts


def _rest(typed: Elaborated, whole: Node, node: Node, dead: set[int]) -> Node:
    """``whole`` with the sum ``node`` written without the terms that cancel."""
    g = typed.graph
    made: dict[int, Node] = {}
    for n in walk(whole):
        if n is node:
            kept = [t if f == 1 else g.node("scale", (g.const(f), t), (), t.type)
                    for f, t in sum_terms(n) if id(t) not in dead]
            made[id(n)] = kept[0] if len(kept) == 1 else g.node("add", tuple(kept), (), n.type) if kept else \
                g.node("full", (), (0,), n.type)
        else:
            args = tuple(made[id(a)] for a in n.args)
            made[id(n)] = n if args == n.args else g.node(n.op, args, n.attrs, n.type)
    return made[id(whole)]


def names_before(typed: Elaborated, span: Span) -> dict[int, str]:
    """Nodes by the names that they have before a statement."""
    names: dict[int, str] = {}
    for name in {x.name for x in typed.method.bound} | set(typed.parameters):
        if name in typed.names:
            names.setdefault(id(typed.names[name]), name)
    for name, node, where in typed.history:
        if where.start < span.start and node.op not in ("const", "full", "eye"):
            names[id(node)] = name
    return names


def sum_terms(node: Node) -> list[tuple[Any, Node]]:
    """A sum as numbers times terms, through sums of unknown shape too; [] for one of too many terms."""
    terms = list(islice(_terms(node), MAX_TERMS + 1))
    return terms if len(terms) <= MAX_TERMS else []


def _terms(root: Node) -> Iterator[tuple[Any, Node]]:
    stack: list[tuple[Any, Node]] = [(1, root)]
    while stack:
        factor, node = stack.pop()
        spend(2)
        if node.op == "assumed" and node.args[0].op == "add":
            stack.append((factor, node.args[0]))
        elif node.op == "add":
            stack.extend((factor, a) for a in reversed(node.args))
        elif node.op == "scale" and node.args[0].op == "const":
            stack.append((factor * node.args[0].attrs[0], node.args[1]))
        else:
            yield factor, node
