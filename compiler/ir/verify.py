"""What holds of every sound graph of the IR, looked at between phases when ``PADP_VERIFY`` is set; the tests set it.

    verify(phase, *roots)      raises Unsound, which is a mistake of ours and none of the program's

    equal nodes are one node;  of a checked program no type is unknown, no size open or mistaken;  axes of types fit:
    add, mul      one item shape                 scale(s, a)   s a number, the type of a
    prod          inner dimensions equal         t             the two axes swapped
    slice         start and stop inside          put           the type of what is written into
"""

from __future__ import annotations

import os
from itertools import pairwise
from typing import Any

import sympy as sp

from padp.compiler.ir.dims import same
from padp.compiler.ir.nodes import OPEN, Node, walk

WANTED = bool(os.environ.get("PADP_VERIFY"))


class Unsound(AssertionError):
    """A phase has made a graph that does not fit together."""


def verify(phase: str, *roots: Node, checked: bool = True) -> None:
    """Every node below the roots. ``checked``: the program has no errors, so there is nothing that cannot be known."""
    known: dict[Any, Node] = {}
    for node in walk(*roots):
        key = node.op, tuple(map(id, node.args)), node.attrs, tuple(map(type, node.attrs)), node.type
        if known.setdefault(key, node) is not node:
            raise Unsound(f"after {phase}: {node} is there twice")
        wrong = _unknown(node)
        if wrong is not None and not checked:
            continue
        wrong = wrong or _wrong(node)
        if wrong is not None:
            raise Unsound(f"after {phase}: {node} : {node.type}: {wrong}")


def _unknown(node: Node) -> str | None:
    """What is not known of a node or of what it is made of; None where all is."""
    for each in (node, *node.args):
        if each.type.kind == "unknown":
            return "its type is unknown"
        sizes = {str(x) for d in each.type.shape if isinstance(d, sp.Expr) for x in d.free_symbols}
        if any(name.startswith((OPEN, "?")) for name in sizes):
            return "a size is open"
    return None


def _wrong(node: Node) -> str | None:
    """What does not fit at a node; None where all does."""
    items = [a.type.item for a in node.args]
    match node.op:
        case "add" | "mul" if any(not _fits(item, node.type.item) for item in items):
            return "the terms have other shapes"
        case "scale" if items[0] or not _fits(items[1], node.type.item):
            return "no number times a value of its type"
        case "prod" if any(len(a) != 2 or not b or not same(a[1], b[0]) for a, b in pairwise(items)):
            return "inner dimensions differ"
        case "t" if len(items[0]) == 2 and not _fits(items[0][::-1], node.type.item):
            return "its axes are not swapped"
        case "put" if not _fits(items[0], node.type.item):
            return "it is not of the type of what is written into"
        case _:
            return None


def _fits(a: tuple[Any, ...], b: tuple[Any, ...]) -> bool:
    return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
