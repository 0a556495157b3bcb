"""Exact counts: learned scalars a site as a formula, from the declared spaces."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import sympy as sp

from padp.compiler.elaborate.state import Elaborated
from padp.compiler.ir.dims import factored, product, written_out
from padp.compiler.names.terms import Method, Var
from padp.compiler.sizes.solve import symbolic


@dataclass(frozen=True)
class Counted:
    """``total`` learned scalars; ``by_name`` for each learned tensor; ``spaces`` describes every declared tensor."""

    total: Any
    by_name: Mapping[str, Any]
    spaces: Mapping[str, str]


def counted(method: Method, declared: Elaborated) -> Counted:
    """The counts of a method, from its declarations (and from its index sets, where a space names one)."""
    by_name: dict[str, Any] = {}
    spaces: dict[str, str] = {}
    for name, p in declared.parameters.items():
        roles = [p.declaration.role, *(["shared"] if p.declaration.shared else [])]
        spaces[name] = f"{p.node.type}, {', '.join(roles)}"
        if p.declaration.role == "learned":
            by_name[name] = product(p.stored)
    total = written_out(sp.sympify(sum(by_name.values(), sp.Integer(0))))
    return Counted(in_header_terms(method, total), by_name, spaces)


def in_header_terms(method: Method, total: Any) -> Any:
    """``total`` with dimensions that a relation defines written in those of the site: b·k(k−1)/2 is n(k−1)/2."""
    outer = _site_dims(method) | {h.name for h in method.hyper}
    total = sp.sympify(total)
    best = factored(total)
    for test in method.relations:
        if test.op != "=" or test.right is None or not isinstance(test.left, Var):
            continue
        names = {str(s): s for s in total.free_symbols}
        right = sp.sympify(symbolic(test.right, names))
        left = sp.Symbol(test.left.name, integer=True, positive=True)
        inner = [s for s in right.free_symbols if str(s) not in outer and str(s) in names]
        if len(inner) != 1 or test.left.name not in outer:
            continue
        for solution in _solutions(sp.expand(right - left), inner[0]):
            candidate = factored(total.subs(inner[0], solution))
            if inner[0] not in candidate.free_symbols and not _sum_over_sizes(candidate):
                best = candidate
    return best


def _sum_over_sizes(formula: Any) -> bool:
    """Whether a formula is a sum over sizes, (a⁴ + n²)/a², which nobody reads; n·r/k is none."""
    above, below = sp.fraction(formula)
    return bool(below.free_symbols) and any(isinstance(x, sp.Add) for x in sp.Mul.make_args(above))


def _solutions(equation: Any, unknown: Any) -> list[Any]:
    """The solutions of equation = 0: at once where it is linear, a·x + c, as n = b·k is."""
    slope = equation.coeff(unknown, 1)
    rest = sp.expand(equation - slope * unknown)
    if slope != 0 and unknown not in slope.free_symbols | rest.free_symbols:
        return [-rest / slope]
    return list(sp.solve(equation, unknown))


def _site_dims(method: Method) -> set[str]:
    return {d.name for x in method.bound for d in (*x.space.dims, *x.space.family) if isinstance(d, Var)}
