"""Whether the sizes and the attach-time values of a program can be found at all, for any layer.

    infeasible(method, typed) -> E308 relations that no sizes satisfy, E309 sizes that nothing determines,
                                 E310 index sets and starts that need what is only known later
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import sympy as sp

from padp.compiler.algebra import open_size
from padp.compiler.ir import Node, walk
from padp.compiler.scope import walk as walk_terms
from padp.compiler.sizes import symbolic, text
from padp.compiler.state import Elaborated
from padp.compiler.terms import Method, SpaceTerm, Test, Var
from padp.dsl.diagnostics import Diagnostic, Related


def infeasible(method: Method, typed: Elaborated, free: bool) -> list[Diagnostic]:
    """All of it. ``free``: a block without header, whose sizes are allowed to be open."""
    return [*_contradictory(method), *([] if free else _undetermined(method)), *_open_identities(typed),
            *_too_early(method, typed)]


# ---------------------------------------------------------------- E308


def _contradictory(method: Method) -> Iterator[Diagnostic]:
    """A relation that cannot hold, or two that cannot hold together."""
    names = {n.name for t in method.relations for n in walk_terms(t) if isinstance(n, Var)}
    env = {n: sp.Symbol(n, integer=True, positive=True) for n in names}
    for test in method.relations:  # n = 2·b: n is even
        if test.op == "=" and isinstance(test.left, Var) and test.right is not None:
            value = symbolic(test.right, env)
            if env[test.left.name] not in value.free_symbols:
                env = {**env, test.left.name: value}
    for k, one in enumerate(method.relations):
        if _false(one, env):
            uses = {n.name for n in walk_terms(one) if isinstance(n, Var)}
            others = [t for t in method.relations if t is not one and t.op == "=" and isinstance(t.left, Var)
                      and t.left.name in uses]
            yield Diagnostic("E308", f"no sizes satisfy {' and '.join(_shown(t) for t in (*others, one))}", one.span,
                             method.source, tuple(Related(t.span, "with this one") for t in others), (),
                             "leave the relation out, or correct it")
            continue
        for other in method.relations[:k]:
            if _exclude(one, other, env):
                yield Diagnostic("E308", f"no sizes satisfy both {_shown(other)} and {_shown(one)}", one.span,
                                 method.source, (Related(other.span, "the other one"),), (),
                                 "leave one of the relations out")


def _shown(test: Test) -> str:
    return f"{text(test.left)} {test.op} {text(test.right)}".strip()


def _false(test: Test, env: dict[str, Any]) -> bool:
    """Whether a relation holds for no positive whole numbers."""
    own = {n: sp.Symbol(n, integer=True, positive=True) for n in env} if test.op == "=" else env
    left = sp.sympify(symbolic(test.left, own))
    if test.op == "even":
        return left.is_odd is True
    if test.op == "odd":
        return left.is_even is True
    assert test.right is not None
    gap = sp.expand(left - symbolic(test.right, own))
    match test.op:
        case "=":
            return gap.is_zero is False and (gap.is_positive is True or gap.is_negative is True)
        case "≠":
            return gap.is_zero is True
        case "<":
            return gap.is_nonnegative is True
        case "≤":
            return gap.is_positive is True
        case ">":
            return gap.is_nonpositive is True
        case "≥":
            return gap.is_negative is True


def _exclude(one: Test, other: Test, env: dict[str, Any]) -> bool:
    """Whether two relations about the same difference contradict each other."""
    if {one.op, other.op} == {"even", "odd"}:
        return bool(sp.expand(symbolic(one.left, env) - symbolic(other.left, env)) == 0)
    if one.right is None or other.right is None:
        return False
    plain = {n: sp.Symbol(n, integer=True, positive=True) for n in env}
    a = sp.expand(symbolic(one.left, plain) - symbolic(one.right, plain))
    c = sp.expand(symbolic(other.left, plain) - symbolic(other.right, plain))
    if a == c:
        return not _SIGNS[one.op] & _SIGNS[other.op]
    if a == -c:
        return not _SIGNS[one.op] & {-x for x in _SIGNS[other.op]}
    return False


_SIGNS = {"=": {0}, "≠": {-1, 1}, "<": {-1}, "≤": {-1, 0}, ">": {1}, "≥": {0, 1}}
"""The signs that left − right may have."""


# ---------------------------------------------------------------- E309


def _undetermined(method: Method) -> Iterator[Diagnostic]:
    """A size in a declared space that neither the site, nor the header, nor a relation gives."""
    known = {h.name for h in method.hyper}
    for bound in method.bound:
        known |= _sizes(bound.space)
    known |= set(_assigned(method))
    relations = [t for t in method.relations if t.op == "=" and t.right is not None]
    changed = True
    while changed:
        changed = False
        for test in relations:
            unknown = {n.name for n in walk_terms((test.left, test.right)) if isinstance(n, Var)} - known
            if len(unknown) == 1:
                known |= unknown
                changed = True
    told: set[str] = set()
    related = {n.name for n in walk_terms(method.relations) if isinstance(n, Var)}
    for p in method.parameters:
        for name in sorted(_sizes(p.space) - known - told):
            told.add(name)
            relation = "" if name in related else f", or a relation, where n = {'k' if name == 'b' else 'b'}·{name}"
            yield Diagnostic("E309", f"nothing determines the size `{name}` of `{p.name}`", p.span, method.source,
                             suggestion=f"give it a value in the header, {method.name}({name} = 8){relation}")


def _open_identities(typed: Elaborated) -> Iterator[Diagnostic]:
    """An ``I`` that meets nothing which says how large it is."""
    roots = [typed.output] + ([typed.penalty] if typed.penalty is not None else [])
    for node in walk(*roots):
        if node.op == "eye" and open_size(node) is not None:
            yield Diagnostic("E309", "nothing determines the size of this `I`", node.span, typed.method.source,
                             suggestion="eye(n)")


def _sizes(space: SpaceTerm) -> set[str]:
    return {n.name for n in walk_terms((space.dims, space.family)) if isinstance(n, Var)} - {"π"}


def _assigned(method: Method) -> set[str]:
    return {name for step in walk_terms(method.body) for name in getattr(step, "names", ())}


# ---------------------------------------------------------------- E310


def _too_early(method: Method, typed: Elaborated) -> Iterator[Diagnostic]:
    """An index set made from what is learned or from the input; a start made from the input."""
    roots: Sequence[Node] = [node for _, node, _ in typed.history] + [typed.output]
    for node in walk(*roots):
        if node.op in ("largest", "argtop"):
            for moving in _moving(node.args[0]):
                yield Diagnostic("E310", f"an index set is made when the adapter is attached; this one depends on "
                                 f"{moving}", node.span, method.source,
                                 suggestion="choose the places from W, or use topk, which is a mask")
                break
    for p in typed.parameters.values():
        init = p.declaration.init
        if init is not None and p.start.node is not None and any(n.op == "input" for n in walk(p.start.node)):
            yield Diagnostic("E310", f"the start of `{p.declaration.name}` is made when the adapter is attached; it "
                             "depends on the input", init.span, method.source, suggestion="a value of W")


def _moving(node: Node) -> Iterator[str]:
    """What of a value is not known when the adapter is attached."""
    for n in walk(node):
        if n.op == "input":
            yield f"the input `{n.attrs[0]}`"
        elif n.op == "param" and n.attrs[1] == "learned":
            yield f"`{n.attrs[0]}`, which is learned"
        elif n.op == "knob":
            yield f"the knob `{n.attrs[0]}`"
