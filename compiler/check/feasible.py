"""Whether the sizes and the attach-time values of a program can be found at all, for any layer.

    infeasible(method, typed) -> E308 relations that no sizes satisfy, E309 sizes that nothing determines,
                                 E310 index sets and starts that need what is only known later
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence, Set
from typing import Any

import sympy as sp

from padp.compiler.elaborate.algebra import open_size
from padp.compiler.elaborate.state import Elaborated
from padp.compiler.ir.budget import spend
from padp.compiler.ir.dims import lower, show
from padp.compiler.ir.nodes import Node, walk
from padp.compiler.names.glued import apart
from padp.compiler.names.scope import walk as walk_terms
from padp.compiler.names.terms import Method, SpaceTerm, Test, Text, Var
from padp.compiler.sizes.solve import calculated, symbolic, text
from padp.dsl.diagnostics import Diagnostic, Related


def infeasible(method: Method, typed: Elaborated, free: bool) -> list[Diagnostic]:
    """All of it. ``free``: a block without header, whose sizes are allowed to be open."""
    return [*_contradictory(method), *([] if free else _undetermined(method)), *_open_identities(typed),
            *_too_early(method, typed)]


# ---------------------------------------------------------------- E308


def _contradictory(method: Method) -> list[Diagnostic]:
    """Relations that cannot hold, or not together; then those that the defaults of the hyperparameters break."""
    return list(_conflicts(method, {})) or list(_conflicts(method, defaults(method)))


def defaults(method: Method) -> dict[str, Any]:
    """The numbers that hyperparameters have when nobody gives them others."""
    found = {h.name: calculated(h.default, {}) for h in method.hyper
             if h.default is not None and not h.knob and not isinstance(h.default, Text)}
    return {name: lower(value) for name, value in found.items() if value is not None and value.is_number}


def _conflicts(method: Method, numbers: Mapping[str, Any]) -> Iterator[Diagnostic]:
    """E308 for each relation that is false for all sizes, given the equations before it and some numbers."""
    names = {n.name for t in method.relations for n in walk_terms(t) if isinstance(n, Var)} - {"π"}
    env: dict[str, Any] = {n: numbers.get(n, sp.Symbol(n, integer=True, positive=True)) for n in names}
    defined: dict[str, Test] = {}
    for test in (t for t in method.relations if t.op == "="):
        spend(10 * len(env))
        unknown = _defined_by(test, env)
        if unknown is not None:  # n = 2·b: n is even
            name, value = unknown
            env = {k: sp.sympify(v).subs(sp.Symbol(name, integer=True, positive=True), value) for k, v in env.items()}
            defined[name] = test
    gaps = [None if t.right is None else sp.expand(symbolic(t.left, env) - symbolic(t.right, env))
            for t in method.relations]
    for k, one in enumerate(method.relations):
        uses = {n.name for n in walk_terms(one) if isinstance(n, Var)}
        if one not in defined.values() and _false(one, env):
            others = [t for n, t in defined.items() if n in uses]
            yield _impossible(method, f"no sizes satisfy {' and '.join(_shown(t) for t in (*others, one))}", one,
                              others, {n: v for n, v in numbers.items() if n in uses})
            continue
        for j, other in enumerate(method.relations[:k]):
            spend(300)
            if _exclude(one, other, gaps[k], gaps[j], env):
                yield _impossible(method, f"no sizes satisfy both {_shown(other)} and {_shown(one)}", one, [other],
                                  {n: v for n, v in numbers.items() if n in uses}, "the other one")


def _defined_by(test: Test, env: Mapping[str, Any]) -> tuple[str, Any] | None:
    """The size that an equation gives, and its value: of n = b·k, n."""
    assert test.right is not None
    left, right = (sp.sympify(symbolic(side, env)) for side in (test.left, test.right))
    for side, value in ((left, right), (right, left)):
        if isinstance(side, sp.Symbol) and side not in value.free_symbols:
            return side.name, value
    return None


def _impossible(method: Method, said: str, one: Test, others: Sequence[Test], numbers: Mapping[str, Any],
                label: str = "with this one") -> Diagnostic:
    usual = "".join(f"{', ' if k else ''}{n} is {show(v)}" for k, (n, v) in enumerate(sorted(numbers.items())))
    return Diagnostic("E308", said + (f" by default: {usual}" if usual else ""), one.span, method.source,
                      tuple(Related(t.span, label) for t in others), (),
                      "another default, or no relation" if usual else "leave one of the relations out"
                      if label == "the other one" else "leave the relation out, or correct it")


def _shown(test: Test) -> str:
    return f"{text(test.left)} {test.op} {text(test.right)}".strip()


def _false(test: Test, env: Mapping[str, Any]) -> bool:
    """Whether a relation holds for no positive whole numbers."""
    left = sp.sympify(symbolic(test.left, env))
    if test.op in ("even", "odd"):
        return left.is_integer is False or (left.is_odd if test.op == "even" else left.is_even) is True
    assert test.right is not None
    gap = sp.expand(left - symbolic(test.right, env))
    match test.op:
        case "=":
            return gap.is_positive is True or gap.is_negative is True or _no_whole_solution(gap)
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
        case _:
            raise AssertionError(test.op)


def _no_whole_solution(gap: Any) -> bool:
    """Whether a·k + c = 0 has no positive whole k."""
    names = list(gap.free_symbols)
    if len(names) != 1 or not gap.is_polynomial(names[0]) or sp.degree(gap, names[0]) != 1:
        return False
    solution = -gap.coeff(names[0], 0) / gap.coeff(names[0], 1)
    return not (solution.is_Integer and solution > 0)


def _exclude(one: Test, other: Test, a: Any, c: Any, env: Mapping[str, Any]) -> bool:
    """Whether two relations (left − right of them: a and c) contradict each other: about the same difference, or by
    what their sum says."""
    if {one.op, other.op} == {"even", "odd"}:
        return bool(sp.expand(symbolic(one.left, env) - symbolic(other.left, env)) == 0)
    if a is None or c is None:
        return False
    if a == 0 or c == 0:
        return False
    if any((x + y).is_negative is True for x in _at_least_zero(one.op, a) for y in _at_least_zero(other.op, c)):
        return True
    if a == c:
        return not _SIGNS[one.op] & _SIGNS[other.op]
    if a == -c:
        return not _SIGNS[one.op] & {-x for x in _SIGNS[other.op]}
    return False


def _at_least_zero(op: str, gap: Any) -> tuple[Any, ...]:
    """What is ≥ 0 when ``gap op 0`` holds of whole numbers."""
    if not gap.is_integer:
        return ()
    return {"=": (gap, -gap), "≤": (-gap,), "<": (-gap - 1,), "≥": (gap,), ">": (gap - 1,)}.get(op, ())


_SIGNS = {"=": {0}, "≠": {-1, 1}, "<": {-1}, "≤": {-1, 0}, ">": {1}, "≥": {0, 1}}
"""The signs that left − right may have."""


# ---------------------------------------------------------------- E309


def _undetermined(method: Method) -> Iterator[Diagnostic]:
    """A size in a declared space that neither the site, nor the header, nor a relation gives."""
    known = {h.name for h in method.hyper}
    for bound in method.bound:
        known |= _sizes(bound.space)
    known |= set(_assigned(method)) | {"π"}
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
            glued = _glued(name, related, known)
            if glued is not None:
                word, product = glued
                yield Diagnostic("E309", f"nothing determines the size `{name}` of `{p.name}`", p.span, method.source,
                                 (), (f"letters side by side are one name, `{word}`",), f"write `{product}`")
                continue
            relation = "" if name in related else f", or a relation, where n = {'k' if name == 'b' else 'b'}·{name}"
            yield Diagnostic("E309", f"nothing determines the size `{name}` of `{p.name}`", p.span, method.source,
                             suggestion=f"give it a value in the header, {method.name}({name} = 8){relation}")
    given = {h.name for h in method.hyper}.union(*(_sizes(bound.space) for bound in method.bound))
    read = set().union(*(_sizes(p.space) for p in method.parameters)) | {
        n.name for n in walk_terms((method.body, [p.init for p in method.parameters])) if isinstance(n, Var)}
    for test in relations:  # n = bk defines bk, where b and k are there
        for name in sorted({n.name for n in walk_terms(test) if isinstance(n, Var)} - given - read - told):
            found = apart(name, given.__contains__)
            if found is not None:
                told.add(name)
                yield Diagnostic("E309", f"`{name}` is one name, which only {_shown(test)} has", test.span,
                                 method.source, (), (f"letters side by side are one name, `{name}`",),
                                 f"write `{'·'.join(found)}`")
    for test in method.relations:
        for name in sorted(related - known - told):
            if any(isinstance(n, Var) and n.name == name for n in walk_terms(test)):
                told.add(name)
                yield Diagnostic("E309", f"nothing determines `{name}` in {_shown(test)}", test.span, method.source,
                                 suggestion=f"give it a value in the header, {method.name}({name} = 8)")


def _glued(name: str, related: Set[str], known: Set[str]) -> tuple[str, str] | None:
    """A word that is several sizes without signs, as ``bk``, because of which ``name`` is open; and their product."""
    for word in sorted(related | {name}):
        found = apart(word, (known | {name}).__contains__)
        if found is not None and (word == name or name in found):
            return word, "·".join(found)
    return None


def nobody_gives(method: Method) -> Iterator[Diagnostic]:
    """N405 for the sizes of a block without a header that no layer and no relation gives."""
    for d in _undetermined(method):
        yield Diagnostic("N405", f"{d.message}: this block can be checked, and not attached", d.span, method.source,
                         suggestion="a header, adapter NAME(r = 8) on linear(W ∈ ℝ^{m×n})")


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
