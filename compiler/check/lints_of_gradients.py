"""W303: learned tensors that get no gradient, over all the cases of a program.

    without_gradient(cases) -> list[Diagnostic]
    everywhere(finding) -> bool            whether it counts only where every variant says it

A tensor that one branch of a conditional on sizes does without is trained on the layers of the other branch.
"""

from __future__ import annotations

from collections.abc import Sequence

from padp.compiler.check.lints_of_names import reads
from padp.compiler.elaborate.state import Elaborated
from padp.compiler.facts.untrained import stuck
from padp.compiler.ir.build import is_zero
from padp.compiler.ir.nodes import Node, walk
from padp.dsl.diagnostics import Diagnostic

_WITHOUT_DERIVATIVE = frozenset({"detach", "topk", "argtop", "largest"})
_NOT_REACHED = "it does not reach the output"


def without_gradient(cases: Sequence[Elaborated]) -> list[Diagnostic]:
    """W303 for a tensor that reaches the output in no case where a gradient passes, or stays at 0 in one."""
    found: dict[str, Diagnostic] = {}
    for finding in (*_unreached(cases), *(d for typed in cases for d in _at_zero(typed))):
        found.setdefault(finding.message.split("`")[1], finding)
    return list(found.values())


def everywhere(finding: Diagnostic) -> bool:
    """Whether a finding on what variants share counts only where all of them have it: what one does without is used in
    another."""
    return finding.code in ("W301", "W302") or (finding.code == "W303" and finding.message.endswith(_NOT_REACHED))


def _roots(typed: Elaborated) -> list[Node]:
    return [typed.output] + ([typed.penalty] if typed.penalty is not None else [])


def _present(typed: Elaborated) -> set[str]:
    """The tensors that the output or the penalty is made of."""
    return {str(n.attrs[0]) for n in walk(*_roots(typed)) if n.op == "param"}


def _moved(typed: Elaborated) -> set[str]:
    """The tensors that a gradient reaches."""
    seen: set[int] = set()
    moved: set[str] = set()
    stack = _roots(typed)
    while stack:
        node = stack.pop()
        if id(node) in seen or node.op in _WITHOUT_DERIVATIVE or (node.op == "point" and node.attrs[:1] == ("sign",)):
            continue
        if node.op == "scale" and is_zero(node.args[0]):
            continue
        seen.add(id(node))
        if node.op == "param":
            moved.add(str(node.attrs[0]))
        stack.extend(node.args)
    return moved


def _unreached(cases: Sequence[Elaborated]) -> list[Diagnostic]:
    """Learned tensors that are read and that no gradient reaches in any case."""
    if not cases:
        return []
    method = cases[0].method
    present = {name for case in cases for name in _present(case)}
    moved = {name for case in cases for name in _moved(case)}
    read = reads(method, (method.body, method.minimise, method.updates, tuple(q.init for q in method.parameters)))
    found: list[Diagnostic] = []
    for name, p in cases[0].parameters.items():
        if p.declaration.role == "learned" and name not in moved and name in read:
            why = "it reaches the output only through detach, a factor 0 or what has no derivative" if name in present \
                else _NOT_REACHED
            found.append(Diagnostic("W303", f"`{name}` gets no gradient: {why}", p.declaration.span, method.source,
                                    suggestion="frozen, if that is meant"))
    return found


def _at_zero(typed: Elaborated) -> list[Diagnostic]:
    """Tensors of one case that a gradient could reach, were what they are multiplied by not 0 for ever."""
    there = _present(typed) & _moved(typed)
    still = [name for name in stuck(typed) if name in there]
    found: list[Diagnostic] = []
    for name in still:
        other = ", ".join(f"`{n}`" for n in still if n != name)
        why = f"where it stands it is multiplied by {other}, which is 0 as well" if other \
            else "there the derivative of what it is part of is 0"
        found.append(Diagnostic("W303", f"`{name}` gets no gradient: it starts at 0, and {why}",
                                typed.parameters[name].declaration.span, typed.method.source,
                                suggestion="let one of them start elsewhere, init = kaiming or init = 1"))
    return found
