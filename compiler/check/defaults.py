"""A program with its own defaults: what no layer can satisfy when nobody gives other hyperparameters.

    by_default(method, typed) -> E308 for each condition on sizes that the numbers of the header break

``B_{:,4}`` of B ∈ ℝ^{m×r} is right for some r, and wrong for the r = 4 that the header says.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import sympy as sp

from padp.compiler.check.feasible import defaults
from padp.compiler.elaborate.cases import Case
from padp.compiler.elaborate.conditions import Condition, decide, names_of
from padp.compiler.ir.dims import lower, show, written_out
from padp.compiler.names.terms import Method, Text
from padp.compiler.sizes.solve import both, calculated, text
from padp.dsl.diagnostics import Diagnostic


def by_default(method: Method, typed: Sequence[Case]) -> list[Diagnostic]:
    """What is open for all sizes and refuted with the defaults, each once; in every case of a conditional."""
    numbers = defaults(method)
    found = {d.message: d for d in _no_numbers(method)}
    if found:
        return list(found.values())
    asked = [{str(c) for c in case.typed.requirements} for case in typed[1:]] if numbers else []
    for condition in typed[0].typed.requirements if numbers else ():
        if _refuted(condition, numbers) and all(str(condition) in others for others in asked):
            found.setdefault(str(condition), _told(method, condition, numbers))
    return list(found.values()) or list(_no_dimensions(method, numbers))


def _no_numbers(method: Method) -> Iterator[Diagnostic]:
    """Defaults that have no finite real value: ``r = 1/0``; or that are none that a header can hold: ``r = exp(5)``."""
    for h in method.hyper:
        if h.default is None or isinstance(h.default, Text):
            continue
        value = calculated(h.default, {})
        if value is None or not value.is_number or not value.is_real or not value.is_finite:
            yield Diagnostic("E308", f"the default of `{h.name}` is no finite number", h.default.span, method.source,
                             suggestion=f"{h.name} = 4: a number, or one made with + - · / ^ √, min, max, ceil, "
                             "floor, log, log2")


def _no_dimensions(method: Method, numbers: Mapping[str, Any]) -> Iterator[Diagnostic]:
    """Dimensions of declared tensors that the defaults make no whole number ≥ 0: ``ℝ^{r×n}`` with r = −3."""
    for p in method.parameters:
        for d in (*p.space.family, *p.space.dims):
            value = calculated(d, numbers)
            if value is not None and value.is_number and not (value.is_integer and value.is_nonnegative):
                said = f"the dimension {text(d)} of {p.name} must be a whole number ≥ 0, and is {show(lower(value))} " \
                    "by default"
                yield Diagnostic("E308", said, d.span, method.source, suggestion="another default")


def _refuted(condition: Condition, numbers: Mapping[str, Any]) -> bool:
    return decide(Condition(with_numbers(condition.left, numbers),
                            None if condition.right is None else with_numbers(condition.right, numbers),
                            condition.span)) is False


def with_numbers(value: Any, numbers: Mapping[str, Any]) -> Any:
    """A formula with some of its names given numbers."""
    value = written_out(sp.sympify(value))
    return lower(value.subs({x: sp.sympify(numbers[str(x)]) for x in value.free_symbols if str(x) in numbers}))


def _told(method: Method, condition: Condition, numbers: Mapping[str, Any]) -> Diagnostic:
    used = {n: v for n, v in sorted(numbers.items()) if n in names_of([condition])}
    usual = ", ".join(f"{n} is {show(v)}" for n, v in used.items())
    left, sign, right = condition.sides
    if right is None:
        said = f"{show(left)} must be a whole number, and is {show(with_numbers(left, numbers))} by default: {usual}"
    else:
        sides = both((show(left), with_numbers(left, numbers)), (show(right), with_numbers(right, numbers)))
        said = f"{show(left)} {sign} {show(right)} does not hold by default: {sides}"
    return Diagnostic("E308", said, condition.span, method.source, suggestion="another default, or other sizes here",
                      notes=(f"here {', '.join(f'{n} = {show(v)}' for n, v in used.items())}",))
