"""Lints on what stands together in a product: tensors that act as one (W304), norms and scales of two axes (W308).

A product is read as what acts one after the other: numbers, diagonals and matrices.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import pairwise

from padp.compiler.check.lints_of_sums import names_before, sum_terms
from padp.compiler.elaborate.algebra import norm_axis
from padp.compiler.elaborate.state import Elaborated
from padp.compiler.ir.budget import spend
from padp.compiler.ir.dims import same, show
from padp.compiler.ir.nodes import Node, walk
from padp.compiler.operators.formulas import formula
from padp.dsl.diagnostics import Diagnostic, Related


def _factors(node: Node) -> list[tuple[str, Node]]:
    """A product as what acts one after the other: ('number', s), ('diagonal', v) or ('matrix', M)."""
    spend()
    if node.type.kind == "unknown":
        return [("matrix", node)]
    match node.op:
        case "prod":
            return [f for a in node.args for f in _factors(a)]
        case "scale":
            return [("number", node.args[0]), *_factors(node.args[1])]
        case "mul" if node.type.rank == 0:
            return [f for a in node.args for f in _factors(a)]
        case "mul" if node.type.rank == 1:
            first, second = node.args
            if _moves(first) and not _moves(second):
                first, second = second, first
            return [*(_factors(first) if first.op == "mul" else [("diagonal", first)]), *_factors(second)]
        case "diag":
            return [("diagonal", x) for x in _entries(node.args[0])]
        case "param" if node.type.rank < 2:
            return [("number" if node.type.rank == 0 else "diagonal", node)]
        case _:
            return [("matrix", node)]


def _entries(v: Node) -> list[Node]:
    """A vector as a product entry by entry."""
    return [x for a in v.args for x in _entries(a)] if v.op == "mul" and v.type.rank == 1 else [v]


def _moves(node: Node) -> bool:
    return any(n.op == "input" for n in walk(node))


# ---------------------------------------------------------------- W304: redundant tensors


def redundant(typed: Elaborated) -> list[Diagnostic]:
    """W304: two learned diagonals or numbers that stand together in one product and nowhere else, or two learned
    tensors of one shape that do in one sum."""
    roots = [typed.output] + ([typed.penalty] if typed.penalty is not None else [])
    parents: dict[int, set[int]] = {}
    nodes = list(walk(*roots))
    for node in nodes:
        for a in node.args:
            parents.setdefault(id(a), set()).add(id(node))
    learned = {id(p.node): (name, p) for name, p in typed.parameters.items() if p.declaration.role == "learned"}
    found: list[Diagnostic] = []
    told: set[tuple[str, str]] = set()
    for node in nodes:
        for a, c, what, remedy in _together(node, learned):
            one, other = learned.get(id(a)), learned.get(id(c))
            if one is None or other is None or one[0] == other[0] or (one[0], other[0]) in told:
                continue
            if a.type.family != c.type.family or any(_used_twice(x, parents) for x in (a, c)):
                continue
            told |= {(one[0], other[0]), (other[0], one[0])}
            found.append(Diagnostic(
                "W304", f"`{one[0]}` and `{other[0]}` are redundant: they act as one, {what}", node.span,
                typed.method.source, (Related(one[1].declaration.span, f"`{one[0]}`"),
                                      Related(other[1].declaration.span, f"`{other[0]}`")), (), remedy))
    return found


def _together(node: Node, learned: Collection[int]) -> Iterator[tuple[Node, Node, str, str]]:
    """Pairs that a sum or a product holds as one: what they act as, and a remedy. Of sums, ``learned`` terms only."""
    if node.op == "add":
        terms = [t for _, t in sum_terms(node) if id(t) in learned]
        yield from ((a, c, "their sum", "leave one out, or let it stand elsewhere") for a, c in pairwise(terms))
    elif node.op in ("prod", "scale", "mul"):
        factors = _factors(node)
        numbers = [f for kind, f in factors if kind == "number"]
        rest = [(kind, f) for kind, f in factors if kind != "number"]
        for a, c in pairwise(numbers):
            yield a, c, "their product (numbers)", "leave one out"
        for (kind, a), (other, c) in pairwise(rest):
            if kind == other == "diagonal" and same(a.type.item[0], c.type.item[0]):
                yield (a, c, f"their product (vectors of {show(a.type.item[0])} entries, on the same index)",
                       "leave one out, or let it scale another axis")
        for a in numbers:
            yield from ((a, c, "their product (a number and a vector that it scales)", "leave the number out")
                        for kind, c in rest if kind == "diagonal")


def _used_twice(leaf: Node, parents: Mapping[int, set[int]]) -> bool:
    """Whether a tensor is used at more than one place."""
    return len(parents.get(id(leaf), ())) > 1


# ---------------------------------------------------------------- W308: another axis


def other_axis(typed: Elaborated, roots: Sequence[Node]) -> list[Diagnostic]:
    """W308: M / ‖M‖ along one axis, and a scale along the other."""
    found: list[Diagnostic] = []
    told: set[int] = set()
    for node in reversed(list(walk(*roots))):
        if node.op not in ("prod", "mul"):
            continue
        factors = _factors(node)
        for k, (kind, m) in enumerate(factors):
            if kind != "matrix":
                continue
            left = _diagonals(factors[:k][::-1])
            right = _diagonals(factors[k + 1:])
            for axis, own, across in (("row", left, right), ("col", right, left)):
                norm = next((v for v in own if _divides_by(v) == axis), None)
                if norm is None or id(m) in told:
                    continue
                along = [v for v in own if _divides_by(v) is None]
                scales = [v for v in across if _divides_by(v) is None and not _moves(v)]
                if scales and not along:
                    told.add(id(m))
                    found.append(_wrong_axis(typed, node, m, scales[0], axis))
    return found


def _diagonals(factors: Sequence[tuple[str, Node]]) -> list[Node]:
    """The diagonals that come first."""
    out: list[Node] = []
    for kind, f in factors:
        if kind == "diagonal":
            out.append(f)
        elif kind != "number":
            break
    return out


def _divides_by(v: Node) -> str | None:
    """'row' or 'col' when v is one over the norms of that axis."""
    while v.op in ("detach", "lying"):
        v = v.args[0]
    return norm_axis(v.args[1]) if v.op == "div" and v.args[0].op == "const" else None


def _wrong_axis(typed: Elaborated, node: Node, m: Node, scale: Node, axis: str) -> Diagnostic:
    names = names_before(typed, node.span)
    name, by = formula(m, names), formula(scale, names).removesuffix(" (the tensor)")
    one, other, sub = ("column", "row", "_row") if axis == "col" else ("row", "column", "_col")
    return Diagnostic(
        "W308", f"`{name}` is divided by the norms of its {one}s and then `{by}` scales its {other}s: `{by}` is not "
        "the magnitude that was taken out", node.span, typed.method.source, (), (),
        f"‖{name}‖{sub}, if `{by}` is to be the magnitude of each {other}")
