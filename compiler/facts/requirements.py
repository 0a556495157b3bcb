"""What a program asks of the sizes beyond its relations, at a layer's sizes.

    unmet(method, cases, sizes) -> [Diagnostic]      r ≤ min(m, n) does not hold: r is 8, min(m, n) is 5

The conditions are found while the program is typed for all sizes (``elaborate/conditions.py``), and settled where the
sizes are known. Of a program with conditionals on sizes only those of the case that the sizes choose count.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import sympy as sp

from padp.compiler.elaborate.cases import Case
from padp.compiler.elaborate.conditions import Condition, at_sizes, decide, names_of
from padp.compiler.ir.dims import show, written_out
from padp.compiler.names.terms import Method
from padp.compiler.sizes.solve import both, holds
from padp.dsl.diagnostics import Diagnostic


def unmet(method: Method, cases: Sequence[Case], sizes: Mapping[str, Any], where: str = "") -> list[Diagnostic]:
    """E501 for each requirement that these sizes and hyperparameters break, each once."""
    found: dict[str, Diagnostic] = {}
    for condition in open_conditions(cases, sizes):
        here = told(condition, sizes, where)
        if here is not None and str(condition) not in found:
            here = Diagnostic("E501", here.message, condition.span, method.source, notes=here.notes,
                              suggestion=_remedy(condition, sizes, {h.name for h in method.hyper}))
            found[str(condition)] = here
    return list(found.values())


def met(cases: Sequence[Case], sizes: Mapping[str, Any]) -> bool:
    """Whether these sizes break nothing that the program asks of them."""
    return not any(_is_broken(c, sizes) for c in open_conditions(cases, sizes))


def open_conditions(cases: Sequence[Case], sizes: Mapping[str, Any]) -> tuple[Condition, ...]:
    """What only the sizes decide, in the case of the conditionals that these sizes choose."""
    for case in cases:
        if all(holds(test, sizes) is wanted for test, wanted in case.assume):
            return case.typed.requirements
    return ()


def _is_broken(condition: Condition, sizes: Mapping[str, Any]) -> bool:
    sides = [at_sizes(v, sizes) for v in (condition.left, condition.right) if v is not None]
    return None not in sides and decide(Condition(sides[0], sides[1] if len(sides) > 1 else None,
                                                  condition.span)) is False


def told(condition: Condition, sizes: Mapping[str, Any], where: str) -> Diagnostic | None:
    """How a condition is broken at these sizes, with both sides; None where it is kept, or a name is not known."""
    if not _is_broken(condition, sizes):
        return None
    at = f" at {where}" if where else ""
    left, sign, right = condition.sides
    a = at_sizes(left, sizes)
    if right is None:
        said = f"{show(left)} is {show(a)}{at}, and must be a whole number"
    else:
        sides = both((show(left), a), (show(right), at_sizes(right, sizes)))
        said = f"{show(left)} {sign} {show(right)} does not hold{at}: {sides}"
    here = ", ".join(f"{n} = {sizes[n]}" for n in sorted(names_of([condition])))
    return Diagnostic("E501", said, condition.span, notes=(f"here {here}",))


def _remedy(condition: Condition, sizes: Mapping[str, Any], hyper: set[str]) -> str | None:
    """The nearest value of a hyperparameter that stands alone on one side."""
    left, right = written_out(sp.sympify(condition.left)), condition.right
    if right is None:
        return None
    right = written_out(sp.sympify(right))
    if str(left) in hyper:
        most = at_sizes(right, sizes)
        return f"{left} up to {show(most)}" if most is not None and most >= 1 else None
    return f"{right} from {show(at_sizes(left, sizes))} on" if str(right) in hyper else None
